"""The delay of a tenant's outcomes: unbiased where a plain quantile is short, and a default where unknown."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import delay
from fraud_assets.compute.delay import LabelDelay
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import NOON

RULES = Settings()
LOG_MEAN, LOG_SPREAD = np.log(14.0), 0.7


def frames(ages: Sequence[float], delays: Sequence[float]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events of these ages in days at NOON, and the outcome of each after its delay."""
    names = [f"e{number}" for number in range(len(ages))]
    punched = [NOON - timedelta(days=age) for age in ages]
    known = [at + timedelta(days=wait) for at, wait in zip(punched, delays, strict=True)]
    instants = {"punch_in_at": pl.Datetime("us", "UTC"), "known_at": pl.Datetime("us", "UTC")}
    events = pl.DataFrame({"event_id": names, "punch_in_at": punched}, schema_overrides=instants)
    return events, pl.DataFrame({"event_id": names, "known_at": known}, schema_overrides=instants)


def growing_tenant(seed: int, reviewed: int = 3_000) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A tenant that doubles every 30 days over 180; delays are log-normal with a median of 14 days."""
    random = np.random.default_rng(seed)
    ages = random.exponential(30 / np.log(2), 2 * reviewed)
    ages = ages[ages < 180][:reviewed]
    return frames(ages.tolist(), random.lognormal(LOG_MEAN, LOG_SPREAD, ages.size).tolist())


def naive(events: pl.DataFrame, outcomes: pl.DataFrame) -> float:
    """The plain quantile of the delays of the outcomes seen."""
    seen = events.join(outcomes, on="event_id").filter(pl.col("known_at") <= NOON)
    waited = (seen["known_at"] - seen["punch_in_at"]).dt.total_seconds() / 86_400
    return float(np.quantile(waited, RULES.label_delay_quantile))


def self_consistent(waited: Sequence[float], ages: Sequence[float]) -> list[float]:
    """The same estimate by another way, slowly: each outcome seen stands for 1 / F(its age) outcomes."""
    delays, counts = np.unique(waited, return_counts=True)
    is_seen = delays <= np.array(ages)[:, None]
    shares = np.full(delays.size, 1 / delays.size)
    for _ in range(2_000):
        stands_for = 1 / (is_seen @ shares)
        raw = counts / (stands_for @ is_seen)
        shares = raw / raw.sum()
    return np.cumsum(shares).tolist()


def test_a_plain_quantile_is_short_and_the_measured_delay_is_not():
    random = np.random.default_rng(0)
    drawn = random.lognormal(LOG_MEAN, LOG_SPREAD, 1_000_000)
    truth = float(np.quantile(drawn[drawn <= RULES.longest_label_delay_days], RULES.label_delay_quantile))
    tenants = [growing_tenant(seed) for seed in range(40)]
    measured = [delay.measure(*tenant, NOON, RULES) for tenant in tenants]
    assert all(found.is_measured for found in measured)
    assert np.mean([naive(*tenant) for tenant in tenants]) < 0.85 * truth
    # Whole days, rounded up: half a day longer on average.
    assert np.mean([found.days for found in measured]) == pytest.approx(truth + 0.5, rel=0.03)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_shares_are_those_of_the_self_consistent_estimate(drawn: list[tuple[int, int]]):
    """Some old events with every delay keep the estimate unique, as `minimum_delay_outcomes` does."""
    pairs = [(wait, max(wait, age)) for wait, age in drawn] + [(wait, 6) for wait in range(7)]
    waited, ages = [float(wait) for wait, _ in pairs], [float(age) for _, age in pairs]
    delays, shares = delay.distribution(np.array(waited), np.array(ages))
    assert delays.tolist() == sorted(set(waited))
    np.testing.assert_allclose(shares, self_consistent(waited, ages), atol=1e-3)


def test_without_truncation_it_is_the_plain_share():
    delays, shares = delay.distribution(np.array([3.0, 1.0, 1.0, 2.0]), np.full(4, 100.0))
    assert delays.tolist() == [1, 2, 3]
    np.testing.assert_allclose(shares, [0.5, 0.75, 1])


@given(st.integers(0, 2**32 - 1))
def test_shares_rise_to_one_whatever_is_seen(seed: int):
    random = np.random.default_rng(seed)
    ages = random.uniform(0, 100, 50)
    waited = np.round(random.uniform(0, ages))
    _, shares = delay.distribution(np.minimum(waited, ages), ages)
    assert all(before <= after for before, after in pairwise([0.0, *shares]))
    assert shares[-1] == 1


def test_too_few_outcomes_of_old_events_leave_the_default():
    old, recent = [100.0] * 29, [60.0] * 500
    events, outcomes = frames([*old, *recent], [5.0] * 529)
    assert delay.measure(events, outcomes, NOON, RULES) == LabelDelay(30.0, 529, is_measured=False)
    enough = Settings(minimum_delay_outcomes=29)
    assert delay.measure(events, outcomes, NOON, enough) == LabelDelay(5.0, 529, is_measured=True)


def test_no_outcome_leaves_the_tenants_own_default():
    events, outcomes = frames([100.0], [5.0])
    found = delay.measure(events, outcomes.clear(), NOON, Settings(maturity_days=12))
    assert found == LabelDelay(12.0, 0, is_measured=False)


def test_the_first_outcome_of_an_event_counts_and_what_was_not_known_does_not():
    events, outcomes = frames([120.0] * 40, [7.2] * 40)
    later = outcomes.with_columns(pl.col("known_at") + timedelta(days=60))
    never = frames([120.0] * 40, [121.0] * 40)[1]
    found = delay.measure(events, pl.concat([never, later, outcomes]), NOON, RULES)
    assert found == LabelDelay(8.0, 40, is_measured=True)


def test_the_delay_has_sane_limits():
    """An outcome on the very day is a day; years, or before the punch-in, are no delay to wait for."""
    events, outcomes = frames([1_000.0] * 90, [*[0.01] * 40, *[900.0] * 40, *[-3.0] * 10])
    assert delay.measure(events, outcomes, NOON, RULES) == LabelDelay(1.0, 40, is_measured=True)


def test_the_order_of_rows_changes_nothing():
    events, outcomes = growing_tenant(1)
    mixed = (
        events.sample(fraction=1, shuffle=True, seed=1),
        outcomes.sample(fraction=1, shuffle=True, seed=2),
    )
    assert delay.measure(*mixed, NOON, RULES) == delay.measure(events, outcomes, NOON, RULES)
