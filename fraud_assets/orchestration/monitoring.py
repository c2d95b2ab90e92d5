"""The sensor that finds runs whose machine died before they had started."""

import dagster as dg
from dagster._core.launcher import WorkerStatus

_STARTING = dg.DagsterRunStatus.STARTING


@dg.sensor(
    name="lost_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "For runs over more than one machine: marks a run as failed whose machine died while the run was "
        "being started, so that it is made again at once. Dagster's monitoring asks for the workers of runs "
        "that have started, and lets the others wait for as long as the slowest start may take."
    ),
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Nothing is asked for: Dagster's retries make the run again."""
    starting = context.instance.get_runs(dg.RunsFilter(statuses=[_STARTING]))
    lost = sum(_ends_if_lost(context.instance, run) for run in starting)
    return dg.SkipReason(f"Runs that are being started: {len(starting)}, of them lost: {lost}.")


def _ends_if_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether it was."""
    if not instance.run_launcher.supports_check_run_worker_health:
        return False
    health = instance.run_launcher.check_run_worker_health(run)
    # What was found of the worker says nothing of a run that has gone on meanwhile.
    now = instance.get_run_by_id(run.run_id)
    if health.status is not WorkerStatus.FAILED or now is None or now.status is not _STARTING:
        return False
    instance.report_run_failed(now, f"The run was lost before it had started. {health.msg or ''}".rstrip())
    return True
