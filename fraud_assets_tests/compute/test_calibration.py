"""Margins to probabilities: the two numbers, that they travel with the model, and what is refused."""

from math import exp, log

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import calibration, records, training
from fraud_assets.compute.calibration import Calibration
from fraud_assets.domain.errors import ModelDamaged
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import training_dataset

DATASET = training_dataset(200)
MODEL = training.fit(DATASET, Settings())


def with_attributes(**attributes: str | None) -> bytes:
    """MODEL with other attributes; None takes one away."""
    booster = xgboost.Booster(model_file=bytearray(MODEL.content))
    booster.set_attr(**attributes)
    return bytes(booster.save_raw("ubj"))


def slowly_fitted(margins: np.ndarray, is_fraud: np.ndarray) -> tuple[float, float]:
    """Platt's two numbers by gradient descent on his targets."""
    fraud, others = is_fraud.sum(), (~is_fraud).sum()
    target = np.where(is_fraud, (fraud + 1) / (fraud + 2), 1 / (others + 2))
    slope = intercept = 0.0
    for _ in range(20_000):
        gap = 1 / (1 + np.exp(-(slope * margins + intercept))) - target
        slope, intercept = slope - 0.5 * np.mean(gap * margins), intercept - 0.5 * np.mean(gap)
    return slope, intercept


def test_the_two_numbers_are_those_of_a_slow_oracle():
    random = np.random.default_rng(1)
    margins = random.normal(-1, 1.5, 400)
    is_fraud = random.random(400) < 1 / (1 + np.exp(-(0.7 * margins - 0.4)))
    found = calibration.platt(margins, is_fraud)
    assert found is not None
    assert (found.slope, found.intercept) == pytest.approx(slowly_fitted(margins, is_fraud), abs=1e-4)
    assert float(f"{found.slope:.6g}") == found.slope


def test_classes_that_are_parted_wholly_give_a_finite_slope():
    margins = np.array([-2.0] * 30 + [2.0] * 10)
    found = calibration.platt(margins, margins > 0)
    assert found is not None
    assert found.probabilities(np.array([2.0, -2.0])) == pytest.approx([11 / 12, 1 / 32], abs=1e-4)


def test_margins_that_fall_as_fraud_rises_cannot_be_calibrated():
    margins = np.linspace(-1, 1, 40)
    assert calibration.platt(margins, margins < -0.5) is None


@pytest.mark.parametrize("weight", [1.0, 5.0, 32.0])
def test_without_data_the_weight_is_taken_back(weight: float):
    """Fraud of one in a hundred, that weighs `weight`: the odds are `weight` times too high."""
    odds = weight * 0.01 / 0.99
    assert calibration.prior(weight).probabilities(np.array([log(odds)])) == pytest.approx([0.01])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_a_probability_is_one_of_a_logistic_curve(margin: float, slope: float, intercept: float):
    [found] = Calibration(slope, intercept).probabilities(np.array([margin]))
    odds = slope * margin + intercept
    assert found == pytest.approx(1 / (1 + exp(min(-odds, 700))), abs=1e-12)


def test_the_numbers_come_back_from_the_bytes_of_the_model_as_they_were():
    given_ = Calibration(0.1 + 0.2, -1 / 3)
    booster = xgboost.Booster(model_file=bytearray(MODEL.content))
    calibration.attach(booster, given_)
    content = bytes(booster.save_raw("ubj"))
    assert calibration.read(xgboost.Booster(model_file=bytearray(content))) == given_


def test_a_model_of_an_earlier_release_scores_as_xgboost_does():
    content = with_attributes(calibration_slope=None, calibration_intercept=None)
    booster = xgboost.Booster(model_file=bytearray(content))
    rows = xgboost.DMatrix(records.matrix(DATASET), feature_names=list(MODEL.features))
    np.testing.assert_allclose(training.score(content, DATASET), booster.predict(rows), rtol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {"calibration_slope": None},
        {"calibration_intercept": None},
        {"calibration_slope": "0"},
        {"calibration_slope": "-1.5"},
        {"calibration_slope": "inf"},
        {"calibration_intercept": "nan"},
        {"calibration_intercept": ""},
        {"calibration_slope": "__import__('os')"},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_read_are_a_damaged_model(attributes: dict[str, str | None]):
    with pytest.raises(ModelDamaged, match="positive slope"):
        training.score(with_attributes(**attributes), DATASET)
