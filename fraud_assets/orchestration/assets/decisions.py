"""How a tenant's decision is shown on `active_model`: the sentence first, then always the same numbers."""

from collections.abc import Mapping
from datetime import datetime

import dagster as dg

from fraud_assets.compute.activation import Champion

ACTIVE_MODEL = dg.AssetKey("active_model")

NUMBERS = (
    "pr_auc",
    "champion_pr_auc",
    "base_rate",
    "precision_at_80_recall",
    "labelled_rows",
    "fraud_rows",
    "model_age_days",
)
"""The keys that "Plots by partition" draws; null where a decision has no such number."""


def shown(
    tenant: str, sentence: str, numbers: Mapping[str, float | int | None]
) -> dict[str, dg.MetadataValue | str]:
    """Metadata of a decision. `numbers` may lack any of NUMBERS and may have others, which are left out."""
    return {
        "decision": sentence,
        "tenant": tenant,
        **{name: _number(numbers.get(name)) for name in NUMBERS},
    }


def observed(tenant: str, sentence: str, numbers: Mapping[str, float | int | None]) -> dg.AssetObservation:
    """The decision as an observation: it shows on the tenant's page although nothing was activated."""
    return dg.AssetObservation(ACTIVE_MODEL, metadata=shown(tenant, sentence, numbers), partition=tenant)


def age_days(champion: Champion | None, at: datetime) -> float | None:
    """Age of the champion in days, from the start of the cycle that made it."""
    return champion and (at - champion.cycle_started_at).total_seconds() / 86_400


def _number(value: float | int | None) -> dg.MetadataValue:
    if value is None:
        return dg.MetadataValue.null()
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)
