"""Sites and guards of a demo tenant, with the habits that its attendance follows. No events here.

Columns beyond the source tables are habits: what makes an innocent event look odd stands here too.
"""

from datetime import date, timedelta

import numpy as np
import polars as pl

from fraud_assets.demo.chance import chosen
from fraud_assets.demo.tenants import DemoTenant

METERS_PER_DEGREE = 111_195.0
_KINDS = ("Depot", "Mall", "Hospital", "Office park", "Warehouse", "Plant")
_SLOTS = {"office": ((7, 15), (8, 17)), "three": ((6, 14), (14, 22), (22, 6)), "two": ((7, 19), (19, 7))}
"""Local start and end hour of the shifts of a kind of site; none is skipped by a clock change."""


def sites(tenant: DemoTenant, rng: np.random.Generator) -> pl.DataFrame:
    """One row a site, about one for 10 guards, in turn in each of the tenant's cities."""
    count = max(4, tenant.guards // 10)
    cities = [tenant.cities[index % len(tenant.cities)] for index in range(count)]
    numbers = [index // len(tenant.cities) + 1 for index in range(count)]
    named = pl.DataFrame(
        {
            "site_id": [f"{city.code}-{number:02d}" for city, number in zip(cities, numbers, strict=True)],
            "name": [f"{city.name} {_KINDS[i % len(_KINDS)]} {i + 1}" for i, city in enumerate(cities)],
            "latitude": [city.latitude for city in cities] + rng.uniform(-0.15, 0.15, count),
            "longitude": [city.longitude for city in cities] + rng.uniform(-0.15, 0.15, count),
            "radius_m": np.round(rng.uniform(80, 250, count)),
            "tz": [city.tz for city in cities],
            "country": [city.country for city in cities],
        }
    ).with_columns(pl.col("latitude", "longitude").round(6))
    return named.with_columns(*_site_habits(count, rng), *_other_sites(named))


def _site_habits(count: int, rng: np.random.Generator) -> list[pl.Series]:
    """What the equipment of the sites does to honest punches.

    `gps_spread_meters` is 0 where a kiosk or Wi-Fi positioning gives everyone the same coordinates,
    `fix_offset_*` away from the centre; it is large among tall buildings.
    """
    kiosk, wifi, tall = (chosen(rng, count, share) for share in (0.35, 0.2, 0.2))
    fixed = kiosk | wifi
    schedule = np.where(chosen(rng, count, 0.45), "office", np.where(rng.random(count) < 0.6, "three", "two"))
    offset = rng.normal(0, 15, (2, count)) * fixed / METERS_PER_DEGREE
    return [
        pl.Series("schedule", schedule.tolist()),
        pl.Series("has_kiosk", kiosk),
        pl.Series("gps_spread_meters", np.where(fixed, 0.0, np.where(tall, 40.0, 18.0))),
        pl.Series("fix_offset_latitude", offset[0]),
        pl.Series("fix_offset_longitude", offset[1]),
        pl.Series("is_face_checked", ~chosen(rng, count, 0.12)),
        pl.Series("is_dark_at_night", chosen(rng, count, 0.3)),
    ]


def _other_sites(named: pl.DataFrame) -> list[pl.Series]:
    """The nearest other site, and one half-way down the list by distance."""
    position = np.radians(named.select("latitude", "longitude").to_numpy())
    distance = np.linalg.norm(position[:, None] - position[None], axis=2)
    order = np.argsort(distance, axis=1, kind="stable")
    ids = named["site_id"].to_numpy()
    return [
        pl.Series("neighbour_site_id", ids[order[:, 1]].tolist()),
        pl.Series("distant_site_id", ids[order[:, len(ids) // 2]].tolist()),
    ]


def guards(tenant: DemoTenant, sites: pl.DataFrame, first: date, rng: np.random.Generator) -> pl.DataFrame:
    """One row a guard: home site, shift, employment and habits. `first` is the first day of the data."""
    count = tenant.guards
    home = np.arange(count) % sites.height
    slots = [_SLOTS[schedule] for schedule in sites["schedule"].gather(home)]
    hours = [slot[index // sites.height % len(slot)] for index, slot in enumerate(slots)]
    return pl.DataFrame(
        {
            "guard_id": [f"g-{index + 1:04d}" for index in range(count)],
            "name": [f"Guard {index + 1}" for index in range(count)],
            "is_enabled": ~chosen(rng, count, 0.03),
            "is_verified": ~chosen(rng, count, 0.03),
            "home_site_id": sites["site_id"].gather(home),
            "start_hour": [start for start, _ in hours],
            "end_hour": [end for _, end in hours],
            "off_weekday": rng.integers(0, 7, count),
        }
    ).with_columns(*_employment(tenant, first, rng), *_guard_habits(tenant, first, rng))


def _employment(tenant: DemoTenant, first: date, rng: np.random.Generator) -> list[pl.Series]:
    """Most joined long ago; some join or leave on the way, some only days before the end."""
    count, days = tenant.guards, tenant.days
    joins_midway, leaves, is_new = (happened & (days > 100) for happened in _careers(rng, count))
    joined = np.where(joins_midway, rng.integers(days // 8, days, count), -rng.integers(100, 1500, count))
    joined = np.where(is_new, days - 9, joined)
    left = np.where(leaves & ~joins_midway & ~is_new, rng.integers(days // 4, days, count), 10**5)
    return [
        pl.Series("joined_on", [first + timedelta(days=int(day)) for day in joined]),
        pl.Series("left_on", [first + timedelta(days=int(day)) if day < 10**5 else None for day in left]),
    ]


def _careers(rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    return tuple(chosen(rng, count, share) for share in (0.08, 0.06, 0.03))


def _guard_habits(tenant: DemoTenant, first: date, rng: np.random.Generator) -> list[pl.Series]:
    """Punctuality, face and phone. `early_minutes` is negative for those who are usually late."""
    count = tenant.guards
    early = np.where(chosen(rng, count, 0.05), rng.uniform(15, 24, count), rng.normal(6, 4, count))
    early = np.where(chosen(rng, count, 0.06), rng.uniform(-20, -5, count), early)
    replaced = np.where(chosen(rng, count, 0.35), rng.integers(0, tenant.days, count), 10**5)
    return [
        pl.Series("early_minutes", early),
        pl.Series("jitter_minutes", rng.uniform(2, 6, count)),
        pl.Series("face_mean", np.clip(rng.normal(0.17, 0.03, count), 0.12, 0.25)),
        pl.Series("is_developer_phone", chosen(rng, count, 0.04)),
        pl.Series("phone_tells_mock", ~chosen(rng, count, 0.12)),
        pl.Series("phone_replaced_on", [first + timedelta(days=int(day)) for day in replaced]),
    ]
