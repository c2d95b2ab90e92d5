"""From a booster's margins to probabilities, by two numbers that are kept inside the model's file.

The probability of fraud is 1 / (1 + exp(-(slope * margin + intercept))), after Platt, "Probabilistic
outputs for support vector machines" (1999). The slope is positive, so that ranks stay as they are. Both
numbers are attributes of the booster: text in the same UBJSON file, under the same digest, read as
numbers and nothing else.
"""

# scikit-learn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false

from dataclasses import dataclass
from math import isfinite, log
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from fraud_assets.domain.errors import ModelDamaged

if TYPE_CHECKING:
    from xgboost import Booster

_SLOPE: Final = "calibration_slope"
_INTERCEPT: Final = "calibration_intercept"


@dataclass(frozen=True)
class Calibration:
    """The two numbers, and how they were found: "platt" or "prior"."""

    slope: float
    intercept: float
    method: str = "platt"

    def as_dict(self) -> dict[str, float | int | str]:
        """How it is logged."""
        return {"calibration": self.method, _SLOPE: self.slope, _INTERCEPT: self.intercept}

    def probabilities(self, margins: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The probability of fraud for each margin (log-odds before calibration)."""
        odds = self.slope * np.asarray(margins, dtype=np.float64) + self.intercept
        # exp of a negative number only, which cannot overflow.
        small = np.exp(-np.abs(odds))
        return np.where(odds >= 0, 1, small) / (1 + small)


def platt(margins: npt.NDArray[np.floating], is_fraud: npt.NDArray[np.bool_]) -> Calibration | None:
    """A logistic regression of `is_fraud` on `margins`, which must be out of sample, with both classes.

    With f frauds and n others the targets are (f + 1) / (f + 2) and 1 / (n + 2), as Platt has it, so that
    classes that a margin parts wholly do not give an endless slope. Both numbers are kept to six digits:
    the last bits of a sum depend on the machine. None if margins fall as fraud rises.
    """
    from sklearn.linear_model import LogisticRegression

    fraud = int(is_fraud.sum())
    target = np.where(is_fraud, (fraud + 1) / (fraud + 2), 1 / (is_fraud.size - fraud + 2))
    twice = np.concatenate([margins, margins]).astype(np.float64).reshape(-1, 1)
    labels = np.repeat([True, False], is_fraud.size)
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(
        twice, labels, sample_weight=np.concatenate([target, 1 - target])
    )
    slope, intercept = (float(f"{value:.6g}") for value in (fitted.coef_[0, 0], fitted.intercept_[0]))
    return Calibration(slope, intercept) if slope > 0 else None


def prior(scale_pos_weight: float) -> Calibration:
    """Takes back what the weight of the frauds did to the odds (Elkan, IJCAI 2001); no data is asked."""
    return Calibration(1.0, log(1 / scale_pos_weight), "prior")


def attach(booster: "Booster", calibration: Calibration) -> None:
    """Keeps the two numbers with the booster; they read back as they are, to the bit."""
    booster.set_attr(**{_SLOPE: repr(calibration.slope), _INTERCEPT: repr(calibration.intercept)})


def read(booster: "Booster") -> Calibration:
    """The numbers that came with a booster. One without any, of an earlier release, is left as it is.

    Raises ModelDamaged if one of them is missing, is no finite number, or the slope is not positive.
    """
    try:
        found = booster.attr(_SLOPE), booster.attr(_INTERCEPT)
        if found == (None, None):
            return Calibration(1.0, 0.0, "none")
        slope, intercept = (float(text or "") for text in found)
    except (ValueError, AssertionError) as error:  # XGBoost asserts that a text is not empty.
        raise _damaged() from error
    if not (isfinite(slope) and isfinite(intercept) and slope > 0):
        raise _damaged(f", got {slope!r} and {intercept!r}")
    return Calibration(slope, intercept)


def _damaged(found: str = ", got other text or none") -> ModelDamaged:
    return ModelDamaged(
        f"expected a calibration of a positive slope and an intercept{found}; retrain the tenant"
    )
