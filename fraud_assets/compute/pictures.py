"""Numbers in, PNG bytes out. No data, no disk, no network, no global state of matplotlib.

The same numbers give the same bytes.
"""

# Matplotlib does not type its keyword arguments.
# pyright: reportUnknownMemberType=false

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_assets.compute import bootstrap
from fraud_assets.compute.bootstrap import Numbers, Resamples
from fraud_assets.compute.evaluation import Curve, calibration_error, curve, measure, reliability
from fraud_assets.domain.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK: Final = "#1f2937"
_CANDIDATE: Final = "#2563eb"
_CHAMPION: Final = "#9ca3af"
_ACCEPTED: Final = "#16a34a"
_SUSPECT: Final = "#dc2626"


def draw(
    holdout: pl.DataFrame, scores: Numbers, rival_scores: Mapping[str, Numbers], settings: Settings
) -> dict[str, bytes]:
    """Every picture of `scores` by file name; `holdout` and the arrays as for `evidence.gather`."""
    labels = holdout["is_fraud"].to_numpy()
    resamples = bootstrap.draw(holdout["guard_id"], settings)
    return {
        "precision_recall.png": precision_recall_curve(labels, scores, settings, rival_scores, resamples),
        "calibration.png": calibration(labels, scores),
        "threshold_cost.png": threshold_cost(labels, scores, settings),
        "score_histogram.png": score_histogram(labels, scores, settings),
    }


def precision_recall_curve(
    is_fraud: npt.ArrayLike,
    scores: npt.ArrayLike,
    settings: Settings,
    rival_scores: Mapping[str, Numbers] | None = None,
    resamples: Resamples | None = None,
) -> bytes:
    """The candidate's curve with its chosen threshold, the base rate and the area asked for, as PNG.

    The curves of `rival_scores` (of the same rows, by name) lie behind it, and so does the interval of
    its precision over `resamples`. Raises UnusableRecords as `evaluation.measure` does.
    """
    metrics = measure(is_fraud, scores, settings)
    figure, axes = _canvas(6.4)
    _draw_accepted(axes, settings)
    chance = f"a constant: base rate {metrics.base_rate:.1%}"
    axes.axhline(metrics.base_rate, color=_INK, linestyle=":", linewidth=1, label=chance)
    if resamples is not None:
        _draw_band(axes, resamples, np.asarray(is_fraud, np.bool_), np.asarray(scores, np.float64))
    _draw_rivals(axes, is_fraud, rival_scores or {}, settings)
    _draw_curve(axes, curve(is_fraud, scores), _CANDIDATE, f"candidate, PR-AUC {metrics.pr_auc:.3f}")
    point = (
        f"threshold {metrics.threshold:.3f}: precision {metrics.precision_at_target_recall:.2f}, "
        f"recall {metrics.recall:.2f}"
    )
    axes.plot(
        [metrics.recall], [metrics.precision_at_target_recall], "o", color=_SUSPECT, markersize=7, label=point
    )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="Recall (share of fraud found)")
    axes.set(ylabel="Precision (share of alarms that are fraud)")
    title = f"Precision and recall on {metrics.records:,} held-out events, {metrics.fraud:,} of them fraud"
    axes.set_title(title, pad=12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return _png(figure)


def calibration(is_fraud: npt.ArrayLike, scores: npt.ArrayLike) -> bytes:
    """Predicted against observed share of fraud by tenths of the scores, as PNG.

    Scores that are no probabilities are drawn too: their points are far from the diagonal.
    """
    labels, predicted = np.asarray(is_fraud, np.bool_), np.asarray(scores, np.float64)
    bins, error = reliability(labels, predicted), calibration_error(labels, predicted)
    figure, axes = _canvas(5.2)
    reach = 1.05 * max(bins.predicted.max(), bins.observed.max(), 1e-6)
    axes.plot([0, reach], [0, reach], color=_INK, linestyle=":", linewidth=1, label="perfectly calibrated")
    label = f"about {bins.records.max():,} events a point"
    axes.plot(bins.predicted, bins.observed, "o-", color=_CANDIDATE, markersize=6, linewidth=1.5, label=label)
    axes.set(xlabel="Mean score (predicted share of fraud)", ylabel="Observed share of fraud")
    axes.set_title(f"Calibration: the score is off by {error:.3f} on average", pad=12)
    axes.legend(frameon=False, loc="upper left")
    return _png(figure)


def threshold_cost(is_fraud: npt.ArrayLike, scores: npt.ArrayLike, settings: Settings) -> bytes:
    """What missed frauds and false alarms cost together, by threshold, as PNG; the costs are settings.

    The chosen threshold and the cheapest one are marked. Raises UnusableRecords as `evaluation.measure`.
    """
    metrics, points = measure(is_fraud, scores, settings), curve(is_fraud, scores)
    missed = (1 - points.recall) * metrics.fraud * settings.missed_fraud_cost
    alarms = points.false_positive_rate * (metrics.records - metrics.fraud) * settings.false_alarm_cost
    cost = missed + alarms
    cheapest, chosen = int(cost.argmin()), int((points.thresholds == metrics.threshold).argmax())
    # Without any alarm: beyond it no threshold is of interest.
    top = 1.3 * max(metrics.fraud * settings.missed_fraud_cost, cost[chosen], 1e-6)
    figure, axes = _canvas(5.2)
    axes.plot(points.thresholds, missed, color=_SUSPECT, linewidth=1, label="missed frauds")
    axes.plot(points.thresholds, alarms, color=_CHAMPION, linewidth=1, label="false alarms")
    axes.plot(points.thresholds, cost, color=_CANDIDATE, linewidth=2, label="together")
    for place, color, name in ((cheapest, _ACCEPTED, "cheapest"), (chosen, _SUSPECT, "chosen")):
        label = f"{name} threshold {points.thresholds[place]:.3f}: {cost[place]:,.0f}"
        axes.plot(points.thresholds[place], cost[place], "o", color=color, markersize=7, label=label)
    axes.set(xlabel="Threshold", ylabel="Cost on the holdout", ylim=(0, top))
    axes.set_title(
        f"A missed fraud costs {settings.missed_fraud_cost:g}, a false alarm {settings.false_alarm_cost:g}",
        pad=12,
    )
    axes.legend(frameon=False, loc="upper right")
    return _png(figure)


def score_histogram(is_fraud: npt.ArrayLike, scores: npt.ArrayLike, settings: Settings) -> bytes:
    """Number of held-out events by score and class, on a logarithmic axis, with the threshold, as PNG."""
    metrics = measure(is_fraud, scores, settings)
    labels, values = np.asarray(is_fraud, np.bool_), np.asarray(scores, np.float64)
    figure, axes = _canvas(4.8)
    edges = np.histogram_bin_edges(values, bins=40).tolist()
    for name, chosen, color in (("legitimate", ~labels, _CHAMPION), ("fraud", labels, _SUSPECT)):
        axes.hist(values[chosen], bins=edges, color=color, alpha=0.7, label=f"{chosen.sum():,} {name}")
    label = f"threshold {metrics.threshold:.3f}"
    axes.axvline(metrics.threshold, color=_INK, linestyle=":", linewidth=1, label=label)
    axes.set(xlabel="Score", ylabel="Held-out events", yscale="log")
    axes.set_title("Scores of fraud and of the rest", pad=12)
    axes.legend(frameon=False, loc="upper right")
    return _png(figure)


def feature_importance(importance: Mapping[str, float], top: int = 15) -> bytes:
    """The `top` features by their share of the total gain, as PNG. Gains are not negative."""
    total = sum(importance.values()) or 1.0
    ranked = sorted(importance.items(), key=lambda pair: (-pair[1], pair[0]))[:top][::-1]
    names = [name.replace("_", " ") for name, _ in ranked]
    shares = [gain / total for _, gain in ranked]
    figure, axes = _canvas(1.6 + 0.3 * len(ranked))
    bars = axes.barh(names, shares, color=_CANDIDATE, height=0.7)
    axes.bar_label(bars, labels=[f"{share:.1%}" for share in shares], padding=4, color=_INK)
    axes.set(xlim=(0, 1.12 * max(shares, default=0) or 1), xlabel="Share of the total gain")
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(visible=False, axis="y")
    axes.margins(y=0.01)
    axes.set_title(f"The {len(ranked)} features that the model leans on most", pad=12)
    return _png(figure)


def _draw_accepted(axes: "Axes", settings: Settings) -> None:
    recall, precision = settings.target_recall, settings.minimum_precision_at_target_recall
    axes.fill_between(
        [recall, 1.01],
        precision,
        1.03,
        color=_ACCEPTED,
        alpha=0.12,
        linewidth=0,
        label=f"asked for: precision {precision:.2f} at recall {recall:.2f}",
    )


def _draw_band(axes: "Axes", resamples: Resamples, labels: npt.NDArray[np.bool_], scores: Numbers) -> None:
    recall = np.linspace(0.02, 1, 50)
    low, high = bootstrap.curves(resamples, labels, scores).band(recall)
    label = "90 of 100 resamples of the guards"
    axes.fill_between(recall, low, high, color=_CANDIDATE, alpha=0.12, linewidth=0, label=label)


def _draw_rivals(
    axes: "Axes", is_fraud: npt.ArrayLike, rival_scores: Mapping[str, Numbers], settings: Settings
) -> None:
    """A ranking that ties all rows is a point, not a curve: the base rate's line stands for it."""
    curves = {name: ranks for name, ranks in rival_scores.items() if np.ptp(ranks) > 0}
    for (name, ranks), style in zip(curves.items(), ("--", "-.", "-", ":"), strict=False):
        label = f"{name}, PR-AUC {measure(is_fraud, ranks, settings).pr_auc:.3f}"
        _draw_curve(axes, curve(is_fraud, ranks), _CHAMPION, label, style=style, width=1.3)


def _draw_curve(
    axes: "Axes", points: Curve, color: str, label: str, *, style: str = "-", width: float = 2.0
) -> None:
    # Precision is not defined at recall 0; the first point is carried to the left edge.
    recall = np.concatenate(([0.0], points.recall))
    precision = np.concatenate((points.precision[:1], points.precision))
    axes.step(recall, precision, where="pre", color=color, linewidth=width, linestyle=style, label=label)


def _canvas(height: float) -> "tuple[Figure, Axes]":
    """A figure of 8 inches by `height` with one plain pair of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: "Figure") -> bytes:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    return picture.getvalue()
