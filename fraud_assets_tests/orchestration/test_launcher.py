"""What the launcher tells of runs that it did not start itself, and what is in a process before it forks."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus

from fraud_assets.orchestration.launcher import PRELOADED, WORKER_TAG, WarmRunLauncher, _named

PRELOAD = """
import importlib, os, sys
for library in sys.argv[1:]:
    importlib.import_module(library)
threads = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print(*[name for name in threads if name.startswith(("polars-0", "async-executor", "tokio"))])
print(sys.modules["fraud_assets.definitions"].defs is not None)
"""


@pytest.fixture
def launcher(instance: dg.DagsterInstance) -> WarmRunLauncher:
    made = WarmRunLauncher()
    made.register_instance(instance)
    return made


@dg.op
def does_its_work() -> None:
    """Nothing is left to do."""


def long_gone() -> str:
    """The worker of this process's number that was born earlier."""
    here, number, _ = _named(psutil.Process()).split()
    return f"{here} {number} 1.00"


def run_of(instance: dg.DagsterInstance, worker: str | None) -> dg.DagsterRun:
    return instance.create_run_for_job(
        dg.GraphDefinition(name="job", node_defs=[does_its_work]).to_job(),
        status=dg.DagsterRunStatus.STARTED,
        tags={WORKER_TAG: worker} if worker else {},
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed by Linux alone")
def test_what_is_loaded_before_a_fork_is_all_our_code_and_has_no_threads_that_compute() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELOAD, *PRELOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\nTrue\n"


def test_a_process_that_lives_is_running_and_one_of_its_number_that_was_born_earlier_is_gone(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher
) -> None:
    lives, gone = run_of(instance, _named(psutil.Process())), run_of(instance, long_gone())
    assert launcher.check_run_worker_health(lives).status is WorkerStatus.RUNNING
    assert launcher.check_run_worker_health(gone).status is WorkerStatus.FAILED
    assert not launcher.terminate(gone.run_id)


def test_a_run_that_has_not_started_is_not_ended_by_who_may_see_other_processes(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher
) -> None:
    starting = run_of(instance, long_gone()).with_status(dg.DagsterRunStatus.STARTING)
    assert launcher.check_run_worker_health(starting).status is WorkerStatus.RUNNING


def test_a_run_of_another_machine_is_not_ended_from_here_but_told_to_end(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher
) -> None:
    elsewhere = run_of(instance, f"another-machine {os.getpid()} 1.00")
    assert launcher.check_run_worker_health(elsewhere).status is WorkerStatus.RUNNING
    assert launcher.terminate(elsewhere.run_id)
    told = instance.get_run_by_id(elsewhere.run_id)
    assert told is not None
    assert told.status is dg.DagsterRunStatus.CANCELING


def test_a_run_that_nobody_executes_is_canceled_without_a_signal(
    instance: dg.DagsterInstance, launcher: WarmRunLauncher
) -> None:
    assert not launcher.terminate(run_of(instance, None).run_id)
    assert not launcher.terminate("no such run")
