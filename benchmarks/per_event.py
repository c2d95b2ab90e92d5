"""The features one event at a time, as an application with mapped classes makes them. No whole columns here.

For each event a few indexed queries load as objects what it may see, and plain Python does the rest. Sites
stay in memory, and a profile is made once for each guard and snapshot. The classes map only what a feature
needs. Instants are UTC without saying so: SQLite keeps no zone.
"""

import cmath
import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from statistics import fmean, pstdev
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final
from zoneinfo import ZoneInfo

import holidays
import polars as pl
from polars import selectors
from sqlalchemy import ForeignKey, Index, NullPool, Select, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, joinedload, mapped_column, relationship
from sqlalchemy.schema import CreateTable

from benchmarks import tenant
from fraud_assets.domain.schemas import FEATURES, EventFeatures

_DAY: Final = timedelta(days=1)
_MONTH: Final = 30 * _DAY
_QUARTER: Final = 90 * _DAY
_LATE_AFTER: Final = timedelta(minutes=15)
_MINIMUM_OBSERVATIONS: Final = 10
_SUFFICIENT_OBSERVATIONS: Final = 30
_HOURS_PER_RADIAN: Final = 12 / math.pi
_EARTH_RADIUS_METERS: Final = 6_371_000
_SNAPSHOTS: Final = [at.replace(tzinfo=None) for at in tenant.SNAPSHOTS]
_ROWS_AT_ONCE: Final = 100_000
_WRITTEN_INSTANTS: Final = selectors.datetime().dt.strftime("%Y-%m-%d %H:%M:%S%.6f")
_SEED: Final = 7

Features = dict[str, Any]
"""Features of one event by name; one that is missing is not known."""


class _Base(DeclarativeBase):
    pass


class _Site(_Base):
    __tablename__ = "site"

    site_id: Mapped[str] = mapped_column(primary_key=True)
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    tz: Mapped[str]
    country: Mapped[str | None]


class _Guard(_Base):
    __tablename__ = "guard"

    guard_id: Mapped[str] = mapped_column(primary_key=True)


class _Shift(_Base):
    __tablename__ = "shift"

    shift_id: Mapped[str] = mapped_column(primary_key=True)
    scheduled_start: Mapped[datetime]
    published_at: Mapped[datetime]


class _Event(_Base):
    __tablename__ = "attendance_event"
    __table_args__ = (
        Index("of_guard", "guard_id", "punch_in_at"),
        Index("at_site", "site_id", "punch_in_at"),
        Index("on_device", "device_id", "punch_in_at"),
    )

    event_id: Mapped[str] = mapped_column(primary_key=True)
    guard_id: Mapped[str] = mapped_column(ForeignKey(_Guard.guard_id))
    site_id: Mapped[str] = mapped_column(ForeignKey(_Site.site_id))
    shift_id: Mapped[str | None] = mapped_column(ForeignKey(_Shift.shift_id))
    punch_in_at: Mapped[datetime]
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    device_id: Mapped[str | None]
    is_mock_location: Mapped[bool | None]
    face_verified: Mapped[bool | None]
    face_distance: Mapped[float | None]
    face_attempts: Mapped[int | None]
    entry_source: Mapped[str]
    known_at: Mapped[datetime]
    shift: Mapped[_Shift | None] = relationship()

    @property
    def face_confidence(self) -> float | None:
        return None if self.face_distance is None else max(0.0, 1 - self.face_distance / 0.4)

    def published_shift(self, at: datetime) -> _Shift | None:
        """The shift, if it was known before `at`."""
        return self.shift if self.shift and self.shift.published_at < at else None


def prepare(folder: Path, database: Path) -> None:
    """The tables of `folder` as an indexed SQLite file at `database`, which must not exist yet."""
    engine = create_engine(f"sqlite:///{database}", poolclass=NullPool)
    with engine.begin() as connection:
        # Room for the indexes of the keys, which come in no order.
        connection.exec_driver_sql("PRAGMA cache_size = -1000000")
        for table in _Base.metadata.sorted_tables:
            connection.execute(CreateTable(table))
            names = table.columns.keys()
            statement = f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(names))})"
            file = pl.scan_parquet(folder / f"{table.name}.parquet").select(names)
            for part in file.with_columns(_WRITTEN_INSTANTS).collect_batches(chunk_size=_ROWS_AT_ONCE):
                connection.exec_driver_sql(statement, part.rows())
            for index in table.indexes:
                index.create(connection)


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES in the types of EventFeatures, one row for each event."""
    schema = EventFeatures.create_empty().select("event_id", *FEATURES).schema
    with TemporaryDirectory() as temporary:
        database = Path(temporary) / "tenant.db"
        prepare(folder, database)
        with _session(database) as session:
            history = _Tenant(session)
            found = [row for guard in history.guards() for row in history.features(guard)]
    return pl.DataFrame(found, schema=schema)


def run(database: Path, sample: int) -> tuple[int, float]:
    """Number of events done, `sample` at least or all there are, and the seconds that their loop took.

    Whole guards are taken, in an order of chance but always the same, so that a guard's events share its
    profiles as they would in a loop over everything.
    """
    done = 0
    with _session(database) as session:
        history = _Tenant(session)
        guards = history.guards()
        random.Random(_SEED).shuffle(guards)  # noqa: S311
        start = perf_counter()
        while guards and done < sample:
            done += sum(1 for _ in history.features(guards.pop()))
        return done, perf_counter() - start


@contextmanager
def _session(database: Path) -> Iterator[Session]:
    engine = create_engine(f"sqlite:///file:{database}?mode=ro&uri=true", poolclass=NullPool)
    with Session(engine) as session:
        yield session


@dataclass(frozen=True)
class _Profile:
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


_WITH_SHIFT: Final = (
    select(_Event).options(joinedload(_Event.shift)).order_by(_Event.punch_in_at, _Event.event_id)
)


class _Tenant:
    """The database of `prepare`, the sites in memory, and the profiles made so far."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sites = {site.site_id: site for site in session.scalars(select(_Site))}
        self._profiles: dict[tuple[str, datetime], _Profile | None] = {}

    def guards(self) -> list[str]:
        return list(self._session.scalars(select(_Guard.guard_id).order_by(_Guard.guard_id)))

    def features(self, guard: str) -> Iterator[Features]:
        """Those of each of the guard's events, oldest first, with event_id."""
        for event in self._session.scalars(_WITH_SHIFT.where(_Event.guard_id == guard)).all():
            quarter = self._seen(_WITH_SHIFT.where(_Event.guard_id == guard), event.punch_in_at, _QUARTER)
            yield {
                "event_id": event.event_id,
                **self._own(event),
                **self._of_guard(event, quarter),
                **_in_month(
                    event, [seen for seen in quarter if event.punch_in_at - seen.punch_in_at <= _MONTH]
                ),
                "check_in_frequency_zscore": self._zscore(event),
                **self._on_device(event),
                **self._against_profile(event),
            }

    def _seen(self, events: Select[_Event], at: datetime, window: timedelta) -> Sequence[_Event]:
        """Those of `events` that happened and were known strictly before `at`."""
        happened = (_Event.punch_in_at >= at - window, _Event.punch_in_at < at)
        return self._session.scalars(events.where(*happened, _Event.known_at < at)).all()

    def _local(self, event: _Event) -> datetime:
        zone = ZoneInfo(self._sites[event.site_id].tz)
        return event.punch_in_at.replace(tzinfo=UTC).astimezone(zone)

    def _own(self, event: _Event) -> Features:
        local, site = self._local(event), self._sites[event.site_id]
        calendar, drift = _calendar(site.country, local.year), _meters(event, site)
        shift = event.published_shift(event.punch_in_at)
        early = (shift.scheduled_start - event.punch_in_at).total_seconds() / 60 if shift else None
        return {
            "hour_of_day": local.hour,
            "day_of_week": local.weekday(),
            "is_weekend": local.weekday() >= 5,
            "is_holiday": None if calendar is None else local.date() in calendar,
            "gps_drift_meters": None if drift is None else min(drift, 10_000.0),
            "face_recognition_confidence": event.face_confidence,
            "minutes_early": early,
            "is_mock_location": event.is_mock_location,
            "entry_source": event.entry_source,
            "face_attempts": event.face_attempts,
        }

    def _of_guard(self, event: _Event, quarter: Sequence[_Event]) -> Features:
        weekends = [self._local(seen).weekday() >= 5 for seen in quarter]
        gap = min(event.punch_in_at - quarter[-1].punch_in_at, _DAY) if quarter else _DAY
        return {
            "weekend_work_frequency": fmean(weekends) if weekends else None,
            "time_since_last_event": gap.total_seconds(),
            "travel_speed_kmh": _travel_speed(event, quarter),
        }

    def _zscore(self, event: _Event) -> float | None:
        # Objects once more: counting inside the query would save half of the loop's time.
        at_site = select(_Event).where(_Event.site_id == event.site_id)
        times = Counter(seen.guard_id for seen in self._seen(at_site, event.punch_in_at, _MONTH))
        if len(set(times.values())) < 2:
            return None
        score = (times[event.guard_id] - fmean(times.values())) / pstdev(times.values())
        return min(max(score, -3.0), 3.0)

    def _on_device(self, event: _Event) -> Features:
        if event.device_id is None:
            return {}
        at, on_device = event.punch_in_at, select(_Event).where(_Event.device_id == event.device_id)
        seen = self._seen(on_device, at, _MONTH)
        others = [use.punch_in_at for use in seen if use.guard_id != event.guard_id]
        return {
            "device_guards_30d": len({use.guard_id for use in seen}),
            "seconds_since_other_guard_on_device": (at - max(others)).total_seconds() if others else None,
        }

    def _against_profile(self, event: _Event) -> Features:
        profile = self._latest_profile(event)
        if profile is None or profile.observations < _SUFFICIENT_OBSERVATIONS:
            return {}
        local, face = self._local(event), event.face_confidence
        hour_off = face_off = None
        if profile.hour_mean is not None:
            apart = abs(_hour(local) - profile.hour_mean) % 24
            hour_off = min(apart, 24 - apart) / max(profile.hour_spread, 0.25)
        if face is not None and profile.face_mean is not None:
            face_off = (face - profile.face_mean) / max(profile.face_spread, 0.01)
        return {
            "profile_hour_is_unusual": local.hour not in profile.hours,
            "profile_weekday_is_unusual": local.weekday() not in profile.weekdays,
            "profile_site_is_unusual": event.site_id not in profile.sites,
            "profile_hour_deviation": hour_off,
            "profile_face_deviation": face_off,
            "profile_observations": profile.observations,
            "profile_consistency_score": profile.consistency,
        }

    def _latest_profile(self, event: _Event) -> _Profile | None:
        """The profile of the newest snapshot that has one, at or before the event."""
        for at in reversed(_SNAPSHOTS[: bisect_right(_SNAPSHOTS, event.punch_in_at)]):
            key = (event.guard_id, at)
            if key not in self._profiles:
                self._profiles[key] = self._profile(*key)
            if profile := self._profiles[key]:
                return profile
        return None

    def _profile(self, guard: str, at: datetime) -> _Profile | None:
        seen = self._seen(select(_Event).where(_Event.guard_id == guard), at, _QUARTER)
        if len(seen) < _MINIMUM_OBSERVATIONS:
            return None
        locals_ = [self._local(event) for event in seen]
        resultant, hour_mean, hour_spread = _circular([_hour(local) for local in locals_])
        faces = [event.face_confidence for event in seen if event.face_confidence is not None]
        sites = Counter(event.site_id for event in seen)
        return _Profile(
            observations=len(seen),
            hours=_most_frequent(Counter(local.hour for local in locals_)),
            weekdays=_most_frequent(Counter(local.weekday() for local in locals_)),
            sites=_most_frequent(sites),
            hour_mean=hour_mean,
            hour_spread=hour_spread,
            face_mean=fmean(faces) if faces else None,
            face_spread=pstdev(faces) if faces else 0.0,
            consistency=(resultant + max(sites.values()) / len(seen)) / 2,
        )


def _in_month(event: _Event, month: list[_Event]) -> Features:
    here = [seen for seen in month if seen.site_id == event.site_id]
    shifts = [(seen.punch_in_at, seen.published_shift(event.punch_in_at)) for seen in here]
    late = [at - shift.scheduled_start > _LATE_AFTER for at, shift in shifts if shift]
    return {
        "biometric_mismatch_count_30d": sum(seen.face_verified is False for seen in month),
        "location_consistency_score": _location_consistency(here),
        "late_arrival_rate": fmean(late) if late else None,
    }


def _location_consistency(here: list[_Event]) -> float | None:
    latitudes = [seen.latitude for seen in here if seen.latitude is not None]
    longitudes = [seen.longitude for seen in here if seen.longitude is not None]
    if len(latitudes) < 5:
        return None
    return min(max(1 - fmean((pstdev(latitudes), pstdev(longitudes))) / 0.01, 0.0), 1.0)


def _travel_speed(event: _Event, quarter: Sequence[_Event]) -> float | None:
    last = next((seen for seen in reversed(quarter) if seen.latitude is not None), None)
    if last is None or (meters := _meters(event, last)) is None:
        return None
    return meters / (event.punch_in_at - last.punch_in_at).total_seconds() * 3.6


def _hour(local: datetime) -> float:
    """The hour with its fraction."""
    return local.hour + local.minute / 60 + (local.second + local.microsecond / 1e6) / 3_600


def _circular(hours: list[float]) -> tuple[float, float | None, float]:
    """Mean resultant length, circular mean (-12 to 12; None if the hours cancel out) and spread in hours."""
    total = sum(cmath.rect(1, hour / _HOURS_PER_RADIAN) for hour in hours)
    length, angle = cmath.polar(total / len(hours))
    resultant = min(length, 1.0)
    if resultant < 1e-9:
        return resultant, None, 0.0
    return resultant, angle * _HOURS_PER_RADIAN, math.sqrt(-2 * math.log(resultant)) * _HOURS_PER_RADIAN


def _most_frequent(times: Counter[Any]) -> list[Any]:
    """The three most frequent, most frequent first; of equally frequent ones the smallest first."""
    return [value for _, value in sorted((-count, value) for value, count in times.items())[:3]]


@cache
def _calendar(country: str | None, year: int) -> holidays.HolidayBase | None:
    """The public holidays; None for a country without calendar."""
    if country is None or country not in holidays.list_supported_countries():
        return None
    return holidays.country_holidays(country, years=year, expand=False)


def _meters(one: _Event, other: _Event | _Site) -> float | None:
    """Great-circle distance; None if either position is not known."""
    if one.latitude is None or one.longitude is None or other.latitude is None or other.longitude is None:
        return None
    here, there = math.radians(one.latitude), math.radians(other.latitude)
    across = math.radians(other.longitude - one.longitude)
    chord = math.sin((there - here) / 2) ** 2 + math.cos(here) * math.cos(there) * math.sin(across / 2) ** 2
    return 2 * _EARTH_RADIUS_METERS * math.asin(math.sqrt(min(chord, 1.0)))
