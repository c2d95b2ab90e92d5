"""What the benchmark of a night makes of its figures."""

from typing import Any

import pytest

from benchmarks import night

MET: dict[str, Any] = dict(night.BARS)


def test_a_figure_at_its_bar_meets_it_and_one_above_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert night.judged(MET) == []
    assert night.judged(MET | {"minutes": 15.01, "exponent": 1.2}) == ["minutes", "exponent"]
    assert "minutes: 15.01, at most 15: missed" in capsys.readouterr().out


def test_what_was_not_measured_misses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert night.judged(MET | {"exponent": None}) == []
    assert "exponent: not measured" in capsys.readouterr().out


def test_what_the_runs_take_beyond_the_work_of_the_loop_is_their_start() -> None:
    floor = {"reading": 1.0, "compute": 5.0, "logging": 2.0}
    assert night.in_parts(floor) == floor
    assert night.in_parts(floor, {"by_process": {"runs": 11.0}}) == {"start-up": 3.0, **floor}


def test_a_night_that_retrains_fewer_than_the_floor_or_decides_otherwise_is_no_night() -> None:
    floor = {"a": "activate", "b": "reject"}
    night.require_same(floor, dict(floor), 2)
    for other in ({"a": "activate"}, {"a": "activate", "b": "activate"}):
        with pytest.raises(SystemExit, match="the same 2 tenants"):
            night.require_same(floor, other, 2)
    with pytest.raises(SystemExit, match="the same 3 tenants"):
        night.require_same(floor, floor, 3)
