"""Labels, and the training dataset with its digest. No features of its own, no reading, no model.

What was known at the cut-off decides the label: the same history and cut-off give the same rows for ever.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl
import polars.selectors as cs

from fraud_assets.compute import features
from fraud_assets.domain.schemas import FEATURES, History, TrainingDataset
from fraud_assets.domain.settings import Settings

_ROWS_AT_ONCE: Final = 50_000


@dataclass(frozen=True)
class TrainingSet:
    """The labelled events of [window_start, as_of).

    frame   schema TrainingDataset, sorted by (punch_in_at, event_id)
    counts  events = records + immature + inconclusive + conflicting; records = fraud + legitimate;
            `unreviewed` are those of the legitimate that nobody reviewed
    digest  of `frame`, see `digest`
    """

    frame: pl.DataFrame
    counts: dict[str, int]
    window_start: datetime
    as_of: datetime
    digest: str


@dataclass(frozen=True)
class Maturity:
    """How far the labels of a dataset's window had come at its cut-off.

    mature_until      an event that was punched in by then is mature
    mature            events of the window; the others are immature
    reviewed          mature events with an outcome, whatever the verdict; the others are unreviewed
    median_days, percentile_90_days
                      from punch-in to `known_at` of the outcomes of mature events; null if there are none.
                      Of immature events only the quick outcomes are there, so that they would mislead
    """

    mature_until: datetime
    mature: int
    reviewed: int
    median_days: float | None
    percentile_90_days: float | None


def assemble(history: History, profiles: pl.DataFrame, as_of: datetime, settings: Settings) -> TrainingSet:
    """The training dataset of a clean `history`, from what was known at `as_of` (aware UTC).

    `profiles` has the schema Profile. The order of the rows given changes nothing.
    """
    window_start = as_of - timedelta(days=settings.dataset_days)
    events = history.attendance_event.filter(
        pl.col("punch_in_at").is_between(window_start, as_of, closed="left"), pl.col("known_at") <= as_of
    )
    labels = label(events, history.outcome, as_of, settings)
    records = labels.filter(pl.col("is_fraud").is_not_null()).select("event_id", "is_fraud")
    described = features.compute(events.join(records, on="event_id", how="semi"), history, profiles)
    frame = (
        described.join(records, on="event_id")
        .select(TrainingDataset.column_names())
        .sort("punch_in_at", "event_id")
    )
    return TrainingSet(frame, _counts(labels), window_start, as_of, digest(frame))


def label(events: pl.DataFrame, outcomes: pl.DataFrame, as_of: datetime, settings: Settings) -> pl.DataFrame:
    """event_id, status, is_fraud of each event, as known at `as_of`; is_fraud is null if unusable.

    The outcome known last counts, by (known_at, decided_at). The status is

        immature      punched in less than `maturity_days` ago, reviewed or not: reviewers take the
                      suspicious first, so the early verdicts alone would overstate fraud
        conflicting   several outcomes are the very last and disagree
        inconclusive  the last verdict
        fraud, legitimate  the last verdict; is_fraud is true, false
        unreviewed    mature without an outcome; is_fraud is false
    """
    is_mature = pl.col("punch_in_at") <= as_of - timedelta(days=settings.maturity_days)
    status = pl.when(~is_mature).then(pl.lit("immature")).otherwise(pl.col("verdict").fill_null("unreviewed"))
    is_fraud = pl.col("status").replace_strict(
        {"fraud": True, "legitimate": False, "unreviewed": False}, default=None, return_dtype=pl.Boolean
    )
    judged = events.join(_last_verdicts(outcomes, as_of), on="event_id", how="left", maintain_order="left")
    return judged.select("event_id", status.alias("status")).with_columns(is_fraud=is_fraud)


def digest(frame: pl.DataFrame) -> str:
    """SHA-256 in hex of a TrainingDataset's values, whatever the order and the storage of its rows.

    The bytes are the column names and one JSON object a row, sorted by (punch_in_at, event_id):
    floats print in their shortest exact form. Arrow's own bytes would also depend on what lies under
    a null, on chunks, and on whether a text is stored as an Enum; a round through a table changes those.
    """
    content = hashlib.sha256(f"{','.join(frame.columns)}\n".encode())
    for some in frame.sort("punch_in_at", "event_id").iter_slices(_ROWS_AT_ONCE):
        content.update(some.write_ndjson().encode())
    return content.hexdigest()


def summary(frame: pl.DataFrame, previous: pl.DataFrame | None = None) -> pl.DataFrame:
    """feature, null_share, mean, spread, change: one row a feature, in the order of FEATURES.

    The share of nulls is of all rows; mean and population spread are of the known values, booleans as 0
    and 1, an entry source as its place in ENTRY_SOURCES. `change` is the mean's distance from that of
    `previous`, in spreads of `previous`; null where there is nothing to compare with, as for a feature
    that `previous`, the dataset of an earlier release, did not have.
    """
    now = _moments(frame)
    before = _moments(frame.clear() if previous is None else previous)
    change = (pl.col("mean") - pl.col("mean_before")) / pl.col("spread_before")
    return (
        now.join(before, on="feature", suffix="_before", maintain_order="left")
        .with_columns(change=pl.when(pl.col("spread_before") > 0).then(change))
        .select("feature", "null_share", "mean", "spread", "change")
    )


def _moments(frame: pl.DataFrame) -> pl.DataFrame:
    known = [name for name in FEATURES if name in frame.columns]
    numbers = frame.select(known).with_columns(cs.enum().to_physical()).cast(pl.Float64)
    return (
        numbers.unpivot(variable_name="feature")
        .group_by("feature")
        .agg(
            null_share=pl.col("value").is_null().mean(),
            mean=pl.col("value").mean(),
            spread=pl.col("value").std(ddof=0),
        )
        .pipe(lambda found: pl.DataFrame({"feature": FEATURES}).join(found, on="feature", how="left"))
    )


def maturity(made: TrainingSet, history: History, settings: Settings) -> Maturity:
    """The maturity of the labels of `made`, which was assembled from `history` under `settings`."""
    mature_until = made.as_of - timedelta(days=settings.maturity_days)
    is_mature = pl.col("punch_in_at").is_between(made.window_start, mature_until)
    events = history.attendance_event.filter(is_mature, pl.col("known_at") <= made.as_of)
    outcomes = history.outcome.filter(pl.col("known_at") <= made.as_of).select(
        "event_id", reviewed_at="known_at"
    )
    reviewed = events.join(outcomes, on="event_id")
    waited = reviewed["reviewed_at"] - reviewed["punch_in_at"]
    days = waited.dt.total_microseconds() / (timedelta(days=1) / timedelta(microseconds=1))
    return Maturity(
        mature_until=mature_until,
        mature=events.height,
        reviewed=reviewed["event_id"].n_unique(),
        median_days=days.quantile(0.5, "linear"),
        percentile_90_days=days.quantile(0.9, "linear"),
    )


def shortage(records: int, fraud: int, settings: Settings) -> str | None:
    """Why `records` usable records, `fraud` of them fraud, are too few to train on; None: enough."""
    legitimate, needed = records - fraud, settings.minimum_per_class
    if records < settings.minimum_records:
        return f"{records} usable records, {settings.minimum_records} are needed"
    if not fraud or not legitimate:
        return (
            f"records of one class only: {fraud} fraud, {legitimate} legitimate; {needed} of each are needed"
        )
    if fraud < needed:
        return f"{fraud} confirmed fraud records, {needed} are needed"
    if legitimate < needed:
        return f"{legitimate} legitimate records, {needed} are needed"
    return None


def _last_verdicts(outcomes: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """event_id, verdict of the outcome known last; "conflicting" if the last ones disagree."""
    verdict = pl.col("verdict")
    agreed = pl.when(verdict.n_unique() == 1).then(verdict.first()).otherwise(pl.lit("conflicting"))
    return (
        outcomes.filter(pl.col("known_at") <= as_of)
        .filter(pl.col("known_at") == pl.col("known_at").max().over("event_id"))
        .filter(pl.col("decided_at") == pl.col("decided_at").max().over("event_id"))
        .group_by("event_id")
        .agg(agreed.alias("verdict"))
    )


def _counts(labels: pl.DataFrame) -> dict[str, int]:
    status = Counter(labels["status"].to_list())
    fraud, legitimate = status["fraud"], status["legitimate"] + status["unreviewed"]
    left_out = {name: status[name] for name in ("immature", "inconclusive", "conflicting")}
    return {
        "events": labels.height,
        "records": fraud + legitimate,
        "fraud": fraud,
        "legitimate": legitimate,
        "unreviewed": status["unreviewed"],
        **left_out,
    }
