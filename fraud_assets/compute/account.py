"""The account of a tenant's source rows: how many were kept and set aside, by rule, and what changed since.

Everything is a count, so that the accounts of a history's parts add up to that of the whole. No row is
judged here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Final

import polars as pl
import polars.selectors as cs

from fraud_assets.domain.schemas import SourceTable

UNKNOWN_SHIFT: Final = "unknown_shift"
"""The one rule whose rows are kept."""

ALL_ROWS: Final = "all rows"

RECENT: Final = timedelta(days=7)
"""What was learned so long before a cycle also has a share of its own: in all rows a bad night is lost."""

SHARE_FROM_ROWS: Final = 20
"""Fewer rows than this say nothing about the share that is bad: one row in 20 is 5 points."""

BY_RULE: Final = pl.Schema({"table": pl.String, "rule": pl.String, "rows": pl.Int64})
SHARES: Final = pl.Schema(
    {
        **{"table": pl.String, "period": pl.String, "rows": pl.Int64, "share": pl.Float64},
        **{"rule": pl.String, "share_before": pl.Float64, "share_before_rise": pl.Float64},
    }
)

_IN_EACH_PART: Final = ("site", "guard")


@dataclass(frozen=True)
class Account:
    """The counts of the rows of each table. Every frame is of texts and, behind them, whole numbers.

    totals     table, read, not_known_yet, set_aside, kept; one line a table, each row in one count
    periods    table, period, rows, set_aside: of the rows known, all and those learned within `RECENT`;
               a table without an instant of learning has no recent rows
    broken     table, period, rule, rows. A row that breaks two rules counts under both; the events
               under `unknown_shift` are kept, and have no period but all rows
    by_guard   table (guard, attendance_event), guard_id, reasons, read, set_aside: this tenant's
               rows without the repeated ones, which lose nothing
    """

    totals: pl.DataFrame
    periods: pl.DataFrame
    broken: pl.DataFrame
    by_guard: pl.DataFrame

    @property
    def set_aside(self) -> pl.DataFrame:
        """table, rule, rows; sorted."""
        return self.broken.filter(period=ALL_ROWS).select(BY_RULE.names()).sort("table", "rule")

    @property
    def shares(self) -> pl.DataFrame:
        """table, period, rows, share, rule: the share of the rows that is set aside (null below
        `SHARE_FROM_ROWS`), and the most frequent rule."""
        rules = self.broken.filter(pl.col("rule") != UNKNOWN_SHIFT)
        most_frequent = rules.sort("rows", "rule", descending=[True, False]).unique(
            ["table", "period"], keep="first", maintain_order=True
        )
        share = pl.when(pl.col("rows") >= SHARE_FROM_ROWS).then(pl.col("set_aside") / pl.col("rows"))
        return self.periods.join(
            most_frequent.drop("rows"), on=["table", "period"], how="left", maintain_order="left"
        ).select("table", "period", "rows", share.alias("share"), "rule")


def merged(accounts: Sequence[Account]) -> Account:
    """The account of a whole history from those of its parts, each with all of a guard's events.

    Sites and guards, which every part has, count once.
    """
    first, *others = accounts

    def added(name: str) -> pl.DataFrame:
        once = [getattr(each, name).filter(~pl.col("table").is_in(_IN_EACH_PART)) for each in others]
        counts = pl.concat([getattr(first, name), *once])
        return counts.group_by(cs.string(), maintain_order=True).agg(cs.integer().sum())

    return Account(**{field.name: added(field.name) for field in fields(Account)})


def in_words(account: Account, table: SourceTable) -> str | None:
    """How many of the table's rows were set aside, and under which two rules most; None: none were."""
    total = account.totals.row(by_predicate=pl.col("table") == table, named=True)
    known, set_aside = total["set_aside"] + total["kept"], total["set_aside"]
    if not known:
        return f"no {table} rows were read"
    if not set_aside:
        return None
    amount = f"all {known}" if set_aside == known else f"{set_aside} of {known}"
    rules = ", ".join(f"{rule} {rows}" for rule, rows in _most_frequent(account.set_aside, table)[:2])
    return f"{amount} {table} rows were set aside: {rules}"


def compared(account: Account, before: pl.DataFrame) -> pl.DataFrame:
    """The shares with what they are compared with, as `to_compare_with` tells it; the schema is SHARES."""
    return account.shares.join(before, on=["table", "period"], how="left", maintain_order="left")


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
