"""What the platform reads and does not make."""

import dagster as dg

operational_database = dg.AssetSpec(
    "operational_database",
    group_name="source",
    kinds={"sql"},
    description=(
        "The security company's own database, read-only: tenants, sites, guards, shifts, attendance events "
        "and reviewers' outcomes. Set FRAUD_ASSETS_SOURCE_URL to point at it."
    ),
)
