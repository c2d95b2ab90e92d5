"""Each table that crosses a border: columns, units, nulls and rules. No reading, no writing.

A null means "not known" everywhere. Instants are aware UTC in microseconds. The rows that break a
rule are set aside and counted under the rule's name by `compute.quality`.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import dataframely as dy
import polars as pl

from fraud_assets.domain.errors import InvalidTenantId

TENANT_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")
ENTRY_SOURCES: Final = ("mobile", "kiosk", "supervisor", "import")
VERDICTS: Final = ("fraud", "legitimate", "inconclusive")
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)

SourceTable = Literal["site", "guard", "shift", "attendance_event", "outcome"]


def tenant_id(value: str) -> str:
    """`value` if it is a safe tenant id, else InvalidTenantId. Ids are hostile input: they name paths."""
    if not TENANT_ID.fullmatch(value):
        raise InvalidTenantId(
            "expected a tenant id of 1 to 50 lower-case letters, digits and hyphens that does not start "
            f"with a hyphen, got {value!r:.80}; correct the id in the source's tenant table"
        )
    return value


class _Instant(dy.Datetime):
    """From EARLIEST to LATEST, aware UTC.

    The bounds are written as numbers: polars computes a literal of an aware instant, which would start its
    threads at import, and a process with threads cannot be forked.
    """

    def validation_rules(self, expr: pl.Expr) -> dict[str, pl.Expr]:
        bounds = {"min": expr >= _literal(EARLIEST), "max": expr <= _literal(LATEST)}
        return super().validation_rules(expr) | bounds


def _literal(instant: datetime) -> pl.Expr:
    return pl.lit(round(instant.timestamp()) * 1_000_000).cast(pl.Datetime("us", "UTC"))


def _instant(*, nullable: bool = False) -> dy.Datetime:
    return _Instant(nullable=nullable, time_zone="UTC", time_unit="us")


def _key(*, nullable: bool = False) -> dy.String:
    return dy.String(nullable=nullable, min_length=1)


class Tenant(dy.Schema):
    """A security company."""

    tenant_id = dy.String(primary_key=True, regex=f"^{TENANT_ID.pattern}$")
    name = dy.String()
    is_active = dy.Bool()
    tz = dy.String(min_length=1)
    country = dy.String(min_length=2, max_length=2)


class _SourceRow(dy.Schema):
    """What every source table of a tenant has. `unreadable` names the columns whose value could not
    be read as the declared type (the reader leaves null there), comma-separated; null: all were."""

    tenant_id = _key()
    unreadable = dy.String(nullable=True)

    @dy.rule()
    def every_value_is_readable(cls) -> pl.Expr:
        return pl.col("unreadable").is_null()


class _Placed(_SourceRow):
    """What has a position: null island, (0, 0) off Africa, is what a device without one reports."""

    @dy.rule()
    def position_is_not_null_island(cls) -> pl.Expr:
        return ~((pl.col("latitude") == 0) & (pl.col("longitude") == 0)).fill_null(False)


class Site(_Placed):
    """Where guards are posted. `radius_m` is the geofence in metres."""

    site_id = dy.String(primary_key=True, min_length=1)
    name = dy.String(nullable=True)
    latitude = dy.Float64(nullable=True, min=-90, max=90)
    longitude = dy.Float64(nullable=True, min=-180, max=180)
    radius_m = dy.Float64(nullable=True, min=0)
    tz = dy.String(min_length=1)
    country = dy.String(nullable=True, min_length=2, max_length=2)


class Guard(_SourceRow):
    """A person who is posted at sites."""

    guard_id = dy.String(primary_key=True, min_length=1)
    name = dy.String(nullable=True)
    is_enabled = dy.Bool()
    is_verified = dy.Bool()
    home_site_id = _key(nullable=True)
    joined_on = dy.Date(nullable=True)
    left_on = dy.Date(nullable=True)


class Shift(_SourceRow):
    """A line of the roster, known from `published_at`."""

    shift_id = dy.String(primary_key=True, min_length=1)
    guard_id = _key()
    site_id = _key()
    scheduled_start = _instant()
    scheduled_end = _instant()
    published_at = _instant()

    @dy.rule()
    def end_is_after_start(cls) -> pl.Expr:
        return pl.col("scheduled_end") > pl.col("scheduled_start")


class AttendanceEvent(_Placed):
    """One punch-in with its punch-out, if any."""

    event_id = dy.String(primary_key=True, min_length=1)
    guard_id = _key()
    site_id = _key()
    shift_id = _key(nullable=True)
    punch_in_at = _instant()
    punch_out_at = _instant(nullable=True)
    latitude = dy.Float64(nullable=True, min=-90, max=90)
    longitude = dy.Float64(nullable=True, min=-180, max=180)
    accuracy_m = dy.Float64(nullable=True, min=0)
    device_id = _key(nullable=True)
    is_mock_location = dy.Bool(nullable=True)
    face_verified = dy.Bool(nullable=True)
    face_distance = dy.Float64(nullable=True, min=0)
    face_attempts = dy.Int64(nullable=True, min=0)
    entry_source = dy.String(check=lambda value: value.is_in(ENTRY_SOURCES))
    known_at = _instant()

    @dy.rule()
    def punch_out_is_not_before_punch_in(cls) -> pl.Expr:
        return pl.col("punch_out_at").is_null() | (pl.col("punch_out_at") >= pl.col("punch_in_at"))

    @dy.rule()
    def punch_in_is_not_in_the_future(cls) -> pl.Expr:
        """Five minutes of clock skew between the device and the server are let through."""
        return pl.col("punch_in_at") <= pl.col("known_at") + pl.duration(minutes=5)

    @dy.rule()
    def position_is_whole(cls) -> pl.Expr:
        return pl.col("latitude").is_null() == pl.col("longitude").is_null()


class Outcome(_SourceRow):
    """A reviewer's verdict on an event. Append-only: the one known last counts."""

    outcome_id = dy.String(primary_key=True, min_length=1)
    event_id = _key()
    verdict = dy.String(check=lambda value: value.is_in(VERDICTS))
    typology = dy.String(nullable=True)
    source = dy.String(nullable=True)
    decided_at = _instant()
    known_at = _instant()


SOURCE_TABLES: Final[dict[SourceTable, type[_SourceRow]]] = {
    "site": Site,
    "guard": Guard,
    "shift": Shift,
    "attendance_event": AttendanceEvent,
    "outcome": Outcome,
}


def source_columns(schema: type[dy.Schema]) -> pl.Schema:
    """The columns of a source table: those of its schema but for `unreadable`, which the reader adds."""
    return schema.create_empty().drop("unreadable", strict=False).schema


@dataclass(frozen=True)
class History:
    """One tenant's source tables by name; as read they have `unreadable`, clean ones do not."""

    site: pl.DataFrame
    guard: pl.DataFrame
    shift: pl.DataFrame
    attendance_event: pl.DataFrame
    outcome: pl.DataFrame


@dataclass(frozen=True)
class LazyHistory:
    """A `History`, or a part of one, whose many rows may lie on disk: read as far as they are asked for.

    Laid out for batches of guards: shifts are sorted by guard_id, events by guard_id, punch_in_at, event_id.
    """

    site: pl.DataFrame
    guard: pl.DataFrame
    shift: pl.LazyFrame
    attendance_event: pl.LazyFrame
    outcome: pl.DataFrame

    def collect(self) -> History:
        """All of it in memory."""
        shift, event = pl.collect_all([self.shift, self.attendance_event])
        return History(self.site, self.guard, shift, event, self.outcome)


AnyHistory = History | LazyHistory
"""In any order, or laid out for batches of guards."""


class Profile(dy.Schema):
    """What was usual for a guard in the 90 days before `snapshot_at`, from what was known by then.

    Hours are local to the site of each event, 0 to 24. The `usual_*` lists hold the three most
    frequent values, most frequent first (ties: smallest value first), with their shares beside.
    """

    tenant_id = _key()
    guard_id = dy.String(primary_key=True, min_length=1)
    snapshot_at = dy.Datetime(primary_key=True, time_zone="UTC", time_unit="us")
    observations = dy.Int64(min=1)
    is_sufficient = dy.Bool()
    usual_hours = dy.List(dy.Int64())
    usual_hour_shares = dy.List(dy.Float64())
    usual_weekdays = dy.List(dy.Int64())
    usual_weekday_shares = dy.List(dy.Float64())
    usual_sites = dy.List(dy.String())
    usual_site_shares = dy.List(dy.Float64())
    site_variety = dy.Int64(min=1)
    hour_mean = dy.Float64(nullable=True, min=0, max=24)
    hour_spread = dy.Float64(nullable=True, min=0)
    consistency_score = dy.Float64(nullable=True, min=0, max=1)
    punctuality = dy.Float64(nullable=True, min=0, max=1)
    face_confidence_mean = dy.Float64(nullable=True, min=0, max=1)
    face_confidence_spread = dy.Float64(nullable=True, min=0)
    gps_drift_mean_meters = dy.Float64(nullable=True, min=0)
    accuracy_mean_meters = dy.Float64(nullable=True, min=0)
    night_shift_share = dy.Float64(min=0, max=1)
    events_per_week = dy.Float64(min=0)


class EventFeatures(dy.Schema):
    """The features of an event, from strictly before its punch-in. Definitions: `docs/features.md`."""

    tenant_id = _key()
    event_id = dy.String(primary_key=True, min_length=1)
    guard_id = _key()
    site_id = _key()
    punch_in_at = _instant()

    hour_of_day = dy.Int64(min=0, max=23)
    day_of_week = dy.Int64(min=0, max=6)
    is_weekend = dy.Bool()
    is_holiday = dy.Bool(nullable=True)
    gps_drift_meters = dy.Float64(nullable=True, min=0, max=10_000)
    location_consistency_score = dy.Float64(nullable=True, min=0, max=1)
    check_in_frequency_zscore = dy.Float64(nullable=True, min=-3, max=3)
    late_arrival_rate = dy.Float64(nullable=True, min=0, max=1)
    weekend_work_frequency = dy.Float64(nullable=True, min=0, max=1)
    face_recognition_confidence = dy.Float64(nullable=True, min=0, max=1)
    biometric_mismatch_count_30d = dy.Int64(min=0)
    time_since_last_event = dy.Float64(min=0, max=86_400)

    profile_hour_is_unusual = dy.Bool(nullable=True)
    profile_weekday_is_unusual = dy.Bool(nullable=True)
    profile_site_is_unusual = dy.Bool(nullable=True)
    profile_hour_deviation = dy.Float64(nullable=True, min=0)
    profile_face_deviation = dy.Float64(nullable=True)
    profile_observations = dy.Int64(nullable=True, min=1)
    profile_consistency_score = dy.Float64(nullable=True, min=0, max=1)

    device_guards_30d = dy.Int64(nullable=True, min=0)
    seconds_since_other_guard_on_device = dy.Float64(nullable=True, min=0)
    travel_speed_kmh = dy.Float64(nullable=True, min=0)
    minutes_early = dy.Float64(nullable=True)
    is_mock_location = dy.Bool(nullable=True)
    entry_source = dy.Enum(ENTRY_SOURCES)
    face_attempts = dy.Int64(nullable=True, min=0)


EVENT_KEYS: Final = ("tenant_id", "event_id", "guard_id", "site_id", "punch_in_at")
FEATURES: Final = tuple(name for name in EventFeatures.columns() if name not in EVENT_KEYS)


class TrainingDataset(EventFeatures):
    """Mature events with their features and label. `is_fraud` is what was known at the cut-off."""

    is_fraud = dy.Bool()
