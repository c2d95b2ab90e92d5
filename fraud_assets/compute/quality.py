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
from datetime import datetime, timedelta
from typing import Final, cast

import dataframely as dy
import polars as pl

from fraud_assets.domain.schemas import EARLIEST, LATEST, SOURCE_TABLES, History, SourceTable, source_columns
from fraud_assets.domain.settings import Settings

CORRUPT_FROM_EVENTS: Final = 3
"""Fewer events of a guard than this say nothing about the share that is bad."""

UNKNOWN_SHIFT: Final = "unknown_shift"
"""The one rule whose rows are kept."""

RECENT: Final = timedelta(days=7)
"""What was learned so long before a cycle also has a share of its own: in all rows a bad night is lost."""

SHARE_FROM_ROWS: Final = 20
"""Fewer rows than this say nothing about the share that is bad: one row in 20 is 5 points."""

BY_RULE: Final = pl.Schema({"table": pl.String, "rule": pl.String, "rows": pl.Int64})

_SHARES_NOW: Final = pl.Schema(
    {"table": pl.String, "period": pl.String, "rows": pl.Int64, "share": pl.Float64, "rule": pl.String}
)
SHARES: Final = pl.Schema({**_SHARES_NOW, "share_before": pl.Float64, "share_before_rise": pl.Float64})

_LEARNED_AT: Final = ("known_at", "published_at")


@dataclass(frozen=True)
class Cleaned:
    """A tenant's valid rows, and the account of the others.

    history     valid rows; columns and types of the schemas, without `unreadable`
    set_aside   table, rule, rows; sorted. A row that breaks two rules counts under both; the events
                under `unknown_shift` are kept
    totals      table, read, not_known_yet, set_aside, kept; one line a table, each row in one count
    shares      table, period, rows, share, rule: of the rows known, all and those learned within
                `RECENT`, the share that is set aside (null below `SHARE_FROM_ROWS`), and the most
                frequent rule; a table without an instant of learning has no recent rows
    by_guard    table (guard, attendance_event), guard_id, read, set_aside, reasons: this tenant's
                rows without the repeated ones, which lose nothing
    """

    history: History
    set_aside: pl.DataFrame
    totals: pl.DataFrame
    shares: pl.DataFrame
    by_guard: pl.DataFrame


def clean(history: History, tenant: str, as_of: datetime) -> Cleaned:
    """The valid rows of `tenant` known at `as_of`; `history` is as read, or clean already.

    A table that lacks a column or has another type than its schema is the reader's error, not a bad
    row: polars or dataframely raises.
    """
    site = _check("site", history.site, tenant, as_of, {"unknown_time_zone": _is_unknown_zone(history.site)})
    guard = _check("guard", history.guard, tenant, as_of, {})
    posted = {
        "unknown_guard": _is_absent("guard_id", guard.kept),
        "unknown_site": _is_absent("site_id", site.kept),
    }
    shift = _check("shift", history.shift, tenant, as_of, posted)
    event = _check("attendance_event", history.attendance_event, tenant, as_of, posted)
    reviewed = {
        "unknown_event": _is_absent("event_id", event.rows),
        "event_set_aside": _is_absent("event_id", event.kept) & ~_is_absent("event_id", event.rows),
    }
    outcome = _check("outcome", history.outcome, tenant, as_of, reviewed)
    checked = (site, guard, shift, event, outcome)
    events, unknown_shifts = _without_unknown_shifts(event.kept, shift.kept)
    return Cleaned(
        history=History(site.kept, guard.kept, shift.kept, events, outcome.kept),
        set_aside=_by_rule(checked, unknown_shifts),
        totals=_totals(checked),
        shares=pl.concat(_shares(each) for each in checked),
        by_guard=pl.concat([_by_guard(guard, tenant), _by_guard(event, tenant)]),
    )


def corrupt_guards(cleaned: Cleaned, settings: Settings) -> dict[str, str]:
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
    corrupt = cleaned.by_guard.filter(pl.col("set_aside") > 0, is_own_row | are_many_events)
    noun = pl.when(is_own_row).then(pl.lit("guard rows")).otherwise(pl.lit("events"))
    words = pl.format("{} of {} {} set aside: {}", "set_aside", "read", noun, "reasons")
    return dict(corrupt.select("guard_id", words.alias("words")).sort("guard_id").iter_rows())


def in_words(cleaned: Cleaned, table: SourceTable) -> str | None:
    """How many of the table's rows were set aside, and under which two rules most; None: none were."""
    total = cleaned.totals.row(by_predicate=pl.col("table") == table, named=True)
    known, set_aside = total["set_aside"] + total["kept"], total["set_aside"]
    if not known:
        return f"no {table} rows were read"
    if not set_aside:
        return None
    amount = f"all {known}" if set_aside == known else f"{set_aside} of {known}"
    rules = ", ".join(f"{rule} {rows}" for rule, rows in _most_frequent(cleaned.set_aside, table)[:2])
    return f"{amount} {table} rows were set aside: {rules}"


def compared(cleaned: Cleaned, before: pl.DataFrame) -> pl.DataFrame:
    """The shares with what they are compared with, as `to_compare_with` tells it; the schema is SHARES."""
    return cleaned.shares.join(before, on=["table", "period"], how="left", maintain_order="left")


def to_compare_with(shares: pl.DataFrame, limit: float) -> pl.DataFrame:
    """table, period, share_before, share_before_rise for the cycle after the one with these `shares`.

    Rows that turn bad fill the recent ones a night at a time, and each part alone may be below `limit`;
    so a share that grew by more than a day's part of `limit` still rises, and what it was before that is
    kept. A share that is not known stands as it was.
    """
    share = pl.coalesce("share", "share_before")
    is_rising = _rise("share_before", "share") > limit / RECENT.days
    before_rise = pl.when(is_rising).then("share_before_rise").otherwise(share)
    return shares.select("table", "period", share_before=share, share_before_rise=before_rise)


def jumps(shares: pl.DataFrame, limit: float) -> list[str]:
    """A sentence's part for each share whose rise came to more than `limit` in this cycle.

    `shares` has the schema SHARES; a share that is not known counts as 0. A rise is told once, however
    far it goes on.
    """
    is_jump = _rise("share_before_rise", "share") > limit
    is_told = _rise("share_before_rise", "share_before") > limit
    told = shares.filter(is_jump & ~is_told).select("table", "share", "period", "share_before_rise", "rule")
    return [
        f"{table}: {share:.1%} of {period} set aside, "
        f"{'not known' if before is None else f'{before:.1%}'} before, most often under {rule}"
        for table, share, period, before, rule in told.iter_rows()
    ]


def _rise(start: str, end: str) -> pl.Expr:
    """Rounded, because 0.55 - 0.50 is a little more than 0.05."""
    return (pl.col(end).fill_null(0) - pl.col(start).fill_null(0)).round(9)


def _most_frequent(set_aside: pl.DataFrame, table: str) -> list[tuple[str, int]]:
    """The rules under which the table's rows are set aside, with their rows, most frequent first."""
    rules = set_aside.filter(pl.col("table") == table, pl.col("rule") != UNKNOWN_SHIFT)
    return rules.sort("rows", "rule", descending=[True, False]).select("rule", "rows").rows()


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
    table: SourceTable, read: pl.DataFrame, tenant: str, as_of: datetime, broken: Mapping[str, pl.Expr]
) -> _Checked:
    """`broken` maps the table's own rules across tables to what is true of a row that breaks them."""
    schema = SOURCE_TABLES[table]
    key = schema.primary_key()[0]
    everywhere = {
        "other_tenant": pl.col("tenant_id") != tenant,
        "conflicting_id": pl.struct("tenant_id", key).is_duplicated() & pl.col(key).is_not_null(),
    }
    known = _as_read(read).filter(~_is_not_known_yet(read, as_of)).with_row_index("row")
    rows = known.unique(subset=schema.column_names(), keep="first", maintain_order=True)
    repeats = known.join(rows, on="row", how="anti").select("row", rule=pl.lit("repeated_row"))
    breaches = pl.concat([repeats, _of_schema(rows, schema), _of_rules(rows, {**everywhere, **broken})])
    good = rows.join(breaches, on="row", how="anti", maintain_order="left")
    kept = good.select(source_columns(schema).names())
    periods = _periods(known, as_of)
    return _Checked(table, read.height, read.height - known.height, periods, rows, breaches, kept)


def _as_read(table: pl.DataFrame) -> pl.DataFrame:
    if "unreadable" in table.columns:
        return table
    return table.with_columns(unreadable=pl.lit(None, pl.String))


def _is_not_known_yet(table: pl.DataFrame, as_of: datetime) -> pl.Expr:
    """An instant beyond LATEST is not a late one but an impossible one: the schema sets it aside."""
    learned = [name for name in (*_LEARNED_AT, "decided_at") if name in table.columns]
    late = [pl.col(name).is_between(as_of, LATEST, closed="right").fill_null(False) for name in learned]
    return pl.any_horizontal(pl.lit(False), *late)


def _periods(known: pl.DataFrame, as_of: datetime) -> dict[str, pl.Series]:
    """A row is recent unless it tells otherwise: its instant may be missing, unreadable or impossible."""
    periods = {"all rows": known["row"]}
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


def _by_rule(checked: Sequence[_Checked], unknown_shifts: int) -> pl.DataFrame:
    lost = [("attendance_event", UNKNOWN_SHIFT, unknown_shifts)] if unknown_shifts else []
    counts = [
        each.breaches.group_by("rule")
        .agg(rows=pl.len().cast(pl.Int64))
        .select(pl.lit(each.table).alias("table"), "rule", "rows")
        for each in checked
    ]
    return pl.concat([pl.DataFrame(lost, schema=BY_RULE, orient="row"), *counts]).sort("table", "rule")


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


def _shares(checked: _Checked) -> pl.DataFrame:
    lines = [
        (checked.table, period, rows.len(), *_share(rows, checked.breaches))
        for period, rows in checked.periods.items()
    ]
    return pl.DataFrame(lines, schema=_SHARES_NOW, orient="row")


def _share(rows: pl.Series, breaches: pl.DataFrame) -> tuple[float | None, str | None]:
    """Of the rows with these numbers the share that breaks a rule, and the rule that most of them break."""
    broken = breaches.filter(pl.col("row").is_in(rows.implode()))
    is_enough = rows.len() >= SHARE_FROM_ROWS
    share = broken["row"].n_unique() / rows.len() if is_enough else None
    return share, cast("str | None", broken["rule"].mode().min())


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
        .select(pl.lit(checked.table).alias("table"), pl.all())
        .sort("guard_id")
    )
