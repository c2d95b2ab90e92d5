"""What was set aside is counted, compared with the night before, and told in words; parts add up."""

from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from statistics import fmean
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fraud_assets.compute import account, quality
from fraud_assets.compute.account import Account
from fraud_assets.domain.schemas import SourceTable
from fraud_assets_tests.builders import NOON, history

AS_OF = NOON + timedelta(days=30)
_LATE = AS_OF + timedelta(days=1)


def counted(**rows: list[dict[str, Any]]) -> Account:
    return quality.clean(history(as_read=True, **rows), "acme", AS_OF).account


def events(good: int, bad: int, **row: Any) -> list[dict[str, Any]]:
    wrong = [{"event_id": f"b{n}", "latitude": 91.0, **row} for n in range(bad)]
    return wrong + [{"event_id": f"g{n}", **row} for n in range(good)]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no attendance_event rows were read"),
        ([{"known_at": _LATE}], "no attendance_event rows were read"),
        (events(good=2, bad=0), None),
        (events(good=2, bad=0, shift_id="nobody's"), None),
        (events(2, 1, shift_id="nobody's"), "1 of 3 attendance_event rows were set aside: latitude|max 1"),
        (events(good=2, bad=3), "3 of 5 attendance_event rows were set aside: latitude|max 3"),
        (events(good=0, bad=3), "all 3 attendance_event rows were set aside: latitude|max 3"),
        (
            [
                *events(good=0, bad=2, guard_id="nobody", site_id="nowhere"),
                {"device_id": "", "site_id": "nowhere"},
            ],
            "all 3 attendance_event rows were set aside: unknown_site 3, latitude|max 2",
        ),
    ],
)
def test_the_words_say_how_many_rows_and_the_two_most_frequent_rules(
    rows: list[dict[str, Any]], words: str | None
) -> None:
    assert account.in_words(counted(attendance_event=rows), "attendance_event") == words


NOTHING_BEFORE = account.to_compare_with(pl.DataFrame(schema=account.SHARES), limit=0.05)
ALL, LATELY = "all rows", "the last 7 days"


def shares(told: Account, table: str, column: str = "share") -> dict[str, Any]:
    """Period -> share, or another column."""
    return dict(told.shares.filter(pl.col("table") == table).select("period", column).iter_rows())


def test_a_share_is_of_the_rows_known() -> None:
    late = {"event_id": "late", "latitude": 91.0, "known_at": _LATE}
    told = counted(attendance_event=[*events(good=15, bad=5), late])
    assert shares(told, "attendance_event") == {ALL: 0.25, LATELY: None}
    assert account.compared(told, NOTHING_BEFORE).schema == account.SHARES


def test_a_row_that_breaks_two_rules_is_one_of_its_share() -> None:
    assert shares(counted(attendance_event=events(15, 5, device_id="")), "attendance_event")[ALL] == 1.0
    assert shares(counted(attendance_event=events(16, 4) * 2), "attendance_event")[ALL] == 0.6


@pytest.mark.parametrize(("good", "share"), [(4, None), (5, 0.75)])
def test_fewer_rows_than_twenty_have_no_share(good: int, share: float | None) -> None:
    lately = counted(attendance_event=events(good, bad=15, known_at=AS_OF))
    assert shares(lately, "attendance_event") == {ALL: share, LATELY: share}


def test_the_tables_that_tell_when_a_row_was_learned_have_a_recent_share() -> None:
    told = counted()
    assert told.shares.select("table", "period").rows() == [
        ("site", ALL), ("guard", ALL), ("shift", ALL), ("shift", LATELY),
        ("attendance_event", ALL), ("attendance_event", LATELY), ("outcome", ALL), ("outcome", LATELY),
    ]  # fmt: skip


WEEK_AGO, MOMENT = AS_OF - timedelta(days=7), timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("table", "row", "is_recent"),
    [
        ("attendance_event", {"known_at": WEEK_AGO}, False),
        ("attendance_event", {"known_at": WEEK_AGO + MOMENT}, True),
        ("attendance_event", {"known_at": AS_OF}, True),
        ("attendance_event", {"known_at": AS_OF.replace(year=1970)}, True),
        ("attendance_event", {"known_at": AS_OF.replace(year=2150)}, True),
        ("outcome", {"known_at": None, "decided_at": WEEK_AGO}, True),
        ("outcome", {"known_at": None, "unreadable": "known_at"}, True),
        ("outcome", {"known_at": WEEK_AGO, "decided_at": AS_OF}, False),
        ("shift", {"published_at": WEEK_AGO}, False),
        ("shift", {"published_at": WEEK_AGO + MOMENT}, True),
    ],
)
def test_a_row_is_recent_unless_it_was_learned_seven_days_ago(
    table: SourceTable, row: dict[str, Any], is_recent: bool
) -> None:
    assert shares(counted(**{table: [row]}), table, "rows") == {ALL: 1, LATELY: int(is_recent)}


def test_each_share_has_the_rule_that_most_of_its_own_rows_break() -> None:
    old = [{"event_id": f"o{n}", "guard_id": "nobody"} for n in range(5)]
    told = counted(attendance_event=old + events(good=0, bad=3, known_at=AS_OF))
    assert shares(told, "attendance_event", "rule") == {ALL: "unknown_guard", LATELY: "latitude|max"}
    assert shares(counted(), "attendance_event", "rule") == {ALL: None, LATELY: None}


def compared(*rows: tuple[str, float | None, float | None]) -> pl.DataFrame:
    """Shares of these periods of one table, now and before they rose, which was in the cycle before."""
    lines = [("site", period, 99, now, "a", before, before) for period, now, before in rows]
    return pl.DataFrame(lines, schema=account.SHARES, orient="row")


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 100))
@example(now=110, before=100, limit=5)
def test_a_jump_is_a_rise_by_more_than_the_limit_to_the_very_border(
    now: int, before: int, limit: int
) -> None:
    is_jump = Fraction(now - before, 200) > Fraction(limit, 100)
    assert bool(account.jumps(compared((ALL, now / 200, before / 200)), limit / 100)) is is_jump


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (0.4, 0.012, ["site: 40.0% of {} set aside, 1.2% before, most often under a"]),
        (0.4, None, ["site: 40.0% of {} set aside, not known before, most often under a"]),
        (0.05, None, []),
        (None, 0.4, []),
        (None, None, []),
    ],
)
@pytest.mark.parametrize("period", [ALL, LATELY])
def test_a_jump_is_told_with_both_shares_and_the_most_frequent_rule(
    period: str, now: float | None, before: float | None, said: list[str]
) -> None:
    assert account.jumps(compared((period, now, before)), 0.05) == [each.format(period) for each in said]


def test_each_share_that_jumped_is_told_causes_first() -> None:
    numbers = range(20)
    told = counted(
        site=[{"site_id": f"s{n}", "tz": "Mars/Olympus"} for n in numbers],
        attendance_event=[{"event_id": f"e{n}", "known_at": AS_OF} for n in numbers],
        outcome=[{"outcome_id": f"o{n}", "event_id": f"e{n}"} for n in numbers],
    )
    told = account.jumps(account.compared(told, NOTHING_BEFORE), 0.05)
    assert [(each.split(" set")[0], each.split()[-1]) for each in told] == [
        (f"site: 100.0% of {ALL}", "unknown_time_zone"),
        (f"attendance_event: 100.0% of {ALL}", "unknown_site"),
        (f"attendance_event: 100.0% of {LATELY}", "unknown_site"),
        (f"outcome: 100.0% of {ALL}", "event_set_aside"),
    ]


def told_in(shares: Sequence[float | None]) -> list[int]:
    """The cycles that tell a jump of more than 5 points, of one share in cycle after cycle."""
    before, told = NOTHING_BEFORE, []
    for cycle, share in enumerate(shares):
        line = compared((LATELY, share, None)).drop("share_before", "share_before_rise")
        now = line.join(before, on=["table", "period"], how="left")
        told += [cycle] * len(account.jumps(now, 0.05))
        before = account.to_compare_with(now, 0.05)
    return told


def lately(bad: Sequence[int]) -> list[float]:
    """The recent shares of cycle after cycle, of so many bad ones in the hundred rows of each night."""
    return [fmean(bad[night - 6 : night + 1]) / 100 for night in range(6, len(bad))]


GOOD = [0] * 7


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ([*GOOD, 100, *GOOD], [1]),
        ([*GOOD, 35, *GOOD], []),
        ([*GOOD, 36, *GOOD], [1]),
        ([*GOOD, 100, 0, 0, 100, *GOOD], [1, 4]),
        ([*GOOD, 100, *GOOD, 100], [1, 9]),
        ([*GOOD, 30, 30, 30, *GOOD], [2]),
        ([40] * 21, [0]),
    ],
    ids=["a night", "at the limit", "over it", "two apart", "a week apart", "three nights", "always"],
)
def test_bad_nights_among_good_ones_are_told_once(bad: list[int], told: list[int]) -> None:
    assert told_in(lately(bad)) == told


@given(st.integers(0, 94), st.integers(6, 100))
def test_a_level_that_begins_one_night_and_stays_is_told_once(level: int, rise: int) -> None:
    higher = min(level + rise, 100)
    is_first = [0] if level > 5 else []
    told = told_in(lately([level] * 14 + [higher] * 21))
    assert told[: len(is_first)] == is_first
    [night] = told[len(is_first) :]
    assert (night - 7) * (higher - level) > 7 * 5 >= (night - 8) * (higher - level)


def test_a_share_that_creeps_up_as_bad_rows_gather_is_not_told() -> None:
    assert told_in([night * 0.004 for night in range(60)]) == []


def test_a_share_that_is_not_known_for_a_while_is_compared_with_the_last_one_known() -> None:
    assert told_in([0.2, None, None, 0.2]) == [0]
    assert told_in([0.2, None, None, 0.26]) == [0, 3]


def of_guard(guard: str, good: int, bad: int) -> Account:
    """Of a part with the events of one of two guards."""
    rows = [{**row, "event_id": f"{guard}{row['event_id']}"} for row in events(good, bad, guard_id=guard)]
    return counted(guard=[{"guard_id": "g1"}, {"guard_id": "g2"}], attendance_event=rows)


def test_the_accounts_of_parts_add_up_and_the_guards_of_each_count_once() -> None:
    merged = account.merged([of_guard("g1", good=15, bad=5), of_guard("g2", good=18, bad=2)])
    assert merged.totals.rows() == [
        ("site", 1, 0, 0, 1), ("guard", 2, 0, 0, 2), ("shift", 0, 0, 0, 0),
        ("attendance_event", 40, 0, 7, 33), ("outcome", 0, 0, 0, 0),
    ]  # fmt: skip
    assert shares(merged, "attendance_event")[ALL] == 7 / 40
    assert merged.set_aside.rows() == [("attendance_event", "latitude|max", 7)]
    assert merged.by_guard.select("table", "guard_id", "set_aside").rows() == [
        ("guard", "g1", 0), ("guard", "g2", 0), ("attendance_event", "g1", 5), ("attendance_event", "g2", 2),
    ]  # fmt: skip


def test_the_account_of_one_part_is_its_own() -> None:
    alone = of_guard("g1", good=3, bad=4)
    for name in ("totals", "periods", "broken", "by_guard"):
        assert_frame_equal(getattr(account.merged([alone]), name), getattr(alone, name))
