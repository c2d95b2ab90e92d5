"""Labels, and the training dataset with its digest. No features of its own, no reading, no model.

What was known at the cut-off decides the label: the same history and cut-off give the same rows for ever.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from itertools import chain
from typing import Final

import polars as pl
import polars.selectors as cs

from fraud_assets.compute import features
from fraud_assets.compute.observations import laid_out
from fraud_assets.domain.schemas import FEATURES, AnyHistory, TrainingDataset
from fraud_assets.domain.settings import Settings

MOMENTS: Final = pl.Schema(
    {"feature": pl.String, "null_share": pl.Float64, "mean": pl.Float64, "spread": pl.Float64}
)

_UNUSABLE: Final = ("inconclusive", "conflicting")
_ROWS_AT_ONCE: Final = 50_000

Keep = Callable[[Iterable[pl.DataFrame]], pl.LazyFrame]


def in_memory(frames: Iterable[pl.DataFrame]) -> pl.LazyFrame:
    """Keeps the rows of all `frames`, in their order; what has more rows than memory keeps them elsewhere."""
    return pl.concat(frames).lazy()


@dataclass(frozen=True)
class TrainingSet:
    """The labelled events of [window_start, as_of).

    frame   schema TrainingDataset, sorted by IN_TIME: (guard_id, punch_in_at, event_id)
    counts  events = records + immature + inconclusive + conflicting; records = fraud + legitimate;
            `unreviewed` are those of the legitimate that nobody reviewed
    digest  of `frame`, see `digest`
    """

    frame: pl.LazyFrame
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


def assemble(
    history: AnyHistory, profiles: pl.DataFrame, as_of: datetime, settings: Settings, keep: Keep = in_memory
) -> TrainingSet:
    """The training dataset of a clean `history`, from what was known at `as_of` (aware UTC).

    `profiles` has the schema Profile. The order of the rows given changes nothing. The rows are made in
    batches of guards, and `keep` decides where they are kept.
    """
    laid, window_start = laid_out(history), as_of - timedelta(days=settings.dataset_days)
    is_in_window = _is_in_window(window_start, as_of)
    verdicts = last_verdicts(history.outcome, as_of)
    unusable = verdicts.filter(pl.col("verdict").is_in(_UNUSABLE))["event_id"]
    is_record = is_in_window & _is_mature(as_of, settings) & ~pl.col("event_id").is_in(unusable.implode())
    events, known = laid.attendance_event, features.stored(profiles)
    described = features.batches(events, laid.shift, laid.site, known, is_record)
    labelled = (
        some.with_columns(label(some.lazy(), verdicts, as_of, settings).collect()["is_fraud"])
        for some in described
    )
    columns = TrainingDataset.column_names()
    frame = keep(chain([TrainingDataset.create_empty()], (some.select(columns) for some in labelled)))
    counts = _counts(label(events.filter(is_in_window), verdicts, as_of, settings))
    return TrainingSet(frame, counts, window_start, as_of, digest(frame))


def _is_in_window(window_start: datetime, as_of: datetime) -> pl.Expr:
    return pl.col("punch_in_at").is_between(window_start, as_of, closed="left") & (
        pl.col("known_at") <= as_of
    )


def _is_mature(as_of: datetime, settings: Settings) -> pl.Expr:
    return pl.col("punch_in_at") <= as_of - timedelta(days=settings.maturity_days)


def label(events: pl.LazyFrame, verdicts: pl.DataFrame, as_of: datetime, settings: Settings) -> pl.LazyFrame:
    """event_id, status, is_fraud of each event, as known at `as_of`; is_fraud is null if unusable.

    `verdicts` are the `last_verdicts`. The rows are in the order of `events`. The status is

        immature      punched in less than `maturity_days` ago, reviewed or not: reviewers take the
                      suspicious first, so the early verdicts alone would overstate fraud
        conflicting   several outcomes are the very last and disagree
        inconclusive  the last verdict
        fraud, legitimate  the last verdict; is_fraud is true, false
        unreviewed    mature without an outcome; is_fraud is false
    """
    status = (
        pl.when(~_is_mature(as_of, settings))
        .then(pl.lit("immature"))
        .otherwise(pl.col("verdict").fill_null("unreviewed"))
    )
    is_fraud = pl.col("status").replace_strict(
        {"fraud": True, "legitimate": False, "unreviewed": False}, default=None, return_dtype=pl.Boolean
    )
    judged = events.join(verdicts.lazy(), on="event_id", how="left", maintain_order="left")
    return judged.select("event_id", status.alias("status")).with_columns(is_fraud=is_fraud)


def digest(frame: pl.LazyFrame) -> str:
    """SHA-256 in hex of the values of a stored table in its order, whatever their storage.

    The bytes are the column names and one JSON object a row: floats print in their shortest exact form.
    Arrow's own bytes would also depend on what lies under a null, on chunks, and on whether a text is stored
    as an Enum; a round through a table changes those.
    """
    content = hashlib.sha256(f"{','.join(frame.collect_schema().names())}\n".encode())
    for some in _slices(frame):
        # As bytes: what was altered on disk need not be text.
        rows = BytesIO()
        some.write_ndjson(rows)
        content.update(rows.getbuffer())
    return content.hexdigest()


def _slices(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The rows of `frame` in frames, one at least; cut at the same rows on every run."""
    rows = frame.select(pl.len()).collect().item()
    return (frame.slice(start, _ROWS_AT_ONCE).collect() for start in range(0, max(rows, 1), _ROWS_AT_ONCE))


def summary(now: pl.DataFrame, previous: pl.DataFrame | None = None) -> pl.DataFrame:
    """feature, null_share, mean, spread, change: the `moments` of a dataset against those of the `previous`.

    `change` is the mean's distance from that of `previous`, in spreads of `previous`; null where there is
    nothing to compare with, as for a feature that the dataset of an earlier release did not have.
    """
    before = pl.DataFrame(schema=MOMENTS) if previous is None else previous
    change = (pl.col("mean") - pl.col("mean_before")) / pl.col("spread_before")
    return now.join(before, on="feature", how="left", suffix="_before", maintain_order="left").select(
        *MOMENTS, change=pl.when(pl.col("spread_before") > 0).then(change)
    )


def moments(frame: pl.LazyFrame) -> pl.DataFrame:
    """feature, null_share, mean, spread: one row a feature, in the order of FEATURES.

    The share of nulls is of all rows; mean and population spread are of the known values, booleans as 0
    and 1, an entry source as its place in ENTRY_SOURCES. Those of parts are joined as in Chan, Golub and
    LeVeque, Algorithms for computing the sample variance (1983): no difference of large numbers.
    """
    parts = pl.concat(_moments_of_part(some) for some in _slices(frame))
    rows, known, mean = pl.col("rows"), pl.col("known"), pl.col("mean")
    whole = (known * mean).sum() / known.sum()
    variance = (known * (pl.col("spread") ** 2 + (mean - whole) ** 2)).sum() / known.sum()
    is_known = known.sum() > 0
    return parts.group_by("feature", maintain_order=True).agg(
        null_share=pl.when(rows.sum() > 0).then((rows.sum() - known.sum()) / rows.sum()),
        mean=pl.when(is_known).then(whole),
        spread=pl.when(is_known).then(variance.sqrt()),
    )


def _moments_of_part(part: pl.DataFrame) -> pl.DataFrame:
    numbers = part.select(FEATURES).with_columns(cs.enum().to_physical()).cast(pl.Float64)
    return pl.DataFrame(
        {
            "feature": FEATURES,
            "rows": numbers.height,
            "known": numbers.count().row(0),
            "mean": numbers.mean().row(0),
            "spread": numbers.std(ddof=0).row(0),
        },
        schema_overrides={"mean": pl.Float64, "spread": pl.Float64},
    )


def maturity(made: TrainingSet, history: AnyHistory, settings: Settings) -> Maturity:
    """The maturity of the labels of `made`, which was assembled from `history` under `settings`."""
    events = history.attendance_event.lazy().filter(
        _is_in_window(made.window_start, made.as_of), _is_mature(made.as_of, settings)
    )
    outcomes = history.outcome.lazy().filter(pl.col("known_at") <= made.as_of)
    reviewed = (
        events.select("event_id", "punch_in_at")
        .join(outcomes.select("event_id", reviewed_at="known_at"), on="event_id")
        .collect(engine="streaming")
    )
    waited = reviewed["reviewed_at"] - reviewed["punch_in_at"]
    days = waited.dt.total_microseconds() / (timedelta(days=1) / timedelta(microseconds=1))
    return Maturity(
        mature_until=made.as_of - timedelta(days=settings.maturity_days),
        mature=made.counts["events"] - made.counts["immature"],
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


def last_verdicts(outcomes: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """event_id, verdict of the outcome known last by `as_of`; "conflicting" if the last ones disagree.

    Last is by (known_at, decided_at).
    """
    verdict = pl.col("verdict")
    agreed = pl.when(verdict.n_unique() == 1).then(verdict.first()).otherwise(pl.lit("conflicting"))
    return (
        outcomes.filter(pl.col("known_at") <= as_of)
        .filter(pl.col("known_at") == pl.col("known_at").max().over("event_id"))
        .filter(pl.col("decided_at") == pl.col("decided_at").max().over("event_id"))
        .group_by("event_id")
        .agg(agreed.alias("verdict"))
    )


def _counts(labels: pl.LazyFrame) -> dict[str, int]:
    counted = labels.group_by("status").len().collect(engine="streaming")
    status = Counter(dict(counted.iter_rows()))
    fraud, legitimate = status["fraud"], status["legitimate"] + status["unreviewed"]
    left_out = {name: status[name] for name in ("immature", *_UNUSABLE)}
    return {
        "events": status.total(),
        "records": fraud + legitimate,
        "fraud": fraud,
        "legitimate": legitimate,
        "unreviewed": status["unreviewed"],
        **left_out,
    }
