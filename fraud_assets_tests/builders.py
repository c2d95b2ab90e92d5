"""Small source tables for tests, with a valid default for every column."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fraud_assets.compute.activation import Submission
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.compute.records import Part
from fraud_assets.compute.training import Model
from fraud_assets.domain.schemas import (
    FEATURES,
    SOURCE_TABLES,
    History,
    LazyHistory,
    SourceTable,
    TrainingDataset,
)
from fraud_assets.storage import parts
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.source import Source

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""A Monday, 13:00 in Madrid."""

_DEFAULTS: dict[SourceTable, dict[str, Any]] = {
    "site": {
        "tenant_id": "acme",
        "site_id": "s1",
        "name": "Depot",
        "latitude": 40.4,
        "longitude": -3.7,
        "radius_m": 100.0,
        "tz": "Europe/Madrid",
        "country": "ES",
    },
    "guard": {
        "tenant_id": "acme",
        "guard_id": "g1",
        "name": "A Guard",
        "is_enabled": True,
        "is_verified": True,
        "home_site_id": "s1",
        "joined_on": None,
        "left_on": None,
    },
    "shift": {
        "tenant_id": "acme",
        "shift_id": "h1",
        "guard_id": "g1",
        "site_id": "s1",
        "scheduled_start": NOON,
        "scheduled_end": NOON + timedelta(hours=8),
        "published_at": NOON - timedelta(days=14),
    },
    "attendance_event": {
        "tenant_id": "acme",
        "event_id": "e1",
        "guard_id": "g1",
        "site_id": "s1",
        "shift_id": None,
        "punch_in_at": NOON,
        "punch_out_at": None,
        "latitude": 40.4,
        "longitude": -3.7,
        "accuracy_m": 10.0,
        "device_id": "d1",
        "is_mock_location": False,
        "face_verified": True,
        "face_distance": 0.1,
        "face_attempts": 1,
        "entry_source": "mobile",
        "known_at": None,
    },
    "outcome": {
        "tenant_id": "acme",
        "outcome_id": "o1",
        "event_id": "e1",
        "verdict": "fraud",
        "typology": None,
        "source": "review",
        "decided_at": NOON + timedelta(days=7),
        "known_at": NOON + timedelta(days=8),
    },
}


def table(name: SourceTable, rows: Sequence[dict[str, Any]], *, as_read: bool = False) -> pl.DataFrame:
    """A source table of `rows`, each laid over the defaults; with `unreadable` if `as_read`.

    An event is known one minute after its punch-in unless it says otherwise.
    """
    filled = [{**_DEFAULTS[name], **({"unreadable": None} if as_read else {}), **row} for row in rows]
    for row in filled:
        if name == "attendance_event" and row["known_at"] is None:
            row["known_at"] = row["punch_in_at"] + timedelta(minutes=1)
    schema = SOURCE_TABLES[name].create_empty().schema
    columns = [column for column in schema if as_read or column != "unreadable"]
    return pl.DataFrame(filled, schema={column: schema[column] for column in columns}, strict=True)


def history(*, as_read: bool = False, **rows: Sequence[dict[str, Any]]) -> History:
    """A tenant's tables; sites and guards default to one row each, the others to none."""
    given: dict[str, Sequence[dict[str, Any]]] = {"site": [{}], "guard": [{}], **rows}
    return History(**{name: table(name, given.get(name, []), as_read=as_read) for name in SOURCE_TABLES})


def read(source: Source, tenant: str, since: datetime, until: datetime) -> History:
    """What the source gives in one part, which needs no folder."""
    [part] = source.parts(tenant, since, until, 10**9, Path("nowhere"))
    return part.collect()


def in_parts(given: History, since: datetime, until: datetime, size: int) -> list[LazyHistory]:
    """A history as the source would give it in parts of `size` events."""
    tables = {name: getattr(given, name).filter(parts.wanted(name, since, until)) for name in SOURCE_TABLES}
    events = tables["attendance_event"]
    cuts = parts.cuts(events.group_by("guard_id").agg(events=pl.len()), size)

    def split(rows: pl.DataFrame) -> list[pl.LazyFrame]:
        found = dict(parts.split(rows, cuts))
        return [found.get(number, rows.clear()).lazy() for number in range(cuts.len() + 1)]

    has_event = pl.col("event_id").is_in(given.attendance_event["event_id"].drop_nulls().implode())
    whole = tables | {"outcome": tables["outcome"].with_columns(has_event=has_event.fill_null(False))}
    parted = {name: split(tables[name]) for name in ("attendance_event", "shift")}
    return parts.joined(whole, parted, since, until)


def training_dataset(records: int = 300, *, seed: int = 0, fraud_share: float = 0.2) -> pl.DataFrame:
    """Labelled events a minute apart; four features tell fraud from the rest, the others are noise."""
    random = np.random.default_rng(seed)
    fraud = random.random(records) < fraud_share
    schema = TrainingDataset.create_empty().schema
    columns = {name: _noise(dtype, records, random) for name, dtype in schema.items()} | {
        "tenant_id": ["acme"] * records,
        "event_id": [f"e{number:05d}" for number in range(records)],
        "punch_in_at": [NOON + timedelta(minutes=number) for number in range(records)],
        "travel_speed_kmh": _some(random.gamma(1 + 2 * fraud, 30), random),
        "minutes_early": _some(random.normal(3 - 15 * fraud, 10), random),
        "face_recognition_confidence": _some(np.clip(random.normal(0.7 - 0.2 * fraud, 0.15), 0, 1), random),
        "time_since_last_event": random.uniform(0, 86_400, records).tolist(),
        "entry_source": [
            "supervisor" if odd else "mobile" for odd in random.random(records) < 0.1 + 0.3 * fraud
        ],
        "is_fraud": fraud.tolist(),
    }
    return pl.DataFrame({name: pl.Series(columns[name], dtype=dtype) for name, dtype in schema.items()})


def _noise(dtype: pl.DataType, records: int, random: np.random.Generator) -> list[Any]:
    if dtype == pl.Float64:
        return _some(random.random(records), random)
    ones_and_twos = random.integers(1, 3, records).tolist()
    if dtype == pl.Boolean:
        return [number == 2 for number in ones_and_twos]
    return [f"x{number}" for number in ones_and_twos] if dtype == pl.String else ones_and_twos


def _some(values: np.ndarray, random: np.random.Generator) -> list[float | None]:
    """The values with a tenth of them not known."""
    return [
        None if missing else float(value)
        for value, missing in zip(values, random.random(values.size) < 0.1, strict=True)
    ]


def submission(content: bytes = b"model one", **facts: str) -> Submission:
    """A small training to register; its model is `content`, which the registry never opens."""
    return Submission(
        model=Model(content, FEATURES, {"max_depth": 4, "scale_pos_weight": 19.5}),
        metrics=Metrics(0.812345678901234, 0.6, 0.1 + 0.2, 0.03, 0.8, 0.9, 0.05, 200, 10),
        dataset_digest="d" * 64,
        facts={"cycle_started_at": "2026-03-09T02:00:00+00:00", **facts},
        train=Part(pl.LazyFrame({"is_fraud": [True, False, False]}), 3, 1),
        holdout=Part(pl.LazyFrame({"is_fraud": [True, False]}), 2, 1),
        files={"curve.png": b"\x89PNG picture"},
    )


def entry(tenant: str = "acme", **changes: Any) -> Entry:
    """A decision of the ledger: the activation of version 1, unless it is changed."""
    activation: dict[str, Any] = {
        "decided_at": NOON + timedelta(minutes=7),
        "cycle_started_at": NOON,
        "verdict": "activate",
        "reasons": ("PR-AUC 0.81 is at least 0.70",),
        "records": 1234,
        "fraud": 56,
        "model_version": 1,
        "model_digest": "a" * 64,
        "pr_auc": 0.81,
    }
    return Entry(tenant, **(activation | changes))


def known_before(past: History, at: datetime) -> History:
    """What had happened and was known strictly before `at`."""
    punched_in = pl.col("punch_in_at") < at
    return replace(
        past,
        shift=past.shift.filter(pl.col("published_at") < at),
        attendance_event=past.attendance_event.filter(punched_in, pl.col("known_at") < at),
    )
