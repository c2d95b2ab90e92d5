from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fraud_assets.compute import profiles
from fraud_assets.domain.schemas import History, Profile
from fraud_assets.domain.settings import Settings
from fraud_assets_tests import builders
from fraud_assets_tests.builders import NOON, known_before
from fraud_assets_tests.compute.oracle import DST_NIGHT, Oracle, Row, hours_apart, same, tenants

ANY = Settings(profile_minimum_observations=1, profile_sufficient_observations=3)
GUARDS = ["g1", "g2", "g3"]
WEEKS = [DST_NIGHT - timedelta(days=days) for days in (61, 30, 7, 1)] + [DST_NIGHT]
quick = settings(max_examples=40)


def daily(guard: str, days: int) -> list[Row]:
    """One event a day before NOON, the newest a day before it."""
    return [
        {"event_id": f"{guard}-{day}", "guard_id": guard, "punch_in_at": NOON - timedelta(days=day)}
        for day in range(1, days + 1)
    ]


def build(events: list[Row], rules: Settings = ANY, **options: Any) -> profiles.Profiles:
    history = builders.history(
        guard=[{"guard_id": guard} for guard in GUARDS],
        attendance_event=[{"event_id": f"e{number}", **row} for number, row in enumerate(events)],
        shift=options.pop("shift", []),
        site=options.pop("site", [{}]),
    )
    guards = options.pop("guards", GUARDS)
    return profiles.build(history, [NOON], guards, rules, **options)


def only(*events: Row, **options: Any) -> Row:
    """The profile of g1 at NOON."""
    return build(list(events), guards=["g1"], **options).profiles.row(0, named=True)


def at_hours(*hours: float) -> list[Row]:
    midnight = datetime(2026, 2, 10, tzinfo=UTC)
    return [{"punch_in_at": midnight + timedelta(days=day, hours=hour)} for day, hour in enumerate(hours)]


UTC_SITE = [{"tz": "UTC"}]


def agrees(row: Row, expected: Row) -> bool:
    if row["hour_mean"] is None or expected["hour_mean"] is None:
        together = row["hour_mean"] == expected["hour_mean"]
    else:
        together = hours_apart(row["hour_mean"], expected["hour_mean"]) < 1e-5
    return together and all(same(row[name], expected[name]) for name in expected if name != "hour_mean")


@settings(max_examples=80)
@given(tenants)
def test_every_profile_is_what_the_slow_definition_says(history: History) -> None:
    oracle = Oracle(history)
    told = [oracle.profile(guard, at, 90, sufficient=3) for guard in GUARDS for at in WEEKS]
    expected = [row for row in told if row is not None]
    rows = profiles.build(history, WEEKS, GUARDS, ANY).profiles.to_dicts()
    assert [(row["guard_id"], row["snapshot_at"]) for row in rows] == [
        (row["guard_id"], row["snapshot_at"]) for row in expected
    ]
    for row, truth in zip(rows, expected, strict=True):
        assert set(row) == set(truth)
        assert agrees(row, truth), (row, truth)


@quick
@given(tenants)
def test_what_happens_or_is_known_later_does_not_change_a_profile(history: History) -> None:
    at = WEEKS[1]
    before = known_before(history, at)
    now = profiles.build(history, WEEKS, GUARDS, ANY).profiles.filter(pl.col("snapshot_at") == at)
    assert_frame_equal(profiles.build(before, [at], GUARDS, ANY).profiles, now, check_exact=True)


@quick
@given(tenants, st.randoms(use_true_random=False))
def test_neither_batches_nor_the_order_of_rows_change_a_bit(history: History, random: Any) -> None:
    events = history.attendance_event
    tables = {name: getattr(history, name) for name in History.__dataclass_fields__}
    tables["attendance_event"] = events[random.sample(range(events.height), events.height)]
    singly = ANY.model_copy(update={"profile_batch_size": 1})
    together = profiles.build(history, WEEKS, GUARDS, ANY)
    apart = profiles.build(History(**tables), WEEKS[::-1], GUARDS[::-1], singly)
    assert_frame_equal(apart.profiles, together.profiles, check_exact=True)
    assert_frame_equal(apart.skipped, together.skipped)


@given(tenants)
@settings(max_examples=20)
def test_the_rows_keep_the_schema_of_profiles(history: History) -> None:
    Profile.validate(profiles.build(history, WEEKS, GUARDS, ANY).profiles)


def test_no_events_and_no_guards_give_empty_frames_of_the_same_schema() -> None:
    built = build([], guards=[])
    assert built.profiles.schema == Profile.create_empty().schema
    assert built.skipped.schema == profiles.SKIPPED_SCHEMA
    assert built.profiles.is_empty()
    assert built.skipped.is_empty()


def test_only_the_guards_asked_for_are_profiled() -> None:
    built = build(daily("g1", 3) + daily("g2", 3), guards=["g2"])
    assert built.profiles["guard_id"].to_list() == ["g2"]


@pytest.mark.parametrize(
    ("punch_in_at", "known_at", "seen"),
    [
        (NOON - timedelta(hours=90 * 24), None, True),
        (NOON - timedelta(hours=90 * 24, microseconds=1), None, False),
        (NOON, NOON - timedelta(minutes=1), False),
        (NOON - timedelta(hours=1), NOON, False),
        (NOON - timedelta(hours=1), NOON - timedelta(microseconds=1), True),
    ],
)
def test_a_snapshot_sees_ninety_days_of_what_happened_and_was_known_before_it(
    punch_in_at: datetime, known_at: datetime | None, seen: bool
) -> None:
    built = build([{"punch_in_at": punch_in_at, "known_at": known_at}], guards=["g1"])
    assert built.profiles.height == int(seen)


def test_a_guard_with_too_few_observations_has_no_profile_and_is_no_failure() -> None:
    built = build(daily("g1", 10) + daily("g2", 9), Settings())
    assert built.profiles["guard_id"].to_list() == ["g1"]
    assert built.skipped.rows() == [
        ("g2", profiles.TOO_FEW, "9 observations in 90 days, 10 are needed"),
        ("g3", profiles.TOO_FEW, "0 observations in 90 days, 10 are needed"),
    ]


def test_too_few_is_said_of_the_newest_snapshot_only() -> None:
    history = builders.history(attendance_event=daily("g1", 12))
    built = profiles.build(history, [NOON, NOON - timedelta(days=7)], ["g1"], Settings())
    assert built.profiles["snapshot_at"].to_list() == [NOON]
    assert built.skipped.is_empty()


def test_a_profile_is_sufficient_from_thirty_observations() -> None:
    built = build(daily("g1", 30) + daily("g2", 29), Settings(), guards=["g1", "g2"])
    assert built.profiles["is_sufficient"].to_list() == [True, False]


def test_a_corrupt_guard_is_named_with_its_reason_and_the_others_are_profiled() -> None:
    events = daily("g1", 3) + daily("g2", 3) + daily("g3", 3)
    built = build(events, corrupt={"g2": "38 of 40 events set aside", "not asked for": "x"})
    assert built.profiles["guard_id"].to_list() == ["g1", "g3"]
    assert built.skipped.rows() == [("g2", profiles.FAILED, "38 of 40 events set aside")]


def fails_on(bad: set[str], fault: Exception, calls: list[list[str]]) -> profiles.Batch:
    def batch(seen: profiles.Seen) -> profiles.Columns:
        calls.append(list(seen.guards))
        if bad & set(seen.guards):
            raise fault
        return profiles.profile(seen)

    return batch


@pytest.mark.parametrize(
    "fault", [pl.exceptions.ComputeError("bad row"), ZeroDivisionError("bad row"), ValueError("bad row")]
)
def test_a_guard_that_cannot_be_profiled_is_named_and_costs_the_others_nothing(fault: Exception) -> None:
    calls: list[list[str]] = []
    events = daily("g1", 3) + daily("g2", 3) + daily("g3", 3)
    built = build(events, batch=fails_on({"g2"}, fault, calls))
    assert calls == [GUARDS, ["g1"], ["g2"], ["g3"]]
    assert built.profiles["guard_id"].to_list() == ["g1", "g3"]
    [(guard, kind, reason)] = built.skipped.rows()
    assert (guard, kind) == ("g2", profiles.FAILED)
    assert "bad row" in reason
    assert type(fault).__name__ in reason


def test_only_the_batch_with_the_fault_is_tried_guard_by_guard() -> None:
    calls: list[list[str]] = []
    pairs = ANY.model_copy(update={"profile_batch_size": 2})
    events = daily("g1", 3) + daily("g2", 3) + daily("g3", 3)
    build(events, pairs, batch=fails_on({"g3"}, ValueError("bad row"), calls))
    assert calls == [["g1", "g2"], ["g3"]]


def test_a_fault_of_the_program_is_not_taken_for_bad_data() -> None:
    with pytest.raises(TypeError, match="not data"):
        build(daily("g1", 3), batch=fails_on({"g1"}, TypeError("not data"), []))


def test_the_usual_are_the_three_most_frequent_ties_smallest_first() -> None:
    profile = only(*at_hours(9, 9, 9, 22, 22, 8, 7), site=UTC_SITE)
    assert profile["usual_hours"] == [9, 22, 7]
    assert profile["usual_hour_shares"] == pytest.approx([3 / 7, 2 / 7, 1 / 7])


def test_the_mean_hour_goes_round_midnight() -> None:
    profile = only(*at_hours(23, 1), site=UTC_SITE)
    assert hours_apart(profile["hour_mean"], 0) < 1e-9
    assert profile["hour_mean"] < 24
    assert profile["hour_spread"] == pytest.approx(1.006, abs=0.001)


def test_hours_that_cancel_out_have_no_mean_and_no_consistency() -> None:
    profile = only(*at_hours(0, 12), site=UTC_SITE)
    assert (profile["hour_mean"], profile["hour_spread"]) == (None, None)
    assert profile["consistency_score"] == pytest.approx(0.5)


def test_perfect_regularity_is_consistency_one() -> None:
    profile = only(*at_hours(*[7.1] * 11), site=UTC_SITE)
    assert profile["consistency_score"] == pytest.approx(1)
    assert profile["hour_spread"] == pytest.approx(0, abs=1e-6)


def test_night_is_from_eight_in_the_evening_to_before_seven() -> None:
    profile = only(*at_hours(19.99, 20, 0, 6.99, 7), site=UTC_SITE)
    assert profile["night_shift_share"] == 0.6


def test_punctuality_asks_only_the_shifts_that_were_published() -> None:
    start = NOON - timedelta(days=5)
    shifts = [
        {"shift_id": "on time", "scheduled_start": start, "published_at": start},
        {"shift_id": "late", "scheduled_start": start - timedelta(minutes=16), "published_at": start},
        {"shift_id": "unpublished", "scheduled_start": start, "published_at": NOON},
    ]
    events = [{"punch_in_at": start, "shift_id": shift["shift_id"]} for shift in shifts]
    assert only(*events, shift=shifts)["punctuality"] == 0.5
    assert only(events[2], shift=shifts)["punctuality"] is None


def test_what_no_event_shows_is_null_in_the_profile() -> None:
    blank = {"latitude": None, "longitude": None, "accuracy_m": None, "face_distance": None}
    profile = only({"punch_in_at": NOON - timedelta(days=1), **blank})
    names = ("face_confidence_mean", "face_confidence_spread", "gps_drift_mean_meters")
    assert [profile[name] for name in (*names, "accuracy_mean_meters", "punctuality")] == [None] * 5


def test_events_a_week_are_over_the_whole_window() -> None:
    assert only(*daily("g1", 45))["events_per_week"] == pytest.approx(3.5)


def test_snapshots_are_mondays_from_before_the_dataset_and_the_moment_itself() -> None:
    as_of = datetime(2026, 3, 4, 2, tzinfo=UTC)
    instants = profiles.snapshot_instants(as_of, Settings())
    assert instants[-1] == as_of
    assert instants[0] <= as_of - timedelta(days=180) < instants[1]
    assert instants[-2] == datetime(2026, 3, 2, tzinfo=UTC)
    assert {(at.weekday(), at.hour) for at in instants[:-1]} == {(0, 0)}
    assert {later - at for at, later in pairwise(instants[:-1])} == {profiles.WEEK}


def test_a_snapshot_on_the_grid_itself_comes_once() -> None:
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    instants = profiles.snapshot_instants(monday, Settings(dataset_days=7))
    assert instants == [monday - timedelta(days=7), monday]


@given(st.timedeltas(timedelta(0), timedelta(days=9_999)))
def test_two_cycles_agree_on_the_snapshots_they_share(after: timedelta) -> None:
    as_of = NOON + after
    today = profiles.snapshot_instants(as_of, Settings())
    tomorrow = profiles.snapshot_instants(as_of + timedelta(days=1), Settings())
    assert set(today[1:-1]) <= set(tomorrow)
    assert today == sorted(set(today))
