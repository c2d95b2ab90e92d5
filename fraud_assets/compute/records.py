"""The records of a training dataset: their parts in time, and their features as numbers. No model.

Few records are a frame in memory. Many are a lazy one, which is read part by part wherever more than a column
is needed; its rows are in the order of IN_TIME, as datasets are stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from fraud_assets.compute.observations import IN_TIME
from fraud_assets.domain.errors import UnusableRecords
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES
from fraud_assets.domain.settings import Settings

Records = pl.DataFrame | pl.LazyFrame

_ROWS_AT_ONCE: Final = 50_000


@dataclass(frozen=True)
class Part:
    """Some of the records of a dataset, in the order of IN_TIME. `records` are their number."""

    rows: pl.LazyFrame
    records: int
    fraud: int

    @property
    def classes(self) -> tuple[int, int]:
        """Frauds and legitimate records."""
        return self.fraud, self.records - self.fraud


@dataclass(frozen=True)
class Split:
    """Two parts of a dataset in order of time: `holdout` is from `holdout_start` on, `train` well before.

    `left_out` records are in neither part: punched in less than the gap before `holdout_start`.
    """

    train: Part
    holdout: Part
    holdout_start: datetime
    left_out: int


def laid_out(records: Records) -> pl.LazyFrame:
    """`records` in the order of IN_TIME, whatever theirs is in memory."""
    return records if isinstance(records, pl.LazyFrame) else records.sort(IN_TIME).lazy()


def frames(records: Records) -> Iterator[pl.DataFrame]:
    """All of `records`, in their order, a few at a time."""
    if isinstance(records, pl.DataFrame):
        return records.iter_slices(_ROWS_AT_ONCE)
    return iter(records.collect_batches(chunk_size=_ROWS_AT_ONCE, maintain_order=True))


def column(records: Records, value: pl.Expr) -> pl.Series:
    """`value` of each of `records`, in their order."""
    return records.lazy().select(value).collect().to_series()


def part(records: Records) -> Part:
    """`records`, laid out and counted."""
    rows = laid_out(records)
    count, fraud = rows.select(pl.len(), pl.col("is_fraud").sum()).collect(engine="streaming").row(0)
    return Part(rows, count, fraud)


def split(dataset: Records, settings: Settings, gap: timedelta) -> Split:
    """The latest `holdout_share` of the events by `punch_in_at` held out, with `gap` before them left out.

    With the label delay as gap, `train` has the records whose labels were known when the holdout began, as
    in service: a model that learnt from later ones would look better than it will be. The gap is kept
    whole for a tenant with little history too; it may leave nothing to train on. Events that tie at the
    boundary go to the holdout together, so that it may be a little larger; an event exactly the gap before
    it is trained on. Raises UnusableRecords for an empty dataset.
    """
    rows, punched_in = laid_out(dataset), pl.col("punch_in_at")
    instants = column(rows, punched_in).sort()
    if instants.is_empty():
        raise UnusableRecords("expected training records to split, got none; widen the training window")
    held_out = max(1, round(instants.len() * settings.holdout_share))
    start: datetime = instants[-held_out]
    holdout = part(rows.filter(punched_in >= start))
    train = part(rows.filter((punched_in < start) & (punched_in <= start - gap)))
    return Split(train, holdout, start, instants.len() - train.records - holdout.records)


def one_sided(dataset: Records, settings: Settings, gap: timedelta) -> str | None:
    """Why a part of the split cannot be used, in words: it lacks a class. None if both parts have both."""
    parts = split(dataset, settings, gap)
    for name, some in {"training part": parts.train, "holdout": parts.holdout}.items():
        if not min(some.classes):
            counts = (
                f"the {name} has {some.fraud} frauds among {some.records} records, and needs both classes"
            )
            days = f"{gap / timedelta(days=1):g} days"
            between = f"; the {days} before the holdout, {parts.left_out} records, are not trained on"
            return counts + between if some is parts.train and parts.left_out else counts
    return None


def validation(train: Part, settings: Settings, gap: timedelta) -> Split | None:
    """`train` parted in time for a search: what a trial is fitted on, and the latest `validation_share`.

    The gap between them is left out if half of `train` is left to fit on, else there is none: labels of
    both parts are known anyway, and too few records would mislead the search more. None if a part has
    fewer than `minimum_validation_fraud` records of a class.
    """
    shares = settings.model_copy(update={"holdout_share": settings.validation_share})
    parts = split(train.rows, shares, gap)
    if parts.train.records < train.records / 2:
        parts = split(train.rows, shares, timedelta(0))
    smallest = min(*parts.train.classes, *parts.holdout.classes)
    return parts if smallest >= settings.minimum_validation_fraud else None


def matrix(frame: pl.DataFrame) -> np.ndarray:
    """The features of `frame` as float32, one row an event, columns in the order of FEATURES.

    Null becomes NaN, which XGBoost reads as missing; booleans become 0 and 1; an entry source
    becomes its place in ENTRY_SOURCES.
    """
    # A stored table gives the entry source back as text.
    source = pl.col("entry_source").cast(pl.Enum(ENTRY_SOURCES)).to_physical()
    return frame.with_columns(source).select(FEATURES).cast(pl.Float32).to_numpy()
