"""Splitting by time, fitting to the bit, scoring as fitted."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import numpy as np
import polars as pl
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import evaluation, search, training
from fraud_assets.domain.errors import ModelDamaged, UnusableRecords
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES, TrainingDataset
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import NOON, training_dataset

RULES = Settings()
DATASET = training_dataset()
MODEL = training.fit(DATASET, RULES)
SEARCHING = Settings(minimum_validation_fraud=5, search_seconds=0.045)
"""Three trials on the 300 records of DATASET, at 20,000 rows a second."""
NONE, HOUR = timedelta(0), timedelta(hours=1)


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
    parts = training.split(DATASET.sample(fraction=1, shuffle=True, seed=1), RULES, NONE)
    assert parts.holdout.equals(DATASET.tail(60))
    assert parts.train.equals(DATASET.head(240))
    assert parts.holdout_start == DATASET["punch_in_at"][240]


def test_events_that_tie_at_the_boundary_are_all_held_out():
    parts = training.split(at([0, 1, 2, 3, 4, 5, 5, 5, 5, 6]), RULES, NONE)
    assert (parts.train.height, parts.holdout.height) == (5, 5)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.floats(0.05, 0.95), st.integers(0, 25))
def test_training_lies_the_gap_before_the_holdout_and_all_is_accounted_for(
    minutes: list[int], share: float, gap: int
):
    parts = training.split(at(minutes), Settings(holdout_share=share), timedelta(minutes=gap))
    start = parts.holdout_start
    early = [minute for minute in minutes if minute < (start - NOON) / timedelta(minutes=1)]
    assert parts.holdout["punch_in_at"].min() == start
    assert parts.holdout.height == len(minutes) - len(early) >= max(1, round(len(minutes) * share))
    known = [minute for minute in early if NOON + timedelta(minutes=minute + gap) <= start]
    assert parts.train["punch_in_at"].to_list() == [NOON + timedelta(minutes=m) for m in sorted(known)]
    assert parts.left_out == len(early) - len(known)


def test_a_gap_leaves_the_holdout_as_it_is():
    parts = training.split(DATASET, RULES, HOUR)
    assert parts.holdout.equals(training.split(DATASET, RULES, NONE).holdout)
    assert parts.train.equals(DATASET.head(181))
    assert parts.left_out == 59


def test_nothing_cannot_be_split():
    with pytest.raises(UnusableRecords, match="got none"):
        training.split(DATASET.clear(), RULES, NONE)


def test_a_part_of_one_class_is_named():
    late = pl.col("punch_in_at") >= DATASET["punch_in_at"][240]
    assert training.one_sided(DATASET, RULES, NONE) is None
    honest = DATASET.with_columns(is_fraud=pl.col("is_fraud") & ~late)
    assert (
        training.one_sided(honest, RULES, HOUR)
        == "the holdout has 0 frauds among 60 records, and needs both classes"
    )
    early = DATASET.with_columns(is_fraud=pl.col("is_fraud") & late)
    assert "the training part has 0 frauds among 240" in str(training.one_sided(early, RULES, NONE))


def test_a_gap_that_leaves_too_little_to_train_on_is_named():
    assert training.one_sided(DATASET, RULES, timedelta(days=1.5)) == (
        "the training part has 0 frauds among 0 records, and needs both classes; "
        "the 1.5 days before the holdout, 240 records, are not trained on"
    )


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


def test_threads_and_the_order_of_rows_change_no_bit_of_search_calibration_and_model(
    monkeypatch: pytest.MonkeyPatch,
):
    """Rows enough for several blocks of work; rounds few, since threads wait long on a busy machine."""
    monkeypatch.setattr(search, "MOST_ROUNDS", 10)
    many = training_dataset(5_000)
    model = training.fit(many, Settings(search_seconds=1), HOUR)
    assert (model.parameters["trials"], model.parameters["calibration"]) == (4, "platt")
    mixed = many.sample(fraction=1, shuffle=True, seed=3)
    assert training.fit(mixed, Settings(search_seconds=1, threads=2), HOUR) == model


def test_another_seed_gives_another_model():
    assert training.fit(DATASET, Settings(seed=8)).digest != MODEL.digest


def test_what_was_searched_and_found_is_recorded():
    told = training.fit(DATASET, SEARCHING).parameters
    assert told["trials"] == 3
    assert 1 <= int(told["rounds"]) <= search.MOST_ROUNDS
    assert 0.2 < float(told["validation_average_precision"]) < 1
    assert told["calibration"] == "platt"
    assert float(told["calibration_slope"]) > 0
    assert told["seed"] == RULES.seed


def test_too_few_frauds_to_search_on_leave_the_first_trial_as_it_is():
    strict = Settings(minimum_validation_fraud=30)
    told = training.fit(DATASET, strict).parameters
    first = search.TRIALS[0].parameters(DATASET["is_fraud"].to_numpy(), RULES.seed)
    assert first.items() <= told.items()
    assert (told["trials"], told["rounds"], told["calibration"]) == (0, search.ROUNDS, "prior")
    assert "validation_average_precision" not in told


def test_the_search_is_on_the_latest_part_and_keeps_the_gap_where_it_can():
    near = training.validation_parts(DATASET, SEARCHING, HOUR)
    far = training.validation_parts(DATASET, SEARCHING, 3 * HOUR)
    assert near is not None
    assert far is not None
    assert near.holdout.equals(DATASET.tail(60))
    assert (near.train.height, far.train.height) == (181, 240)


@pytest.mark.parametrize("imbalance", [0.0, 0.5, 1.0])
def test_scores_are_rates_of_fraud_whatever_the_weight(imbalance: float, monkeypatch: pytest.MonkeyPatch):
    """The full ratio alone would give a mean score of several times the base rate."""
    weighted = replace(search.TRIALS[1], imbalance=imbalance)
    monkeypatch.setattr(search, "TRIALS", (weighted,))
    model = training.fit(training_dataset(4_000, fraud_share=0.08), RULES)
    later = training_dataset(6_000, seed=1, fraud_share=0.08)
    is_fraud, scores = later["is_fraud"].to_numpy(), training.score(model.content, later)
    raw = uncalibrated(model.content, later)
    assert model.parameters["imbalance"] == imbalance
    assert np.mean(scores) == pytest.approx(np.mean(is_fraud), rel=0.2)
    assert np.mean((scores - is_fraud) ** 2) < 1.02 * np.mean((raw - is_fraud) ** 2)
    assert (np.mean(raw) > 2 * np.mean(is_fraud)) == (imbalance == 1)
    np.testing.assert_array_equal(np.argsort(scores, stable=True), np.argsort(raw, stable=True))


def uncalibrated(content: bytes, frame: pl.DataFrame) -> np.ndarray:
    """What XGBoost itself makes of the same model, in double precision so that ranks can be compared."""
    booster = xgboost.Booster(model_file=bytearray(content))
    rows = xgboost.DMatrix(training.matrix(frame), feature_names=list(FEATURES))
    return 1 / (1 + np.exp(-booster.predict(rows, output_margin=True).astype(np.float64)))


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


def test_a_fingerprint_changes_with_what_changes_the_model_and_with_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
):
    same = Settings(threads=4, minimum_pr_auc=0.1)
    other = [
        Settings(seed=8),
        Settings(holdout_share=0.3),
        Settings(validation_share=0.3),
        Settings(minimum_validation_fraud=3),
        Settings(search_seconds=1),
    ]
    assert training.fingerprint(same, HOUR) == training.fingerprint(RULES, HOUR)
    told = {training.fingerprint(rules, HOUR) for rules in [RULES, *other]}
    told.add(training.fingerprint(RULES, NONE))
    monkeypatch.setattr(search, "TRIALS", search.TRIALS[:2])
    told.add(training.fingerprint(RULES, HOUR))
    assert len(told) == 8
