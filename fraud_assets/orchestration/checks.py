"""The asset checks of a tenant: sound source rows, enough records, no leak, a fresh champion. All warn."""

import warnings
from datetime import timedelta

import dagster as dg

from fraud_assets import cycle, stored
from fraud_assets.compute import account
from fraud_assets.compute.activation import Champion
from fraud_assets.orchestration.assets import decisions
from fraud_assets.orchestration.assets.decisions import ACTIVE_MODEL
from fraud_assets.orchestration.assets.model import fail_window
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.resources import tenant_stage
from fraud_assets.storage.platform import Platform

CHAMPION_IS_FRESH = dg.AssetCheckKey(ACTIVE_MODEL, "champion_is_fresh")

# Without `partitions_def` a check would stand for all tenants at once (dagster #27747); it is a preview.
warnings.filterwarnings(
    "ignore", message=".*partitions_def on an AssetCheckSpec.*", category=dg.PreviewWarning
)


@dg.asset_check(asset="behavioural_profiles", partitions_def=tenants)
def source_rows_are_sound(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """Of no source table a much larger share of rows was set aside than in the tenant's cycle before.

    Of all rows, or of those learned in the last 7 days. Much larger: by more than the setting
    `set_aside_jump`; the first cycle is compared with 0, and fewer than 20 rows have no share. A share that
    stays high is reported once, in the cycle in which its rise passed the limit.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        found, limit = cycle.rows_set_aside(platform, tenant), platform.settings(tenant).set_aside_jump
    jumps = account.jumps(found.shares, limit)
    return dg.AssetCheckResult(
        passed=not jumps,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(jumps) or _without_jumps(found, limit),
        metadata={
            "tenant": tenant,
            "rows_set_aside_by_rule": decisions.table(found.by_rule),
            "shares_set_aside": decisions.table(found.shares),
            "set_aside_jump": limit,
        },
    )


def _without_jumps(found: cycle.RowsSetAside, limit: float) -> str:
    if found.shares.is_empty():
        return "the rows set aside are not known: an earlier release made the profiles"
    return f"no source table's share of rows set aside rose by more than {limit * 100:g} percentage points"


@dg.asset_check(asset="training_dataset", partitions_def=tenants)
def enough_records(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """At least 100 usable records, and enough of each class, in the tenant's training dataset.

    Below that the tenant is not trained: its profiles and its champion stay, and the next day tries again.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        rules = platform.settings(tenant)
        with stored.opened(platform, tenant) as dataset:
            whole, shortage = dataset.whole, "; ".join(stored.shortage(dataset, rules))
    return dg.AssetCheckResult(
        passed=not shortage,
        severity=dg.AssetCheckSeverity.WARN,
        description=shortage or f"{whole.records} usable records, {rules.minimum_records} are needed",
        metadata={
            "tenant": tenant,
            "labelled_rows": whole.records,
            "fraud_rows": whole.fraud,
            "needed": rules.minimum_records,
        },
    )


@dg.asset_check(asset="training_dataset", partitions_def=tenants)
def dataset_has_no_leak(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """Nothing in the tenant's training dataset knows more than could be known when its events happened.

    No event of the future or without a mature outcome, none twice, no strange column, and no feature that
    alone tells fraud from the rest almost perfectly. With a leak the tenant is not trained.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        rules = platform.settings(tenant)
        with stored.opened(platform, tenant) as dataset:
            leaked = stored.leaked(dataset, rules)
    return dg.AssetCheckResult(
        passed=not leaked,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(leaked) or "nothing in the dataset knows more than could be known",
        metadata={"tenant": tenant, "leaks": len(leaked), "leak_pr_auc": rules.leak_pr_auc},
    )


@dg.asset_check(asset=ACTIVE_MODEL, partitions_def=tenants)
def champion_is_fresh(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """The tenant's champion is younger than the freshness policy of `active_model` allows.

    Dagster judges freshness by asset, not by tenant; this check judges each tenant. It runs with every
    activation, and when the sensor `tenant_directory` sees that a champion has turned stale.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        return freshness(platform, tenant, platform.champion(tenant))


def freshness(platform: Platform, tenant: str, champion: Champion | None) -> dg.AssetCheckResult:
    """The check's answer: age counts from the start of the cycle that made the champion."""
    limit = platform.settings(tenant).retrain_limit(fail_window())
    age = platform.now() - champion.cycle_started_at if champion else None
    days = age / timedelta(days=1) if age is not None else None
    return dg.AssetCheckResult(
        passed=age is not None and age < limit,
        severity=dg.AssetCheckSeverity.WARN,
        description="no champion"
        if days is None
        else f"{days:.1f} days old, {limit / timedelta(days=1):g} days are allowed",
        metadata={"tenant": tenant, "model_age_days": days, "fail_window_days": limit / timedelta(days=1)},
    )
