"""The clock of a whole installation is set back and forth under its daemon, its schedule and its runs."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets_tests.journeys import clock
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.journeys.test_crashes import require_one_at_a_time, require_sound
from fraud_assets_tests.journeys.test_daemon import daemon, ticks
from fraud_assets_tests.journeys.test_launcher import runs_of

TRAINED = ("alcazar-security", "bluewater-guards", "drift-patrol")
ACTIVE = {**dict.fromkeys(TRAINED, 30), "ember-watch": 8, "fairplay-guarding": 8}
"""One more than run at once: it waits in the queue when the clock is set."""
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


class Clock:
    """What all processes of an installation take for the time."""

    def __init__(self, installation: Installation) -> None:
        self._file = installation.folder / "clock"
        self.ahead = timedelta()
        self.set(timedelta())
        installation.variables |= {
            "PYTHONPATH": str(Path(clock.__path__[0])),
            "FRAUD_ASSETS_TESTS_CLOCK": str(self._file),
        }

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def set(self, ahead: timedelta) -> None:
        """As far ahead of the true time; back, where it is negative."""
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_text(str(ahead.total_seconds()))
        unfinished.replace(self._file)
        self.ahead = ahead


def next_noon(now: datetime) -> datetime:
    """When `old_runs` is due."""
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    return noon if noon > now else noon + 24 * HOUR


def nights(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """How the runs of each tenant ended, oldest first."""
    return {tenant: [run.status.value for run in runs_of(instance, tenant)] for tenant in ACTIVE}


def working(instance: dg.DagsterInstance) -> set[str]:
    """The runs that are at work."""
    return {run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))}


def prunes(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(job_name="prune_runs")))


def require_a_tick(installation: Installation, instance: dg.DagsterInstance) -> None:
    before = len(ticks(instance))
    installation.wait_for("another tick", lambda: len(ticks(instance)) > before)


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_a_clock_that_is_set_in_the_middle_of_a_night_and_around_noon_starts_nothing_twice_and_loses_nothing(
    installation: Installation,
) -> None:
    told = Clock(installation)
    installation.create_company(ACTIVE)
    installation.cycle_at(told.now() + 12 * HOUR)
    with daemon(installation) as instance:
        installation.wait_for("a first tick", lambda: ticks(instance))
        installation.cycle_at(told.now() + SECOND)
        at_work = installation.wait_for("runs at work", lambda: working(instance))
        told.set(-HOUR)
        # Dagster's daemon waits until it is as late as it was: runs that are at work go on meanwhile.
        installation.wait_for("the end of what was at work", lambda: not at_work & working(instance))
        told.set(timedelta())
        once = {tenant: ["SUCCESS"] for tenant in ACTIVE}
        installation.wait_for("the end of the night", lambda: nights(instance) == once)
        require_a_tick(installation, instance)
        assert nights(instance) == once, installation.told()

        noon = next_noon(told.now()) - datetime.now(UTC) + SECOND
        told.set(noon)
        installation.wait_for("the schedule of noon", lambda: prunes(instance))
        told.set(noon - HOUR)
        time.sleep(2)
        told.set(noon + 5 * MINUTE)
        installation.wait_for("its end", lambda: prunes(instance)[0].is_finished)
        require_a_tick(installation, instance)
        assert [run.status for run in prunes(instance)] == [dg.DagsterRunStatus.SUCCESS], installation.told()
        assert nights(instance) == once, installation.told()

        start = (told.now() + 2 * SECOND).replace(microsecond=0)
        installation.cycle_at(start)
        twice = {tenant: ["SUCCESS"] * 2 for tenant in ACTIVE}
        installation.wait_for("the next night", lambda: nights(instance) == twice)
        require_one_at_a_time(instance)
    platform = installation.platform
    for tenant in ACTIVE:
        require_sound(platform, tenant)
        assert datetime.fromisoformat(platform.tables.facts(tenant, "profiles")["as_of"]) == start
    assert set(platform.ledger.champions()) == set(TRAINED)
