"""A run whose worker died before the run had started is found, and no other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import should_retry

from fraud_assets.orchestration.launcher import WarmRunLauncher
from fraud_assets.orchestration.monitoring import lost_runs
from fraud_assets_tests.orchestration.test_instance import instance_in

FAILURE, STARTED, STARTING = (
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
)
DEAD = CheckRunHealthResult(WorkerStatus.FAILED, "Its node is dead.")

night = dg.GraphDefinition(name="night").to_job()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_in(tmp_path) as made:
        yield made


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[[CheckRunHealthResult], None]:
    """What the launcher finds of any run's worker."""

    def found(health: CheckRunHealthResult) -> None:
        monkeypatch.setattr(WarmRunLauncher, "check_run_worker_health", lambda *_: health)

    return found


def run_in(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    return instance.create_run_for_job(night, status=status)


def look(instance: dg.DagsterInstance) -> str | None:
    """What the sensor's tick says."""
    with dg.build_sensor_context(instance) as context:
        said = lost_runs(context)
    assert isinstance(said, dg.SkipReason)
    return said.skip_message


def now(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    [found] = instance.get_runs(dg.RunsFilter(run_ids=[run.run_id]))
    return found


def test_a_run_that_was_lost_while_it_was_started_has_failed_and_is_made_again(
    instance: dg.DagsterInstance, finds: Callable[[CheckRunHealthResult], None]
) -> None:
    finds(DEAD)
    lost = run_in(instance, STARTING)
    assert look(instance) == "Runs that are being started: 1, of them lost: 1."
    assert now(instance, lost).status is FAILURE
    assert should_retry(now(instance, lost), instance)
    [failure] = instance.all_logs(lost.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    said = failure.get_dagster_event().message
    assert said == "The run was lost before it had started. Its node is dead."
    assert look(instance) == "Runs that are being started: 0, of them lost: 0."


@pytest.mark.parametrize("status", [WorkerStatus.RUNNING, WorkerStatus.SUCCESS, WorkerStatus.UNKNOWN])
def test_a_run_whose_worker_is_not_known_to_be_dead_is_left_alone(
    instance: dg.DagsterInstance, finds: Callable[[CheckRunHealthResult], None], status: WorkerStatus
) -> None:
    finds(CheckRunHealthResult(status))
    run = run_in(instance, STARTING)
    look(instance)
    assert now(instance, run).status is STARTING


def test_a_run_that_has_started_is_left_to_dagsters_monitoring(
    instance: dg.DagsterInstance, finds: Callable[[CheckRunHealthResult], None]
) -> None:
    finds(DEAD)
    run = run_in(instance, STARTED)
    look(instance)
    assert now(instance, run).status is STARTED


def test_a_run_that_goes_on_while_its_worker_is_asked_for_is_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starts(_: WarmRunLauncher, asked: dg.DagsterRun) -> CheckRunHealthResult:
        event = DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, asked.job_name)
        instance.report_dagster_event(event, asked.run_id)
        return DEAD

    monkeypatch.setattr(WarmRunLauncher, "check_run_worker_health", starts)
    run = run_in(instance, STARTING)
    look(instance)
    assert now(instance, run).status is STARTED


def test_a_launcher_that_cannot_tell_of_workers_is_not_asked(
    instance: dg.DagsterInstance,
    finds: Callable[[CheckRunHealthResult], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finds(DEAD)
    monkeypatch.setattr(WarmRunLauncher, "supports_check_run_worker_health", False)
    run = run_in(instance, STARTING)
    look(instance)
    assert now(instance, run).status is STARTING
