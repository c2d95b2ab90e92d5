"""A clean tenant of any size as Parquet, made in whole columns from a seed. No measuring here.

It has what costs time: shared kiosks, guards at several sites, rows that arrive hours or weeks late, ties
to the second, four time zones of which three change their clocks, and values that are not known.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from fraud_assets.domain.schemas import (
    ENTRY_SOURCES,
    SOURCE_TABLES,
    History,
    SourceTable,
    source_columns,
)

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
DAYS: Final = 180
END: Final = START + timedelta(days=DAYS)
SNAPSHOTS: Final = tuple(START + timedelta(days=7 * week) for week in range(DAYS // 7 + 1))
"""Mondays 00:00 UTC; `profile_days` before each of them lie partly before the first event."""

_EVENTS_A_GUARD: Final = 150
_GUARDS_A_SITE: Final = 15
_ZONES: Final = (
    ("Europe/Madrid", "ES"),
    ("America/New_York", "US"),
    ("Asia/Kathmandu", "NP"),
    ("Europe/London", "GB"),
)
_MICROSECONDS: Final = 1_000_000
_ROW_GROUP: Final = 200_000


def generate(events: int, seed: int = 7) -> History:
    """A tenant with `events` events in DAYS days, sorted by (guard_id, punch_in_at, event_id)."""
    random = np.random.default_rng(seed)
    guards = max(events // _EVENTS_A_GUARD, 1)
    sites = max(guards // _GUARDS_A_SITE, 1)
    site = _sites(sites, random)
    attendance, shift = _attendance(events, guards, site, random)
    return History(
        site=_typed("site", site),
        guard=_typed("guard", _guards(guards, sites)),
        shift=_typed("shift", shift).sort("guard_id", "shift_id"),
        attendance_event=_typed("attendance_event", attendance).sort("guard_id", "punch_in_at", "event_id"),
        outcome=_typed("outcome", pl.DataFrame()),
    )


def write(history: History, folder: Path) -> None:
    """One Parquet file a table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCE_TABLES:
        frame: pl.DataFrame = getattr(history, name)
        frame.write_parquet(folder / f"{name}.parquet", row_group_size=_ROW_GROUP)


def _sites(count: int, random: np.random.Generator) -> pl.DataFrame:
    zone = np.arange(count) % len(_ZONES)
    return pl.DataFrame(
        {
            "site_id": _names("s", np.arange(count)),
            "latitude": random.uniform(35, 55, count).round(6),
            "longitude": random.uniform(-5, 20, count).round(6),
            "radius_m": np.full(count, 150.0),
            "tz": [_ZONES[number][0] for number in zone],
            "country": [_ZONES[number][1] for number in zone],
        }
    )


def _guards(count: int, sites: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "guard_id": _names("g", np.arange(count)),
            "is_enabled": [True] * count,
            "is_verified": [True] * count,
            "home_site_id": _names("s", np.arange(count) % sites),
        }
    )


def _attendance(
    count: int, guards: int, site: pl.DataFrame, random: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and shifts: most guards work one shift at home, three in ten events are elsewhere."""
    guard = np.sort(np.arange(count) % guards)
    away = random.random(count) < 0.3
    place = np.where(away, (guard + random.integers(1, 4, count)) % site.height, guard % site.height)
    scheduled = (
        random.integers(0, DAYS, count) * 86_400 + (guard % 3) * 28_800 + random.integers(0, 4, count) * 900
    )
    punch = np.clip(scheduled + random.normal(0, 600, count).astype(np.int64), 0, DAYS * 86_400 - 1)
    has_shift = random.random(count) < 0.8
    shift_id = _names("h", np.arange(count))
    start = int(START.timestamp()) * _MICROSECONDS
    punch_in = start + punch * _MICROSECONDS
    has_fix, has_face = random.random(count) < 0.9, random.random(count) < 0.7
    wander = np.where(random.random(count) < 0.02, 0.3, 0.0005)
    face = np.clip(random.normal(0.2, 0.1, count), 0, 1.2)
    events = pl.DataFrame(
        {
            "event_id": _names("e", random.permutation(count)),
            "guard_id": _names("g", guard),
            "site_id": _names("s", place),
            "shift_id": _where(has_shift, shift_id),
            "punch_in_at": punch_in,
            "punch_out_at": punch_in + 8 * 3_600 * _MICROSECONDS,
            "latitude": _where(has_fix, pl.Series(_near(site["latitude"], place, wander, random))),
            "longitude": _where(has_fix, pl.Series(_near(site["longitude"], place, wander, random))),
            "accuracy_m": _where(has_fix, pl.Series(random.gamma(4, 4, count))),
            "device_id": _devices(guard, place, random),
            "is_mock_location": _where(has_fix, pl.Series(random.random(count) < 0.01)),
            "face_verified": _where(has_face, pl.Series(face < 0.4)),
            "face_distance": _where(has_face, pl.Series(face)),
            "face_attempts": _where(has_face, pl.Series(random.integers(1, 4, count))),
            "entry_source": pl.Series(ENTRY_SOURCES).gather(
                random.choice(4, count, p=[0.7, 0.2, 0.07, 0.03])
            ),
            "known_at": punch_in + _delay(count, random) * _MICROSECONDS,
        }
    )
    shifts = pl.DataFrame(
        {
            "shift_id": shift_id,
            "guard_id": events["guard_id"],
            "site_id": events["site_id"],
            "scheduled_start": start + scheduled * _MICROSECONDS,
            "scheduled_end": start + (scheduled + 28_800) * _MICROSECONDS,
            "published_at": start + (scheduled - random.integers(-1, 20, count) * 86_400 + 7) * _MICROSECONDS,
        }
    ).filter(pl.Series(has_shift))
    return events, shifts


def _delay(count: int, random: np.random.Generator) -> np.ndarray:
    """Seconds from punch-in to known: mostly seconds, some hours, a few weeks; a clock ahead now and then."""
    kind = random.random(count)
    hours, weeks = random.integers(3_600, 72 * 3_600, count), random.integers(0, 45 * 86_400, count)
    return np.select(
        [kind < 0.05, kind < 0.055, kind < 0.06], [hours, weeks, -100], random.integers(1, 60, count)
    )


def _devices(guard: np.ndarray, place: np.ndarray, random: np.random.Generator) -> pl.Series:
    """A kiosk of the site in three of ten events, no device in one, else the guard's own phone."""
    kind = random.random(guard.size)
    own, kiosk = _names("d", guard), _names("k", place)
    frame = pl.DataFrame({"kind": kind, "own": own, "kiosk": kiosk})
    return frame.select(
        device_id=pl.when(pl.col("kind") < 0.3).then("kiosk").when(pl.col("kind") < 0.9).then("own")
    )["device_id"]


def _near(
    centre: pl.Series, place: np.ndarray, wander: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    return (centre.to_numpy()[place] + random.normal(0, 1, place.size) * wander).round(6)


def _where(condition: np.ndarray, values: pl.Series) -> pl.Series:
    return values.zip_with(pl.Series(condition), pl.Series([None], dtype=values.dtype))


def _names(prefix: str, numbers: np.ndarray) -> pl.Series:
    return pl.select(name=pl.format(f"{prefix}{{}}", pl.Series(numbers)))["name"]


def _typed(name: SourceTable, frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` in the table's columns; a column that it does not have is null, but for the tenant's id."""
    columns = {"tenant_id": pl.lit("acme"), **{column: pl.col(column) for column in frame.columns}}
    schema = source_columns(SOURCE_TABLES[name])
    return frame.select(
        columns.get(column, pl.lit(None)).cast(dtype).alias(column) for column, dtype in schema.items()
    )


if __name__ == "__main__":
    write(generate(int(sys.argv[1])), Path(sys.argv[2]))
