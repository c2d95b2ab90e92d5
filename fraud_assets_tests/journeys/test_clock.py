"""A clock is set back an hour in the middle of a night: what runs goes on, and nothing starts twice."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets_tests.journeys import clock
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.journeys.test_crashes import require_one_at_a_time, require_sound
from fraud_assets_tests.journeys.test_daemon import at_work, daemon, require_nothing_more, ticks
from fraud_assets_tests.journeys.test_launcher import runs_of

TRAINED = ("alcazar-security", "bluewater-guards", "drift-patrol")
ACTIVE = {**dict.fromkeys(TRAINED, 30), "ember-watch": 8, "fairplay-guarding": 8}
"""One more than run at once: it waits in the queue when the clock is set."""
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


class Clock:
    """What all processes of an installation take for the time: the true one, until it is set."""

    def __init__(self, installation: Installation) -> None:
        self._file = installation.folder / "clock"
        self.set(timedelta())
        installation.variables |= {
            "PYTHONPATH": str(Path(clock.__path__[0])),
            "FRAUD_ASSETS_TESTS_CLOCK": str(self._file),
        }

    def set(self, ahead: timedelta) -> None:
        """As far ahead of the true time; back, where it is negative."""
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_text(str(ahead.total_seconds()))
        unfinished.replace(self._file)


def nights(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """How the runs of each tenant ended, oldest first."""
    return {tenant: [run.status.value for run in runs_of(instance, tenant)] for tenant in ACTIVE}


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_a_clock_that_is_set_back_an_hour_in_the_middle_of_a_night_starts_nothing_twice_and_loses_nothing(
    installation: Installation,
) -> None:
    told = Clock(installation)
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) + 12 * HOUR)
    with daemon(installation) as instance:
        installation.wait_for("a first tick", lambda: ticks(instance))
        installation.cycle_at(datetime.now(UTC) + SECOND)
        seen = set(installation.wait_for("runs at work", lambda: at_work(instance)))
        told.set(-HOUR)
        # Dagster's daemon waits until it is as late as it was: runs that are at work go on meanwhile.
        installation.wait_for("the end of what was at work", lambda: not seen & set(at_work(instance)))
        told.set(timedelta())
        once = {tenant: ["SUCCESS"] for tenant in ACTIVE}
        installation.wait_for("the end of the night", lambda: nights(instance) == once)
        require_nothing_more(installation, instance)
        assert nights(instance) == once, installation.told()

        start = (datetime.now(UTC) + 2 * SECOND).replace(microsecond=0)
        installation.cycle_at(start)
        twice = {tenant: ["SUCCESS"] * 2 for tenant in ACTIVE}
        installation.wait_for("the next night", lambda: nights(instance) == twice)
        require_one_at_a_time(instance)
    platform = installation.platform
    for tenant in ACTIVE:
        require_sound(platform, tenant)
        assert datetime.fromisoformat(platform.tables.facts(tenant, "profiles")["as_of"]) == start
    assert set(platform.ledger.champions()) == set(TRAINED)
