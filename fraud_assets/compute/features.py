"""Features of events, from what happened and was known strictly before their punch-in.

Here also lives what an event shows by itself, and who may see what: profiles are built on both. No
profiles are built here, no labels, no disk, no clock. Windows are UTC durations, never calendar days.

Columns are multiplied by numbers, not divided: polars divides many rows by a number through its
reciprocal and a single row truly, and the same event would differ in its last bit.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

import holidays
import polars as pl

from fraud_assets.domain.schemas import EventFeatures, History

DAYS_30: Final = timedelta(hours=30 * 24)
DAYS_90: Final = timedelta(hours=90 * 24)
LATE_AFTER: Final = timedelta(minutes=15)
EARTH_RADIUS_METERS: Final = 6_371_000
FACE_DISTANCE_LIMIT: Final = 0.4
SPREAD_LIMIT_DEGREES: Final = 0.01
_BATCH_PAIRS: Final = 5_000_000
_SLOTS_IN_WINDOW: Final = 6


def compute(events: pl.DataFrame, history: History, profiles: pl.DataFrame) -> pl.DataFrame:
    """One EventFeatures row for each of `events`, sorted by (punch_in_at, event_id).

    `events`: AttendanceEvent rows of the tenant, any number; they need not stand in `history`, which
    is clean. `profiles`: Profile rows, of which each event uses its guard's latest snapshot at or before
    its punch-in, however old. A row depends on nothing but its event and what that may see: one
    event alone gives the same bits as a thousand.
    """
    own = observe(events, history).with_row_index("query").with_columns(at="punch_in_at")
    past = observe(history.attendance_event, history).sort("punch_in_at", "event_id").with_row_index("order")
    described = (
        own.join(_in_batches(own.sort("at"), past), on="query", how="left")
        .with_columns(_against_past())
        .pipe(_with_calendar)
        .pipe(_with_profile, profiles)
    )
    return EventFeatures.cast(described.sort("punch_in_at", "event_id"))


def observe(events: pl.DataFrame, history: History) -> pl.DataFrame:
    """`events` with what each shows by itself, at its site and against its shift.

    Adds tz, country, local_at (naive local time), local_hour (0 to 24, fractional), is_weekend,
    gps_drift_meters, face_recognition_confidence, and of its shift scheduled_start and published_at:
    whether that shift was known in time is for the caller to ask.
    """
    sites = history.site.select(
        "site_id", "tz", "country", site_latitude="latitude", site_longitude="longitude"
    )
    shifts = history.shift.select("shift_id", "scheduled_start", "published_at")
    drift = _haversine_meters("latitude", "longitude", "site_latitude", "site_longitude")
    face = 1 - pl.col("face_distance") * (1 / FACE_DISTANCE_LIMIT)
    since_midnight = pl.col("local_at") - pl.col("local_at").dt.truncate("1d")
    return (
        events.join(sites, on="site_id", how="left")
        .join(shifts, on="shift_id", how="left")
        .with_columns(
            local_at=_local(pl.col("punch_in_at"), sites["tz"].unique()),
            gps_drift_meters=drift.clip(upper_bound=10_000),
            face_recognition_confidence=face.clip(lower_bound=0),
        )
        .with_columns(
            local_hour=since_midnight.dt.total_hours(fractional=True),
            is_weekend=pl.col("local_at").dt.weekday() > 5,
        )
    )


def visible(queries: pl.DataFrame, past: pl.DataFrame, on: str, window: timedelta) -> pl.DataFrame:
    """Pairs of a query and an event that it may see: the one rule of point in time.

    `queries` has the instant `at`; `past` has punch_in_at and known_at. A query sees the events of equal `on`
    that happened and were known strictly before `at`, and not more than `window` before it. Time is cut
    into slots, so that each query meets hardly more than its own window of the history.
    """
    microseconds = window // _SLOTS_IN_WINDOW // timedelta(microseconds=1)
    newest = pl.col("at").dt.epoch("us") // microseconds
    slots = pl.int_ranges(newest - _SLOTS_IN_WINDOW, newest + 1)
    return (
        queries.with_columns(slot=slots)
        .explode("slot")
        .join(past.with_columns(slot=pl.col("punch_in_at").dt.epoch("us") // microseconds), on=[on, "slot"])
        .filter(
            pl.col("punch_in_at") < pl.col("at"),
            pl.col("known_at") < pl.col("at"),
            pl.col("punch_in_at") >= pl.col("at") - window,
        )
    )


def late() -> pl.Expr:
    """Whether an observed event came more than 15 minutes after its scheduled start."""
    return pl.col("punch_in_at") > pl.col("scheduled_start") + LATE_AFTER


def in_order(values: pl.Expr) -> pl.Expr:
    """`values` sorted, for a sum, mean or spread that gives the same bits for any order of rows."""
    return values.sort()


def _in_batches(own: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """What the past holds for each query. In batches, by the busiest guard, site or device: a device id that
    all guards share would else fill the memory with pairs."""
    keys = pl.col("guard_id", "site_id", "device_id")
    busiest: int = past.select(pl.max_horizontal(keys.drop_nulls().unique_counts().max())).item() or 1
    size = max(_BATCH_PAIRS // busiest, 1)
    starts = range(0, max(own.height, 1), size)
    return pl.concat([_from_past(own.slice(start, size), past) for start in starts])


def _from_past(own: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Per query the features that are counts or shares of other events, and the instants and positions
    of the last ones."""
    at_site = _guards_seen(own, past, "site_id").group_by("query").agg(_check_in_frequency_zscore())
    on_device = (
        _guards_seen(own, past, "device_id")
        .group_by("query")
        .agg(
            device_guards_30d=pl.len(),
            other_guard_at=pl.col("last_at").filter(pl.col("guard_id") != pl.col("own_guard")).max(),
        )
    )
    fixes = past.select(fix="order", fix_at="punch_in_at", fix_latitude="latitude", fix_longitude="longitude")
    return (
        own.select("query")
        .join(_guard_before(own, past), on="query", how="left")
        .join(at_site, on="query", how="left")
        .join(on_device, on="query", how="left")
        .join(fixes, on="fix", how="left")
    )


def _against_past() -> list[pl.Expr]:
    """An event's own values against what `_from_past` found, and what no past means."""
    has_device, shift_is_known = pl.col("device_id").is_not_null(), pl.col("published_at") < pl.col("at")
    meters = _haversine_meters("latitude", "longitude", "fix_latitude", "fix_longitude")
    since_last = _seconds_since("last_at").clip(upper_bound=86_400).fill_null(86_400)
    minutes_early = (pl.col("scheduled_start") - pl.col("at")).dt.total_minutes(fractional=True)
    return [
        pl.col("biometric_mismatch_count_30d").fill_null(0),
        since_last.alias("time_since_last_event"),
        pl.when(has_device).then(pl.col("device_guards_30d").fill_null(0)),
        _seconds_since("other_guard_at").alias("seconds_since_other_guard_on_device"),
        (meters / _seconds_since("fix_at") * 3.6).alias("travel_speed_kmh"),
        pl.when(shift_is_known).then(minutes_early).alias("minutes_early"),
    ]


def _guard_before(own: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Per query what its guard did in 90 days; `fix` is the `order` of the newest event with a position."""
    lately = pl.col("punch_in_at") >= pl.col("at") - DAYS_30
    here = lately & (pl.col("site_id") == pl.col("own_site"))
    has_position = pl.col("latitude").is_not_null()
    queries = own.select("query", "at", "guard_id", own_site="site_id")
    return (
        visible(queries, past, "guard_id", DAYS_90)
        .group_by("query")
        .agg(
            _location_consistency(here & has_position),
            late_arrival_rate=late().filter(here & (pl.col("published_at") < pl.col("at"))).mean(),
            weekend_work_frequency=pl.col("is_weekend").mean(),
            biometric_mismatch_count_30d=(lately & ~pl.col("face_verified")).sum(),
            last_at=pl.col("punch_in_at").max(),
            fix=pl.col("order").filter(has_position).max(),
        )
    )


def _guards_seen(own: pl.DataFrame, past: pl.DataFrame, place: str) -> pl.DataFrame:
    """Per query and guard seen at its `place` in 30 days: event count and newest punch-in."""
    queries = own.select("query", "at", place, own_guard="guard_id")
    seen = visible(queries, past.select("guard_id", place, "punch_in_at", "known_at"), place, DAYS_30)
    return seen.group_by("query", "own_guard", "guard_id").agg(
        count=pl.len(), last_at=pl.col("punch_in_at").max()
    )


def _check_in_frequency_zscore() -> pl.Expr:
    counts = in_order(pl.col("count"))
    own_count = pl.col("count").filter(pl.col("guard_id") == pl.col("own_guard")).sum()
    zscore = ((own_count - counts.mean()) / counts.std(ddof=0)).clip(-3, 3)
    return pl.when(counts.std(ddof=0) > 0).then(zscore).alias("check_in_frequency_zscore")


def _location_consistency(rows: pl.Expr) -> pl.Expr:
    spreads = [in_order(pl.col(name).filter(rows)).std(ddof=0) for name in ("latitude", "longitude")]
    score = (1 - (spreads[0] + spreads[1]) / 2 * (1 / SPREAD_LIMIT_DEGREES)).clip(0, 1)
    return pl.when(rows.sum() >= 5).then(score).alias("location_consistency_score")


def _with_calendar(own: pl.DataFrame) -> pl.DataFrame:
    own = own.with_columns(
        local_date=pl.col("local_at").dt.date(),
        hour_of_day=pl.col("local_at").dt.hour(),
        day_of_week=pl.col("local_at").dt.weekday() - 1,
    )
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


def _with_profile(own: pl.DataFrame, profiles: pl.DataFrame) -> pl.DataFrame:
    """Deviations from the profile; all null unless it is sufficient."""
    profiled = own.sort("at").join_asof(
        profiles.drop("tenant_id").sort("snapshot_at"),
        left_on="at",
        right_on="snapshot_at",
        by="guard_id",
        check_sortedness=False,
    )
    hours_apart = 12 - (12 - (pl.col("local_hour") - pl.col("hour_mean")).abs()).abs()
    face_apart = pl.col("face_recognition_confidence") - pl.col("face_confidence_mean")
    deviations = {
        "profile_hour_is_unusual": ~pl.col("hour_of_day").cast(pl.Int64).is_in(pl.col("usual_hours")),
        "profile_weekday_is_unusual": ~pl.col("day_of_week").cast(pl.Int64).is_in(pl.col("usual_weekdays")),
        "profile_site_is_unusual": ~pl.col("site_id").is_in(pl.col("usual_sites")),
        "profile_hour_deviation": hours_apart / pl.col("hour_spread").clip(lower_bound=0.25),
        "profile_face_deviation": face_apart / pl.col("face_confidence_spread").clip(lower_bound=0.01),
        "profile_observations": pl.col("observations"),
        "profile_consistency_score": pl.col("consistency_score"),
    }
    return profiled.with_columns(
        pl.when("is_sufficient").then(value).alias(name) for name, value in deviations.items()
    )


def _local(instant: pl.Expr, zones: Iterable[str]) -> pl.Expr:
    """Naive local time in the zone that the row's `tz` names, one of `zones`."""
    in_zone = [
        pl.when(tz=zone).then(instant.dt.convert_time_zone(zone).dt.replace_time_zone(None)) for zone in zones
    ]
    return pl.coalesce(pl.lit(None, pl.Datetime("us")), *in_zone)


def _haversine_meters(latitude: str, longitude: str, other_latitude: str, other_longitude: str) -> pl.Expr:
    """Great-circle distance between two positions in degrees; null if either is unknown."""
    here, there = pl.col(latitude).radians(), pl.col(other_latitude).radians()
    half_across = (pl.col(other_longitude) - pl.col(longitude)).radians() / 2
    chord = ((there - here) / 2).sin() ** 2 + here.cos() * there.cos() * half_across.sin() ** 2
    return 2 * EARTH_RADIUS_METERS * chord.clip(upper_bound=1).sqrt().arcsin()


def _seconds_since(instant: str) -> pl.Expr:
    return (pl.col("at") - pl.col(instant)).dt.total_seconds(fractional=True)
