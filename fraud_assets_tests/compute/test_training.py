"""Splitting by time, fitting to the bit, scoring as fitted."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xgboost

from fraud_assets.compute import evaluation, records, search, training
from fraud_assets.compute.search import Trial
from fraud_assets.domain.errors import ModelDamaged, UnusableRecords
from fraud_assets.domain.schemas import FEATURES, TrainingDataset
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import training_dataset

RULES = Settings()
DATASET = training_dataset()
MODEL = training.fit(DATASET, RULES)
SEARCHING = Settings(minimum_validation_fraud=5, search_seconds=0.045)
"""Three trials on the 300 records of DATASET, at 20,000 rows a second."""
HOUR = timedelta(hours=1)


def test_the_dataset_of_these_tests_is_a_valid_one():
    TrainingDataset.validate(DATASET)


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
    near, far = (records.validation(records.part(DATASET), SEARCHING, gap) for gap in (HOUR, 3 * HOUR))
    assert near is not None
    assert far is not None
    assert near.holdout.rows.collect().sort("event_id").equals(DATASET.tail(60))
    assert (near.train.records, far.train.records) == (181, 240)


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
    rows = xgboost.DMatrix(records.matrix(frame), feature_names=list(FEATURES))
    return 1 / (1 + np.exp(-booster.predict(rows, output_margin=True).astype(np.float64)))


@pytest.mark.parametrize("rows_at_once", [37, 150, 10_000])
def test_rows_that_lie_on_disk_give_the_same_model_to_the_bit(
    rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With every number of bins, and however the rows are cut; and nothing of them stays there."""
    monkeypatch.setattr(records, "_ROWS_AT_ONCE", rows_at_once)
    lowest = Settings(minimum_validation_fraud=5, search_seconds=60)
    for bins in (64, 512):
        monkeypatch.setattr(search, "TRIALS", (Trial(max_bin=bins), Trial(max_bin=2 * bins, max_depth=4)))
        laid = records.laid_out(DATASET)
        assert training.fit(laid, lowest, spill=f"{tmp_path}/fit") == training.fit(DATASET, lowest)
    assert list(tmp_path.iterdir()) == []


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
        records.matrix(DATASET), DATASET["is_fraud"].cast(pl.Int8), feature_names=list(names)
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
    told.add(training.fingerprint(RULES, timedelta(0)))
    monkeypatch.setattr(search, "TRIALS", search.TRIALS[:2])
    told.add(training.fingerprint(RULES, HOUR))
    assert len(told) == 8
