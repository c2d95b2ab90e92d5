"""What the demo company is like, and that it is the same every time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from fraud_assets.compute import quality
from fraud_assets.demo.company import generate
from fraud_assets.demo.tenants import DRIFT_DAYS, EVEN_MIX, TENANTS
from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.domain.schemas import SOURCE_TABLES, History, tenant_id
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.demo.worlds import BY_ID, CHEATED, UNTIL, cleaned, events_with_verdict, history

EMBER = BY_ID["ember-watch"]
EARLY = pl.col("scheduled_start") - pl.col("punch_in_at")


def tables(of: History) -> list[pl.DataFrame]:
    return [getattr(of, name) for name in SOURCE_TABLES]


def is_same(one: History, other: History) -> bool:
    return all(left.equals(right) for left, right in zip(tables(one), tables(other), strict=True))


def test_the_same_tenant_instant_and_seed_give_the_same_tables():
    assert is_same(generate(EMBER, UNTIL, 7), generate(EMBER, UNTIL, 7))


def test_the_zone_in_which_the_instant_is_written_does_not_matter():
    elsewhere = UNTIL.astimezone(timezone(timedelta(hours=-9)))
    assert is_same(generate(EMBER, UNTIL, 7), generate(EMBER, elsewhere, 7))


@pytest.mark.parametrize(
    "other",
    [
        generate(EMBER, UNTIL, 8),
        generate(EMBER, UNTIL + timedelta(days=1), 7),
        generate(replace(EMBER, id="other"), UNTIL, 7),
    ],
    ids=["seed", "until", "tenant"],
)
def test_another_seed_instant_or_tenant_gives_other_events(other: History):
    assert not history("ember-watch").attendance_event.equals(other.attendance_event)


def test_an_instant_without_a_zone_is_refused():
    with pytest.raises(InvalidSettings, match="time zone"):
        generate(EMBER, UNTIL.replace(tzinfo=None), 7)


def test_a_negative_seed_is_refused():
    with pytest.raises(InvalidSettings, match="got -1"):
        generate(EMBER, UNTIL, -1)


@pytest.mark.parametrize("tenant", BY_ID)
def test_the_tables_have_the_declared_columns_and_types(tenant: str):
    for name, schema in SOURCE_TABLES.items():
        assert getattr(history(tenant), name).schema == schema.create_empty().drop("unreadable").schema


@pytest.mark.parametrize("tenant", BY_ID)
def test_nothing_is_known_after_the_end(tenant: str):
    of = history(tenant)
    assert (of.attendance_event["known_at"] <= UNTIL).all()
    assert (of.outcome["known_at"] <= UNTIL).all()
    assert (of.shift["published_at"] <= UNTIL).all()
    assert cleaned(tenant).history.attendance_event.filter(pl.col("punch_out_at") > UNTIL).is_empty()


@pytest.mark.parametrize("tenant", BY_ID)
def test_the_roster_is_published_beyond_the_end(tenant: str):
    starts = history(tenant).shift["scheduled_start"]
    assert (starts > UNTIL + timedelta(days=10)).any()


def test_regular_shifts_keep_their_wall_time_when_the_clocks_change():
    shifts = history("bluewater-guards").shift.join(history("bluewater-guards").site, on="site_id")
    regular = shifts.filter(pl.col("scheduled_start") - pl.col("published_at") == pl.duration(days=14))
    for (zone,), part in regular.partition_by("tz", as_dict=True).items():
        local = part["scheduled_start"].dt.convert_time_zone(str(zone))
        assert set(local.dt.minute()) == {0}
        assert set(local.dt.hour()) <= {6, 7, 8, 14, 19, 22}


def test_a_night_shift_over_a_clock_change_is_an_hour_longer_or_shorter():
    lengths = history("bluewater-guards").shift.select(
        (pl.col("scheduled_end") - pl.col("scheduled_start")).dt.total_hours()
    )
    assert {11, 12, 13} <= set(lengths.to_series())


@pytest.mark.parametrize(
    ("tenant", "least", "most"),
    [
        ("alcazar-security", 17_000, 20_000),
        ("bluewater-guards", 13_000, 16_000),
        ("ember-watch", 150, 350),
        ("fairplay-guarding", 3_500, 4_500),
        ("harbour-corrupt", 16_000, 19_000),
    ],
)
def test_the_tenants_are_as_large_as_they_are_said_to_be(tenant: str, least: int, most: int):
    assert least < history(tenant).attendance_event.height < most


def test_the_large_tenant_has_100000_events_in_180_days():
    events = generate(BY_ID["citadel-large"], UNTIL, 7).attendance_event
    recent = pl.col("punch_in_at").is_between(UNTIL - timedelta(days=180), UNTIL)
    assert events.filter(recent).height >= 100_000


@pytest.mark.parametrize("tenant", CHEATED)
def test_between_half_and_three_percent_of_the_events_are_confirmed_frauds(tenant: str):
    events = events_with_verdict(tenant)
    assert 0.005 <= events["typology"].count() / events.height <= 0.03


@pytest.mark.parametrize("tenant", ["alcazar-security", "bluewater-guards"])
def test_frauds_come_in_bursts_of_few_guards(tenant: str):
    events = events_with_verdict(tenant)
    cheats = events.drop_nulls("typology")["guard_id"].n_unique()
    assert cheats < 0.5 * events["guard_id"].n_unique()


@pytest.mark.parametrize("tenant", ["alcazar-security", "bluewater-guards", "citadel-large"])
def test_every_typology_is_confirmed_all_along(tenant: str):
    frauds = events_with_verdict(tenant).drop_nulls("typology")
    for start in range(90, 271, 60):
        age = UNTIL - pl.col("punch_in_at")
        months = frauds.filter(age.is_between(timedelta(days=start - 60), timedelta(days=start)))
        assert set(months["typology"]) >= set(EVEN_MIX)


@pytest.mark.parametrize(
    ("typology", "mark"),
    [
        ("buddy_punching", pl.col("entry_source") == "kiosk"),
        ("buddy_punching", pl.col("face_distance") > 0.3),
        ("buddy_punching", pl.col("face_attempts") > 1),
        ("ghost_shift", pl.col("entry_source") == "supervisor"),
        ("ghost_shift", EARLY.abs() < timedelta(minutes=1)),
        ("gps_spoofing", pl.col("is_mock_location")),
        ("gps_spoofing", pl.struct("site_id", "latitude", "longitude").is_duplicated()),
        ("padding", timedelta(minutes=20) < EARLY),
        ("impossible_travel", pl.struct("guard_id", pl.col("punch_in_at").dt.date()).is_duplicated()),
    ],
)
def test_each_mark_of_a_fraud_is_commoner_among_honest_events(typology: str, mark: pl.Expr):
    marked = events_with_verdict("bluewater-guards").filter(mark)
    guilty = marked.filter(pl.col("typology") == typology).height
    assert 0 < guilty < marked["typology"].null_count()


def test_the_frauds_of_the_drifting_tenant_changed_two_months_ago():
    frauds = events_with_verdict("drift-patrol").drop_nulls("typology")
    is_late = UNTIL - pl.col("punch_in_at") < timedelta(days=DRIFT_DAYS - 1)
    early, late = (set(frauds.filter(when)["typology"]) for when in (~is_late, is_late))
    assert early == {"ghost_shift", "padding"}
    assert late == {"buddy_punching", "gps_spoofing", "impossible_travel"}


def test_the_fair_tenant_has_outcomes_and_no_confirmed_fraud():
    verdicts = set(history("fairplay-guarding").outcome["verdict"])
    assert "legitimate" in verdicts
    assert "fraud" not in verdicts


@pytest.mark.parametrize("seed", range(5))
def test_the_new_tenant_has_fewer_than_100_mature_events(seed: int):
    until = UNTIL + timedelta(days=11 * seed)
    events = generate(EMBER, until, seed).attendance_event
    mature = events.filter(pl.col("punch_in_at") + Settings().maturity_days * pl.duration(days=1) <= until)
    assert 40 < mature.height < 100 < events.height


def test_verdicts_are_superseded_both_ways():
    outcomes = history("citadel-large").outcome.sort("known_at")
    verdicts = outcomes.group_by("event_id", maintain_order=True).agg("verdict")["verdict"].to_list()
    assert ["fraud", "legitimate"] in verdicts
    assert ["legitimate", "fraud"] in verdicts


def test_some_guards_are_not_active_some_came_or_left_and_some_have_few_events():
    guards = history("alcazar-security").guard
    counts = history("alcazar-security").attendance_event["guard_id"].value_counts()
    assert not guards["is_enabled"].all()
    assert not guards["is_verified"].all()
    assert guards["left_on"].count() > 0
    assert (guards["joined_on"] > datetime(2025, 9, 1, tzinfo=UTC).date()).any()
    assert counts.filter(pl.col("count") < 10).height > 0


def test_tenants_share_guard_ids_and_no_site_ids():
    sites = [set(history(tenant).site["site_id"]) for tenant in BY_ID]
    assert len(set.union(*sites)) == sum(map(len, sites))
    assert set(history("ember-watch").guard["guard_id"]) < set(history("alcazar-security").guard["guard_id"])


def test_one_tenant_is_suspended_and_all_ids_are_valid():
    assert [tenant.id for tenant in TENANTS if not tenant.is_active] == ["garrison-paused"]
    assert len({tenant_id(tenant.id) for tenant in TENANTS}) == len(TENANTS)


@pytest.mark.parametrize("tenant", BY_ID)
def test_only_the_corrupt_tenant_has_guards_nearly_all_of_whose_rows_are_bad(tenant: str):
    corrupt = quality.corrupt_guards(cleaned(tenant), Settings())
    assert len(corrupt) == BY_ID[tenant].corrupt_guards


@pytest.mark.parametrize("tenant", BY_ID)
def test_every_tenant_has_a_sprinkle_of_bad_rows(tenant: str):
    read, kept = history(tenant).attendance_event.height, cleaned(tenant).history.attendance_event.height
    bad = (read - kept) / read
    assert 0.001 <= bad <= (0.15 if BY_ID[tenant].corrupt_guards else 0.02)


@pytest.mark.parametrize(
    "rule",
    [
        *("unknown_guard", "unknown_site", "repeated_row", "conflicting_id"),
        *("punch_out_is_not_before_punch_in", "punch_in_is_not_in_the_future", "punch_out_at|max"),
        *("latitude|max", "latitude|nan", "position_is_not_null_island", "position_is_whole"),
        *("accuracy_m|min", "accuracy_m|inf", "face_distance|min"),
        *("guard_id|min_length", "device_id|min_length", "entry_source|check"),
        *("unknown_event", "event_id|min_length", "verdict|check"),
    ],
)
def test_the_corrupt_tenant_breaks_every_rule(rule: str):
    assert rule in set(cleaned("harbour-corrupt").account.set_aside["rule"])


def test_the_corrupt_tenant_names_the_site_of_another_tenant():
    foreign = history("alcazar-security").site["site_id"].implode()
    assert history("harbour-corrupt").attendance_event["site_id"].is_in(foreign).any()


def test_the_corrupt_tenant_has_two_verdicts_at_one_instant_that_disagree():
    at_once = history("harbour-corrupt").outcome.group_by("event_id", "decided_at", "known_at")
    assert at_once.agg(pl.col("verdict").unique().sort())["verdict"].to_list().count(["fraud", "legitimate"])
