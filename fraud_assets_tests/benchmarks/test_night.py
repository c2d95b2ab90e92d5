"""What the benchmark of a night makes of its figures."""

from typing import Any

import pytest

from benchmarks import night
from fraud_assets import cycle

MET: dict[str, Any] = dict(night.BARS)


def test_a_figure_at_its_bar_meets_it_and_one_above_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert night.judged(MET) == []
    assert night.judged(MET | {"minutes": 15.01, "exponent": 1.2}) == ["minutes", "exponent"]
    assert "minutes: 15.01, at most 15: missed" in capsys.readouterr().out


def test_what_was_not_measured_misses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert night.judged(MET | {"exponent": None}) == []
    assert "exponent: not measured" in capsys.readouterr().out


def test_the_parts_of_runs_add_up_where_some_did_not_retrain() -> None:
    retrained, other = {"start-up": 1.0, "compute": 5.0, "logging": 2.0}, {"start-up": 0.5}
    assert night.added([retrained, other]) == {"start-up": 1.5, "compute": 5.0, "logging": 2.0}


def test_a_night_that_retrains_others_than_the_floor_or_decides_otherwise_is_no_night() -> None:
    floor = {"a": ("activate", 1), "b": ("reject", 1)}
    night.require_same(floor, dict(floor), 2)
    for other in ({"a": ("activate", 1)}, floor | {"b": ("activate", 1)}, floor | {"c": ("none", 1)}):
        with pytest.raises(SystemExit, match="the same 2 tenants"):
            night.require_same(floor, other, 2)
    with pytest.raises(SystemExit, match="the same 3 tenants"):
        night.require_same(floor, floor, 3)


def test_whom_the_gate_lets_train_nothing_has_no_model_and_is_decided_on() -> None:
    both = {"a": ("activate", 1), "b": (cycle.NOT_TRAINED, 0)}
    night.require_same(both, both, 2)
    both |= {"b": (cycle.NOT_TRAINED, 1)}
    with pytest.raises(SystemExit, match=r"decision: \['b'\]"):
        night.require_same(both, both, 2)


@pytest.mark.parametrize("versions", [0, 2])
def test_each_decision_is_on_one_new_model(versions: int) -> None:
    both = {"a": ("activate", 1), "b": ("reject", versions)}
    with pytest.raises(SystemExit, match=f"with {versions + 1} models"):
        night.require_same(both, both, 2)
