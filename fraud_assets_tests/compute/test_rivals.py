"""The simpler models: what they see, what they do not, and that they are fitted on the past alone."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from fraud_assets.compute import rivals
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import training_dataset

DATASET = training_dataset(600, seed=3)
TRAIN, HOLDOUT = DATASET[:480], DATASET[480:]
RULES = Settings()


def events(**columns: list[float | bool | None]) -> pl.DataFrame:
    length = len(next(iter(columns.values())))
    return DATASET[:length].with_columns(
        **{name: pl.Series(values, dtype=DATASET.schema[name]) for name, values in columns.items()}
    )


def test_the_four_rivals_each_rank_every_row():
    found = rivals.scores(TRAIN, HOLDOUT, RULES)
    assert list(found) == ["a constant", "the face check rule", "the location rule", "logistic regression"]
    assert all(scores.shape == (120,) and np.isfinite(scores).all() for scores in found.values())


def test_the_face_check_rule_rises_with_doubt_and_a_missing_check_is_no_doubt():
    frame = events(face_recognition_confidence=[1.0, 0.25, 0.0, None])
    assert rivals.face_check(frame).tolist() == [0, 0.75, 1, 0]


def test_the_location_rule_fires_on_a_mock_location_or_a_speed_that_nobody_travels():
    frame = events(
        is_mock_location=[True, False, False, None, None],
        travel_speed_kmh=[0.0, 90.0, 5000.0, None, 450.0],
    )
    assert rivals.location(frame).tolist() == [1, 0.1, 1, 0, 0.5]


def test_the_regression_learns_a_straight_line():
    scores = rivals.scores(TRAIN, HOLDOUT, RULES)
    labels = HOLDOUT["is_fraud"].to_numpy()
    areas = {name: average_precision_score(labels, each) for name, each in scores.items()}
    assert areas["logistic regression"] > 2 * areas["a constant"]
    assert areas["a constant"] == pytest.approx(labels.mean())


def test_the_order_of_the_training_rows_and_the_threads_change_nothing():
    first = rivals.scores(TRAIN, HOLDOUT, RULES)["logistic regression"]
    with threadpool_limits(2):
        mixed = TRAIN.sample(fraction=1, shuffle=True, seed=1)
        again = rivals.scores(mixed, HOLDOUT, RULES)["logistic regression"]
    assert (first == again).all()


@pytest.mark.parametrize("records", [2, 50, 479])
def test_of_a_large_training_part_the_regression_sees_a_sample_of_the_same_share_of_fraud(
    records: int, monkeypatch: pytest.MonkeyPatch
):
    """Whatever their order, and however few records of a class there are."""
    seen: list[pl.DataFrame] = []
    made = rivals.records.matrix
    monkeypatch.setattr(rivals.records, "matrix", lambda rows: seen.append(rows) or made(rows))
    some = Settings(rival_records=records)
    first = rivals.scores(TRAIN, HOLDOUT, some)["logistic regression"]
    again = rivals.scores(TRAIN.reverse(), HOLDOUT, some)["logistic regression"]
    assert first.shape == (120,)
    assert (first == again).all()
    assert max(rows.height for rows in seen) == records
    sample = seen[0]
    assert sample["event_id"].n_unique() == sample.height == records
    share, frauds = TRAIN["is_fraud"].to_numpy().mean(), int(sample["is_fraud"].sum())
    assert abs(frauds - share * records) <= 1
    assert 0 < frauds < records


def test_the_holdout_is_ranked_part_by_part_as_at_once():
    few = TRAIN[:60]
    at_once = rivals.scores(few, HOLDOUT, RULES)["logistic regression"]
    in_parts = rivals.scores(few, HOLDOUT, Settings(rival_records=60))["logistic regression"]
    np.testing.assert_allclose(in_parts, at_once, rtol=1e-12)


def test_a_feature_that_nobody_knew_and_a_new_entry_source_are_no_obstacle():
    unknown = TRAIN.with_columns(
        travel_speed_kmh=pl.lit(None, pl.Float64),
        entry_source=pl.lit("mobile").cast(TRAIN.schema["entry_source"]),
    )
    scores = rivals.scores(unknown, HOLDOUT, RULES)["logistic regression"]
    assert np.isfinite(scores).all()


def test_a_missing_value_is_told_apart_from_the_median_that_stands_for_it():
    """Only the flag can tell: the values themselves say nothing."""
    random = np.random.default_rng(0)
    frame = TRAIN.with_columns(
        minutes_early=pl.when(pl.col("is_fraud")).then(None).otherwise(pl.Series(random.normal(size=480)))
    )
    scores = rivals.scores(frame, frame, RULES)["logistic regression"]
    assert average_precision_score(frame["is_fraud"].to_numpy(), scores) > 0.99
