"""Splitting by time, fitting to the bit, scoring as fitted."""

from datetime import timedelta
from hashlib import sha256

import numpy as np
import polars as pl
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import evaluation, training
from fraud_assets.domain.errors import ModelDamaged, UnusableRecords
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES, TrainingDataset
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import NOON, training_dataset

RULES = Settings()
DATASET = training_dataset()
MODEL = training.fit(DATASET, RULES)


def at(minutes: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "event_id": [f"e{number}" for number in range(len(minutes))],
            "punch_in_at": [NOON + timedelta(minutes=minute) for minute in minutes],
        },
        schema_overrides={"punch_in_at": pl.Datetime("us", "UTC")},
    )


def test_the_dataset_of_these_tests_is_a_valid_one():
    TrainingDataset.validate(DATASET)


def test_the_latest_fifth_is_held_out():
    parts = training.split(DATASET.sample(fraction=1, shuffle=True, seed=1), RULES)
    assert parts.holdout.equals(DATASET.tail(60))
    assert parts.train.equals(DATASET.head(240))
    assert parts.holdout_start == DATASET["punch_in_at"][240]


def test_events_that_tie_at_the_boundary_are_all_held_out():
    parts = training.split(at([0, 1, 2, 3, 4, 5, 5, 5, 5, 6]), RULES)
    assert (parts.train.height, parts.holdout.height) == (5, 5)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_training_lies_strictly_before_the_holdout_and_nothing_is_lost(minutes: list[int], share: float):
    parts = training.split(at(minutes), Settings(holdout_share=share))
    assert parts.train.filter(pl.col("punch_in_at") >= parts.holdout_start).is_empty()
    assert parts.holdout["punch_in_at"].min() == parts.holdout_start
    assert parts.holdout.height >= max(1, round(len(minutes) * share))
    assert sorted([*parts.train["event_id"], *parts.holdout["event_id"]]) == sorted(at(minutes)["event_id"])


def test_nothing_cannot_be_split():
    with pytest.raises(UnusableRecords, match="got none"):
        training.split(DATASET.clear(), RULES)


def test_a_part_of_one_class_is_named():
    late = pl.col("punch_in_at") >= DATASET["punch_in_at"][240]
    assert training.one_sided(DATASET, RULES) is None
    honest = DATASET.with_columns(is_fraud=pl.col("is_fraud") & ~late)
    assert (
        training.one_sided(honest, RULES)
        == "the holdout has 0 frauds among 60 records, and needs both classes"
    )
    early = DATASET.with_columns(is_fraud=pl.col("is_fraud") & late)
    assert "the training part has 0 frauds among 240" in str(training.one_sided(early, RULES))


def test_a_null_is_missing_and_never_zero():
    unknown = DATASET.head(1).with_columns(minutes_early=None, is_holiday=None, entry_source=pl.lit("kiosk"))
    row = dict(zip(FEATURES, training.matrix(unknown)[0], strict=True))
    assert np.isnan(row["minutes_early"])
    assert np.isnan(row["is_holiday"])
    assert row["entry_source"] == ENTRY_SOURCES.index("kiosk")


def test_booleans_become_zero_and_one():
    frame = DATASET.head(2).with_columns(is_weekend=pl.Series([False, True]))
    assert training.matrix(frame)[:, FEATURES.index("is_weekend")].tolist() == [0, 1]


def test_the_matrix_does_not_depend_on_the_order_of_columns_or_on_stored_types():
    stored = DATASET.select(reversed(DATASET.columns)).cast({"entry_source": pl.String})
    np.testing.assert_array_equal(training.matrix(stored), training.matrix(DATASET))


def test_the_same_rows_in_another_order_give_the_same_model_to_the_bit():
    assert training.fit(DATASET.sample(fraction=1, shuffle=True, seed=3), RULES) == MODEL


def test_the_number_of_threads_does_not_change_the_model(monkeypatch: pytest.MonkeyPatch):
    """Rows enough for several blocks of work; rounds few, since threads wait long on a busy machine."""
    monkeypatch.setattr(training, "ROUNDS", 10)
    many = training_dataset(10_000)
    assert training.fit(many, Settings(threads=2)) == training.fit(many, RULES)


def test_another_seed_gives_another_model():
    assert training.fit(DATASET, Settings(seed=8)).digest != MODEL.digest


def test_the_classes_weigh_the_same_and_the_weight_is_recorded():
    fraud = int(DATASET["is_fraud"].sum())
    assert MODEL.parameters["scale_pos_weight"] == (300 - fraud) / fraud
    assert MODEL.parameters["seed"] == RULES.seed


def test_the_digest_is_of_the_bytes():
    assert MODEL.digest == sha256(MODEL.content).hexdigest()


@pytest.mark.parametrize("verdict", [True, False])
def test_one_class_alone_is_not_fitted(verdict: bool):
    with pytest.raises(UnusableRecords, match="both classes"):
        training.fit(DATASET.with_columns(is_fraud=pl.lit(verdict)), RULES)


def test_no_records_are_not_fitted():
    with pytest.raises(UnusableRecords, match="0 frauds among 0"):
        training.fit(DATASET.clear(), RULES)


def test_fraud_that_was_never_seen_is_ranked_above_the_rest():
    unseen = training_dataset(seed=5)
    measured = evaluation.measure(unseen["is_fraud"], training.score(MODEL.content, unseen), RULES)
    assert measured.pr_auc > 2 * measured.base_rate


def test_a_score_does_not_depend_on_the_other_rows_or_on_threads():
    alone = [training.score(MODEL.content, DATASET[row])[0] for row in range(5)]
    together = training.score(MODEL.content, DATASET, threads=2)
    assert together.dtype == np.float64
    assert together[:5].tolist() == alone


def test_no_events_give_no_scores():
    assert training.score(MODEL.content, DATASET.clear()).shape == (0,)


@pytest.mark.parametrize("content", [b"", b"{", b"not a model", MODEL.content[:-1]])
def test_bytes_that_are_no_model_are_damaged(content: bytes):
    with pytest.raises(ModelDamaged, match="retrain"):
        training.score(content, DATASET)


@pytest.mark.parametrize("names", [FEATURES[::-1], (*FEATURES[:-1], "shoe_size")])
def test_a_model_of_other_features_does_not_score(names: tuple[str, ...]):
    rows = xgboost.DMatrix(
        training.matrix(DATASET), DATASET["is_fraud"].cast(pl.Int8), feature_names=list(names)
    )
    content = bytes(xgboost.train({}, rows, 1).save_raw("ubj"))
    with pytest.raises(ModelDamaged, match=r"shoe_size|their order"):
        training.score(content, DATASET)


def test_every_feature_has_an_importance_and_the_telling_ones_lead():
    gains = training.importance(MODEL)
    assert set(gains) == set(FEATURES)
    assert list(gains.values()) == sorted(gains.values(), reverse=True)
    assert "minutes_early" in list(gains)[:4]


def test_a_feature_that_never_varies_has_no_importance():
    constant = training.fit(DATASET.with_columns(is_holiday=pl.lit(False)), RULES)
    assert training.importance(constant)["is_holiday"] == 0


def test_a_fingerprint_changes_with_what_changes_the_model_and_with_nothing_else():
    same = Settings(threads=4, minimum_pr_auc=0.1)
    other = [Settings(seed=8), Settings(holdout_share=0.3)]
    assert training.fingerprint(same) == training.fingerprint(RULES)
    assert len({training.fingerprint(rules) for rules in [RULES, *other]}) == 3
