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

from fraud_assets.compute.evaluation import Curve, curve, measure
from fraud_assets.domain.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK: Final = "#1f2937"
_CANDIDATE: Final = "#2563eb"
_CHAMPION: Final = "#9ca3af"
_ACCEPTED: Final = "#16a34a"
_SUSPECT: Final = "#dc2626"


def precision_recall_curve(
    is_fraud: npt.ArrayLike,
    scores: npt.ArrayLike,
    settings: Settings,
    champion_scores: npt.ArrayLike | None = None,
) -> bytes:
    """The candidate's curve with its chosen threshold, the base rate and the area asked for, as PNG.

    With `champion_scores` (of the same rows) the champion's curve lies behind it. Raises
    UnusableRecords as `evaluation.measure` does.
    """
    metrics = measure(is_fraud, scores, settings)
    figure, axes = _canvas(6.4)
    _draw_accepted(axes, settings)
    chance = f"base rate {metrics.base_rate:.1%}"
    axes.axhline(metrics.base_rate, color=_INK, linestyle=":", linewidth=1, label=chance)
    if champion_scores is not None:
        _draw_curve(axes, curve(is_fraud, champion_scores), _CHAMPION, "champion")
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


def _draw_curve(axes: "Axes", points: Curve, color: str, label: str) -> None:
    # Precision is not defined at recall 0; the first point is carried to the left edge.
    recall = np.concatenate(([0.0], points.recall))
    precision = np.concatenate((points.precision[:1], points.precision))
    axes.step(recall, precision, where="pre", color=color, linewidth=2, label=label)


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
