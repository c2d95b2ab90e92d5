"""The job by which a person rolls a tenant's model back. What it does is in `fraud_assets.stewardship`."""

import dagster as dg
from pydantic import Field

from fraud_assets import stewardship
from fraud_assets.orchestration.assets import decisions
from fraud_assets.orchestration.assets.decisions import ACTIVE_MODEL
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.resources import tenant_stage
from fraud_assets.storage.platform import Platform, champion_of


class RollBack(dg.Config):
    """To which version, why, and who says so."""

    version: int = Field(ge=1, description="The version in the model registry, active before, such as 3.")
    reason: str = Field(description="Why, in a sentence. It is kept for ever and shown with the decision.")
    by: str = Field(description="The name of who decides.")


@dg.op
def roll_back(context: dg.OpExecutionContext, config: RollBack, platform: dg.ResourceParam[Platform]) -> None:
    """Makes an earlier version the champion again, as `fraud-assets rollback` does."""
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        word = stewardship.Word(config.by, config.reason)
        moved = stewardship.roll_back(platform, tenant, config.version, word, context.run_id)
    context.log.info(f"roll_back             {moved.sentence}")
    if not moved.is_new:
        return
    entry = moved.entry
    metadata = decisions.shown(tenant, entry.sentence, entry, champion_of(entry), entry.cycle_started_at)
    # A materialization of active_model is an activation, whoever decided it.
    context.log_event(
        dg.AssetMaterialization(ACTIVE_MODEL, entry.sentence, metadata=metadata, partition=tenant)
    )


@dg.job(
    partitions_def=tenants,
    description=(
        "Rolls the tenant's model back to an earlier version, with a reason and a name: choose the tenant, "
        "and fill in the rest in the Launchpad. The version that it replaces is not activated again by a "
        "retrain of the same data."
    ),
)
def roll_back_model() -> None:
    """One tenant, one version."""
    roll_back()
