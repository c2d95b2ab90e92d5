"""The rules, the tenants' overrides, and the start of a cycle on days when clocks change."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.domain.settings import Settings, for_tenant

ZONES = st.sampled_from(["UTC", "Europe/Madrid", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_the_defaults_are_the_rules() -> None:
    rules = Settings()
    assert (rules.profile_days, rules.profile_batch_size, rules.dataset_days) == (90, 100, 180)
    assert (rules.minimum_records, rules.holdout_share, rules.maturity_days) == (100, 0.2, 30)
    assert (rules.profile_minimum_observations, rules.profile_sufficient_observations) == (10, 30)
    assert (rules.minimum_pr_auc, rules.minimum_precision_at_target_recall) == (0.70, 0.50)
    assert (rules.target_recall, rules.maximum_false_positive_rate) == (0.80, 0.10)
    assert rules.set_aside_jump == 0.05
    assert rules.retrain_after is None


def test_a_tenant_overrides_the_default_section_and_no_other_tenant_sees_it() -> None:
    overrides = {"default": {"minimum_records": 200}, "tenants": {"acme": {"minimum_records": 300}}}
    assert for_tenant(overrides, "acme").minimum_records == 300
    assert for_tenant(overrides, "beta").minimum_records == 200


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"default": {"minimum_record": 1}}, "minimum_record"),
        ({"tenants": {"acme": {"minimum_pr_auc": 7}}}, "minimum_pr_auc"),
        ({"tenants": {"acme": {"cycle_timezone": "Mars/Base"}}}, "Mars/Base"),
        ({"tenants": {"acme": {"cycle_timezone": "../../etc/passwd"}}}, "IANA"),
        ({"tenant": {}}, "tenant"),
        ({"tenants": {"acme": 3}}, "acme"),
        ({"default": []}, "default"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSettings, match=named):
        for_tenant(overrides, "acme")


@given(INSTANTS, ZONES)
def test_a_cycle_starts_at_or_before_now_and_within_a_day_and_an_hour(now: datetime, zone: str) -> None:
    start = Settings(cycle_timezone=zone).latest_cycle_start(now)
    assert timedelta(0) <= now - start < timedelta(hours=25)


@given(INSTANTS, ZONES, st.integers(-12, 12))
def test_the_zone_in_which_now_is_told_does_not_matter(now: datetime, zone: str, hours: int) -> None:
    rules = Settings(cycle_timezone=zone)
    told = now.astimezone(timezone(timedelta(hours=hours)))
    assert rules.latest_cycle_start(told) == rules.latest_cycle_start(now)


@given(INSTANTS, ZONES)
def test_the_start_of_a_cycle_is_its_own_latest_start(now: datetime, zone: str) -> None:
    rules = Settings(cycle_timezone=zone)
    start = rules.latest_cycle_start(now)
    assert rules.latest_cycle_start(start) == start


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # New York skips 02:00 on 8 March and has 01:30 twice on 1 November.
        ((2026, 3, 8, 12), (2026, 3, 8, 7)),
        ((2026, 11, 1, 12), (2026, 11, 1, 7)),
        ((2026, 7, 1, 12), (2026, 7, 1, 6)),
    ],
)
def test_a_clock_change_neither_loses_nor_doubles_a_cycle(
    day: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    start = Settings(cycle_timezone="America/New_York").latest_cycle_start(datetime(*day, tzinfo=UTC))
    assert start == datetime(*expected, tzinfo=UTC)


def test_a_time_that_happens_twice_means_its_first() -> None:
    rules = Settings(cycle_timezone="America/New_York", cycle_at=datetime(2026, 1, 1, 1, 30).time())  # noqa: DTZ001
    second = datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
    assert rules.latest_cycle_start(second) == second - timedelta(hours=1)
