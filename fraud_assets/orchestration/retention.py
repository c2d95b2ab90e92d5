"""The daily job that deletes old runs. What of them is the newest word on a tenant is kept, however old."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from fraud_assets.orchestration import traces
from fraud_assets.storage.platform import Platform


class Retention(dg.Config):
    """How long runs are kept."""

    days: int = Field(400, ge=30, description="Days since a run ended, after which it is deleted.")


@dg.op
def delete_old_runs(
    context: dg.OpExecutionContext, config: Retention, platform: dg.ResourceParam[Platform]
) -> None:
    """Deletes the runs that ended before, with their events and logs."""
    ended_before = platform.now() - timedelta(days=config.days)
    deleted, kept = traces.prune(context.instance, ended_before)
    context.log.info(f"delete_old_runs       {deleted:,} runs deleted, {kept:,} old ones kept")


@dg.job(
    description=(
        "Deletes the runs that ended more than 400 days ago, with their events and logs; other days can be "
        "given in the Launchpad. A run with the newest materialization, observation or check of a tenant's "
        "asset is kept. Tables, models and the ledger stay as they are."
    ),
)
def prune_runs() -> None:
    """All tenants at once."""
    delete_old_runs()


daily = dg.ScheduleDefinition(
    name="old_runs",
    job=prune_runs,
    cron_schedule="0 12 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletes old runs at 12:00 UTC, when no tenant's night goes on.",
)
