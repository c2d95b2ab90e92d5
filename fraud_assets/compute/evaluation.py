"""How well scores tell fraud from the rest. Numbers in, numbers out; no model, no decision.

Scores that tie are one point of every curve: no measure here depends on the order of the rows.
"""

# scikit-learn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_assets.domain.errors import UnusableRecords
from fraud_assets.domain.settings import Settings

METRIC_NAMES: Final = {
    "pr_auc": "pr_auc",
    "precision_at_target_recall": "precision_at_80_recall",
    "threshold": "threshold",
    "false_positive_rate": "false_positive_rate",
    "recall": "recall",
    "roc_auc": "roc_auc",
    "base_rate": "base_rate",
    "records": "holdout_records",
    "fraud": "holdout_fraud",
}
"""Field -> the name under which dashboards know it; a tenant's other target recall does not rename it."""


@dataclass(frozen=True)
class Metrics:
    """A model on a holdout. All are shares from 0 to 1, but for the two counts.

    `precision_at_target_recall`, `recall` and `false_positive_rate` hold for the rule "suspicious if
    the score is at least `threshold`".
    """

    pr_auc: float
    precision_at_target_recall: float
    threshold: float
    false_positive_rate: float
    recall: float
    roc_auc: float
    base_rate: float
    records: int
    fraud: int

    def as_dict(self) -> dict[str, float]:
        """The numbers under their published names."""
        return {name: float(getattr(self, field)) for field, name in METRIC_NAMES.items()}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float]) -> "Metrics":
        """The inverse of `as_dict`; other names are left aside. Raises KeyError for a missing one."""
        shares = {field: numbers[name] for field, name in METRIC_NAMES.items()}
        return cls(**shares | {"records": int(shares["records"]), "fraud": int(shares["fraud"])})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Curve:
    """What each distinct score gives as threshold, strictest first; all arrays have one length."""

    thresholds: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    false_positive_rate: npt.NDArray[np.float64]


def curve(is_fraud: npt.ArrayLike, scores: npt.ArrayLike) -> Curve:
    """Precision, recall and false-positive rate of "suspicious if score >= threshold", per threshold.

    Raises UnusableRecords for no records, one class only, or scores that are not finite.
    """
    from sklearn.metrics import confusion_matrix_at_thresholds

    labels, ranks = _checked(is_fraud, scores)
    passed, false_alarms, missed, caught, thresholds = confusion_matrix_at_thresholds(labels, ranks)
    return Curve(
        thresholds=thresholds,
        precision=caught / (caught + false_alarms),
        recall=caught / (caught + missed),
        false_positive_rate=false_alarms / (false_alarms + passed),
    )


def measure(is_fraud: npt.ArrayLike, scores: npt.ArrayLike, settings: Settings) -> Metrics:
    """Average precision, the area under the ROC curve, and what the best threshold gives.

    PR-AUC is average precision: the sum over thresholds of the gain in recall times the precision,
    without interpolation. ROC AUC is by trapezoids, so that a tie counts half. The threshold is the
    one of best precision among those that reach `target_recall`; of equals, the lowest, which
    catches the most. Raises UnusableRecords as `curve` does.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    points = curve(is_fraud, scores)
    best = _best_point(points, settings.target_recall)
    labels = np.asarray(is_fraud, dtype=np.bool_)
    return Metrics(
        pr_auc=float(average_precision_score(labels, scores)),
        precision_at_target_recall=float(points.precision[best]),
        threshold=float(points.thresholds[best]),
        false_positive_rate=float(points.false_positive_rate[best]),
        recall=float(points.recall[best]),
        roc_auc=float(roc_auc_score(labels, scores)),
        base_rate=float(labels.mean()),
        records=labels.size,
        fraud=int(labels.sum()),
    )


def _best_point(points: Curve, target_recall: float) -> int:
    reached = np.flatnonzero(points.recall >= target_recall)
    precision = points.precision[reached]
    return int(reached[precision == precision.max()][-1])


def _checked(
    is_fraud: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    labels, ranks = np.asarray(is_fraud, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    if labels.shape != ranks.shape or labels.ndim != 1:
        raise UnusableRecords(f"expected one score a record, got {ranks.shape} for {labels.shape}")
    fraud = int(labels.sum())
    if not 0 < fraud < labels.size:
        raise UnusableRecords(
            f"expected a holdout with both classes, got {fraud} frauds among {labels.size} records; "
            "wait for reviewed outcomes"
        )
    if not np.isfinite(ranks).all():
        raise UnusableRecords(
            f"expected finite scores, got {int((~np.isfinite(ranks)).sum())} that are not; check the model"
        )
    return labels, ranks
