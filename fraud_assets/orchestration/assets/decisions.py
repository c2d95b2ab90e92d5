"""How a tenant's decision is shown on `active_model`: the sentence first, then always the same numbers."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import dagster as dg
import polars as pl

from fraud_assets.compute.activation import Champion
from fraud_assets.compute.evaluation import PUBLISHED
from fraud_assets.compute.evidence import COMPARED
from fraud_assets.domain.text import shown as as_text
from fraud_assets.storage.ledger import Entry

ACTIVE_MODEL = dg.AssetKey("active_model")

_SHOWN_FIRST = ("pr_auc", "champion_pr_auc", "base_rate", "precision_at_80_recall")
_SHOWN_AFTER = tuple(name for name in (*PUBLISHED, *COMPARED) if name not in _SHOWN_FIRST)

Metadata = dict[str, dg.MetadataValue | str]


def shown(
    tenant: str, sentence: str, entry: Entry | None, champion: Champion | None, cycle_start: datetime
) -> Metadata:
    """The decision of the cycle that began at `cycle_start`, with what `entry` measured, if there is one.

    "Plots by partition" draws the numbers, so all are always there; null where there is no such number.
    """
    measured = entry.metrics if entry else {}
    age = (cycle_start - champion.cycle_started_at) / timedelta(days=1) if champion else None
    numbers = {
        "pr_auc": measured.get("pr_auc"),
        "champion_pr_auc": measured.get("champion_pr_auc"),
        "base_rate": entry.fraud / entry.records if entry and entry.records else None,
        "precision_at_80_recall": measured.get("precision_at_80_recall"),
        "labelled_rows": entry.records if entry else None,
        "fraud_rows": entry.fraud if entry else None,
        "model_age_days": age,
        **{name: measured.get(name) for name in _SHOWN_AFTER},
    }
    return {
        "decision": sentence,
        "tenant": tenant,
        **{name: _number(value) for name, value in numbers.items()},
        "cycle_start": dg.MetadataValue.timestamp(cycle_start),
    }


def observed(tenant: str, metadata: Mapping[str, dg.MetadataValue | str]) -> dg.AssetObservation:
    """A decision that activated nothing: it shows on the tenant's page, and the last activation stays."""
    return dg.AssetObservation(
        ACTIVE_MODEL, description=str(metadata["decision"]), metadata=metadata, partition=tenant
    )


def table(frame: pl.DataFrame) -> dg.TableMetadataValue:
    """A small frame as a table. Cells are short text, never Markdown: they may hold hostile input."""
    records = [
        dg.TableRecord(data={name: _cell(cell) for name, cell in row.items()}) for row in frame.to_dicts()
    ]
    columns = [dg.TableColumn(name) for name in frame.columns]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def _cell(value: object) -> str | int | float | bool | None:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value if isinstance(value, int | bool | None) else as_text(str(value))


def numbers(known: Mapping[str, float], names: Iterable[str]) -> Metadata:
    """All of `names`, null where there is no such number."""
    return {name: _number(known.get(name)) for name in names}


def _number(value: float | int | None) -> dg.MetadataValue:
    if value is None:
        return dg.MetadataValue.null()
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)
