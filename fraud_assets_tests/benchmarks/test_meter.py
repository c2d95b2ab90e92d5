"""What the meter makes of a clock of its own: each second counts once, under the innermost name."""

import os
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmarks import measured, meter
from benchmarks.meter import Meter
from fraud_assets import cycle, mirror
from fraud_assets.domain.settings import Settings
from fraud_assets.storage.platform import Platform


class Clock:
    """Of a process that was born at 0."""

    def __init__(self) -> None:
        self.now = 0.0

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.process_time", lambda: made.now)
    return made


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """An empty one; the stages that are watched with it are put back."""
    for module, names in meter.STAGES.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    return Platform.from_environment({"FRAUD_ASSETS_HOME": str(tmp_path)})


def test_what_a_watched_call_spends_within_another_counts_once_and_as_its_own(clock: Clock) -> None:
    found = Meter("outside")
    read = found.watch("reading", lambda: clock.spend(2))

    def stage() -> None:
        clock.spend(1)
        read()
        read()
        clock.spend(4)

    clock.spend(8)
    found.watch("compute", stage)()
    assert found.spent == {"outside": 8, "compute": 5, "reading": 4}


def test_of_what_comes_one_by_one_each_step_counts_and_what_is_done_with_it_does_not(clock: Clock) -> None:
    found = Meter("outside")

    def parts() -> Iterator[int]:
        for part in range(3):
            clock.spend(1)
            yield part

    for _ in found.watch("reading", parts)():
        clock.spend(10)
    assert found.spent == {"outside": 30, "reading": 3}


def test_a_call_that_fails_counts_up_to_there(clock: Clock) -> None:
    found = Meter("outside")

    def broken() -> None:
        clock.spend(3)
        raise KeyError("no such table")

    with pytest.raises(KeyError, match="no such table"):
        found.watch("logging", broken)()
    clock.spend(1)
    assert found.spent == {"logging": 3, "outside": 1}


def test_the_name_of_what_has_no_other_can_change(clock: Clock) -> None:
    found = Meter("start-up")
    clock.spend(2)
    found.turn_to("events")
    clock.spend(1)
    assert found.spent == {"start-up": 2, "events": 1}


def test_every_method_of_a_store_is_watched_and_the_store_itself_stays_as_it_was(
    clock: Clock, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fraud_assets.storage.tables.Tables.version", lambda *_: clock.spend(2))
    monkeypatch.setattr("fraud_assets.storage.source.Source.active_tenants", lambda _: clock.spend(1))
    found = Meter("outside")
    watched = meter.watch(found, platform)
    watched.tables.version("acme", "profiles")
    watched.source.active_tenants()
    platform.source.active_tenants()
    assert found.spent == {"outside": 1, "logging": 2, "reading": 1}


def test_a_stage_is_compute_but_for_the_stores_that_it_asks(
    clock: Clock, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fraud_assets.storage.ledger.Ledger.champion", lambda *_: clock.spend(2))
    monkeypatch.setattr(Platform, "settings", lambda *_: clock.spend(1) or Settings())
    found = Meter("outside")
    watched = meter.watch(found, platform)
    cycle.retrain_due(watched, "acme", watched.now(), timedelta(days=7))
    assert mirror.damage(watched, "acme") is None
    assert found.spent == {"outside": 0, "compute": 1, "logging": 4}


def open_platform(folder: Path) -> None:
    """As a run does. What is forked has the environment of the server of forks."""
    os.environ.update({measured.FOLDER: str(folder), "FRAUD_ASSETS_HOME": str(folder / "home")})
    measured.open_platform()


def test_a_forked_process_that_opened_the_platform_tells_when_it_ends(tmp_path: Path) -> None:
    process = get_context("forkserver").Process(target=open_platform, args=(tmp_path,))
    process.start()
    process.join()
    [told] = measured.told(tmp_path)
    assert told.keys() == {"start-up", "steps, checks and events"}
    assert told["start-up"] > 0
