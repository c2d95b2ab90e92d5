"""Sets bad source rows aside, counted by rule. No reading, no labels, no repair of a value.

A bad row never raises and never disappears: for every table, rows read = rows kept + rows set aside
+ rows not known yet. The rules of a single row stand in `domain.schemas`; the rules across rows and
tables stand here:

    repeated_row       the whole row equals an earlier one; the first is kept
    conflicting_id     another row has the same id and other content; all of them are set aside
    other_tenant       the row belongs to another tenant
    unknown_time_zone  the site's `tz` is not an IANA name
    unknown_guard      no such guard, or its row is set aside; likewise unknown_site
    unknown_event      an outcome of an event that was not read, or is not known yet
    event_set_aside    an outcome of an event that is set aside
    unknown_shift      an event's shift is not a valid one of the same guard: the event is *kept*,
                       its `shift_id` becomes null
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Final, Generic, TypeVar, cast

import dataframely as dy
import polars as pl

from fraud_assets.compute.account import ALL_ROWS, RECENT, UNKNOWN_SHIFT, Account
from fraud_assets.domain.schemas import (
    EARLIEST,
    LATEST,
    SOURCE_TABLES,
    History,
    LazyHistory,
    SourceTable,
    source_columns,
)
from fraud_assets.domain.settings import Settings

CORRUPT_FROM_EVENTS: Final = 3
"""Fewer events of a guard than this say nothing about the share that is bad."""

OWNER: Final[dict[SourceTable, str]] = {
    "shift": "guard_id",
    "attendance_event": "guard_id",
    "outcome": "event_id",
}
"""By table the column whose value decides in which part of a history a row is."""

Ids = Mapping[SourceTable, pl.DataFrame]
NO_IDS: Final[Ids] = MappingProxyType({})

_LEARNED_AT: Final = ("known_at", "published_at")


_Rows = TypeVar("_Rows", History, LazyHistory)


@dataclass(frozen=True)
class Cleaned(Generic[_Rows]):
    """A tenant's valid rows, in the columns of the schemas but for `unreadable`, and the account of all."""

    history: _Rows
    account: Account


def clean(history: History, tenant: str, as_of: datetime, conflicting: Ids = NO_IDS) -> Cleaned[History]:
    """The valid rows of `tenant` known at `as_of`; `history` is as read, or clean already.

    It may be a part of a tenant's history, with every site and guard, all rows of some guards, and the
    outcomes of their events; then `conflicting` are the ids that conflict across its parts. What
    is kept is the same as of the whole, and the accounts add up to that of the whole (`account.merged`).

    A table that lacks a column or has another type than its schema is the reader's error, not a bad
    row: polars or dataframely raises.
    """
    check = partial(_check, tenant=tenant, as_of=as_of, conflicting=conflicting)
    site = check("site", history.site, {"unknown_time_zone": _is_unknown_zone(history.site)})
    guard = check("guard", history.guard, {})
    posted = {
        "unknown_guard": _is_absent("guard_id", guard.kept),
        "unknown_site": _is_absent("site_id", site.kept),
    }
    shift = check("shift", history.shift, posted)
    event = check("attendance_event", history.attendance_event, posted)
    reviewed = {
        "unknown_event": _is_absent("event_id", event.rows),
        "event_set_aside": _is_absent("event_id", event.kept) & ~_is_absent("event_id", event.rows),
    }
    outcome = check("outcome", history.outcome, reviewed)
    checked = (site, guard, shift, event, outcome)
    events, unknown_shifts = _without_unknown_shifts(event.kept, shift.kept)
    return Cleaned(
        history=History(site.kept, guard.kept, shift.kept, events, outcome.kept),
        account=Account(
            totals=_totals(checked),
            periods=pl.concat(_periods(each) for each in checked),
            broken=_broken(checked, unknown_shifts),
            by_guard=pl.concat([_by_guard(guard, tenant), _by_guard(event, tenant)]),
        ),
    )


def conflicting(parts: Sequence[LazyHistory], as_of: datetime) -> Ids:
    """By table tenant_id and id of the rows known at `as_of` that stand in several parts, under two owners.

    Rows of one id in one part are found by `clean`; they may be among these too.
    """
    return {
        table: _claimed_twice(
            pl.concat([getattr(part, table).lazy() for part in parts]).filter(
                ~_is_not_known_yet(SOURCE_TABLES[table].column_names(), as_of)
            ),
            SOURCE_TABLES[table].primary_key()[0],
            owner,
        )
        for table, owner in OWNER.items()
    }


def _claimed_twice(rows: pl.LazyFrame, key: str, owner: str) -> pl.DataFrame:
    """The ids under more than one owner. By hashes first: all ids of a tenant would fill the memory."""
    code = pl.struct("tenant_id", key).hash()
    is_claimed_twice = pl.col("owner").min() != pl.col("owner").max()
    codes = rows.select(code=code, owner=pl.col(owner).hash()).group_by("code").agg(twice=is_claimed_twice)
    suspects = codes.filter("twice").select("code").collect(engine="streaming")
    return (
        rows.filter(code.is_in(suspects["code"].implode()), pl.col(key).is_not_null())
        .group_by("tenant_id", key)
        .agg(pl.col(owner).n_unique())
        .filter(pl.col(owner) > 1)
        .select("tenant_id", key)
        .collect()
    )


def corrupt_guards(cleaned: Cleaned[_Rows], settings: Settings) -> dict[str, str]:
    """guard_id -> why the guard cannot be profiled, in words.

    A guard is corrupt if its own row is set aside, or if it is active and at least
    `profile_corrupt_share` of its events are, of `CORRUPT_FROM_EVENTS` or more.
    """
    guards = cleaned.history.guard
    active = guards.filter("is_enabled", "is_verified")["guard_id"]
    is_own_row = pl.col("table") == "guard"
    are_many_events = (
        pl.col("guard_id").is_in(active.implode())
        & (pl.col("read") >= CORRUPT_FROM_EVENTS)
        & (pl.col("set_aside") >= settings.profile_corrupt_share * pl.col("read"))
    )
    corrupt = cleaned.account.by_guard.filter(pl.col("set_aside") > 0, is_own_row | are_many_events)
    noun = pl.when(is_own_row).then(pl.lit("guard rows")).otherwise(pl.lit("events"))
    words = pl.format("{} of {} {} set aside: {}", "set_aside", "read", noun, "reasons")
    return dict(corrupt.select("guard_id", words.alias("words")).sort("guard_id").iter_rows())


@dataclass(frozen=True)
class _Checked:
    """One table after its rules.

    periods     the numbers of the known rows, repeats included: all, and recent ones if it has such
    rows        the known rows, numbered, without repeats
    breaches    row, rule; one line for each rule that a row breaks, repeats included
    kept        the rows that break none, as they go into the clean history
    """

    table: SourceTable
    read: int
    not_known_yet: int
    periods: Mapping[str, pl.Series]
    rows: pl.DataFrame
    breaches: pl.DataFrame
    kept: pl.DataFrame


def _check(
    table: SourceTable,
    read: pl.DataFrame,
    broken: Mapping[str, pl.Expr],
    *,
    tenant: str,
    as_of: datetime,
    conflicting: Ids,
) -> _Checked:
    """`broken` maps the table's own rules across tables to what is true of a row that breaks them."""
    schema = SOURCE_TABLES[table]
    key = schema.primary_key()[0]
    is_known = ~_is_not_known_yet(read.columns, as_of)
    known = _as_read(read).filter(is_known).with_row_index("row")
    rows = known.unique(subset=schema.column_names(), keep="first", maintain_order=True)
    elsewhere = conflicting.get(table, rows.select("tenant_id", key).clear())
    claimed_twice = rows.join(elsewhere, on=["tenant_id", key], how="semi", nulls_equal=True)["row"]
    is_duplicated = pl.struct("tenant_id", key).is_duplicated() & pl.col(key).is_not_null()
    everywhere = {
        "other_tenant": pl.col("tenant_id") != tenant,
        "conflicting_id": is_duplicated | pl.col("row").is_in(claimed_twice.implode()),
    }
    repeats = known.join(rows, on="row", how="anti").select("row", rule=pl.lit("repeated_row"))
    breaches = pl.concat([repeats, _of_schema(rows, schema), _of_rules(rows, {**everywhere, **broken})])
    good = rows.join(breaches, on="row", how="anti", maintain_order="left")
    kept = good.select(source_columns(schema).names())
    periods = _rows_of_periods(known, as_of)
    return _Checked(table, read.height, read.height - known.height, periods, rows, breaches, kept)


def _as_read(table: pl.DataFrame) -> pl.DataFrame:
    if "unreadable" in table.columns:
        return table
    return table.with_columns(unreadable=pl.lit(None, pl.String))


def _is_not_known_yet(columns: Sequence[str], as_of: datetime) -> pl.Expr:
    """An instant beyond LATEST is not a late one but an impossible one: the schema sets it aside."""
    learned = [name for name in (*_LEARNED_AT, "decided_at") if name in columns]
    late = [pl.col(name).is_between(as_of, LATEST, closed="right").fill_null(False) for name in learned]
    return pl.any_horizontal(pl.lit(False), *late)


def _rows_of_periods(known: pl.DataFrame, as_of: datetime) -> dict[str, pl.Series]:
    """A row is recent unless it tells otherwise: its instant may be missing, unreadable or impossible."""
    periods = {ALL_ROWS: known["row"]}
    for name in set(_LEARNED_AT) & set(known.columns):
        is_old = pl.col(name).is_between(EARLIEST, as_of - RECENT).fill_null(False)
        periods[f"the last {RECENT.days} days"] = known.filter(~is_old)["row"]
    return periods


def _of_schema(rows: pl.DataFrame, schema: type[dy.Schema]) -> pl.DataFrame:
    """row, rule of the schema's rules; its `primary_key` is told apart as repeat and conflict instead."""
    numbered = cast("type[dy.Schema]", type(schema.__name__, (schema,), {"row": dy.Integer()}))
    details = numbered.filter(rows).failure.details()
    rules = [name for name in details.columns if name not in (*rows.columns, "primary_key")]
    results = details.unpivot(rules, index="row", variable_name="rule", value_name="result")
    return results.filter(pl.col("result") == "invalid").select("row", "rule")


def _of_rules(rows: pl.DataFrame, broken: Mapping[str, pl.Expr]) -> pl.DataFrame:
    results = rows.select("row", **broken).unpivot(index="row", variable_name="rule", value_name="broken")
    return results.filter("broken").select("row", "rule")


def _is_absent(key: str, table: pl.DataFrame) -> pl.Expr:
    return ~pl.col(key).is_in(table[key].implode())


def _is_unknown_zone(sites: pl.DataFrame) -> pl.Expr:
    unknown = [zone for zone in sites["tz"].drop_nulls().unique() if not _is_zone(zone)]
    return pl.col("tz").is_in(unknown)


def _is_zone(name: str) -> bool:
    """Whether polars knows the IANA zone: its database is the one that converts, on every machine."""
    try:
        pl.select(pl.lit(EARLIEST).dt.convert_time_zone(name))
    except pl.exceptions.ComputeError:
        return False
    return name[:1].isalpha()  # polars also takes "" and offsets such as "+01:00"


def _without_unknown_shifts(events: pl.DataFrame, shifts: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """`events` with a `shift_id` of the same guard's shift or null, and how many lost theirs."""
    own = shifts.select("shift_id", "guard_id", own_shift_id="shift_id")
    matched = events.join(own, on=["shift_id", "guard_id"], how="left", maintain_order="left")
    resolved = matched.with_columns(shift_id="own_shift_id").select(events.columns)
    return resolved, resolved["shift_id"].null_count() - events["shift_id"].null_count()


def _broken(checked: Sequence[_Checked], unknown_shifts: int) -> pl.DataFrame:
    schema = {"table": pl.String, "period": pl.String, "rule": pl.String, "rows": pl.Int64}
    lost = [("attendance_event", ALL_ROWS, UNKNOWN_SHIFT, unknown_shifts)] if unknown_shifts else []
    counts = [
        each.breaches.filter(pl.col("row").is_in(rows.implode()))
        .group_by("rule")
        .agg(rows=pl.len().cast(pl.Int64))
        .select(pl.lit(each.table).alias("table"), pl.lit(period).alias("period"), "rule", "rows")
        for each in checked
        for period, rows in each.periods.items()
    ]
    return pl.concat([pl.DataFrame(lost, schema=schema, orient="row"), *counts]).sort(
        "table", "period", "rule"
    )


def _totals(checked: Sequence[_Checked]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "table": each.table,
            "read": each.read,
            "not_known_yet": each.not_known_yet,
            "set_aside": each.read - each.not_known_yet - each.kept.height,
            "kept": each.kept.height,
        }
        for each in checked
    )


def _periods(checked: _Checked) -> pl.DataFrame:
    broken = checked.breaches["row"].unique()
    return pl.DataFrame(
        {
            "table": checked.table,
            "period": period,
            "rows": rows.len(),
            "set_aside": rows.is_in(broken.implode()).sum(),
        }
        for period, rows in checked.periods.items()
    )


def _by_guard(checked: _Checked, tenant: str) -> pl.DataFrame:
    rows = checked.rows.filter(pl.col("tenant_id") == tenant, pl.col("guard_id").is_not_null())
    broken = checked.breaches.join(rows.select("row", "guard_id"), on="row")
    reasons = (
        broken.group_by("guard_id", "rule")
        .agg(count=pl.len())
        .sort("guard_id", -pl.col("count").cast(pl.Int64), "rule")
        .group_by("guard_id", maintain_order=True)
        .agg(reasons=pl.format("{} {}", "rule", "count").str.join(", "))
    )
    is_set_aside = pl.col("row").is_in(broken["row"].unique().implode())
    return (
        rows.group_by("guard_id")
        .agg(read=pl.len().cast(pl.Int64), set_aside=is_set_aside.sum().cast(pl.Int64))
        .join(reasons, on="guard_id", how="left")
        .select(pl.lit(checked.table).alias("table"), "guard_id", "reasons", "read", "set_aside")
        .sort("guard_id")
    )
