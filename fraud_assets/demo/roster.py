"""Who is due where and when: the roster of a demo tenant, in local wall time. No punches here.

A *duty* is one row of work. Its `kind`: regular; cover (called in on a day off); second (another post
on the same day); again (a second punch-in at the same post, without a shift); off (no work).
"""

from collections.abc import Sequence
from datetime import date, timedelta

import holidays
import numpy as np
import polars as pl

from fraud_assets.demo.chance import between, happens

PUBLISHED = timedelta(days=14)
"""How long before its start a regular shift is on the roster."""


def days(sites: pl.DataFrame, guards: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """One row a guard and day of employment, `kind` regular or off.

    Everyone has two days off a week; offices are closed at weekends and on public holidays.
    """
    home = sites.select("schedule", "country", "neighbour_site_id", "is_face_checked", home_site_id="site_id")
    weekday = pl.col("date").dt.weekday() - 1
    is_office = pl.col("schedule") == "office"
    has_left = (pl.col("date") > pl.col("left_on")).fill_null(False)
    return (
        guards.join(home, on="home_site_id", maintain_order="left")
        .join(pl.DataFrame({"date": pl.date_range(first, last, eager=True)}), how="cross")
        .filter(pl.col("date") >= pl.col("joined_on"), ~has_left)
        .join(_holidays(sites, first, last), on=["country", "date"], how="left", maintain_order="left")
        .with_columns(is_closed=is_office & ((weekday >= 5) | pl.col("is_holiday").fill_null(False)))
        .with_columns(is_off=pl.col("is_closed") | (~is_office & ((weekday - pl.col("off_weekday")) % 7 < 2)))
        .with_columns(kind=pl.when("is_off").then(pl.lit("off")).otherwise(pl.lit("regular")))
        .drop("is_off", "is_holiday", "schedule", "country")
    )


def _holidays(sites: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    years = range(first.year, last.year + 1)
    closed = [
        {"country": country, "date": day, "is_holiday": True}
        for country in sites["country"].unique().sort()
        for day in sorted(holidays.country_holidays(country, years=years, expand=False))
    ]
    return pl.DataFrame(closed, schema={"country": pl.String, "date": pl.Date, "is_holiday": pl.Boolean})


def staffed(days: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """`days` with covers on some days off, and the site of each day: home, now and then the neighbour.

    `partner_id` is another guard with the same shift at the same site, null if there is none.
    """
    is_cover = pl.Series(happens(rng, days.height, 0.025))
    elsewhere = pl.Series(happens(rng, days.height, 0.06))
    shift = ["site_id", "date", "start_hour"]
    placed = days.with_columns(
        kind=pl.when((pl.col("kind") == "off") & is_cover).then(pl.lit("cover")).otherwise("kind"),
        site_id=pl.when(elsewhere).then("neighbour_site_id").otherwise("home_site_id"),
    )
    working = placed.filter(pl.col("kind") != "off").select(
        *shift,
        "guard_id",
        partner_id=pl.col("guard_id").shift(-1).over(shift).fill_null(pl.col("guard_id").first().over(shift)),
    )
    alone = pl.col("partner_id") == pl.col("guard_id")
    return placed.join(working, on=[*shift, "guard_id"], how="left", maintain_order="left").with_columns(
        partner_id=pl.when(~alone).then("partner_id")
    )


def scheduled(duties: pl.DataFrame, sites: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """`duties` with `scheduled_start`, `scheduled_end` and `published_at` in UTC.

    Covers are published 6 to 40 hours before their start.
    """
    overnight = pl.when(pl.col("end_hour") <= pl.col("start_hour")).then(1).otherwise(0)
    midnight = pl.col("date").cast(pl.Datetime("us"))
    timed = duties.join(sites.select("site_id", "tz"), on="site_id", maintain_order="left").with_columns(
        scheduled_start=midnight + pl.duration(hours=pl.col("start_hour")),
        scheduled_end=midnight + pl.duration(hours=pl.col("end_hour") + 24 * overnight),
    )
    short_notice = between(rng, duties.height, 360, 2400)
    return _in_utc(timed, ["scheduled_start", "scheduled_end"]).with_columns(
        published_at=pl.col("scheduled_start")
        - pl.when(pl.col("kind") == "regular").then(pl.lit(PUBLISHED)).otherwise(short_notice)
    )


def _in_utc(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Wall time in each row's `tz`, which is dropped, as UTC; an hour that comes twice means the first."""
    local = pl.col(columns)
    zones = frame.with_row_index("row").partition_by("tz", include_key=False, as_dict=True)
    return (
        pl.concat(
            part.with_columns(
                local.dt.replace_time_zone(str(tz), ambiguous="earliest").dt.convert_time_zone("UTC")
            )
            for (tz,), part in zones.items()
        )
        .sort("row")
        .drop("row")
    )


def second_posts(
    duties: pl.DataFrame, site: pl.Expr, kind: str, wait: tuple[float, float], rng: np.random.Generator
) -> pl.DataFrame:
    """For each of `duties` another post at `site` that starts `wait` minutes (least, most) after it."""
    later = between(rng, duties.height, *wait)
    return duties.with_columns(
        pl.col("scheduled_start", "scheduled_end") + later,
        published_at=pl.col("scheduled_start") - between(rng, duties.height, 60, 1200),
        site_id=site,
        kind=pl.lit(kind),
        partner_id=pl.lit(None, dtype=pl.String),
    )


def numbered(duties: pl.DataFrame) -> pl.DataFrame:
    """`duties`, oldest first, with a `shift_id` where they stand on the roster."""
    ordered = duties.sort("scheduled_start", "guard_id", "site_id", "kind")
    number = pl.int_range(1, pl.len() + 1).cast(pl.String).str.zfill(7)
    return ordered.with_columns(shift_id=pl.when(pl.col("kind") != "again").then(pl.lit("h-") + number))
