"""What an event shows by itself, and a tenant's events in batches of guards, each in the order of time.

Features and profiles are built on it. Nothing here looks at other events.

Columns are multiplied by numbers, not divided: polars divides many rows by a number through its
reciprocal and a single row truly, and the same event would differ in its last bit.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import numpy as np
import polars as pl

from fraud_assets.compute import sweeps
from fraud_assets.domain.schemas import AnyHistory, LazyHistory

BATCH_EVENTS: Final = 250_000
EVERY_EVENT: Final = pl.lit(True)
IN_TIME: Final = ("guard_id", "punch_in_at", "event_id")
"""The order of rows in every pass over a guard's events."""
OF_SHIFT: Final = ("guard_id", "shift_id", "scheduled_start", "published_at")
"""What is read of a shift."""
LATE_AFTER: Final = timedelta(minutes=15)
EARTH_RADIUS_METERS: Final = 6_371_000
FACE_DISTANCE_LIMIT: Final = 0.4

Result = TypeVar("Result")


def observe(events: pl.DataFrame, sites: pl.DataFrame, shifts: pl.DataFrame) -> pl.DataFrame:
    """`events` with what each shows by itself, at its site and against its shift, in the same order.

    Adds site (its place among `sites` in the order of their ids), tz, country, local_at (naive local time),
    hour_of_day, local_hour (0 to 24, fractional), day_of_week (Monday is 0), is_weekend, gps_drift_meters,
    face_recognition_confidence, visible (the instant after which the event was past and known), and of its
    shift scheduled_start, published_at and is_late: whether that shift was known in time is for the caller
    to ask.
    """
    # A name is a number wherever it is compared or copied row by row.
    names = [
        pl.col(name).cast(pl.Enum(sites[name].drop_nulls().unique().sort())) for name in ("tz", "country")
    ]
    at_site = sites.sort("site_id").select(
        "site_id",
        *names,
        site=pl.int_range(pl.len()),
        site_latitude="latitude",
        site_longitude="longitude",
    )
    rostered = shifts.select("shift_id", "scheduled_start", "published_at")
    found = [_looked_up(events["site_id"], at_site), _looked_up(events["shift_id"], rostered)]
    drift = haversine_meters("latitude", "longitude", "site_latitude", "site_longitude")
    face = 1 - pl.col("face_distance") * (1 / FACE_DISTANCE_LIMIT)
    since_midnight = pl.col("local_at") - pl.col("local_at").dt.truncate("1d")
    return (
        pl.concat([events, *found], how="horizontal")
        .with_columns(
            local_at=_local(pl.col("punch_in_at"), sites["tz"].unique()),
            gps_drift_meters=drift.clip(upper_bound=10_000),
            face_recognition_confidence=face.clip(lower_bound=0),
            is_late=pl.col("punch_in_at") > pl.col("scheduled_start") + LATE_AFTER,
            visible=pl.max_horizontal("punch_in_at", "known_at"),
        )
        .with_columns(
            hour_of_day=since_midnight.dt.total_hours(),
            local_hour=since_midnight.dt.total_hours(fractional=True),
            day_of_week=pl.col("local_at").dt.weekday().cast(pl.Int64) - 1,
        )
        .with_columns(is_weekend=pl.col("day_of_week") >= 5)
    )


def in_time(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` sorted by IN_TIME; at little cost if they are already."""
    ordered, tied = pl.lit(False), pl.lit(True)
    for name in IN_TIME:
        ordered |= tied & (pl.col(name) > pl.col(name).shift())
        tied &= pl.col(name) == pl.col(name).shift()
    is_sorted = rows.select((ordered | tied).all()).item()
    return rows if is_sorted else rows.sort(IN_TIME)


def laid_out(history: AnyHistory) -> LazyHistory:
    """`history` in the order of batches of guards."""
    if isinstance(history, LazyHistory):
        return history
    shifts, events = history.shift.sort("guard_id"), in_time(history.attendance_event)
    return LazyHistory(history.site, history.guard, shifts.lazy(), events.lazy(), history.outcome)


def starts(rows: pl.DataFrame, guards: pl.Series) -> sweeps.Integers:
    """Where the rows of each of `guards` start in `rows`, which are in time; with the end at last."""
    return np.append(rows["guard_id"].search_sorted(guards).to_numpy(), rows.height).astype(np.int64)


@dataclass(frozen=True)
class ByGuard:
    """Rows sorted by guard_id, of which a few guards are read without the others.

    `guards` are the different ids, `starts` where their rows start, with the end at last.
    """

    rows: pl.LazyFrame
    guards: pl.Series
    starts: sweeps.Integers

    def of(self, guards: pl.Series) -> pl.LazyFrame:
        """The rows of `guards`, which are sorted."""
        first: int = self.guards.search_sorted(guards[:1], "left").item()
        end: int = self.guards.search_sorted(guards[-1:], "right").item()
        found = self.rows.slice(int(self.starts[first]), int(self.starts[end] - self.starts[first]))
        is_whole = self.guards[first:end].is_in(guards.implode()).all()
        return found if is_whole else found.filter(pl.col("guard_id").is_in(guards.implode()))


def by_guard(rows: pl.LazyFrame) -> ByGuard:
    """Raises ValueError unless `rows` are sorted by guard_id."""
    # polars' streaming engine panics in `rle` where a column has chunks; a whole one is passed over here.
    runs = rows.select("guard_id").collect()["guard_id"].rechunk().rle().struct.unnest()
    guards = runs["value"].alias("guard_id")
    if not (guards > guards.shift()).all():
        raise ValueError("expected rows sorted by guard_id, got a guard in several places; sort them first")
    return ByGuard(rows, guards, np.concatenate(([0], runs["len"].cum_sum().to_numpy())).astype(np.int64))


@dataclass(frozen=True)
class Past:
    """A tenant's events and shifts by guard, and its sites: what batches of guards are read from."""

    events: ByGuard
    shifts: ByGuard
    sites: pl.DataFrame

    def observed(self, guards: pl.Series) -> pl.DataFrame:
        """The events of `guards`, which are sorted, in time and with what `observe` adds."""
        events, shifts = pl.collect_all([self.events.of(guards), self.shifts.of(guards)])
        return observe(in_time(events), self.sites, shifts)


def past(events: pl.LazyFrame, shifts: pl.LazyFrame, sites: pl.DataFrame) -> Past:
    """Raises ValueError unless `events` and `shifts` are sorted by guard_id."""
    return Past(by_guard(events), by_guard(shifts.select(OF_SHIFT)), sites)


def guard_batches(
    events: ByGuard, size: int = BATCH_EVENTS, is_asked: pl.Expr = EVERY_EVENT
) -> list[pl.Series]:
    """The sorted ids of the guards with an event that is asked for, in parts of about `size` events."""
    asked = events.rows.filter(is_asked).select(pl.col("guard_id").unique()).collect()["guard_id"]
    lengths = pl.DataFrame({"guard_id": events.guards, "len": np.diff(events.starts)})
    parted = lengths.filter(pl.col("guard_id").is_in(asked.implode())).with_columns(
        batch=pl.col("len").cum_sum() // size
    )
    return [some["guard_id"] for some in parted.partition_by("batch", maintain_order=True)]


def in_parallel(work: Callable[[pl.Series], Result], parts: Iterable[pl.Series]) -> Iterator[Result]:
    """`work` of each of `parts`, in their order; as many at once as polars has threads, at most 4."""
    workers = min(pl.thread_pool_size(), 4)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for part in parts:
            if len(waiting) == workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, part))
        while waiting:
            yield waiting.popleft().result()


def haversine_meters(latitude: str, longitude: str, other_latitude: str, other_longitude: str) -> pl.Expr:
    """Great-circle distance between two positions in degrees; null if either is unknown."""
    here, there = pl.col(latitude).radians(), pl.col(other_latitude).radians()
    half_across = (pl.col(other_longitude) - pl.col(longitude)).radians() / 2
    chord = ((there - here) / 2).sin() ** 2 + here.cos() * there.cos() * half_across.sin() ** 2
    return 2 * EARTH_RADIUS_METERS * chord.clip(upper_bound=1).sqrt().arcsin()


def _looked_up(key: pl.Series, table: pl.DataFrame) -> pl.DataFrame:
    """The rows of `table` for each key, without the key. A join of whole rows would copy all of them."""
    return key.to_frame().join(table, on=key.name, how="left", maintain_order="left").drop(key.name)


def _local(instant: pl.Expr, zones: Iterable[str]) -> pl.Expr:
    """Naive local time in the zone that the row's `tz` names, one of `zones`."""
    in_zone = [
        pl.when(tz=zone).then(instant.dt.convert_time_zone(zone).dt.replace_time_zone(None)) for zone in zones
    ]
    return pl.coalesce(pl.lit(None, pl.Datetime("us")), *in_zone)
