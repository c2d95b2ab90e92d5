"""Dagster's instance, so that a run that died is made again, whichever launcher had started it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata, JobFailureData
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.instance import InstanceRef


class Instance(dg.DagsterInstance):
    """Dagster's, which mends two ways in which its retries pass over a run whose process died.

    - They read of a failure, then ask whether the run has failed. Dagster writes the event before the status:
      who looks in between finds a run that goes on, and never looks again. Here the status is first.
    - A run that died after its last step and before its last word has no step left to make again, for which
      Dagster's retry fails, and the run stays red. Here it has succeeded.

    Set in `dagster.yaml`.
    """

    @classmethod
    def config_schema(cls) -> Mapping[str, dg.Field]:
        """No settings of its own."""
        return {}

    @classmethod
    def config_defaults(cls, base_dir: str) -> Mapping[str, Any]:
        """Those of Dagster."""
        return InstanceRef.config_defaults(base_dir)

    def handle_new_event(
        self, event: dg.EventLogEntry, *, batch_metadata: DagsterEventBatchMetadata | None = None
    ) -> None:
        if event.is_dagster_event and event.get_dagster_event().is_run_failure:
            at = datetime.fromtimestamp(event.timestamp, UTC)
            self.run_storage.handle_run_event(event.run_id, event.get_dagster_event(), at)
        super().handle_new_event(event, batch_metadata=batch_metadata)

    def report_run_failed(
        self,
        dagster_run: dg.DagsterRun,
        message: str | None = None,
        job_failure_data: JobFailureData | None = None,
    ) -> DagsterEvent:
        """That it failed, said from outside of the run; or that it succeeded, if no step of it was left."""
        if not _did_all(self, dagster_run):
            return super().report_run_failed(dagster_run, message, job_failure_data)
        done = DagsterEvent(
            dg.DagsterEventType.PIPELINE_SUCCESS.value,
            dagster_run.job_name,
            message="The run is done: it died before it could say so, but none of its steps was left to do.",
        )
        self.report_dagster_event(done, dagster_run.run_id)
        return done


def _did_all(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a retry, which asks the same of a run that has failed, would find no step to make again."""
    if run.status is not dg.DagsterRunStatus.STARTED:
        return False
    failed = run.with_status(dg.DagsterRunStatus.FAILURE)
    steps, _ = KnownExecutionState.build_resume_retry_reexecution(instance, failed)
    return not steps
