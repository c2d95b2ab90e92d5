"""Splitting by time, and features as numbers."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import records
from fraud_assets.domain.errors import UnusableRecords
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import NOON, training_dataset

RULES = Settings()
DATASET = training_dataset()
NONE, HOUR = timedelta(0), timedelta(hours=1)


def at(minutes: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "guard_id": ["g"] * len(minutes),
            "event_id": [f"e{number}" for number in range(len(minutes))],
            "is_fraud": [False] * len(minutes),
            "punch_in_at": [NOON + timedelta(minutes=minute) for minute in minutes],
        },
        schema_overrides={"punch_in_at": pl.Datetime("us", "UTC")},
    )


def rows(part: records.Part) -> pl.DataFrame:
    """In order of time, as DATASET is."""
    return part.rows.collect().sort("punch_in_at", "event_id")


def test_the_latest_fifth_is_held_out():
    parts = records.split(DATASET.sample(fraction=1, shuffle=True, seed=1), RULES, NONE)
    assert rows(parts.holdout).equals(DATASET.tail(60))
    assert rows(parts.train).equals(DATASET.head(240))
    assert parts.holdout_start == DATASET["punch_in_at"][240]


def test_events_that_tie_at_the_boundary_are_all_held_out():
    parts = records.split(at([0, 1, 2, 3, 4, 5, 5, 5, 5, 6]), RULES, NONE)
    assert (parts.train.records, parts.holdout.records) == (5, 5)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.floats(0.05, 0.95), st.integers(0, 25))
def test_training_lies_the_gap_before_the_holdout_and_all_is_accounted_for(
    minutes: list[int], share: float, gap: int
):
    parts = records.split(at(minutes), Settings(holdout_share=share), timedelta(minutes=gap))
    start = parts.holdout_start
    early = [minute for minute in minutes if minute < (start - NOON) / timedelta(minutes=1)]
    assert rows(parts.holdout)["punch_in_at"].min() == start
    assert parts.holdout.records == len(minutes) - len(early) >= max(1, round(len(minutes) * share))
    known = [minute for minute in early if NOON + timedelta(minutes=minute + gap) <= start]
    assert rows(parts.train)["punch_in_at"].to_list() == [NOON + timedelta(minutes=m) for m in sorted(known)]
    assert parts.left_out == len(early) - len(known)


def test_a_gap_leaves_the_holdout_as_it_is():
    parts = records.split(DATASET, RULES, HOUR)
    assert rows(parts.holdout).equals(rows(records.split(DATASET, RULES, NONE).holdout))
    assert rows(parts.train).equals(DATASET.head(181))
    assert parts.left_out == 59


def test_nothing_cannot_be_split():
    with pytest.raises(UnusableRecords, match="got none"):
        records.split(DATASET.clear(), RULES, NONE)


def test_a_part_of_one_class_is_named():
    late = pl.col("punch_in_at") >= DATASET["punch_in_at"][240]
    assert records.one_sided(DATASET, RULES, NONE) is None
    honest = DATASET.with_columns(is_fraud=pl.col("is_fraud") & ~late)
    assert (
        records.one_sided(honest, RULES, HOUR)
        == "the holdout has 0 frauds among 60 records, and needs both classes"
    )
    early = DATASET.with_columns(is_fraud=pl.col("is_fraud") & late)
    assert "the training part has 0 frauds among 240" in str(records.one_sided(early, RULES, NONE))


def test_a_gap_that_leaves_too_little_to_train_on_is_named():
    assert records.one_sided(DATASET, RULES, timedelta(days=1.5)) == (
        "the training part has 0 frauds among 0 records, and needs both classes; "
        "the 1.5 days before the holdout, 240 records, are not trained on"
    )


def test_a_null_is_missing_and_never_zero():
    unknown = DATASET.head(1).with_columns(minutes_early=None, is_holiday=None, entry_source=pl.lit("kiosk"))
    row = dict(zip(FEATURES, records.matrix(unknown)[0], strict=True))
    assert np.isnan(row["minutes_early"])
    assert np.isnan(row["is_holiday"])
    assert row["entry_source"] == ENTRY_SOURCES.index("kiosk")


def test_booleans_become_zero_and_one():
    frame = DATASET.head(2).with_columns(is_weekend=pl.Series([False, True]))
    assert records.matrix(frame)[:, FEATURES.index("is_weekend")].tolist() == [0, 1]


def test_the_matrix_does_not_depend_on_the_order_of_columns_or_on_stored_types():
    stored = DATASET.select(reversed(DATASET.columns)).cast({"entry_source": pl.String})
    np.testing.assert_array_equal(records.matrix(stored), records.matrix(DATASET))
