"""One tenant of the demo company: its source tables, bad rows included. No disk, no clock.

Everything follows from the tenant, `until` and the seed: the same three give the same tables.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from zlib import crc32

import numpy as np
import polars as pl

from fraud_assets.demo import attendance, dirt, disguise, frauds, reviews, roster, workforce
from fraud_assets.demo.tenants import DemoTenant
from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.domain.schemas import SOURCE_TABLES, History, SourceTable, source_columns

_ROSTER_AHEAD: Final = timedelta(days=15)


def generate(tenant: DemoTenant, until: datetime, seed: int) -> History:
    """The tenant's tables as known at `until` (aware): columns of SOURCE_TABLES without `unreadable`.

    Raises InvalidSettings for a naive `until` or a negative seed.
    """
    if until.tzinfo is None:
        raise InvalidSettings(f"expected an instant with a time zone, got {until!r}; add its offset")
    if seed < 0:
        raise InvalidSettings(f"expected a seed of 0 or more, got {seed}")
    random = np.random.default_rng([seed, crc32(tenant.id.encode())])
    history = _clean(tenant, until.astimezone(UTC), random)
    return dirt.spoiled(history, tenant, random)


def _clean(tenant: DemoTenant, until: datetime, random: np.random.Generator) -> History:
    last = until.date()
    first = last - timedelta(days=tenant.days)
    sites = workforce.sites(tenant, random)
    guards = workforce.guards(tenant, sites, first, random)
    days = roster.staffed(roster.days(sites, guards, first, last + _ROSTER_AHEAD), random)
    duties = _duties(frauds.planned(days, tenant, first, last, random), sites, random)
    punched = attendance.punches(duties, sites, guards, random)
    events = attendance.recorded(disguise.applied(punched, random), until)
    on_roster = pl.col("shift_id").is_not_null() & (pl.col("published_at") <= until)
    tables: dict[SourceTable, pl.DataFrame] = {
        "site": sites,
        "guard": guards,
        "shift": duties.filter(on_roster),
        "attendance_event": events,
        "outcome": reviews.outcomes(events, until, random),
    }
    return History(**{name: _table(name, frame, tenant) for name, frame in tables.items()})


def _duties(planned: pl.DataFrame, sites: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The work that is paid, with second posts: of cheats far away, of some others next door or right here.

    `moves_on`: the guard leaves the first post without punching out.
    """
    single = roster.scheduled(planned.filter(pl.col("kind") != "off"), sites, rng)
    draw = pl.Series(rng.random(single.height))
    honest, travels = (
        pl.col("typology").is_null(),
        (pl.col("typology") == "impossible_travel").fill_null(False),
    )
    relieves, again = honest & (draw < 0.003), honest & (draw > 0.997)
    distant, neighbour = (
        pl.col("site_id").replace(sites["site_id"], sites[f"{which}_site_id"])
        for which in ("distant", "neighbour")
    )
    firsts = single.with_columns(typology=pl.when(~travels).then("typology"), moves_on=relieves | again)
    seconds = [
        roster.second_posts(single.filter(travels), distant, "second", (25, 110), rng),
        roster.second_posts(single.filter(relieves), neighbour, "second", (60, 330), rng),
        roster.second_posts(single.filter(again), pl.col("site_id"), "again", (4, 240), rng),
    ]
    return roster.numbered(pl.concat([firsts, pl.concat(seconds).with_columns(moves_on=pl.lit(False))]))


def _table(name: SourceTable, frame: pl.DataFrame, tenant: DemoTenant) -> pl.DataFrame:
    columns = source_columns(SOURCE_TABLES[name])
    return frame.with_columns(tenant_id=pl.lit(tenant.id)).select(columns.names()).cast(columns)
