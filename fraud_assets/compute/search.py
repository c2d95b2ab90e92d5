"""Which parameters a tenant's model is fitted with: a few trials, judged on later events. No final model.

The number of trials follows from the rows and the settings, never from the clock: a search that stopped
when its seconds were over would give another model on a busy machine.
"""

# scikit-learn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from fraud_assets.domain.settings import Settings

if TYPE_CHECKING:
    from xgboost import DMatrix

Parameters = dict[str, float | int | str]

ROUNDS: Final = 75
"""Without a validation part; about where the first trial stops (docs/decisions/0006)."""
MOST_ROUNDS: Final = 600
PATIENCE: Final = 50
"""Rounds without a smaller loss after which a trial stops."""

MARGIN: Final = 0.5
"""Standard errors of the best average precision within which trials count as equal. One, as Breiman's
rule has it, is of independent scores; those of two models on the same rows differ by less than that."""

ROWS_A_SECOND: Final = 20_000
"""Rows of a training part that one trial gets through in a second of one core (docs/decisions/0006)."""

_FIXED: Final[Parameters] = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "subsample": 0.8,
    "colsample_bytree": 0.8,
}


@dataclass(frozen=True)
class Trial:
    """One way to fit.

    imbalance   a fraud weighs (legitimate / fraud) ** imbalance: 0 as much as any record, 1 the full ratio
    base_score  the rate of fraud under that weight, or a half; both written down as a number, so that no
                release of XGBoost changes it
    """

    imbalance: float = 0.0
    base_score: Literal["rate", "half"] = "rate"
    max_depth: int = 2
    learning_rate: float = 0.1
    min_child_weight: int = 1
    max_bin: int = 512

    def parameters(self, is_fraud: npt.NDArray[np.bool_], seed: int) -> Parameters:
        """XGBoost's parameters for records of both classes."""
        fraud = int(is_fraud.sum())
        weight = ((is_fraud.size - fraud) / fraud) ** self.imbalance
        rate = weight * fraud / (weight * fraud + is_fraud.size - fraud)
        changes = {name: value for name, value in asdict(self).items() if name != "imbalance"}
        start = rate if self.base_score == "rate" else 0.5
        return _FIXED | changes | {"base_score": start, "scale_pos_weight": weight, "seed": seed}


TRIALS: Final = (
    Trial(),
    Trial(max_depth=3, learning_rate=0.05, min_child_weight=10),
    Trial(max_depth=4, learning_rate=0.05, min_child_weight=10),
    Trial(max_depth=3, learning_rate=0.05, min_child_weight=10, imbalance=0.5),
    Trial(max_depth=3, learning_rate=0.05, min_child_weight=10, imbalance=1.0),
    Trial(max_depth=6, learning_rate=0.05, min_child_weight=3),
    Trial(imbalance=0.5),
    Trial(max_depth=3, learning_rate=0.05, min_child_weight=3, max_bin=1024),
    Trial(max_depth=4, learning_rate=0.1, min_child_weight=10, max_bin=64),
    Trial(max_depth=4, learning_rate=0.05, min_child_weight=10, base_score="half"),
)
"""In the order in which they are tried. The first is the best without a search, and on few records: the
hessian of an unweighted rare class is so small that a `min_child_weight` of 10 forbids every split there."""


@dataclass(frozen=True)
class Found:
    """A trial, and what it showed on the validation part.

    rounds             of the smallest loss
    average_precision  of the margins
    margins            of the validation part, in its order, by a model that has not seen it
    """

    trial: Trial
    rounds: int
    average_precision: float
    margins: npt.NDArray[np.float32]


def budget(rows: int, settings: Settings) -> int:
    """How many trials a training part of `rows` rows is worth: those of `search_seconds`, at least one."""
    affordable = int(settings.search_seconds * ROWS_A_SECOND / max(rows, 1))
    return min(max(affordable, 1), len(TRIALS))


def search(fitting: "DMatrix", validation: "DMatrix", trials: int, settings: Settings) -> Found:
    """The best of the first `trials`; `fitting` is earlier than `validation`, and both have both classes.

    The first wins that comes within MARGIN standard errors of the best average precision P, which are
    sqrt(P (1 - P) / frauds) (Boyd, Eng and Page, ECML 2013): the highest of ten scores on a few dozen
    frauds is mostly luck.
    """
    tried = [_tried(trial, fitting, validation, settings) for trial in TRIALS[:trials]]
    best = max(found.average_precision for found in tried)
    # A perfect score may be rounded to a little more than 1.
    error = sqrt(max(best * (1 - best), 0.0) / validation.get_label().sum())
    return next(found for found in tried if found.average_precision >= best - MARGIN * error)


def _tried(trial: Trial, fitting: "DMatrix", validation: "DMatrix", settings: Settings) -> Found:
    import xgboost
    from sklearn.metrics import average_precision_score

    parameters = trial.parameters(fitting.get_label() == 1, settings.seed)
    booster = xgboost.train(
        {**parameters, "nthread": settings.threads, "disable_default_eval_metric": 1},
        fitting,
        MOST_ROUNDS,
        evals=[(validation, "validation")],
        custom_metric=_loss(float(parameters["scale_pos_weight"])),
        maximize=False,
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    rounds = booster.best_iteration + 1
    margins = booster.predict(validation, output_margin=True, iteration_range=(0, rounds))
    score = float(average_precision_score(validation.get_label(), margins))
    return Found(trial, rounds, score, margins)


def _loss(weight: float) -> "Callable[[npt.NDArray[np.float32], DMatrix], tuple[str, float]]":
    """The mean log loss once `weight` is taken back; summed here, in one order on any number of threads.

    It stops later and more steadily than average precision, which jumps with every fraud.
    """

    def loss(scores: npt.NDArray[np.float32], rows: "DMatrix") -> tuple[str, float]:
        odds = scores.astype(np.float64) / weight
        shares = np.clip(odds / (odds + 1 - scores.astype(np.float64)), 1e-9, 1 - 1e-9)
        return "loss", float(-np.log(np.where(rows.get_label() == 1, shares, 1 - shares)).mean())

    return loss
