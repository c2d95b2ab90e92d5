"""The behavioural profiles of a tenant's guards."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from fraud_assets import cycle, mirror
from fraud_assets.compute.profiles import FAILED
from fraud_assets.orchestration.assets import decisions
from fraud_assets.orchestration.assets.model import fail_window
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.resources import tenant_stage
from fraud_assets.storage.platform import Platform, champion_of

# More would make the page slow; the count is always whole.
NAMED_AT_MOST = 100


@dg.asset(
    partitions_def=tenants,
    group_name="attendance_fraud",
    kinds={"polars", "deltalake"},
    deps=["operational_database"],
)
def behavioural_profiles(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult | dg.AssetObservation]:
    """What is usual for each active guard, from the 90 days before the cycle's start.

    Usual hours, weekdays and sites, hour mean and spread, punctuality, face confidence, GPS drift, nights.
    Guards are profiled in batches of 100; one that cannot be profiled is named with a reason, the others go
    on. Below 10 observations a guard has no profile; from 30 it is sufficient. Weekly snapshots are kept, so
    that an event of the training dataset meets the profile of its day.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        result = cycle.refresh_profiles(platform, tenant)
        if repaired := mirror.champion(platform, tenant, context.run.run_id):
            context.log.warning(f"behavioural_profiles  {repaired}")
        damage = mirror.damage(platform, tenant, context.run.run_id)
        due = cycle.retrain_due(platform, tenant, result.as_of, fail_window(), damage)
        activation = platform.ledger.champion(tenant)
    counts = _counts(result)
    context.log.info("behavioural_profiles  " + ", ".join(f"{n:,} {words}" for words, n in counts.items()))
    if not due.is_due:
        champion = activation and champion_of(activation)
        yield decisions.observed(
            tenant, decisions.shown(tenant, due.reason, activation, champion, result.as_of)
        )
    yield dg.MaterializeResult(
        metadata={
            "tenant": tenant,
            "retrain": due.reason,
            "active": activation.sentence if activation else "No model is active.",
            "alias": repaired or "The alias names the ledger's champion.",
            **{words.replace(" ", "_"): n for words, n in counts.items()},
            "snapshots": result.made.profiles["snapshot_at"].n_unique(),
            "as_of": dg.MetadataValue.timestamp(result.as_of),
            "failed": decisions.table(_failed(result).select("guard_id", "reason").head(NAMED_AT_MOST)),
            "rows_read": decisions.table(result.account.totals),
            "rows_set_aside_by_rule": decisions.table(result.account.set_aside),
            "table_version": result.table_version,
        }
    )


def _failed(result: cycle.ProfilesMade) -> pl.DataFrame:
    return result.made.skipped.filter(pl.col("kind") == FAILED)


def _counts(result: cycle.ProfilesMade) -> dict[str, int]:
    failed = _failed(result).height
    return {
        "guards profiled": result.profiled,
        "guards failed": failed,
        "guards with too few observations": result.made.skipped.height - failed,
    }
