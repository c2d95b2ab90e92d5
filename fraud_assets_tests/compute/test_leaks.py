"""Leaks planted on purpose are found and named, and a clean dataset is not accused."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from fraud_assets.compute import leaks
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import NOON, training_dataset

RULES = Settings()
CLEAN = training_dataset(600).with_columns(
    guard_id=pl.format("g{}", pl.int_range(600) % 20),
    punch_in_at=pl.lit(NOON) + pl.duration(hours=pl.int_range(600)),
)
AS_OF = NOON + timedelta(hours=599, days=30)
FRAUD = pl.col("is_fraud").cast(pl.Float64)


def found(*changes: pl.Expr, **named: pl.Expr) -> tuple[str, ...]:
    return leaks.find(CLEAN.with_columns(*changes, **named), AS_OF, RULES)


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_dataset_has_no_leak(seed: int):
    frame = training_dataset(400, seed=seed)
    assert leaks.find(frame, AS_OF, RULES) == ()


NOISE = pl.Series(np.random.default_rng(0).normal(0, 0.05, 600))


@pytest.mark.parametrize(
    ("planted", "how"),
    [
        (FRAUD, ""),
        (-FRAUD, ""),
        (FRAUD + NOISE, ""),
        (pl.when("is_fraud").then(1.0), ""),
        (pl.when(~pl.col("is_fraud")).then(NOISE), " by being known"),
        (
            FRAUD.cum_sum().over("guard_id") + pl.int_range(600) % 20 * 10.0,
            " by its step since the guard's event before",
        ),
    ],
    ids=[
        "outcome",
        "turned round",
        "blurred",
        "known for fraud",
        "unknown for fraud",
        "own label in a count",
    ],
)
def test_a_feature_with_the_outcome_in_it_is_named(planted: pl.Expr, how: str):
    [said] = found(planted.alias("travel_speed_kmh"))
    assert said.startswith(f"travel_speed_kmh alone{how} tells the outcome: PR-AUC ")


def test_an_own_label_in_a_count_is_found_though_most_frauds_are_a_guards_second_event():
    """The first event of a guard has no step, and is left out."""
    many = CLEAN.with_columns(guard_id=pl.format("g{}", pl.int_range(600) // 3))
    counted = many.with_columns(travel_speed_kmh=FRAUD.cum_sum().over("guard_id") + pl.int_range(600) // 3)
    [said] = leaks.find(counted, AS_OF, RULES)
    assert said.startswith("travel_speed_kmh alone by its step")


@pytest.mark.parametrize("share", [0.03, 0.5, 0.96])
def test_a_dataset_of_little_or_of_much_fraud_is_not_accused(share: float):
    labels = np.random.default_rng(0).permutation(np.arange(600) < 600 * share)
    assert found(is_fraud=pl.lit(pl.Series(labels))) == ()


def test_a_handful_of_frauds_accuses_nobody():
    """Among 26 features and one fraud some feature is the largest there by luck."""
    for row in range(100):
        assert found(is_fraud=pl.int_range(600) == row) == ()


def test_a_count_of_the_labels_before_is_no_leak():
    before = FRAUD.cum_sum().over("guard_id") - FRAUD
    assert found(before.alias("travel_speed_kmh")) == ()


def test_an_entry_source_that_stands_for_the_outcome_is_named():
    source = pl.when("is_fraud").then(pl.lit("import")).otherwise(pl.lit("kiosk"))
    assert found(source.alias("entry_source"))[0].startswith("entry_source alone")


def test_rows_of_tomorrow_are_counted():
    later = pl.when(pl.int_range(600) < 3).then(AS_OF).otherwise("punch_in_at")
    assert found(later.alias("punch_in_at")) == (
        "3 events are of the future: punched in at the cut-off 2026-04-26 11:00 or later",
    )


def test_an_event_whose_outcome_may_still_come_is_counted():
    assert leaks.find(CLEAN, AS_OF - timedelta(minutes=1), RULES) == (
        "1 event is not mature: punched in after 2026-03-27 10:59",
    )


def test_an_event_that_is_there_twice_is_counted():
    assert leaks.find(pl.concat([CLEAN, CLEAN[:2]]), AS_OF, RULES) == (
        "2 events are there more than once: the holdout may hold what was trained on",
    )


def test_a_column_that_is_no_feature_is_named():
    assert found(verdict=pl.lit("fraud"))[0] == "columns that are neither key nor feature: verdict"


def test_all_leaks_are_told_at_once():
    frame = pl.concat([CLEAN, CLEAN[:1]]).with_columns(minutes_early=FRAUD)
    assert len(leaks.find(frame, NOON, RULES)) == 3


def test_a_dataset_of_one_class_or_none_has_no_feature_to_accuse():
    assert found(is_fraud=pl.lit(value=False)) == ()
    assert leaks.find(CLEAN.clear(), AS_OF, RULES) == ()


def test_the_order_of_the_rows_changes_nothing():
    planted = CLEAN.with_columns(travel_speed_kmh=FRAUD.cum_sum().over("guard_id"))
    shuffled = planted.sample(fraction=1, shuffle=True, seed=4)
    assert leaks.find(shuffled, AS_OF, RULES) == leaks.find(planted, AS_OF, RULES)
