"""The queue of runs, in which tenants that take long leave places for the others."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

from fraud_assets.orchestration.traces import PARTITION

LONG = "fraud_assets/takes_long"
"""Tag of the runs of tenants that take long. `dagster.yaml` limits how many of them go on at once."""

LONG_SECONDS = 60.0
LOOKED_AT = 8
"""Runs of a tenant: a week of nights, so that one of them retrained."""


class FairQueue(QueuedRunCoordinator[dg.DagsterInstance]):
    """Dagster's queue, which a tenant's run enters with the tag LONG if one of its last runs took long.

    Without it four large tenants at the head of the queue would have all places, and everybody else would
    wait until the first of them is done.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        run = context.dagster_run
        tenant = run.tags.get(PARTITION)
        if tenant and max(_seconds(self._instance, tenant), default=0.0) > LONG_SECONDS:
            self._instance.add_run_tags(run.run_id, {LONG: "yes"})
        return super().submit_run(context)


def _seconds(instance: dg.DagsterInstance, tenant: str) -> Sequence[float]:
    """What the tenant's last runs took."""
    ended = dg.RunsFilter(tags={PARTITION: tenant}, statuses=[dg.DagsterRunStatus.SUCCESS])
    records = instance.get_run_records(ended, limit=LOOKED_AT)
    return [each.end_time - each.start_time for each in records if each.end_time and each.start_time]
