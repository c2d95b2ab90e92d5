"""The marks that each fraud leaves on its punch. Who cheats is decided in `frauds.py`.

A fraud leaves only some of its marks, and each mark has an innocent twin in `attendance.py`, so that
no single column tells. Impossible travel needs no function here: the second post is the mark.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import polars as pl

from fraud_assets.demo.attendance import with_face
from fraud_assets.demo.chance import between, happens
from fraud_assets.demo.workforce import METERS_PER_DEGREE

_FACE: Final = ("face_verified", "face_distance", "face_attempts")
_NOTHING: Final = ("device_id", "latitude", "longitude", "accuracy_m", "is_mock_location", *_FACE)
_AT_ONCE: Final = (1 / 60, 8 / 60)


def applied(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """`events` with the marks of each one's `typology`."""
    partners = events.filter(pl.col("device_id").is_not_null()).select(
        "site_id", "scheduled_start", partner_id="guard_id", partner_punch_in_at="punch_in_at"
    )
    keys = ["site_id", "scheduled_start", "partner_id"]
    met = events.join(
        partners.unique(keys, keep="first", maintain_order=True), on=keys, how="left", maintain_order="left"
    )
    plain = met.filter(pl.col("typology").is_null() | ~pl.col("typology").is_in(list(_MARKS)))
    marked = [
        marks(met.filter(pl.col("typology") == typology), rng).select(plain.columns)
        for typology, marks in _MARKS.items()
    ]
    return pl.concat([plain, *marked])


def _buddy_punching(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Seconds after the partner's own punch, on the kiosk or mostly on the partner's phone."""
    count = events.height
    on_kiosk = pl.col("has_kiosk") & pl.Series(happens(rng, count, 0.9))
    on_partners = pl.Series(happens(rng, count, 0.85))
    phone = pl.when(on_partners).then("partner_phone_id").otherwise("phone_id")
    after = pl.col("partner_punch_in_at") + between(rng, count, 8 / 60, 1.3)
    lent = events.with_columns(
        punch_in_at=pl.coalesce(after, "punch_in_at"),
        entry_source=pl.when(on_kiosk).then(pl.lit("kiosk")).otherwise(pl.lit("mobile")),
        device_id=pl.when(on_kiosk).then(pl.lit("kiosk-") + pl.col("site_id")).otherwise(phone),
        delay=between(rng, count, *_AT_ONCE),
    )
    checked = pl.col("is_face_checked") & pl.Series(happens(rng, count, 0.92))
    return with_face(lent, rng.uniform(0.36, 0.65, count), checked, rng)


def _ghost_shift(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Entered by a supervisor hours later, with nothing measured; mostly to the minute of the roster."""
    exact = pl.Series(happens(rng, events.height, 0.8))
    return events.with_columns(
        *(pl.lit(None, dtype=events.schema[name]).alias(name) for name in _NOTHING),
        entry_source=pl.lit("supervisor"),
        punch_in_at=pl.when(exact).then("scheduled_start").otherwise("punch_in_at"),
        punch_out_at=pl.when(exact).then("scheduled_end").otherwise("punch_out_at"),
        delay=between(rng, events.height, 20, 1800),
    )


def _gps_spoofing(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """A pin on the site's centre, the same for days; often no camera; now and then the true place."""
    draw = pl.Series(rng.random(events.height))
    unseen = pl.Series(happens(rng, events.height, 0.6))
    slips, is_pinned = draw < 0.06, draw < 0.96
    flagged = pl.Series(happens(rng, events.height, 0.8))
    placed = events.join(_pins(events, rng), on="guard_id", maintain_order="left").with_columns(
        latitude=_placed("latitude", slips, is_pinned),
        longitude=_placed("longitude", slips, is_pinned),
        accuracy_m=pl.when(is_pinned & ~slips).then(1.0).otherwise("accuracy_m"),
    )
    return placed.with_columns(
        entry_source=pl.lit("mobile"),
        device_id="phone_id",
        is_mock_location=pl.when(is_pinned & ~slips).then(flagged).otherwise("is_mock_location"),
        delay=between(rng, events.height, *_AT_ONCE),
    ).with_columns(pl.when(~unseen).then(pl.col(name)).alias(name) for name in _FACE)


def _placed(name: str, slips: pl.Series, is_pinned: pl.Series) -> pl.Expr:
    pin, home = (pl.col(f"site_{name}") + pl.col(f"{kind}_{name}") for kind in ("pin", "home"))
    return pl.when(slips).then(home.round(5)).when(is_pinned).then(pin.round(6)).otherwise(name)


def _pins(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """A guard's pin is metres from the site's centre, the home kilometres."""
    guards = events.select("guard_id").unique().sort("guard_id")
    pins = rng.normal(0, 0.5, (2, guards.height)) / METERS_PER_DEGREE
    homes = rng.uniform(1_500, 6_000, (2, guards.height)) / METERS_PER_DEGREE
    return guards.with_columns(
        pin_latitude=pins[0], pin_longitude=pins[1], home_latitude=homes[0], home_longitude=homes[1]
    )


def _padding(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Half an hour to an hour and a half early in, and mostly as late out."""
    count = events.height
    out = pl.col("scheduled_end") + between(rng, count, 30, 95)
    return events.with_columns(
        punch_in_at=pl.col("scheduled_start") - between(rng, count, 40, 95),
        punch_out_at=pl.when(pl.Series(happens(rng, count, 0.8))).then(out).otherwise("punch_out_at"),
    )


_MARKS: Final[dict[str, Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]]] = {
    "buddy_punching": _buddy_punching,
    "ghost_shift": _ghost_shift,
    "gps_spoofing": _gps_spoofing,
    "padding": _padding,
}
