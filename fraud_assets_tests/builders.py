"""Small source tables for tests, with a valid default for every column."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from fraud_assets.domain.schemas import SOURCE_TABLES, History, SourceTable

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
