"""How well scores tell fraud from the rest, and how sure that is. Numbers in, numbers out; no decision.

`measure` gives the numbers, `assess` also their intervals and what only a holdout with guards and days can
tell. Scores that tie are one point of every curve: no measure here depends on the order of the rows.
"""

# scikit-learn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_assets.compute import bootstrap
from fraud_assets.compute.bootstrap import Interval, Resamples
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

ASSESSED: Final = {
    "brier_score": "brier_score",
    "calibration_error": "calibration_error",
    "precision_at_desk": "precision_at_desk",
    "pr_auc_by_luck": "pr_auc_by_luck",
}
"""Likewise for what `assess` adds; a model of an earlier release lacks them."""

WITH_INTERVAL: Final = (
    "pr_auc",
    "precision_at_target_recall",
    "false_positive_rate",
    "recall",
    "roc_auc",
    "brier_score",
    "precision_at_desk",
)

PUBLISHED: Final = (
    *METRIC_NAMES.values(),
    *ASSESSED.values(),
    *(f"{(METRIC_NAMES | ASSESSED)[name]}_{end}" for name in WITH_INTERVAL for end in Interval._fields),
)
"""Every name that `Metrics.as_dict` may give."""

CALIBRATION_BINS: Final = 10


@dataclass(frozen=True)
class Metrics:
    """A model on a holdout. All are shares from 0 to 1, but for the two counts.

    `precision_at_target_recall`, `recall` and `false_positive_rate` hold for the rule "suspicious if
    the score is at least `threshold`". None is what `measure` does not tell, or scores that are no
    probabilities do not:

    brier_score        mean squared distance of score and label
    calibration_error  expected calibration error: see `reliability`
    precision_at_desk  share of fraud among the guards that the desk reviews: see `at_desk`
    pr_auc_by_luck     what no more than `maximum_luck` of random rankings exceed
    intervals          by field, of WITH_INTERVAL
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
    brier_score: float | None = None
    calibration_error: float | None = None
    precision_at_desk: float | None = None
    pr_auc_by_luck: float | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict[str, Interval])

    def as_dict(self) -> dict[str, float]:
        """The numbers that are known, under their published names."""
        names = METRIC_NAMES | ASSESSED
        known = {name: getattr(self, own) for own, name in names.items() if getattr(self, own) is not None}
        ends = {
            f"{names[own]}_{end}": value
            for own, interval in self.intervals.items()
            for end, value in interval._asdict().items()
        }
        return {name: float(value) for name, value in (known | ends).items()}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, float]) -> "Metrics":
        """The inverse of `as_dict`; other names are left aside. Raises KeyError for one of METRIC_NAMES."""
        shares = {own: numbers[name] for own, name in METRIC_NAMES.items()}
        counts = {"records": int(shares["records"]), "fraud": int(shares["fraud"])}
        assessed = {own: numbers.get(name) for own, name in ASSESSED.items()}
        names = METRIC_NAMES | ASSESSED
        intervals = {
            own: Interval(numbers[f"{names[own]}_low"], numbers[f"{names[own]}_high"])
            for own in WITH_INTERVAL
            if f"{names[own]}_low" in numbers
        }
        return cls(**shares | counts | assessed, intervals=intervals)  # pyright: ignore[reportArgumentType]


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
    from sklearn.metrics import roc_auc_score

    points = curve(is_fraud, scores)
    best = _best_point(points, settings.target_recall)
    labels = np.asarray(is_fraud, dtype=np.bool_)
    return Metrics(
        pr_auc=bootstrap.pr_auc(labels, scores),
        precision_at_target_recall=float(points.precision[best]),
        threshold=float(points.thresholds[best]),
        false_positive_rate=float(points.false_positive_rate[best]),
        recall=float(points.recall[best]),
        roc_auc=float(roc_auc_score(labels, scores)),
        base_rate=float(labels.mean()),
        records=labels.size,
        fraud=int(labels.sum()),
    )


def assess(holdout: pl.DataFrame, scores: npt.NDArray[np.float64], settings: Settings) -> Metrics:
    """`measure` with intervals over guards, calibration, the desk's precision and the reach of luck.

    `holdout` has guard_id, punch_in_at, event_id and is_fraud, a row a score. The threshold is that of
    the whole holdout in every resample, and so are the guards that the desk picks: their intervals say
    how sure the numbers of this threshold and of these picks are. Raises UnusableRecords as `curve` does.
    """
    _checked(holdout["is_fraud"], scores)
    ordered = holdout.with_columns(score=pl.Series(scores, dtype=pl.Float64)).sort("punch_in_at", "event_id")
    labels, ranks = ordered["is_fraud"].to_numpy(), ordered["score"].to_numpy()
    measured, desk = measure(labels, ranks, settings), at_desk(ordered, settings)
    reviewed = desk["reviewed"].to_numpy()
    found = reviewed * desk["is_fraud"].to_numpy()
    resampled = _resampled(bootstrap.draw(ordered["guard_id"], settings), labels, ranks, measured, settings)
    resampled["precision_at_desk"] = bootstrap.draw(desk["guard_id"], settings).share(found, reviewed)
    has_probabilities = "brier_score" in resampled
    lucky = np.quantile(
        bootstrap.by_luck(labels, ranks, settings), 1 - settings.maximum_luck, method="higher"
    )
    return replace(
        measured,
        brier_score=float(np.square(ranks - labels).mean()) if has_probabilities else None,
        calibration_error=calibration_error(labels, ranks) if has_probabilities else None,
        precision_at_desk=float(found.sum() / reviewed.sum()),
        pr_auc_by_luck=float(lucky),
        intervals={name: bootstrap.interval(resampled[name]) for name in WITH_INTERVAL if name in resampled},
    )


def _resampled(
    resamples: Resamples,
    labels: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    measured: Metrics,
    settings: Settings,
) -> dict[str, npt.NDArray[np.float64]]:
    """Field -> its value in each resample; Brier's only for probabilities."""
    found, flagged = bootstrap.curves(resamples, labels, scores), scores >= measured.threshold
    resampled = {
        "pr_auc": found.average_precision(),
        "precision_at_target_recall": found.precision_at(settings.target_recall),
        "false_positive_rate": resamples.share(flagged & ~labels, ~labels),
        "recall": resamples.share(flagged & labels, labels),
        "roc_auc": found.roc_auc(),
    }
    if ((scores >= 0) & (scores <= 1)).all():
        resampled["brier_score"] = resamples.share(np.square(scores - labels), np.ones(labels.size))
    return resampled


def at_desk(scored: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """guard_id, day, is_fraud, reviewed: a row a guard and UTC day of `scored`, which has score and is_fraud.

    The desk reviews the `desk_guards_per_day` guards of highest score, that of a guard's most suspicious
    event of the day; a review finds fraud if any event of that guard and day is. Guards that tie for the
    last places share them: `reviewed` is then between 0 and 1.
    """
    days = scored.group_by("guard_id", day=pl.col("punch_in_at").dt.date()).agg(
        pl.col("score").max(), pl.col("is_fraud").any()
    )
    before = pl.col("score").rank("min", descending=True).over("day") - 1
    tied = pl.len().over("day", "score")
    places = (settings.desk_guards_per_day - before.cast(pl.Int64)).clip(lower_bound=0)
    reviewed = pl.min_horizontal(1.0, places / tied)
    return days.select("guard_id", "day", "is_fraud", reviewed=reviewed).sort("day", "guard_id")


@dataclass(frozen=True)
class Reliability:
    """Bins of about equally many records in order of their scores; empty bins are left out."""

    predicted: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]
    records: npt.NDArray[np.int64]


def reliability(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> Reliability:
    """Mean score against the share of fraud, in bins between the tenths of the scores.

    The bins are those of scikit-learn's calibration_curve(strategy="quantile"), with their counts.
    """
    edges = np.percentile(scores, np.linspace(0, 1, CALIBRATION_BINS + 1) * 100)
    place = np.searchsorted(edges[1:-1], scores)
    records = np.bincount(place, minlength=CALIBRATION_BINS)
    kept = records > 0
    predicted = np.bincount(place, weights=scores, minlength=CALIBRATION_BINS)
    observed = np.bincount(place, weights=labels, minlength=CALIBRATION_BINS)
    return Reliability(
        predicted[kept] / records[kept], observed[kept] / records[kept], records[kept].astype(np.int64)
    )


def calibration_error(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """Expected calibration error: the mean distance of predicted and observed, weighted by records."""
    bins = reliability(labels, scores)
    return float(np.average(np.abs(bins.predicted - bins.observed), weights=bins.records))


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
