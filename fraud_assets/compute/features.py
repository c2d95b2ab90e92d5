"""Features of events, from what happened and was known strictly before their punch-in.

No profiles are built here, no labels, no disk, no clock. Windows are UTC durations, never calendar days;
`sweeps` passes over them.

The events come in batches of guards: what crosses guards (a site, a shared device) is counted first, over
a few narrow columns of all events, and everything else a batch at a time. A batch of Parquet reads little
more than its own rows.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial
from typing import Final

import holidays
import numpy as np
import polars as pl

from fraud_assets.compute import sweeps
from fraud_assets.compute.observations import (
    BATCH_EVENTS,
    EVERY_EVENT,
    Past,
    by_guard,
    guard_batches,
    haversine_meters,
    in_parallel,
    in_time,
    past,
    starts,
)
from fraud_assets.domain.schemas import EventFeatures, History

DAYS_30: Final = timedelta(hours=30 * 24)
DAYS_90: Final = timedelta(hours=90 * 24)
SPREAD_LIMIT_DEGREES: Final = 0.01
POSITIONS_NEEDED: Final = 5
_OF_PROFILE: Final = (
    "is_sufficient",
    "hour_mean",
    "hour_spread",
    "face_confidence_mean",
    "face_confidence_spread",
    "observations",
    "consistency_score",
)
_USUAL: Final = ("hours", "weekdays", "sites")
_UNREAD: Final = ("punch_out_at",)

Known = Callable[[pl.Series, pl.DataFrame], pl.DataFrame]
"""From sorted guards, and their events observed and in time, to their Profile rows in order of guard_id and
snapshot_at."""


def compute(events: pl.DataFrame, history: History, profiles: pl.DataFrame) -> pl.DataFrame:
    """One EventFeatures row for each of `events`, sorted by (punch_in_at, event_id).

    `events`: AttendanceEvent rows of the tenant, any number; those that do not stand in `history`, which is
    clean, are taken as if they did. `profiles`: Profile rows, of which each event uses its guard's latest
    snapshot at or before its punch-in, however old. A row depends on nothing but its event and what
    that may see: one event alone gives the same bits as a thousand.
    """
    is_asked = pl.col("event_id").is_in(events["event_id"].implode())
    together = pl.concat(
        [history.attendance_event.filter(~is_asked), events.select(history.attendance_event.columns)]
    )
    shifts, known = history.shift.sort("guard_id"), stored(profiles)
    described = batches(in_time(together).lazy(), shifts.lazy(), history.site, known, is_asked)
    return pl.concat([EventFeatures.create_empty(), *described]).sort("punch_in_at", "event_id")


def stored(profiles: pl.DataFrame) -> Known:
    """The profiles of guards out of those that were made before, in any order."""
    read = ("guard_id", "snapshot_at", *_OF_PROFILE, *(f"usual_{name}" for name in _USUAL))
    held = by_guard(profiles.select(read).sort("guard_id", "snapshot_at").lazy())
    return lambda guards, _: held.of(guards).collect()


def batches(
    events: pl.LazyFrame,
    shifts: pl.LazyFrame,
    sites: pl.DataFrame,
    known: Known,
    is_asked: pl.Expr = EVERY_EVENT,
    size: int = BATCH_EVENTS,
) -> Iterator[pl.DataFrame]:
    """The rows of `compute` for the `events` that are asked for, in batches of guards.

    Events and shifts are sorted by guard_id; raises ValueError if they are not. `known` gives the profiles
    of a batch. A batch has about `size` events of the past; its rows are sorted by IN_TIME. In memory are
    some batches at once and 24 bytes an event; some 120 bytes an event while sites and devices are counted.
    """
    numbered = past(events.with_row_index("row").drop(_UNREAD), shifts, sites)
    return _batches(events, numbered, known, is_asked, size)


def _batches(
    events: pl.LazyFrame, numbered: Past, known: Known, is_asked: pl.Expr, size: int
) -> Iterator[pl.DataFrame]:
    sites = numbered.sites

    def described(guards: pl.Series) -> pl.DataFrame:
        seen = numbered.observed(guards)
        asked = seen.filter(is_asked)
        profiles = known(guards, seen)
        found = (
            _of_guard(asked, seen, guards),
            _at_own_site(asked, seen, guards, sites.height),
            places.result()[asked["row"]],
        )
        return EventFeatures.cast(
            pl.concat([asked, *found], how="horizontal")
            .with_columns(_against_past())
            .pipe(_with_calendar)
            .pipe(_with_profile, profiles, guards)
        )

    # The first batches are worked on meanwhile.
    with ThreadPoolExecutor(1) as aside:
        places = aside.submit(_at_places, events, np.diff(numbered.events.starts), is_asked)
        yield from in_parallel(described, guard_batches(numbered.events, size, is_asked))


def _at_places(events: pl.LazyFrame, guard_lengths: sweeps.Integers, is_asked: pl.Expr) -> pl.DataFrame:
    """By row of `events`, if asked for, what other guards did at its site and on its device in 30 days.

    check_in_frequency_zscore, device_guards_30d, other_guard_at.
    """
    codes = [_code(name).alias(name) for name in ("site_id", "device_id")]
    known = pl.max_horizontal("punch_in_at", "known_at").alias("visible")
    guard = np.repeat(np.arange(guard_lengths.size, dtype=np.int32), guard_lengths)
    seen = events.select(*codes, "punch_in_at", known, is_asked.alias("is_asked")).collect()
    seen = seen.with_columns(guard=guard)
    with ThreadPoolExecutor(2) as threads:
        site, device = threads.map(partial(_at_place, seen), ("site_id", "device_id"))
    found = [
        site.select(check_in_frequency_zscore=pl.col("above").clip(-3, 3)),
        device.select(_instant("other_guard_at"), device_guards_30d="guards"),
    ]
    return pl.concat(found, how="horizontal")


def _code(name: str) -> pl.Expr:
    """A code from 0 on for each id of a column, -1 for none. Only codes of one column of one frame compare:
    the categories are forgotten with it."""
    return (
        pl.col(name).cast(pl.Categorical(pl.Categories.random())).to_physical().cast(pl.Int32).fill_null(-1)
    )


def _at_place(seen: pl.DataFrame, place: str) -> pl.DataFrame:
    """By row of `seen` guards, above, other_guard_at, as `sweeps.at_places` counts them."""
    parted, parts = sweeps.call(sweeps.grouped, seen[place], sweeps.count(seen[place]))
    guards, above, other_guard_at = sweeps.call(
        sweeps.at_places,
        seen["punch_in_at"],
        seen["visible"],
        seen["guard"],
        seen["is_asked"],
        parted,
        parts,
        sweeps.count(seen["guard"]),
        DAYS_30,
    )
    return sweeps.frame({"guards": guards, "above": above, "other_guard_at": other_guard_at})


def _instant(name: str) -> pl.Expr:
    """A column of `sweeps` as the instant that it is; null where there is none."""
    return pl.when(pl.col(name) != sweeps.NEVER).then(pl.col(name).cast(pl.Datetime("us", "UTC"))).alias(name)


def _of_guard(asked: pl.DataFrame, seen: pl.DataFrame, guards: pl.Series) -> pl.DataFrame:
    """By row of `asked` what its guard did before: the shares and counts of the features, last_at, and the
    instant and place of the newest position. Both frames are observed and in time."""
    rows, queries = starts(seen, guards), starts(asked, guards)
    events, weekends, mismatches, last_at, fix = sweeps.call(
        sweeps.of_guards,
        seen["punch_in_at"],
        seen["visible"],
        rows,
        seen["latitude"].is_not_null(),
        seen["is_weekend"],
        ~seen["face_verified"],
        asked["punch_in_at"],
        queries,
        DAYS_30,
        DAYS_90,
    )
    fixes = seen.select(fix_at="punch_in_at", fix_latitude="latitude", fix_longitude="longitude")
    found = pl.Series(fix).replace(-1, None)
    numbers = {"events": events, "weekends": weekends, "mismatches": mismatches, "last_at": last_at}
    return sweeps.frame(numbers).select(
        _instant("last_at"),
        weekend_work_frequency=_share("weekends", "events"),
        biometric_mismatch_count_30d="mismatches",
        **{name: fixes[name].gather(found) for name in fixes.columns},
    )


def _at_own_site(asked: pl.DataFrame, seen: pl.DataFrame, guards: pl.Series, sites: int) -> pl.DataFrame:
    """By row of `asked` what its guard did at its site: late_arrival_rate, location_consistency_score."""
    rostered, late, positions, spread = sweeps.call(
        sweeps.at_own_site,
        seen["punch_in_at"],
        seen["visible"],
        starts(seen, guards),
        seen["site"],
        seen["latitude"],
        seen["longitude"],
        seen["published_at"],
        seen["is_late"],
        asked["punch_in_at"],
        asked["site"],
        starts(asked, guards),
        sites,
        DAYS_30,
    )
    numbers = {"rostered": rostered, "late": late, "positions": positions, "spread": spread}
    score = (1 - pl.col("spread") * (1 / SPREAD_LIMIT_DEGREES)).clip(0, 1)
    return sweeps.frame(numbers).select(
        late_arrival_rate=_share("late", "rostered"),
        location_consistency_score=pl.when(pl.col("positions") >= POSITIONS_NEEDED).then(score),
    )


def _share(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))


def _against_past() -> list[pl.Expr]:
    """An event's own values against what was found before it, and what no past means."""
    has_device, shift_is_known = (
        pl.col("device_id").is_not_null(),
        pl.col("published_at") < pl.col("punch_in_at"),
    )
    meters = haversine_meters("latitude", "longitude", "fix_latitude", "fix_longitude")
    since_last = _seconds_since("last_at").clip(upper_bound=86_400).fill_null(86_400)
    minutes_early = (pl.col("scheduled_start") - pl.col("punch_in_at")).dt.total_minutes(fractional=True)
    return [
        since_last.alias("time_since_last_event"),
        pl.when(has_device).then("device_guards_30d"),
        _seconds_since("other_guard_at").alias("seconds_since_other_guard_on_device"),
        (meters / _seconds_since("fix_at") * 3.6).alias("travel_speed_kmh"),
        pl.when(shift_is_known).then(minutes_early).alias("minutes_early"),
    ]


def _with_calendar(own: pl.DataFrame) -> pl.DataFrame:
    own = own.with_columns(local_date=pl.col("local_at").dt.date())
    years = own["local_date"].dt.year().unique().to_list()
    calendars = {country: _holidays(country, years) for country in own["country"].drop_nulls().unique()}
    is_holiday = [
        pl.when(country=country).then(pl.col("local_date").is_in(days))
        for country, days in calendars.items()
        if days is not None
    ]
    return own.with_columns(is_holiday=pl.coalesce(pl.lit(None, pl.Boolean), *is_holiday))


def _holidays(country: str, years: Iterable[int]) -> list[date] | None:
    """The public holidays of `country` in `years`; None if the library does not know the country."""
    try:
        return list(holidays.country_holidays(country, years=years, expand=False))
    except NotImplementedError:
        return None


def _with_profile(own: pl.DataFrame, profiles: pl.DataFrame, guards: pl.Series) -> pl.DataFrame:
    """Deviations from the profile, all null unless it is sufficient. Both frames: by guard and time."""
    made, made_starts = profiles["snapshot_at"], starts(profiles, guards)
    newest = sweeps.call(sweeps.newest, own["punch_in_at"], starts(own, guards), made, made_starts)
    latest = pl.Series(newest).replace(-1, None)
    held = profiles.select(
        *_OF_PROFILE,
        *(
            pl.col(f"usual_{name}").list.get(rank, null_on_oob=True).alias(f"{name}_{rank}")
            for name in _USUAL
            for rank in range(3)
        ),
    )
    profiled = own.with_columns(held[name].gather(latest) for name in held.columns)
    hours_apart = 12 - (12 - (pl.col("local_hour") - pl.col("hour_mean")).abs()).abs()
    face_apart = pl.col("face_recognition_confidence") - pl.col("face_confidence_mean")
    deviations = {
        "profile_hour_is_unusual": _is_unusual("hour_of_day", "hours"),
        "profile_weekday_is_unusual": _is_unusual("day_of_week", "weekdays"),
        "profile_site_is_unusual": _is_unusual("site_id", "sites"),
        "profile_hour_deviation": hours_apart / pl.col("hour_spread").clip(lower_bound=0.25),
        "profile_face_deviation": face_apart / pl.col("face_confidence_spread").clip(lower_bound=0.01),
        "profile_observations": pl.col("observations"),
        "profile_consistency_score": pl.col("consistency_score"),
    }
    return profiled.with_columns(
        pl.when("is_sufficient").then(value).alias(name) for name, value in deviations.items()
    )


def _is_unusual(value: str, usual: str) -> pl.Expr:
    """Whether a value is none of the profile's three."""
    known = [(pl.col(value) == pl.col(f"{usual}_{rank}")).fill_null(False) for rank in range(3)]
    return ~pl.any_horizontal(known)


def _seconds_since(instant: str) -> pl.Expr:
    return (pl.col("punch_in_at") - pl.col(instant)).dt.total_seconds(fractional=True)
