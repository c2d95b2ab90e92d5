"""Honest punches on a demo tenant's roster, and all that makes them look odd. No fraud here.

The innocent twins: shared kiosks and borrowed phones (of buddy punching), poor light and new phones
(of a stranger's face), supervisor's entries for dead phones (of ghost shifts), Wi-Fi positioning, bad
fixes and developers' phones (of GPS spoofing), early handovers and reliefs that did not show (of
padding), second posts and second punches (of impossible travel).
"""

from datetime import datetime

import numpy as np
import polars as pl

from fraud_assets.demo.chance import between, happens, minutes
from fraud_assets.demo.workforce import METERS_PER_DEGREE

FACE_THRESHOLD = 0.4
"""A face at this distance or less is taken as the guard's."""


def punches(
    duties: pl.DataFrame, sites: pl.DataFrame, guards: pl.DataFrame, rng: np.random.Generator
) -> pl.DataFrame:
    """One event a duty that somebody came for, as an honest guard would punch it.

    `delay` is how long after the punch-in the event is known.
    """
    came = duties.filter(pl.col("typology").is_not_null() | pl.Series(~happens(rng, duties.height, 0.03)))
    posted = came.join(
        sites.drop("name", "country", "neighbour_site_id", "is_face_checked"),
        on="site_id",
        maintain_order="left",
    ).with_columns(
        shift_id=pl.when(pl.Series(~happens(rng, came.height, 0.01))).then("shift_id"),
        phone_id=_phone(pl.col("guard_id"), pl.col("phone_replaced_on")),
    )
    phones = guards.select(partner_id="guard_id", partner_replaced_on="phone_replaced_on")
    frame = posted.join(phones, on="partner_id", how="left", maintain_order="left").with_columns(
        partner_phone_id=_phone(pl.col("partner_id"), pl.col("partner_replaced_on"))
    )
    for step in (_times, _entries, _positions, _faces):
        frame = step(frame, rng)
    return frame


def _phone(guard_id: pl.Expr, replaced_on: pl.Expr) -> pl.Expr:
    number = pl.when(pl.col("date") >= replaced_on).then(pl.lit("-2")).otherwise(pl.lit("-1"))
    return pl.lit("phone-") + guard_id + number


def _times(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Punch-in about as early as the guard's habit, punch-out after the end; 2.5% forget to punch out."""
    count = frame.height
    early = frame["early_minutes"].to_numpy() + rng.normal(0, 1, count) * frame["jitter_minutes"].to_numpy()
    early = np.where(happens(rng, count, 0.015), -rng.uniform(15, 60, count), early)
    early = np.where(happens(rng, count, 0.0015), rng.uniform(20, 45, count), early)
    early = np.where(frame["kind"].is_in(["second", "again"]), rng.normal(2, 3, count), early)
    late = np.where(happens(rng, count, 0.02), rng.uniform(30, 120, count), np.abs(rng.normal(4, 5, count)))
    forgets = pl.Series(happens(rng, count, 0.025)) | frame["moves_on"]
    punch_out = pl.col("scheduled_end") + minutes(late)
    return frame.with_columns(
        punch_in_at=pl.col("scheduled_start") - minutes(early),
        punch_out_at=pl.when(~forgets).then(punch_out),
    )


def _entries(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Kiosk where there is one, else the own phone; some borrow a phone, some are entered for."""
    count = frame.height
    draw = pl.Series(rng.random(count))
    uses_kiosk = pl.col("has_kiosk") & pl.Series(happens(rng, count, 0.9))
    borrows = pl.Series(happens(rng, count, 0.01)) & pl.col("partner_id").is_not_null()
    own = pl.when(borrows).then("partner_phone_id").otherwise("phone_id")
    source = (
        pl.when(draw < 0.025).then(pl.lit("supervisor")).when(draw < 0.035).then(pl.lit("import"))
    ).otherwise(pl.when(uses_kiosk).then(pl.lit("kiosk")).otherwise(pl.lit("mobile")))
    return _entered_later(
        frame.with_columns(entry_source=source).with_columns(
            device_id=pl.when(pl.col("entry_source") == "kiosk")
            .then(pl.lit("kiosk-") + pl.col("site_id"))
            .when(pl.col("entry_source") == "mobile")
            .then(own)
        ),
        rng,
    )


def _entered_later(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """When an event is known, and the round times that supervisors enter for half of the dead phones."""
    count = frame.height
    supervisor, imported = (pl.col("entry_source") == source for source in ("supervisor", "import"))
    is_offline = pl.Series(happens(rng, count, 0.03))
    is_round = supervisor & pl.Series(happens(rng, count, 0.5))
    delay = (
        pl.when(supervisor)
        .then(between(rng, count, 20, 1800))
        .when(imported)
        .then(between(rng, count, 1440, 5760))
        .when(is_offline)
        .then(between(rng, count, 30, 600))
        .otherwise(between(rng, count, 1 / 60, 8 / 60))
    )
    return frame.with_columns(
        delay=delay,
        punch_in_at=pl.when(is_round).then(pl.col("punch_in_at").dt.round("5m")).otherwise("punch_in_at"),
    )


def _positions(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """A fix in 9 of 10 punches on a device; 4 in 1,000 are hundreds of metres off."""
    count = frame.height
    spread = frame["gps_spread_meters"].to_numpy()
    spread = np.where(happens(rng, count, 0.004), rng.uniform(200, 900, count), spread)
    north, east = rng.normal(0, 1, (2, count)) * spread / METERS_PER_DEGREE
    accuracy = np.round(np.maximum(spread, 8) * rng.lognormal(0.2, 0.3, count), 1)
    narrowing = pl.col("latitude").radians().cos()
    has_fix = pl.col("device_id").is_not_null() & pl.Series(happens(rng, count, 0.9))
    is_testing = pl.Series(happens(rng, count, 0.4))
    mock = pl.col("is_developer_phone") & (pl.col("entry_source") == "mobile") & is_testing
    return frame.with_columns(
        latitude=pl.when(has_fix).then(
            (pl.col("latitude") + pl.col("fix_offset_latitude") + pl.Series(north)).round(6)
        ),
        longitude=pl.when(has_fix).then(
            (pl.col("longitude") + (pl.col("fix_offset_longitude") + pl.Series(east)) / narrowing).round(6)
        ),
        site_latitude="latitude",
        site_longitude="longitude",
        accuracy_m=pl.when(has_fix).then(pl.Series(accuracy)),
        is_mock_location=pl.when(has_fix & pl.col("phone_tells_mock")).then(mock),
    )


def _faces(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Face distance about the guard's mean; worse in the dark, and for 10 days after a new phone."""
    count = frame.height
    hour = frame["start_hour"].to_numpy()
    dark = frame["is_dark_at_night"].to_numpy() & ((hour >= 19) | (hour < 7))
    since = (frame["date"] - frame["phone_replaced_on"]).dt.total_days().to_numpy()
    distance = rng.normal(frame["face_mean"].to_numpy(), 0.035)
    distance += np.where(dark, np.abs(rng.normal(0.04, 0.05, count)), 0)
    distance += np.where((since >= 0) & (since < 10), rng.uniform(0, 0.1, count), 0)
    distance += np.where(happens(rng, count, 0.003), rng.uniform(0.1, 0.3, count), 0)
    checked = (
        pl.col("is_face_checked") & pl.col("device_id").is_not_null() & pl.Series(happens(rng, count, 0.95))
    )
    return with_face(frame, np.clip(distance, 0.02, 1.2), checked, rng)


def with_face(
    frame: pl.DataFrame, distance: np.ndarray, checked: pl.Expr, rng: np.random.Generator
) -> pl.DataFrame:
    """`frame` with the face check that `distance` gives, null where not `checked`."""
    attempts = 1 + rng.poisson(0.04 + np.clip(distance - 0.25, 0, None) * 6)
    columns = {
        "face_distance": pl.Series(np.round(distance, 4)),
        "face_verified": pl.Series(distance <= FACE_THRESHOLD),
        "face_attempts": pl.Series(attempts.astype(np.int64)),
    }
    return frame.with_columns(pl.when(checked).then(column).alias(name) for name, column in columns.items())


def recorded(events: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """The `events` known at `until`, oldest first, with `event_id`; a later punch-out is not there yet."""
    return (
        events.with_columns(
            known_at=pl.col("punch_in_at") + pl.col("delay"),
            punch_out_at=pl.when(pl.col("punch_out_at") <= until).then("punch_out_at"),
        )
        .filter(pl.col("known_at") <= until)
        .sort("punch_in_at", "guard_id", "site_id", "kind")
        .with_columns(event_id=pl.lit("e-") + pl.int_range(1, pl.len() + 1).cast(pl.String).str.zfill(7))
    )
