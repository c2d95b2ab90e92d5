"""Runs in warm processes: one each, interrupted when asked, and taken up again when they are killed."""

import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import psutil
import pytest

from fraud_assets.orchestration.launcher import WORKER_TAG
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.journeys.test_daemon import daemon, ticks

KILLED, INTERRUPTED = "alcazar-security", "bluewater-guards"


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
