"""Runs in warm processes: one each, interrupted when asked, and taken up again when they are killed."""

import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import dagster as dg
import psutil
import pytest

from fraud_assets.orchestration.launcher import WORKER_TAG
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.journeys.test_crashes import require_one_at_a_time, require_sound
from fraud_assets_tests.journeys.test_daemon import daemon, ticks

KILLED, INTERRUPTED = "alcazar-security", "bluewater-guards"
ALL = ("alcazar-security", "bluewater-guards", "citadel-large", "drift-patrol", "fairplay-guarding")
NIGHTS = 2
RETRAINED_EACH_NIGHT = {"retrain_after": '"PT1S"'}


def runs_of(instance: dg.DagsterInstance, tenant: str) -> list[dg.DagsterRun]:
    """Oldest first."""
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": tenant}))
    return sorted(runs, key=lambda run: "dagster/parent_run_id" in run.tags)


def started(instance: dg.DagsterInstance, tenant: str) -> Callable[[], dg.DagsterRun | None]:
    def run() -> dg.DagsterRun | None:
        first, *_ = [*runs_of(instance, tenant), None]
        return first if first and first.status is dg.DagsterRunStatus.STARTED else None

    return run


def worker(run: dg.DagsterRun) -> psutil.Process:
    machine, process, _ = run.tags[WORKER_TAG].split()
    assert machine == socket.gethostname()
    return psutil.Process(int(process))


@pytest.mark.journey
def test_a_killed_run_is_noticed_and_made_again_and_an_interrupted_one_is_canceled(
    installation: Installation,
) -> None:
    # The second is still at work when the first was killed.
    installation.create_company({KILLED: 30, INTERRUPTED: 200})
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    with daemon(installation) as instance:
        installation.wait_for("a first tick", lambda: ticks(instance))
        installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
        run = installation.wait_for("a run", started(instance, KILLED))
        [parent, *_] = worker(run).parents()
        assert any("forkserver" in part for part in parent.cmdline())
        worker(run).send_signal(signal.SIGKILL)
        run = installation.wait_for("another run", started(instance, INTERRUPTED))
        assert instance.run_launcher.terminate(run.run_id)
        installation.wait_for("a second try", lambda: len(runs_of(instance, KILLED)) == 2)
        installation.wait_for("its end", lambda: runs_of(instance, KILLED)[1].is_finished)
        # The embedded source's driver takes an interrupt for a failed read, which the stage tries again: the
        # run then heeds the one that it gives itself.
        installation.wait_for("the interrupt", lambda: runs_of(instance, INTERRUPTED)[0].is_finished, 240)
        found = [[run.status.value for run in runs_of(instance, each)] for each in (KILLED, INTERRUPTED)]
    assert found == [["FAILURE", "SUCCESS"], ["CANCELED"]], installation.told()
    assert set(installation.platform.ledger.champions()) == {KILLED}


class Night:
    """A night of all tenants, with a retrain for each."""

    def __init__(self, installation: Installation, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._earlier = {run.run_id for run in instance.get_runs()}
        self._due: dict[str, float] = {}
        self.killed: set[str] = set()
        self.start = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
        installation.cycle_at(self.start, **RETRAINED_EACH_NIGHT)

    @property
    def runs(self) -> list[dg.DagsterRun]:
        return [run for run in self._instance.get_runs() if run.run_id not in self._earlier]

    def is_over(self) -> bool:
        """Once for each tenant; a run that was killed with all behind it is a success too."""
        done = [run for run in self.runs if run.status is dg.DagsterRunStatus.SUCCESS]
        failed = {run.run_id for run in self.runs if run not in done}
        return sorted(run.tags["dagster/partition"] for run in done) == list(ALL) and failed <= self.killed

    def is_over_with_kills(self, chance: random.Random, length: float) -> bool:
        """Each tenant's first run is killed within `length` seconds, unless it has ended by then."""
        for run in self.runs:
            if run.status is dg.DagsterRunStatus.STARTED and "dagster/parent_run_id" not in run.tags:
                if run.run_id not in self._due:
                    self._due[run.run_id] = time.monotonic() + chance.random() * length
                if self._due[run.run_id] <= time.monotonic():
                    self._kill(run)
        return self.is_over()

    def _kill(self, run: dg.DagsterRun) -> None:
        with suppress(psutil.NoSuchProcess):
            process = worker(run)
            process.kill()
            process.wait()
        now = self._instance.get_run_by_id(run.run_id)
        if now and now.status is not dg.DagsterRunStatus.SUCCESS:
            self.killed.add(run.run_id)


def shortest_of_whole_runs(instance: dg.DagsterInstance) -> float:
    """How many seconds it took."""
    whole = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    return min((each.end_time or 0) - (each.start_time or 0) for each in whole)


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_runs_that_are_killed_at_random_instants_are_made_again_in_the_same_night(
    installation: Installation,
) -> None:
    chance = random.Random(1)  # noqa: S311
    installation.create_company(dict.fromkeys(ALL, 30))
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    killed = 0
    with daemon(installation) as instance:
        installation.wait_for("a first tick", lambda: ticks(instance))
        night = Night(installation, instance)
        installation.wait_for("a night left alone", night.is_over)
        for _ in range(NIGHTS):
            length = shortest_of_whole_runs(instance)
            night = Night(installation, instance)
            installation.wait_for(
                "the end of a night with kills",
                lambda night=night, length=length: night.is_over_with_kills(chance, length),
            )
            killed += len(night.killed)
            for tenant in ALL:
                require_sound(installation.platform, tenant)
                newest = installation.platform.ledger.latest(tenant)
                assert newest is not None
                assert newest.cycle_started_at == night.start
        require_one_at_a_time(instance)
    assert killed >= NIGHTS * len(ALL) // 3, killed
