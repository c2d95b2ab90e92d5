"""A run whose process died is made again, or is done if nothing of it was left."""

import logging
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.instance import InstanceRef
from dagster._core.launcher import CheckRunHealthResult
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import should_retry
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from fraud_assets.cli import PROJECT
from fraud_assets.orchestration.launcher import WORKER_TAG, WarmRunLauncher
from fraud_assets_tests.orchestration.test_launcher import long_gone


@dg.op
def does_its_work() -> None:
    """Nothing is left to do."""


@dg.op
def dies() -> None:
    os._exit(9)


@dg.success_hook
def dies_after_it(_: dg.HookContext) -> None:
    os._exit(9)


def job(op: dg.OpDefinition, *hooks: dg.HookDefinition) -> dg.JobDefinition:
    return dg.GraphDefinition(name="job", node_defs=[op]).to_job(hooks=set(hooks))


DYING = {
    "in its step": lambda: job(dies),
    "after its step": lambda: job(does_its_work, dies_after_it),
}


def instance_in(folder: Path) -> dg.DagsterInstance:
    """As `dagster.yaml` has it."""
    shutil.copy(PROJECT / "dagster.yaml", folder)
    return dg.DagsterInstance.from_config(str(folder))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_in(tmp_path) as made:
        yield made


def execute(when: str, instance: InstanceRef) -> None:
    """In a process of its own, which does not outlive it."""
    with dg.DagsterInstance.from_ref(instance) as opened:
        DYING[when]().execute_in_process(instance=opened, tags={WORKER_TAG: long_gone()})


def died(instance: dg.DagsterInstance, when: str) -> dg.DagsterRun:
    process = multiprocessing.get_context("spawn").Process(target=execute, args=(when, instance.get_ref()))
    process.start()
    process.join()
    [run] = instance.get_runs()
    assert (process.exitcode, run.status) == (9, dg.DagsterRunStatus.STARTED)
    return run


def monitor(instance: dg.DagsterInstance) -> None:
    """What Dagster's daemon does each ten seconds."""
    workspace = cast("Any", SimpleNamespace(instance=instance, create_request_context=lambda: None))
    assert not [*filter(None, execute_run_monitoring_iteration(workspace, logging.getLogger()))]


@pytest.mark.parametrize(
    ("when", "end"),
    [("in its step", dg.DagsterRunStatus.FAILURE), ("after its step", dg.DagsterRunStatus.SUCCESS)],
)
def test_a_run_that_died_with_all_of_its_steps_done_is_done_and_any_other_has_failed(
    instance: dg.DagsterInstance, when: str, end: dg.DagsterRunStatus
) -> None:
    died(instance, when)
    monitor(instance)
    [closed] = instance.get_runs()
    assert closed.status is end
    assert should_retry(closed, instance) == (end is dg.DagsterRunStatus.FAILURE)


def test_dagsters_retry_that_looks_the_moment_that_a_failure_is_written_finds_a_run_that_failed(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = died(instance, "in its step"), []
    real = instance.event_log_storage.store_event

    def watched(event: dg.EventLogEntry) -> None:
        real(event)
        if event.is_dagster_event and event.get_dagster_event().is_run_failure:
            [now] = instance.get_runs(dg.RunsFilter(run_ids=[run.run_id]))
            found.append(should_retry(now, instance))

    monkeypatch.setattr(instance.event_log_storage, "store_event", watched)
    monitor(instance)
    monitor(instance)
    assert found == [True]


def test_a_run_that_ended_well_before_its_process_was_missed_stays_as_it_is(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = died(instance, "in its step")
    real = WarmRunLauncher.check_run_worker_health

    def ends_first(launcher: WarmRunLauncher, seen: dg.DagsterRun) -> CheckRunHealthResult:
        ended = DagsterEvent(dg.DagsterEventType.PIPELINE_SUCCESS.value, run.job_name)
        instance.report_dagster_event(ended, run.run_id)
        return real(launcher, seen)

    monkeypatch.setattr(WarmRunLauncher, "check_run_worker_health", ends_first)
    monitor(instance)
    [now] = instance.get_runs()
    assert now.status is dg.DagsterRunStatus.SUCCESS
    assert not instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.CANCELING])
def test_a_run_that_did_not_start_or_was_to_end_has_failed_when_it_is_said_to_have(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run = instance.create_run_for_job(job(does_its_work), status=status)
    instance.report_run_failed(run, "It took too long.")
    [now] = instance.get_runs()
    assert now.status is dg.DagsterRunStatus.FAILURE
