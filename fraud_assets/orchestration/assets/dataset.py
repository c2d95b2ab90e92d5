"""The training dataset of a tenant."""

import dagster as dg

from fraud_assets import cycle
from fraud_assets.compute.dataset import Maturity
from fraud_assets.orchestration.assets import decisions
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.resources import tenant_stage
from fraud_assets.storage.platform import Platform


@dg.asset(
    partitions_def=tenants,
    group_name="attendance_fraud",
    kinds={"polars", "deltalake"},
    deps=["operational_database", "behavioural_profiles"],
)
def training_dataset(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult:
    """The tenant's mature events of the last 180 days, with their features and what reviewers found.

    Every feature is computed from what had happened and was known strictly before the event's punch-in.
    An event is mature 30 days after its punch-in; mature and unreviewed counts as legitimate. The cut-off is
    the start of the tenant's cycle (02:00), so the same day gives the same rows and the same digest.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        made = cycle.assemble_dataset(platform, tenant)
    counts = made.counts
    context.log.info(
        f"training_dataset      {counts['records']:,} usable records of {counts['events']:,} events, "
        f"{counts['fraud']:,} fraud"
    )
    return dg.MaterializeResult(
        metadata={
            "tenant": tenant,
            **counts,
            **_matured(made.maturity),
            "label_delay_days": made.label_delay.days,
            "label_delay_is_measured": made.label_delay.is_measured,
            "base_rate": counts["fraud"] / counts["records"] if counts["records"] else None,
            "window_start": dg.MetadataValue.timestamp(made.window_start),
            "as_of": dg.MetadataValue.timestamp(made.as_of),
            "newest_punch_in": _instant(made.newest_punch_in),
            "digest": made.digest,
            "features": decisions.table(made.features),
            "table_version": made.table_version,
            "rows_read": decisions.table(made.account.totals),
            "rows_set_aside_by_rule": decisions.table(made.account.set_aside),
        }
    )


def _matured(found: Maturity) -> dict[str, dg.MetadataValue | float | None]:
    """Events and days as numbers, always under the same keys; days are null without outcomes."""
    return {
        "mature": found.mature,
        "reviewed": found.reviewed,
        "outcome_days_median": found.median_days,
        "outcome_days_90th_percentile": found.percentile_90_days,
        "mature_until": dg.MetadataValue.timestamp(found.mature_until),
    }


def _instant(value: object) -> dg.MetadataValue:
    return dg.MetadataValue.text(f"{value:%Y-%m-%d %H:%M} UTC" if value else "none")
