"""The queue of runs, in which tenants that take long leave places for the others."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from fraud_assets.orchestration.traces import PARTITION

LONG = "fraud_assets/takes_long"
"""Tag of the runs of tenants that take long. `dagster.yaml` limits how many of them go on at once."""


class FairQueue(QueuedRunCoordinator[dg.DagsterInstance]):
    """Dagster's queue, which a tenant's run enters with the tag LONG if one of its last runs took long.

    Without it four large tenants at the head of the queue would have all places, and everybody else would
    wait until the first of them is done. Its own settings, beside those of Dagster's queue:

    long_seconds    a run that took more took long, however it ended
    last_runs       runs of a tenant that are looked at: a week of nights, so that one of them retrained
    """

    def __init__(self, long_seconds: float = 60.0, last_runs: int = 8, **settings: Any) -> None:
        super().__init__(**settings)
        self._long_seconds, self._last_runs = long_seconds, last_runs

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        of_dagster: Any = super().config_type()
        return {
            **of_dagster,
            "long_seconds": dg.Field(float, is_required=False),
            "last_runs": dg.Field(int, is_required=False),
        }

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "FairQueue":
        return cls(inst_data=inst_data, **config_value)

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        run = context.dagster_run
        tenant = run.tags.get(PARTITION)
        if tenant and any(seconds > self._long_seconds for seconds in self._seconds(tenant)):
            self._instance.add_run_tags(run.run_id, {LONG: "yes"})
        return super().submit_run(context)

    def _seconds(self, tenant: str) -> Iterator[float]:
        """What the tenant's last runs took."""
        ended = dg.RunsFilter(tags={PARTITION: tenant}, statuses=FINISHED_STATUSES)
        for each in self._instance.get_run_records(ended, limit=self._last_runs):
            if each.end_time and each.start_time:
                yield each.end_time - each.start_time
