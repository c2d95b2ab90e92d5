"""The partition of every asset: the tenant. Nothing else."""

import dagster as dg

# An own name, because partition sets of equal names are shared between code locations.
tenants = dg.DynamicPartitionsDefinition(name="fraud_assets_tenants")
