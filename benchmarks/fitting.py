"""Does the search pay against fixed parameters: `python -m benchmarks.fitting`. Prints a table a size.

Synthetic events with a weak signal that drifts: four kinds of tell, two of them pairs of features, a tenth
of the values not known. Each model is judged on events after its training part, many enough to tell models
apart. Average precision and Brier score are means over the seeds; CPU-seconds are those of one fit.
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
import xgboost
from sklearn.metrics import average_precision_score, brier_score_loss

from fraud_assets.compute import training
from fraud_assets.compute.records import matrix
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES
from fraud_assets.domain.settings import Settings

SIZES: Final = ((300, 0.1), (1_000, 0.06), (6_000, 0.03), (20_000, 0.02))
"""Records to train on, and their share of fraud."""

LATER: Final = 15_000
"""Records to judge on."""

OF_DECISION_3: Final = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "learning_rate": 0.05,
    "max_depth": 4,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "min_child_weight": 10,
    "max_bin": 512,
    "seed": 7,
    "nthread": 1,
}

Fit = Callable[[pl.DataFrame, pl.DataFrame], np.ndarray]


def main() -> None:
    """Fits, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fitting", description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--size", type=int, nargs="*", help="only these sizes; any other at 2% fraud")
    options = parser.parse_args()
    known = dict(SIZES)
    for records in options.size or known:
        compare(records, known.get(records, 0.02), options.seeds)


def compare(records: int, share: float, seeds: int) -> None:
    """One size: a line for each way to fit, against the fixed parameters of decision 3."""
    measured = {name: [] for name in WAYS}
    for seed in range(seeds):
        frame = tenant(records + LATER, share, seed)
        train, later = frame.head(records), frame.tail(LATER)
        for name, fit in WAYS.items():
            began = time.process_time()
            scores = fit(train, later)
            measured[name].append(
                (*_measures(later["is_fraud"].to_numpy(), scores), time.process_time() - began)
            )
    print(f"\n{records:,} records, {share:.0%} fraud, {seeds} seeds")
    print(f"{'way':<40}{'AP':>7}{'won':>6}{'Brier':>8}{'mean score / rate':>19}{'CPU s':>8}", flush=True)
    first = np.array(measured[next(iter(WAYS))])
    for name, rows in measured.items():
        table = np.array(rows)
        precision, brier, ratio, seconds = table.mean(axis=0)
        won = int((table[:, 0] > first[:, 0]).sum())
        print(
            f"{name:<40}{precision:>7.3f}{won:>4}/{seeds}{brier:>8.4f}{ratio:>19.2f}{seconds:>8.2f}",
            flush=True,
        )


def _measures(is_fraud: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    return (
        float(average_precision_score(is_fraud, scores)),
        float(brier_score_loss(is_fraud, scores)),
        float(scores.mean() / is_fraud.mean()),
    )


def _fixed(imbalance: float) -> Fit:
    """Decision 3's parameters under a weight, 300 rounds, scores as they come."""

    def fit(train: pl.DataFrame, later: pl.DataFrame) -> np.ndarray:
        labels = train["is_fraud"].cast(pl.Float32).to_numpy()
        weight = ((1 - labels).sum() / labels.sum()) ** imbalance
        parameters = OF_DECISION_3 | {"base_score": 0.5, "scale_pos_weight": weight}
        booster = xgboost.train(parameters, xgboost.DMatrix(matrix(train), labels, nthread=1), 300)
        return booster.predict(xgboost.DMatrix(matrix(later), nthread=1))

    return fit


def _ours(search_seconds: float) -> Fit:
    settings = Settings(search_seconds=search_seconds)
    return lambda train, later: training.score(training.fit(train, settings).content, later)


WAYS: Final[dict[str, Fit]] = {
    "decision 3: fixed, full ratio": _fixed(1.0),
    "the same without a weight": _fixed(0.0),
    "first trial, rounds and calibration": _ours(0),
    "search": _ours(Settings().search_seconds),
}


def tenant(records: int, share: float, seed: int) -> pl.DataFrame:
    """A training dataset in order of time, `records` over 180 days."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(records, len(FEATURES)))
    values[:, 20:] = random.integers(0, len(ENTRY_SOURCES), (records, len(FEATURES) - 20))
    drift = np.linspace(0, 1, records)
    signal = 2.0 * (
        1.8 * (values[:, 0] > 1)
        + 1.2 * (values[:, 1] * values[:, 2] > 0.8)
        + 1.0 * values[:, 3]
        + 0.5 * drift
        + 0.8 * np.abs(values[:, 4])
        + 1.5 * ((values[:, 20] == 3) & (values[:, 5] > 0))
        + 0.5 * values[:, 6]
    )
    is_fraud = random.random(records) < _probability(signal + _intercept(signal, share))
    values[random.random(values.shape) < 0.1] = np.nan
    return _frame(values, is_fraud)


def _frame(values: np.ndarray, is_fraud: np.ndarray) -> pl.DataFrame:
    """As `training` reads it: `entry_source` is a name, all else numbers with nulls."""
    start, step = datetime(2026, 1, 5, tzinfo=UTC), timedelta(days=180) / is_fraud.size
    sources = np.nan_to_num(values[:, FEATURES.index("entry_source")]).astype(np.int64)
    columns = {name: pl.Series(values[:, place], nan_to_null=True) for place, name in enumerate(FEATURES)}
    return pl.DataFrame(
        columns
        | {
            "entry_source": pl.Series([ENTRY_SOURCES[source] for source in sources]),
            "guard_id": ["g"] * is_fraud.size,
            "event_id": [f"e{number:07d}" for number in range(is_fraud.size)],
            "punch_in_at": [start + number * step for number in range(is_fraud.size)],
            "is_fraud": is_fraud,
        },
        schema_overrides={"punch_in_at": pl.Datetime("us", "UTC")},
    )


def _probability(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def _intercept(signal: np.ndarray, share: float) -> float:
    """Found by halving: with it a share of `share` is fraud on average."""
    low, high = -40.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _probability(signal + middle).mean() > share else (middle, high)
    return low


if __name__ == "__main__":
    main()
