from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fraud_assets.compute import features, profiles, quality
from fraud_assets.compute.observations import laid_out
from fraud_assets.domain.schemas import FEATURES, EventFeatures, History, Profile
from fraud_assets.domain.settings import Settings
from fraud_assets_tests import builders
from fraud_assets_tests.builders import NOON, known_before
from fraud_assets_tests.compute.oracle import DST_NIGHT, Oracle, Row, same, tenants

EARLY = Settings(profile_minimum_observations=1, profile_sufficient_observations=3)
GUARDS = ["g1", "g2", "g3"]
WEEKS = [DST_NIGHT - timedelta(days=days) for days in (61, 30, 7, 1, 0)]
NO_PROFILES = Profile.create_empty()
quick = settings(max_examples=40)
some_tenants = tenants.filter(lambda history: history.attendance_event.height > 0)


def profiled(history: History) -> pl.DataFrame:
    return profiles.build(history, WEEKS, GUARDS, EARLY).profiles


def everything(history: History, known_profiles: pl.DataFrame = NO_PROFILES) -> pl.DataFrame:
    return features.compute(history.attendance_event, history, known_profiles)


@given(some_tenants, st.integers(1, 40))
@settings(max_examples=15)
def test_profiles_made_on_the_way_give_the_same_features_as_stored_ones(history: History, size: int) -> None:
    laid, sites = laid_out(history), history.site
    tables = laid.attendance_event, laid.shift, sites
    on_the_way, stored = profiles.made(sites, WEEKS, EARLY), features.stored(profiled(history))
    one_pass, two_passes = (
        pl.concat(features.batches(*tables, known, size=size)) for known in (on_the_way, stored)
    )
    assert_frame_equal(one_pass, two_passes, check_exact=True)


def any_event(history: History, data: st.DataObject) -> pl.DataFrame:
    events = history.attendance_event
    return events.slice(data.draw(st.integers(0, events.height - 1)), 1)


def ago(**past: float) -> datetime:
    return NOON - timedelta(**past)


def last(*before: Row, **tables: Any) -> Row:
    """The features of an event at NOON ('now', laid over by tables['now']) after the events `before`."""
    rows = [{"event_id": f"b{number}", **row} for number, row in enumerate(before)]
    rows.append({"event_id": "now", "punch_in_at": NOON, **tables.pop("now", {})})
    known_profiles = tables.pop("profiles", NO_PROFILES)
    history = builders.history(attendance_event=rows, **tables)
    return everything(history, known_profiles).filter(pl.col("event_id") == "now").row(0, named=True)


@settings(max_examples=80)
@given(tenants)
def test_every_feature_is_what_the_slow_definition_says(history: History) -> None:
    known_profiles = profiled(history)
    oracle = Oracle(history)
    told = {row["event_id"]: row for row in oracle.events}
    for row in everything(history, known_profiles).to_dicts():
        expected = oracle.features(told[row["event_id"]], known_profiles.to_dicts())
        assert set(expected) == set(FEATURES)
        wrong = {name: (row[name], value) for name, value in expected.items() if not same(row[name], value)}
        assert not wrong, row["event_id"]


@quick
@given(some_tenants, st.data())
def test_the_future_does_not_change_the_past(history: History, data: st.DataObject) -> None:
    known_profiles = profiled(history)
    event = any_event(history, data)
    at = event["punch_in_at"][0]
    before = known_before(history, at)
    then = features.compute(event, before, known_profiles.filter(pl.col("snapshot_at") <= at))
    assert_frame_equal(then, features.compute(event, history, known_profiles), check_exact=True)


@quick
@given(some_tenants, st.data())
def test_an_event_alone_from_the_source_of_its_moment_is_described_as_in_bulk(
    history: History, data: st.DataObject
) -> None:
    """The whole way twice: rows with repeats as read, set aside and counted, profiled, described."""
    repeated = pl.concat([history.attendance_event, any_event(history, data)])
    as_read = replace(history, attendance_event=repeated.with_columns(unreadable=pl.lit(None, pl.String)))
    event = any_event(history, data)
    at = event["punch_in_at"][0]
    bulk = quality.clean(as_read, "acme", at + timedelta(days=200)).history
    then = quality.clean(known_before(as_read, at), "acme", at).history
    snapshots = [moment for moment in WEEKS if moment <= at]
    alone = features.compute(
        event, then, profiles.build(then, snapshots, GUARDS, EARLY).profiles if snapshots else NO_PROFILES
    )
    together = features.compute(
        bulk.attendance_event, bulk, profiles.build(bulk, WEEKS, GUARDS, EARLY).profiles
    )
    in_bulk = together.join(event, on="event_id", how="semi")
    if in_bulk.height:
        assert_frame_equal(alone, in_bulk, check_exact=True)


@quick
@given(tenants, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(history: History, random: Any) -> None:
    def shuffled(frame: pl.DataFrame) -> pl.DataFrame:
        return frame[random.sample(range(frame.height), frame.height)]

    tables = {name: shuffled(getattr(history, name)) for name in History.__dataclass_fields__}
    known_profiles = profiled(history)
    assert_frame_equal(
        everything(History(**tables), shuffled(known_profiles)),
        everything(history, known_profiles),
        check_exact=True,
    )


@quick
@given(some_tenants, st.data())
def test_one_event_alone_gives_the_bits_of_all_together(history: History, data: st.DataObject) -> None:
    known_profiles = profiled(history)
    event = any_event(history, data)
    alone = features.compute(event, history, known_profiles)
    together = everything(history, known_profiles).join(event, on="event_id", how="semi")
    assert_frame_equal(alone, together, check_exact=True)


def test_batches_of_a_long_history_give_the_bits_of_small_pieces() -> None:
    rows = [
        {
            "event_id": f"e{number:05}",
            "guard_id": f"g{number * number % 7}",
            "punch_in_at": NOON + timedelta(minutes=97 * number % 260_000),
            "latitude": 40.4 + number * 37 % 101 / 1e5,
            "longitude": -3.7 + number * 53 % 97 / 1e5,
            "face_distance": number % 13 / 30,
        }
        for number in range(2_400)
    ]
    history = builders.history(
        guard=[{"guard_id": f"g{number}"} for number in range(7)], attendance_event=rows
    )
    pieces = [
        features.compute(some, history, NO_PROFILES) for some in history.attendance_event.iter_slices(700)
    ]
    together = everything(history)
    assert together["location_consistency_score"].null_count() < 200
    assert_frame_equal(
        pl.concat(pieces).sort("punch_in_at", "event_id").cast(together.schema),
        together,
        check_exact=True,
    )


@given(tenants)
@settings(max_examples=10)
def test_another_tenant_with_the_same_ids_gets_the_same_features_under_its_own_name(history: History) -> None:
    renamed = {
        name: getattr(history, name).with_columns(tenant_id=pl.lit("other"))
        for name in History.__dataclass_fields__
    }
    ours = everything(history)
    theirs = everything(History(**renamed))
    assert set(theirs["tenant_id"]) <= {"other"}
    assert_frame_equal(theirs.drop("tenant_id"), ours.drop("tenant_id"), check_exact=True)


@given(tenants)
@settings(max_examples=20)
def test_the_rows_keep_the_schema_of_event_features(history: History) -> None:
    described = everything(history, profiled(history))
    EventFeatures.validate(described)
    assert described.equals(described.sort("punch_in_at", "event_id"))
    assert described.height == history.attendance_event.height


def test_no_events_give_an_empty_frame_of_the_same_schema() -> None:
    described = everything(builders.history())
    assert described.schema == EventFeatures.create_empty().schema
    assert described.is_empty()


def test_an_event_outside_the_history_is_described_too() -> None:
    event = builders.table("attendance_event", [{"punch_in_at": NOON}])
    history = builders.history(attendance_event=[{"event_id": "old", "punch_in_at": ago(hours=2)}])
    assert features.compute(event, history, NO_PROFILES)["time_since_last_event"].to_list() == [7200]


def test_the_answer_has_only_the_events_asked_for() -> None:
    history = builders.history(
        attendance_event=[{"event_id": "a", "punch_in_at": ago(hours=1)}, {"event_id": "b"}]
    )
    asked = history.attendance_event.filter(pl.col("event_id") == "b")
    assert features.compute(asked, history, NO_PROFILES)["event_id"].to_list() == ["b"]


def test_an_event_does_not_see_itself() -> None:
    alone = last(now={"face_verified": False})
    assert alone["biometric_mismatch_count_30d"] == 0
    assert alone["time_since_last_event"] == 86_400
    assert alone["device_guards_30d"] == 0


def test_a_tie_is_not_seen_by_the_event() -> None:
    tie = {"punch_in_at": NOON, "known_at": ago(minutes=2), "guard_id": "g2"}
    assert last(tie)["device_guards_30d"] == 0


@pytest.mark.parametrize(("known_at", "seen"), [(NOON, 0), (NOON - timedelta(microseconds=1), 1)])
def test_an_event_is_seen_only_if_it_was_known_strictly_before(known_at: datetime, seen: int) -> None:
    past = {"punch_in_at": ago(days=1), "known_at": known_at, "face_verified": False}
    assert last(past)["biometric_mismatch_count_30d"] == seen


@pytest.mark.parametrize(("older", "seen"), [(timedelta(0), 1), (timedelta(microseconds=1), 0)])
def test_the_window_is_closed_on_the_left(older: timedelta, seen: int) -> None:
    past = {"punch_in_at": ago(hours=30 * 24) - older, "face_verified": False}
    assert last(past)["biometric_mismatch_count_30d"] == seen


def test_the_window_is_hours_in_utc_across_a_clock_change() -> None:
    after = datetime(2026, 4, 10, 12, tzinfo=UTC)
    exactly = {"punch_in_at": after - timedelta(hours=30 * 24), "face_verified": False}
    assert last(exactly, now={"punch_in_at": after})["biometric_mismatch_count_30d"] == 1


@pytest.mark.parametrize(
    ("at", "hour", "weekday"),
    [
        (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), 1, 6),
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), 3, 6),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), 2, 6),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), 2, 6),
        (datetime(2026, 3, 1, 23, 30, tzinfo=UTC), 0, 0),
    ],
)
def test_hours_and_weekdays_are_the_sites_own_also_on_nights_of_clock_change(
    at: datetime, hour: int, weekday: int
) -> None:
    described = last(now={"punch_in_at": at})
    assert (described["hour_of_day"], described["day_of_week"]) == (hour, weekday)


def test_each_site_has_its_own_time_zone() -> None:
    site = {"tz": "Asia/Kathmandu"}
    described = last(site=[site], now={"punch_in_at": datetime(2026, 3, 6, 18, 20, tzinfo=UTC)})
    assert (described["hour_of_day"], described["is_weekend"]) == (0, True)


@pytest.mark.parametrize(("country", "expected"), [("ES", True), ("FR", False), ("ZZ", None), (None, None)])
def test_a_holiday_is_a_public_one_of_the_sites_country(country: str | None, expected: bool | None) -> None:
    constitution_day_in_madrid = datetime(2024, 12, 5, 23, 30, tzinfo=UTC)
    described = last(site=[{"country": country}], now={"punch_in_at": constitution_day_in_madrid})
    assert described["is_holiday"] is expected


@pytest.mark.parametrize(
    ("latitude", "expected"), [(40.4, 0), (41.4, 10_000), (40.401, 111.19), (None, None)]
)
def test_drift_is_metres_to_the_sites_centre_capped_at_ten_kilometres(
    latitude: float | None, expected: float | None
) -> None:
    longitude = None if latitude is None else -3.7
    drift = last(now={"latitude": latitude, "longitude": longitude})["gps_drift_meters"]
    assert drift == (None if expected is None else pytest.approx(expected, abs=0.01))


def test_drift_is_not_known_where_the_sites_centre_is_not() -> None:
    assert last(site=[{"latitude": None, "longitude": None}])["gps_drift_meters"] is None


@pytest.mark.parametrize(("fixes", "expected"), [(4, None), (5, 1.0)])
def test_location_consistency_needs_five_positions(fixes: int, expected: float | None) -> None:
    before = [{"punch_in_at": ago(days=day + 1)} for day in range(fixes)]
    lost = {"punch_in_at": ago(days=9), "latitude": None, "longitude": None}
    assert last(*before, lost)["location_consistency_score"] == expected


def test_location_consistency_falls_with_the_spread_of_positions() -> None:
    before = [{"punch_in_at": ago(days=d + 1), "latitude": 40.4 + (d % 2) * 0.01} for d in range(6)]
    assert last(*before)["location_consistency_score"] == pytest.approx(0.75)


def test_check_in_frequency_compares_with_the_guards_seen_at_the_site() -> None:
    counts = {"g1": 3, "g2": 1}
    before = [
        {"guard_id": guard, "punch_in_at": ago(days=day + 1)}
        for guard, count in counts.items()
        for day in range(count)
    ]
    guards = [{"guard_id": guard} for guard in GUARDS]
    scores = {
        guard: last(*before, guard=guards, now={"guard_id": guard})["check_in_frequency_zscore"]
        for guard in GUARDS
    }
    assert scores == {"g1": 1.0, "g2": -1.0, "g3": -2.0}


def test_check_in_frequency_is_not_known_for_one_guard_or_for_equal_counts() -> None:
    one = {"punch_in_at": ago(days=1)}
    other = {"punch_in_at": ago(days=2), "guard_id": "g2"}
    assert last(one)["check_in_frequency_zscore"] is None
    assert last(one, other)["check_in_frequency_zscore"] is None


def test_check_in_frequency_is_clipped_at_three() -> None:
    crowd = [{"guard_id": f"x{number}", "punch_in_at": ago(days=1)} for number in range(30)]
    regular = [{"punch_in_at": ago(days=day + 1)} for day in range(20)]
    assert last(*crowd, *regular)["check_in_frequency_zscore"] == 3.0


@pytest.mark.parametrize(("minutes", "rate"), [(15, 0.0), (16, 1.0)])
def test_late_is_more_than_fifteen_minutes_after_the_scheduled_start(minutes: int, rate: float) -> None:
    before = {"shift_id": "h1", "punch_in_at": ago(days=1) + timedelta(minutes=minutes)}
    shift = {"scheduled_start": ago(days=1), "published_at": ago(days=9)}
    assert last(before, shift=[shift])["late_arrival_rate"] == rate


def test_a_shift_published_after_the_punch_in_is_not_used() -> None:
    before = {"shift_id": "h1", "punch_in_at": ago(hours=1)}
    shift = {"scheduled_start": ago(days=1), "published_at": NOON}
    described = last(before, shift=[shift], now={"shift_id": "h1"})
    assert described["late_arrival_rate"] is None
    assert described["minutes_early"] is None


@pytest.mark.parametrize("minutes", [30.0, -7.5])
def test_minutes_early_are_negative_when_late(minutes: float) -> None:
    shift = {"scheduled_start": NOON + timedelta(minutes=minutes)}
    assert last(shift=[shift], now={"shift_id": "h1"})["minutes_early"] == minutes


def test_weekend_work_is_counted_in_local_time_over_ninety_days() -> None:
    sunday_in_utc_monday_in_madrid = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    saturday = datetime(2025, 12, 6, 12, tzinfo=UTC)
    before = [{"punch_in_at": sunday_in_utc_monday_in_madrid}, {"punch_in_at": saturday}]
    assert last(*before)["weekend_work_frequency"] == 0.5
    assert last()["weekend_work_frequency"] is None


@pytest.mark.parametrize(("distance", "expected"), [(0.0, 1.0), (0.1, 0.75), (0.5, 0.0), (None, None)])
def test_face_confidence_falls_to_zero_at_the_limit(distance: float | None, expected: float | None) -> None:
    assert last(now={"face_distance": distance})["face_recognition_confidence"] == expected


def test_an_unchecked_face_is_not_a_mismatch() -> None:
    before = [{"punch_in_at": ago(days=1), "face_verified": value} for value in (None, True, False)]
    assert last(*before)["biometric_mismatch_count_30d"] == 1


def test_time_since_the_last_event_is_capped_at_a_day() -> None:
    assert last({"punch_in_at": ago(days=2)})["time_since_last_event"] == 86_400
    assert last({"punch_in_at": ago(seconds=90)})["time_since_last_event"] == 90


def test_a_shared_device_shows_its_guards_and_the_seconds_since_another() -> None:
    other = {"punch_in_at": ago(seconds=100), "guard_id": "g2"}
    own = {"punch_in_at": ago(seconds=70)}
    shared = last(own, other)
    assert (shared["device_guards_30d"], shared["seconds_since_other_guard_on_device"]) == (2, 100)


def test_without_a_device_id_nothing_is_known_of_the_device() -> None:
    nameless = {"punch_in_at": ago(seconds=100), "guard_id": "g2", "device_id": None}
    described = last(nameless, now={"device_id": None})
    assert described["device_guards_30d"] is None
    assert described["seconds_since_other_guard_on_device"] is None


def test_travel_speed_is_since_the_newest_position_tie_by_the_largest_id() -> None:
    same_time = ago(hours=2)
    before = [
        {"event_id": "larger", "punch_in_at": same_time, "latitude": 40.4, "longitude": -3.7},
        {"event_id": "large", "punch_in_at": same_time, "latitude": 40.0, "longitude": -3.7},
        {"punch_in_at": ago(hours=1), "latitude": None, "longitude": None},
    ]
    now = {"latitude": 41.4, "longitude": -3.7}
    assert last(*before, now=now)["travel_speed_kmh"] == pytest.approx(55.597, abs=0.01)
    assert last(*before, now={"latitude": None, "longitude": None})["travel_speed_kmh"] is None


def a_profile(**values: Any) -> Row:
    usual: Row = {"usual_hours": [9, 13], "usual_weekdays": [0], "usual_sites": ["s1"]}
    shares: Row = {"usual_hour_shares": [0.5, 0.5], "usual_weekday_shares": [1.0], "usual_site_shares": [1.0]}
    counts: Row = {"observations": 40, "is_sufficient": True, "site_variety": 1, "events_per_week": 3.0}
    hours: Row = {"hour_mean": 23.0, "hour_spread": 2.0, "night_shift_share": 0.0, "consistency_score": 0.9}
    face: Row = {"face_confidence_mean": 0.7, "face_confidence_spread": 0.0}
    key: Row = {"tenant_id": "acme", "guard_id": "g1", "snapshot_at": ago(days=1)}
    return {**key, **usual, **shares, **counts, **hours, **face, **values}


def against(*rows: Row, **now: Any) -> Row:
    described = last(now=now, profiles=pl.DataFrame(rows, schema=Profile.create_empty().schema))
    return {name: value for name, value in described.items() if name.startswith("profile_")}


def test_deviations_are_from_the_guards_sufficient_profile() -> None:
    assert against(a_profile(), face_distance=0.16) == {
        "profile_hour_is_unusual": False,
        "profile_weekday_is_unusual": False,
        "profile_site_is_unusual": False,
        "profile_hour_deviation": 5.0,
        "profile_face_deviation": pytest.approx(-10.0),
        "profile_observations": 40,
        "profile_consistency_score": 0.9,
    }


def test_the_unusual_is_what_is_not_among_the_usual() -> None:
    strange = a_profile(usual_hours=[8], usual_weekdays=[1, 2], usual_sites=["s9"])
    flags = ("profile_hour_is_unusual", "profile_weekday_is_unusual", "profile_site_is_unusual")
    assert [against(strange)[flag] for flag in flags] == [True, True, True]


@pytest.mark.parametrize(
    "profile",
    [
        a_profile(is_sufficient=False),
        a_profile(guard_id="g2"),
        a_profile(snapshot_at=NOON + timedelta(microseconds=1)),
    ],
)
def test_deviations_are_null_without_a_sufficient_profile_of_the_guard_in_time(profile: Row) -> None:
    assert set(against(profile).values()) == {None}


def test_the_latest_profile_counts_even_if_an_older_one_was_sufficient() -> None:
    older = a_profile(snapshot_at=ago(days=8), observations=50)
    assert against(older, a_profile(snapshot_at=NOON))["profile_observations"] == 40
    assert against(older, a_profile(is_sufficient=False))["profile_observations"] is None


def test_what_a_profile_does_not_know_gives_no_deviation() -> None:
    vague = a_profile(
        hour_mean=None, hour_spread=None, face_confidence_mean=None, face_confidence_spread=None
    )
    described = against(vague)
    assert described["profile_hour_deviation"] is None
    assert described["profile_face_deviation"] is None


def test_a_narrow_spread_does_not_make_a_deviation_endless() -> None:
    narrow = a_profile(hour_mean=12.5, hour_spread=0.0)
    assert against(narrow)["profile_hour_deviation"] == 2.0
