"""How the rows of a read are chosen and cut into parts of whole guards. No connection, no files.

A guard is in the part that its id falls into, in the order of code points, which is how polars sorts: so
a database's collation and encoding do not matter.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from fraud_assets.domain.schemas import SOURCE_TABLES, LazyHistory, SourceTable

DAY: Final = timedelta(days=1)


def cuts(events: pl.DataFrame, size: int) -> pl.Series:
    """The first guard of each part but the first, so that a part has about `size` events.

    `events`: guard_id, events (their number), in any order; without an id they are in the first part.
    """
    guards = events.group_by("guard_id").agg(pl.col("events").sum()).sort("guard_id", nulls_last=False)
    part = (pl.col("events").cum_sum() - 1) // size
    return guards.filter(part > part.shift())["guard_id"]


def split(rows: pl.DataFrame, cuts: pl.Series) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of each part, with its number."""
    part = pl.Series("part", cuts.search_sorted(rows["guard_id"], side="right"))
    parted = rows.with_columns(part).partition_by("part", as_dict=True, include_key=False)
    return ((number, some) for (number,), some in parted.items())


def wanted(name: SourceTable, since: datetime, until: datetime) -> pl.Expr:
    """Whether a row is of the read, as far as it tells by itself."""
    match name:
        case "attendance_event":
            return _from("punch_in_at", since) & _by("known_at", until)
        case "shift":
            return _by("published_at", until)
        case "outcome":
            return _by("known_at", until)
        case _:
            return pl.lit(True)


def joined(
    whole: Mapping[str, pl.DataFrame],
    parted: Mapping[str, Sequence[pl.LazyFrame]],
    since: datetime,
    until: datetime,
) -> list[LazyHistory]:
    """The parts, from the rows of the tables that are `wanted`: sites, guards and outcomes `whole`."""
    events = parted["attendance_event"]
    shifts = [_of_window(some, of, since, until) for some, of in zip(parted["shift"], events, strict=True)]
    site, guard = (_in_order(name, whole[name].lazy()).collect() for name in ("site", "guard"))
    return [
        LazyHistory(
            site=site,
            guard=guard,
            shift=_in_order("shift", some_shifts),
            attendance_event=_in_order("attendance_event", some_events),
            outcome=_in_order("outcome", outcomes.lazy()).collect(),
        )
        for some_shifts, some_events, outcomes in zip(
            shifts, events, _handed_out(whole["outcome"], events), strict=True
        )
    ]


def _of_window(shifts: pl.LazyFrame, events: pl.LazyFrame, since: datetime, until: datetime) -> pl.LazyFrame:
    referred_to = events.select("guard_id", "shift_id", is_referred_to=True).unique()
    is_scheduled = _from("scheduled_start", since - DAY) & _by("scheduled_start", until + DAY)
    return shifts.join(referred_to, on=["guard_id", "shift_id"], how="left").filter(
        is_scheduled | pl.col("is_referred_to")
    )


def _handed_out(outcomes: pl.DataFrame, events: Sequence[pl.LazyFrame]) -> list[pl.DataFrame]:
    """The outcomes of each part's events; the last part has those of events that the source does not have."""
    handed: list[pl.DataFrame] = []
    for some in events:
        ids = some.select("event_id").collect()
        handed.append(outcomes.join(ids, on="event_id", how="semi"))
        outcomes = outcomes.join(ids, on="event_id", how="anti")
    unknown = outcomes.filter(~pl.col("has_event").cast(pl.Boolean))
    return [*handed[:-1], pl.concat([handed[-1], unknown])]


def _from(column: str, since: datetime) -> pl.Expr:
    return pl.col(column).is_null() | (pl.col(column) >= since)


def _by(column: str, until: datetime) -> pl.Expr:
    return pl.col(column).is_null() | (pl.col(column) <= until)


def _in_order(name: SourceTable, rows: pl.LazyFrame) -> pl.LazyFrame:
    """By id, then by everything else, so that an engine's own order is never seen."""
    schema = SOURCE_TABLES[name]
    columns, key = schema.column_names(), schema.primary_key()
    return rows.select(columns).sort(*key, *(column for column in columns if column not in key))
