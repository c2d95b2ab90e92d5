"""The features one event at a time, as an application with a database makes them. No whole columns here.

The tables lie in SQLite under the right indexes; each event asks a few indexed queries, as a loop over an
object-relational mapper does, without the cost of the mapper. Sites stay in memory, profiles are made once
for each guard and snapshot. Instants are microseconds since 1970; local_at is one of the site's local time.
"""

import math
import random
import sqlite3
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final, NamedTuple

import holidays
import polars as pl
from polars import selectors

from benchmarks import tenant
from fraud_assets.domain.schemas import FEATURES, EventFeatures

_SECOND: Final = 1_000_000
_HOUR: Final = 3_600 * _SECOND
_DAY: Final = 24 * _HOUR
_LATE_AFTER: Final = 15 * 60 * _SECOND
_MINIMUM_OBSERVATIONS: Final = 10
_SUFFICIENT_OBSERVATIONS: Final = 30
_HOURS_PER_RADIAN: Final = 12 / math.pi
_EARTH_RADIUS_METERS: Final = 6_371_000
_EPOCH: Final = date(1970, 1, 1)
_SNAPSHOTS: Final = [int(at.timestamp()) * _SECOND for at in tenant.SNAPSHOTS]
_ROWS_AT_ONCE: Final = 200_000
_SEED: Final = 7

_Degrees = float | None

Features = dict[str, Any]
"""The features of one event by name."""

_TABLES: Final = """
    CREATE TABLE guard (guard_id TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE site (
        site_id TEXT PRIMARY KEY, latitude REAL, longitude REAL, country TEXT
    ) WITHOUT ROWID;
    CREATE TABLE shift (
        shift_id TEXT PRIMARY KEY, scheduled_start INTEGER, published_at INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE event (
        event_id TEXT, guard_id TEXT, site_id TEXT, shift_id TEXT, device_id TEXT,
        punch_in_at INTEGER, known_at INTEGER, local_at INTEGER,
        latitude REAL, longitude REAL, is_mock_location INTEGER,
        face_verified INTEGER, face_distance REAL, face_attempts INTEGER, entry_source TEXT
    );
"""
_INDEXES: Final = """
    CREATE INDEX of_guard ON event (guard_id, punch_in_at);
    CREATE INDEX at_site ON event (site_id, punch_in_at, known_at, guard_id);
    CREATE INDEX on_device ON event (device_id, punch_in_at, known_at, guard_id);
    ANALYZE;
"""
_EVENTS: Final = """
    SELECT event_id, guard_id, site_id, device_id, punch_in_at, local_at, latitude, longitude,
        is_mock_location, face_distance, face_attempts, entry_source, scheduled_start, published_at
    FROM event LEFT JOIN shift USING (shift_id)
    WHERE guard_id = ?
    ORDER BY punch_in_at, event_id
"""
# An event sees what happened and was known strictly before it: the same three conditions each time.
_QUARTER: Final = """
    SELECT count(*), sum((local_at / 86400000000 + 3) % 7 >= 5), max(punch_in_at),
        sum(face_verified = 0 AND punch_in_at >= :month)
    FROM event
    WHERE guard_id = :guard AND punch_in_at >= :oldest AND punch_in_at < :at AND known_at < :at
"""
_LAST_FIX: Final = """
    SELECT punch_in_at, latitude, longitude
    FROM event
    WHERE guard_id = :guard AND punch_in_at >= :oldest AND punch_in_at < :at AND known_at < :at
        AND latitude IS NOT NULL
    ORDER BY punch_in_at DESC, event_id DESC
    LIMIT 1
"""
_HERE: Final = """
    SELECT latitude, longitude, punch_in_at - scheduled_start, published_at
    FROM event LEFT JOIN shift USING (shift_id)
    WHERE guard_id = :guard AND punch_in_at >= :oldest AND punch_in_at < :at AND known_at < :at
        AND site_id = :site
"""
_GUARDS_AT_SITE: Final = """
    SELECT count(*), sum(times), sum(times * times), sum(times) FILTER (WHERE guard_id = :guard)
    FROM (
        SELECT guard_id, count(*) AS times
        FROM event
        WHERE site_id = :site AND punch_in_at >= :oldest AND punch_in_at < :at AND known_at < :at
        GROUP BY guard_id
    )
"""
_ON_DEVICE: Final = """
    SELECT count(DISTINCT guard_id), max(punch_in_at) FILTER (WHERE guard_id <> :guard)
    FROM event
    WHERE device_id = :device AND punch_in_at >= :oldest AND punch_in_at < :at AND known_at < :at
"""
_PROFILED: Final = """
    SELECT local_at, site_id, face_distance
    FROM event
    WHERE guard_id = :guard AND punch_in_at >= :oldest AND punch_in_at < :at AND known_at < :at
"""


def prepare(folder: Path, database: Path) -> None:
    """The tables of `folder` as an indexed SQLite file at `database`, which must not exist yet."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
        zones = pl.read_parquet(folder / "site.parquet", columns=["site_id", "tz"])
        for table in ("guard", "site", "shift", "event"):
            file = folder / f"{'attendance_event' if table == 'event' else table}.parquet"
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for part in _parts(pl.scan_parquet(file), zones):
                _insert(connection, table, part.select(columns))
        connection.commit()
        connection.executescript(_INDEXES)


def _parts(rows: pl.LazyFrame, zones: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """`rows` in parts that fit the memory, with instants as numbers and, for events, local_at."""
    height: int = rows.select(pl.len()).collect().item()
    for start in range(0, height, _ROWS_AT_ONCE):
        part = rows.slice(start, _ROWS_AT_ONCE).collect()
        if "punch_in_at" in part.columns:
            part = part.join(zones, on="site_id", how="left", maintain_order="left").with_columns(
                local_at=_local(zones["tz"].unique())
            )
        yield part.with_columns(selectors.datetime().dt.epoch("us"))


def _local(zones: Iterable[str]) -> pl.Expr:
    at = pl.col("punch_in_at")
    return pl.coalesce(
        pl.when(tz=zone).then(at.dt.convert_time_zone(zone).dt.replace_time_zone(None)) for zone in zones
    )


def _insert(connection: sqlite3.Connection, table: str, frame: pl.DataFrame) -> None:
    marks = ", ".join("?" * frame.width)
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", frame.iter_rows())  # noqa: S608


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES in the types of EventFeatures, one row for each event."""
    schema = EventFeatures.create_empty().select("event_id", *FEATURES).schema
    with TemporaryDirectory() as temporary:
        database = Path(temporary) / "tenant.db"
        prepare(folder, database)
        with closing(_Tenant(database)) as history:
            found = [row for guard in history.guards() for row in history.features(guard)]
    return pl.DataFrame(found, schema=schema)


def run(database: Path, sample: int) -> tuple[int, float]:
    """Number of events done, `sample` at least or all there are, and the seconds that their loop took.

    Whole guards are taken, in an order of chance but always the same, so that a guard's events share its
    profiles as they would in a loop over everything.
    """
    done, seconds = 0, 0.0
    with closing(_Tenant(database)) as history:
        guards = history.guards()
        random.Random(_SEED).shuffle(guards)  # noqa: S311
        for guard in guards:
            if done >= sample:
                break
            start = perf_counter()
            done += sum(1 for _ in history.features(guard))
            seconds += perf_counter() - start
    return done, seconds


class _Event(NamedTuple):
    """A row of _EVENTS."""

    event_id: str
    guard_id: str
    site_id: str
    device_id: str | None
    punch_in_at: int
    local_at: int
    latitude: float | None
    longitude: float | None
    is_mock_location: int | None
    face_distance: float | None
    face_attempts: int | None
    entry_source: str
    scheduled_start: int | None
    published_at: int | None


class _Profile(NamedTuple):
    """What the features need of a guard's profile."""

    observations: int
    hours: list[int]
    weekdays: list[int]
    sites: list[str]
    hour_mean: float | None
    hour_spread: float
    face_mean: float | None
    face_spread: float
    consistency: float


class _Tenant:
    """The database of `prepare`, the sites in memory, and the profiles made so far."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database)
        self._connection.executescript("PRAGMA mmap_size = 16000000000; PRAGMA cache_size = -200000;")
        self._sites = {
            site: (latitude, longitude, country)
            for site, latitude, longitude, country in self._connection.execute("SELECT * FROM site")
        }
        self._profiles: dict[tuple[str, int], _Profile | None] = {}

    def close(self) -> None:
        self._connection.close()

    def guards(self) -> list[str]:
        return [guard for (guard,) in self._connection.execute("SELECT guard_id FROM guard")]

    def features(self, guard: str) -> Iterator[Features]:
        """Those of each of the guard's events, oldest first, with event_id."""
        for row in self._connection.execute(_EVENTS, (guard,)).fetchall():
            event = _Event(*row)
            yield {
                **self._own(event),
                **self._in_quarter(event),
                **self._at_site(event),
                **self._on_device(event),
                **self._against_profile(event),
            }

    def _seen(self, query: str, event: _Event, days: int) -> list[tuple[Any, ...]]:
        """The rows of `query` over what `event` sees in `days`."""
        at = event.punch_in_at
        values = {
            "guard": event.guard_id,
            "site": event.site_id,
            "device": event.device_id,
            "at": at,
            "oldest": at - days * _DAY,
            "month": at - 30 * _DAY,
        }
        return self._connection.execute(query, values).fetchall()

    def _own(self, event: _Event) -> Features:
        latitude, longitude, country = self._sites[event.site_id]
        drift = _meters(event.latitude, event.longitude, latitude, longitude)
        days, time_of_day = divmod(event.local_at, _DAY)
        weekday = (days + 3) % 7
        return {
            "event_id": event.event_id,
            "hour_of_day": time_of_day // _HOUR,
            "day_of_week": weekday,
            "is_weekend": weekday >= 5,
            "is_holiday": _is_holiday(country, days),
            "gps_drift_meters": None if drift is None else min(drift, 10_000.0),
            "face_recognition_confidence": _confidence(event.face_distance),
            "minutes_early": _minutes_early(event),
            "is_mock_location": None if event.is_mock_location is None else bool(event.is_mock_location),
            "entry_source": event.entry_source,
            "face_attempts": event.face_attempts,
        }

    def _in_quarter(self, event: _Event) -> Features:
        ((times, weekends, last, mismatches),) = self._seen(_QUARTER, event, 90)
        gap = _DAY if last is None else min(event.punch_in_at - last, _DAY)
        return {
            "weekend_work_frequency": weekends / times if times else None,
            "biometric_mismatch_count_30d": mismatches or 0,
            "time_since_last_event": gap / _SECOND,
            "travel_speed_kmh": self._travel_speed(event),
        }

    def _travel_speed(self, event: _Event) -> float | None:
        fixes = self._seen(_LAST_FIX, event, 90)
        if not fixes:
            return None
        ((at, latitude, longitude),) = fixes
        meters = _meters(event.latitude, event.longitude, latitude, longitude)
        return None if meters is None else meters / (event.punch_in_at - at) * (3.6 * _SECOND)

    def _at_site(self, event: _Event) -> Features:
        here = self._seen(_HERE, event, 30)
        late = [
            lateness > _LATE_AFTER
            for _, _, lateness, published in here
            if published is not None and published < event.punch_in_at
        ]
        fixes = [(latitude, longitude) for latitude, longitude, _, _ in here if latitude is not None]
        return {
            "location_consistency_score": _location_consistency(fixes),
            "late_arrival_rate": sum(late) / len(late) if late else None,
            "check_in_frequency_zscore": self._zscore(event),
        }

    def _zscore(self, event: _Event) -> float | None:
        ((guards, times, squares, own),) = self._seen(_GUARDS_AT_SITE, event, 30)
        # (own - times / guards) / spread, in whole numbers for as long as possible.
        variance = guards * squares - times * times if guards else 0
        if variance == 0:
            return None
        return min(max(((own or 0) * guards - times) / math.sqrt(variance), -3.0), 3.0)

    def _on_device(self, event: _Event) -> Features:
        guards = other = None
        if event.device_id is not None:
            ((guards, other),) = self._seen(_ON_DEVICE, event, 30)
        since = None if other is None else (event.punch_in_at - other) / _SECOND
        return {"device_guards_30d": guards, "seconds_since_other_guard_on_device": since}

    def _against_profile(self, event: _Event) -> Features:
        profile = self._latest_profile(event)
        if profile is None or profile.observations < _SUFFICIENT_OBSERVATIONS:
            return {}
        days, time_of_day = divmod(event.local_at, _DAY)
        face = _confidence(event.face_distance)
        hour_off = face_off = None
        if profile.hour_mean is not None:
            apart = abs(time_of_day / _HOUR - profile.hour_mean) % 24
            hour_off = min(apart, 24 - apart) / max(profile.hour_spread, 0.25)
        if face is not None and profile.face_mean is not None:
            face_off = (face - profile.face_mean) / max(profile.face_spread, 0.01)
        return {
            "profile_hour_is_unusual": time_of_day // _HOUR not in profile.hours,
            "profile_weekday_is_unusual": (days + 3) % 7 not in profile.weekdays,
            "profile_site_is_unusual": event.site_id not in profile.sites,
            "profile_hour_deviation": hour_off,
            "profile_face_deviation": face_off,
            "profile_observations": profile.observations,
            "profile_consistency_score": profile.consistency,
        }

    def _latest_profile(self, event: _Event) -> _Profile | None:
        """The profile of the newest snapshot that has one, at or before the event."""
        for number in range(bisect_right(_SNAPSHOTS, event.punch_in_at) - 1, -1, -1):
            key = (event.guard_id, _SNAPSHOTS[number])
            if key not in self._profiles:
                self._profiles[key] = self._profile(*key)
            profile = self._profiles[key]
            if profile is not None:
                return profile
        return None

    def _profile(self, guard: str, at: int) -> _Profile | None:
        values = {"guard": guard, "at": at, "oldest": at - 90 * _DAY}
        seen = self._connection.execute(_PROFILED, values).fetchall()
        if len(seen) < _MINIMUM_OBSERVATIONS:
            return None
        hours = [local_at % _DAY / _HOUR for local_at, _, _ in seen]
        resultant, hour_mean, hour_spread = _circular(hours)
        faces = [face for _, _, distance in seen if (face := _confidence(distance)) is not None]
        sites = Counter(site for _, site, _ in seen)
        usual_sites = _most_frequent(sites)
        return _Profile(
            observations=len(seen),
            hours=_most_frequent(Counter(map(int, hours))),
            weekdays=_most_frequent(Counter((local_at // _DAY + 3) % 7 for local_at, _, _ in seen)),
            sites=usual_sites,
            hour_mean=hour_mean,
            hour_spread=hour_spread,
            face_mean=sum(faces) / len(faces) if faces else None,
            face_spread=_spread(faces) if faces else 0.0,
            consistency=(resultant + sites[usual_sites[0]] / len(seen)) / 2,
        )


def _confidence(face_distance: float | None) -> float | None:
    return None if face_distance is None else max(0.0, 1 - face_distance / 0.4)


def _minutes_early(event: _Event) -> float | None:
    if event.scheduled_start is None or event.published_at is None or event.published_at >= event.punch_in_at:
        return None
    return (event.scheduled_start - event.punch_in_at) / (60 * _SECOND)


def _location_consistency(fixes: list[tuple[float, float]]) -> float | None:
    if len(fixes) < 5:
        return None
    spread = (_spread([fix[0] for fix in fixes]) + _spread([fix[1] for fix in fixes])) / 2
    return min(max(1 - spread / 0.01, 0.0), 1.0)


def _spread(values: list[float]) -> float:
    """Population standard deviation; `statistics.pstdev` is exact and many times slower."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _circular(hours: list[float]) -> tuple[float, float | None, float]:
    """Mean resultant length, circular mean (-12 to 12; None if the hours cancel out) and spread in hours."""
    angles = [hour / _HOURS_PER_RADIAN for hour in hours]
    across, up = sum(map(math.cos, angles)), sum(map(math.sin, angles))
    resultant = min(math.hypot(across, up) / len(hours), 1.0)
    if resultant < 1e-9:
        return resultant, None, 0.0
    spread = math.sqrt(-2 * math.log(resultant)) * _HOURS_PER_RADIAN
    return resultant, math.atan2(up, across) * _HOURS_PER_RADIAN, spread


def _most_frequent(times: Counter[Any]) -> list[Any]:
    """The three most frequent, most frequent first; of equally frequent ones the smallest first."""
    return [value for _, value in sorted((-count, value) for value, count in times.items())[:3]]


@cache
def _is_holiday(country: str | None, day: int) -> bool | None:
    """Whether the local `day` since 1970 is a public holiday; None for a country without calendar."""
    if country is None or country not in holidays.list_supported_countries():
        return None
    local = _EPOCH + timedelta(days=day)
    return local in _calendar(country, local.year)


@cache
def _calendar(country: str, year: int) -> holidays.HolidayBase:
    return holidays.country_holidays(country, years=year, expand=False)


def _meters(
    latitude: _Degrees, longitude: _Degrees, latitude_2: _Degrees, longitude_2: _Degrees
) -> float | None:
    """Great-circle distance between positions; None if either is not known."""
    if latitude is None or longitude is None or latitude_2 is None or longitude_2 is None:
        return None
    here, there = math.radians(latitude), math.radians(latitude_2)
    across = math.radians(longitude_2 - longitude)
    chord = math.sin((there - here) / 2) ** 2 + math.cos(here) * math.cos(there) * math.sin(across / 2) ** 2
    return 2 * _EARTH_RADIUS_METERS * math.asin(math.sqrt(min(chord, 1.0)))
