"""The asset checks of a tenant: enough records to train, and a champion that is fresh. Both warn."""

import warnings

import dagster as dg

from fraud_assets import cycle
from fraud_assets.compute.activation import Champion
from fraud_assets.orchestration.assets.decisions import ACTIVE_MODEL
from fraud_assets.orchestration.assets.model import fail_window
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.resources import tenant_stage
from fraud_assets.storage.platform import Platform

FRESHNESS_CHECK = "champion_is_fresh"

# Without `partitions_def` a check would stand for all tenants at once (dagster #27747); it is a preview.
warnings.filterwarnings(
    "ignore", message=".*partitions_def on an AssetCheckSpec.*", category=dg.PreviewWarning
)


@dg.asset_check(asset="training_dataset", partitions_def=tenants)
def enough_records(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """At least 100 usable records, and enough of each class, in the tenant's training dataset.

    Below that the tenant is not trained: its profiles and its champion stay, and the next day tries again.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        stored, rules = cycle.read_dataset(platform, tenant), platform.settings(tenant)
        shortage = cycle.shortage(stored, rules)
    return dg.AssetCheckResult(
        passed=shortage is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=shortage or f"{stored.frame.height} usable records, {rules.minimum_records} are needed",
        metadata={
            "tenant": tenant,
            "labelled_rows": stored.frame.height,
            "fraud_rows": stored.fraud,
            "needed": rules.minimum_records,
        },
    )


@dg.asset_check(asset=ACTIVE_MODEL, name=FRESHNESS_CHECK, partitions_def=tenants)
def champion_is_fresh(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """The tenant's champion is younger than the freshness policy of `active_model` allows.

    Dagster judges freshness by asset, not by tenant; this check judges each tenant, and the sensor
    `tenant_directory` reports when its answer changes.
    """
    with tenant_stage(platform.retry_wait_seconds):
        found = freshness(platform, context.partition_key, platform.champion(context.partition_key))
    return dg.AssetCheckResult(
        passed=found.passed, severity=found.severity, description=found.description, metadata=found.metadata
    )


def freshness(platform: Platform, tenant: str, champion: Champion | None) -> dg.AssetCheckEvaluation:
    """The check's answer for a tenant, as an event that needs no run."""
    after = platform.settings(tenant).retrain_after or fail_window()
    age = platform.now() - champion.cycle_started_at if champion else None
    days = age.total_seconds() / 86_400 if age is not None else None
    limit = after.total_seconds() / 86_400
    return dg.AssetCheckEvaluation(
        asset_key=ACTIVE_MODEL,
        check_name=FRESHNESS_CHECK,
        passed=age is not None and age < after,
        severity=dg.AssetCheckSeverity.WARN,
        partition=tenant,
        description=f"{days:.1f} days old, retrained from {limit:g} days"
        if days is not None
        else "no champion",
        metadata={"tenant": tenant, "model_age_days": days, "fail_window_days": limit},
    )
