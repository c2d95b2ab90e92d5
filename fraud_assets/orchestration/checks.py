"""The asset checks: enough records to train, and a champion that is fresh. Both warn; neither stops a tenant."""

import warnings

import dagster as dg

from fraud_assets.compute import dataset
from fraud_assets.orchestration.assets.model import ACTIVE_MODEL, fail_window
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.resources import tenant_stage
from fraud_assets.storage.platform import Platform

# Without `partitions_def`, a check would load every tenant's data (dagster #27747); it is a preview argument.
warnings.filterwarnings("ignore", message="Parameter `partitions_def`.*", category=dg.PreviewWarning)


@dg.asset_check(asset="training_dataset", partitions_def=tenants)
def enough_records(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.AssetCheckResult:
    """At least 100 usable records, and enough of each class, in the tenant's training dataset.

    Below that the tenant is not trained: its profiles and its champion stay, and the next day tries again.
    """
    tenant = context.partition_key
    with tenant_stage():
        facts = platform.tables.facts(tenant, "training_dataset")
    records, fraud = int(facts["records"]), int(facts["fraud"])
    shortage = dataset.shortage(records, fraud, platform.settings(tenant))
    return dg.AssetCheckResult(
        passed=shortage is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=shortage or f"{records} usable records, {fraud} of them fraud.",
        metadata={"tenant": tenant, "labelled_rows": records, "fraud_rows": fraud},
    )
