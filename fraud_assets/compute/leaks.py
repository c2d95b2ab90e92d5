"""What in a training dataset knows more than could be known. Frames in, reasons in words out; no repair.

Three kinds are looked for:

    rows that should not be there   events of the future, immature events, the same event twice
    columns that should not be there   anything but the keys, the features and the label of the schema
    features that know the outcome   a feature that alone tells fraud from the rest almost perfectly: by
        its value, by whether it is known, or by its step since the same guard's event before. The last
        finds a count or a rate over a guard's events that includes the event's own label.

It does not find a leak that only helps a little, nor one that several features share.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import polars.selectors as cs

from fraud_assets.compute import records
from fraud_assets.compute.bootstrap import Labels, Numbers, Places
from fraud_assets.compute.records import Records
from fraud_assets.domain.schemas import FEATURES, TrainingDataset
from fraud_assets.domain.settings import Settings


def find(dataset: Records, as_of: datetime, settings: Settings) -> tuple[str, ...]:
    """Every leak of `dataset`, schema TrainingDataset, that was assembled from what was known at `as_of`.

    A column is in memory at a time.
    """
    rows = records.laid_out(dataset)
    return (*_rows(rows, as_of, settings), *_columns(rows), *_features(rows, settings))


def _rows(dataset: pl.LazyFrame, as_of: datetime, settings: Settings) -> Iterator[str]:
    mature_until, punched_in = as_of - timedelta(days=settings.maturity_days), pl.col("punch_in_at")
    future, late, repeated = (
        dataset.select(
            (punched_in >= as_of).sum(),
            late=(punched_in > mature_until).sum(),
            repeated=pl.len() - pl.col("event_id").n_unique(),
        )
        .collect(engine="streaming")
        .row(0)
    )
    immature = late - future
    if future:
        yield f"{_events(future)} of the future: punched in at the cut-off {as_of:%Y-%m-%d %H:%M} or later"
    if immature:
        yield f"{_events(immature)} not mature: punched in after {mature_until:%Y-%m-%d %H:%M}"
    if repeated:
        yield f"{_events(repeated)} there more than once: the holdout may hold what was trained on"


def _events(count: int) -> str:
    return f"{count} event is" if count == 1 else f"{count} events are"


def _columns(dataset: pl.LazyFrame) -> Iterator[str]:
    strange = sorted({*dataset.collect_schema()} - {*TrainingDataset.column_names()})
    if strange:
        yield f"columns that are neither key nor feature: {', '.join(strange)}"


def _features(dataset: pl.LazyFrame, settings: Settings) -> Iterator[str]:
    guard = pl.col("guard_id")
    # A guard's first event has no step, and says nothing.
    has_before = records.column(dataset, (guard == guard.shift()).fill_null(value=False))
    labels = records.column(dataset, pl.col("is_fraud")).to_numpy()
    stepping = labels[has_before.to_numpy()]
    for name in FEATURES:
        for how, of, view in _views(records.column(dataset, pl.col(name)), labels, has_before, stepping):
            if _tells(of, settings) and (found := _separation(of, view)) >= _too_good(of, settings):
                yield f"{name} alone{how} tells the outcome: PR-AUC {found:.3f}"
                break


def _views(
    feature: pl.Series, labels: Labels, has_before: pl.Series, stepping: Labels
) -> Iterator[tuple[str, Labels, pl.Series]]:
    """How a feature may tell the outcome, in words, with labels and scores; each made when asked for.

    `stepping`: the labels of the events that `has_before` names.
    """
    numbers = _numbers(feature)
    yield "", labels, numbers
    yield " by being known", labels, feature.is_not_null().cast(pl.Float64)
    steps = (numbers - numbers.shift()).filter(has_before)
    yield " by its step since the guard's event before", stepping, steps


def _tells(labels: Labels, settings: Settings) -> bool:
    """Among fewer than `minimum_per_class` of a class some feature is always the first by luck."""
    fraud = int(labels.sum())
    return min(fraud, labels.size - fraud) >= settings.minimum_per_class


def _too_good(labels: Labels, settings: Settings) -> float:
    """`leak_pr_auc` of the way from the base rate to 1, so that a dataset full of fraud is not accused."""
    base_rate = float(labels.mean())
    return base_rate + settings.leak_pr_auc * (1 - base_rate)


def _numbers(feature: pl.Series) -> pl.Series:
    """A feature as float64; an entry source is its place among the sorted ones."""
    text = cs.string() | cs.enum() | cs.categorical()
    frame = feature.to_frame().with_columns(text.cast(pl.String).rank("dense"))
    return frame.to_series().cast(pl.Float64)


def _separation(labels: Labels, values: pl.Series) -> float:
    """The better PR-AUC of the values as scores, largest or smallest first; what is not known comes last."""
    known = values.is_not_null().to_numpy()
    numbers = values.fill_null(0.0).to_numpy()
    unknown = np.where(known, 0, 1)
    return max(_average_precision(labels, numbers * sign, unknown) for sign in (-1.0, 1.0))


def _average_precision(labels: Labels, ascending: Numbers, unknown: Places) -> float:
    """Average precision with the smallest known value as the most suspicious; ties are one threshold."""
    order = np.lexsort((ascending, unknown))
    placed, known = ascending[order], unknown[order]
    is_last = np.append((np.diff(placed) != 0) | (np.diff(known) != 0), True)
    flagged = np.flatnonzero(is_last) + 1
    caught = labels[order].cumsum()[is_last]
    return float((np.diff(caught, prepend=0) * caught / flagged).sum() / labels.sum())
