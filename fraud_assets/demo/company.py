"""One tenant of the demo company: its source tables, bad rows included. No disk, no clock.

Everything follows from the tenant, `until` and the seed: the same three give the same tables.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from zlib import crc32

import numpy as np
import polars as pl

from fraud_assets.demo import attendance, dirt, disguise, frauds, reviews, roster, workforce
from fraud_assets.demo.chance import happens
from fraud_assets.demo.tenants import DemoTenant
from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.domain.schemas import SOURCE_TABLES, History, SourceTable

_ROSTER_AHEAD: Final = timedelta(days=15)


def generate(tenant: DemoTenant, until: datetime, seed: int) -> History:
    """The tenant's tables as known at `until` (aware): columns of SOURCE_TABLES without `unreadable`.

    Raises InvalidSettings for a naive `until` or a negative seed.
    """
    if until.tzinfo is None:
        raise InvalidSettings(f"expected an instant with a time zone, got {until!r}; add its offset")
    if seed < 0:
        raise InvalidSettings(f"expected a seed of 0 or more, got {seed}")
    until = until.astimezone(UTC)
    first = until.date() - timedelta(days=tenant.days)
    world, work, cheating, punching, looking, spoiling = np.random.default_rng(
        [seed, crc32(tenant.id.encode())]
    ).spawn(6)
    sites = workforce.sites(tenant, world)
    guards = workforce.guards(tenant, sites, first, world)
    days = roster.staffed(roster.days(sites, guards, first, until.date() + _ROSTER_AHEAD), work)
    planned = frauds.planned(days, tenant, first, until.date(), cheating)
    duties = _duties(planned, sites, work)
    punched = attendance.punches(duties, sites, guards, punching)
    events = attendance.recorded(disguise.applied(punched, cheating), until)
    events = events.with_columns(tenant_id=pl.lit(tenant.id))
    tables: dict[SourceTable, pl.DataFrame] = {
        "site": sites,
        "guard": guards,
        "shift": duties.filter(pl.col("shift_id").is_not_null() & (pl.col("published_at") <= until)),
        "attendance_event": events,
        "outcome": reviews.outcomes(events, until, looking),
    }
    history = History(**{name: _table(name, frame, tenant) for name, frame in tables.items()})
    return dirt.spoiled(history, tenant, spoiling)


def _duties(planned: pl.DataFrame, sites: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The work that is paid, with second posts: for cheats far away, for others next door."""
    single = roster.scheduled(planned.filter(pl.col("kind") != "off"), sites, rng)
    travels = (pl.col("typology") == "impossible_travel").fill_null(False)
    draw = pl.Series(rng.random(single.height))
    relieves, again = (draw < 0.004) & single["typology"].is_null(), (draw > 0.995) & single["typology"].is_null()
    distant = pl.col("site_id").replace(sites["site_id"], sites["distant_site_id"])
    neighbour = pl.col("site_id").replace(sites["site_id"], sites["neighbour_site_id"])
    seconds = [
        roster.second_posts(single.filter(travels), distant, "second", (25, 150), rng),
        roster.second_posts(single.filter(relieves), neighbour, "second", (60, 330), rng),
        roster.second_posts(single.filter(again), pl.col("site_id"), "again", (4, 240), rng),
    ]
    firsts = single.with_columns(typology=pl.when(~travels).then("typology"), moves_on=relieves | again)
    return roster.numbered(pl.concat([firsts, *(more.with_columns(moves_on=pl.lit(False)) for more in seconds)]))


def _table(name: SourceTable, frame: pl.DataFrame, tenant: DemoTenant) -> pl.DataFrame:
    schema = SOURCE_TABLES[name].create_empty().drop("unreadable").schema
    return frame.with_columns(tenant_id=pl.lit(tenant.id)).select(schema.names()).cast(dict(schema))
