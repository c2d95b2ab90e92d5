"""The training dataset of a tenant."""

import dagster as dg

from fraud_assets.compute import dataset
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
    """The tenant's mature events of the last 180 days with their features and label, as known at the cut-off.

    Every feature is computed from what had happened and was known strictly before the event's punch-in.
    An event is mature 30 days after its punch-in; mature and unreviewed counts as legitimate. The cut-off
    is the start of the tenant's cycle (02:00), so the same day gives the same rows and the same digest.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        as_of = platform.cycle_start(tenant)
        cleaned = platform.history(tenant, as_of)
        profiles = platform.tables.read(tenant, "profiles")
        made = dataset.assemble(cleaned.history, profiles, as_of, platform.settings(tenant))
        version = platform.tables.keep(tenant, "training_dataset", made.frame, _facts(made))
    counts = made.counts
    context.log.info(
        f"  training_dataset      {counts['records']:,} records of {counts['events']:,} events, {counts['fraud']:,} fraud"
    )
    return dg.MaterializeResult(
        metadata={
            "tenant": tenant,
            **{name: count for name, count in counts.items()},
            "base_rate": counts["fraud"] / counts["records"] if counts["records"] else None,
            "window_start": dg.MetadataValue.timestamp(made.window_start),
            "as_of": dg.MetadataValue.timestamp(as_of),
            "digest": made.digest,
            "table_version": version,
            "set_aside": dg.MetadataValue.md(cleaned.markdown),
        }
    )


def _facts(made: dataset.TrainingSet) -> dict[str, str]:
    return {
        "as_of": made.as_of.isoformat(),
        "window_start": made.window_start.isoformat(),
        "digest": made.digest,
        **{name: str(count) for name, count in made.counts.items()},
    }
