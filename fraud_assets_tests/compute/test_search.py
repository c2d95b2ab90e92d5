"""The trials, how many are made, and which one wins."""

from dataclasses import replace

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss

from fraud_assets.compute import records, search
from fraud_assets.compute.search import Found, Trial
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import training_dataset

RULES = Settings()


def rows(seed: int, size: int = 400) -> xgboost.DMatrix:
    frame = training_dataset(size, seed=seed)
    return xgboost.DMatrix(records.matrix(frame), frame["is_fraud"].cast(int).to_numpy())


def test_no_trial_is_made_twice():
    assert len(set(search.TRIALS)) == len(search.TRIALS)


@pytest.mark.parametrize(
    ("imbalance", "weight", "rate"),
    [(0.0, 1.0, 0.04), (0.5, 24**0.5, 24**0.5 / (24**0.5 + 24)), (1.0, 24.0, 0.5)],
)
def test_a_trial_says_the_weight_and_the_rate_under_it(imbalance: float, weight: float, rate: float):
    is_fraud = np.arange(100) < 4
    told = Trial(imbalance=imbalance).parameters(is_fraud, seed=3)
    assert told["scale_pos_weight"] == pytest.approx(weight)
    assert told["base_score"] == pytest.approx(rate)
    assert told["seed"] == 3
    half = Trial(imbalance=imbalance, base_score="half").parameters(is_fraud, seed=3)
    assert half == told | {"base_score": 0.5}


@given(st.integers(0, 10**8), st.floats(0, 1e4))
def test_the_trials_follow_from_the_rows_and_the_seconds_alone(records: int, seconds: float):
    trials = search.budget(records, Settings(search_seconds=seconds))
    assert 1 <= trials <= len(search.TRIALS)
    assert trials in {1, len(search.TRIALS)} or trials * records <= seconds * search.ROWS_A_SECOND


def test_all_trials_are_worth_it_up_to_a_hundred_thousand_rows():
    assert [search.budget(count, RULES) for count in (100, 100_000, 400_000, 10**7)] == [10, 10, 3, 1]


def test_a_trial_stops_at_its_smallest_loss_and_shows_the_margins_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search, "MOST_ROUNDS", 60)
    fitting, validation = rows(1), rows(2)
    found = search.search(fitting, validation, 1, RULES)
    parameters = found.trial.parameters(fitting.get_label() == 1, RULES.seed)
    booster = xgboost.train(parameters, fitting, 60)
    labels = validation.get_label()
    losses = [
        log_loss(labels, booster.predict(validation, iteration_range=(0, rounds)).astype(float))
        for rounds in range(1, 61)
    ]
    assert found.rounds == int(np.argmin(losses)) + 1
    shown = booster.predict(validation, output_margin=True, iteration_range=(0, found.rounds))
    np.testing.assert_array_equal(found.margins, shown)
    assert found.average_precision == average_precision_score(labels, shown)


def test_the_loss_takes_the_weight_back():
    validation = xgboost.DMatrix(np.zeros((4, 1)), np.array([1, 0, 0, 0]))
    true = np.array([0.4, 0.1, 0.2, 0.3])
    weighted = 7 * true / (7 * true + 1 - true)
    _, loss = search._loss(7.0)(weighted.astype(np.float32), validation)
    assert loss == pytest.approx(log_loss(validation.get_label(), true))


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ([0.50, 0.50, 0.50], 0),
        # Half a standard error of 0.60 on 24 frauds is 0.05.
        ([0.56, 0.60, 0.60], 0),
        ([0.54, 0.60, 0.60], 1),
        ([0.30, 0.56, 0.60], 1),
        ([0.30, 0.40, 0.60], 2),
    ],
)
def test_the_first_trial_that_is_not_clearly_worse_than_the_best_wins(
    scores: list[float], winner: int, monkeypatch: pytest.MonkeyPatch
):
    trials = tuple(replace(Trial(), max_depth=depth) for depth in (2, 3, 4))
    told = {
        trial: Found(trial, 1, score, np.zeros(1, np.float32))
        for trial, score in zip(trials, scores, strict=True)
    }
    monkeypatch.setattr(search, "TRIALS", trials)
    monkeypatch.setattr(search, "_tried", lambda trial, *_: told[trial])
    validation = xgboost.DMatrix(np.zeros((100, 1)), np.arange(100) < 24)
    assert search.search(validation, validation, 3, RULES).trial is trials[winner]
