"""A candidate by site, night, entry and history of the guard, and where it fails. No decision.

    site     the event's site
    night    punched in from 20:00 to 06:59, local time of the site, or by day
    entry    mobile, kiosk, supervisor or import: the nearest that a dataset has to the kind of device
    history  observations of the guard's profile: the nearest that a dataset has to the time since joining

PR-AUC depends on the share of fraud, which differs between slices; recall at the threshold does not. So a
slice is held against the whole by recall, and against the champion, on the same rows, by PR-AUC.
"""

from typing import Final

import polars as pl

from fraud_assets.compute import bootstrap
from fraud_assets.compute.bootstrap import Labels, Numbers, Resamples
from fraud_assets.domain.settings import Settings
from fraud_assets.domain.text import shown

SLICES: Final = pl.Schema(
    {
        "slice": pl.String,
        "value": pl.String,
        "records": pl.Int64,
        "fraud": pl.Int64,
        "recall": pl.Float64,
        "recall_low": pl.Float64,
        "recall_high": pl.Float64,
        "pr_auc": pl.Float64,
        "pr_auc_gain": pl.Float64,
        "pr_auc_gain_low": pl.Float64,
        "pr_auc_gain_high": pl.Float64,
        "collapse": pl.String,
    }
)

LONG_OBSERVED: Final = 60
"""Observations in the 90 days of a profile that a guard has who works most days."""


def report(
    holdout: pl.DataFrame,
    scores: Numbers,
    threshold: float,
    resamples: Resamples,
    settings: Settings,
    champion_scores: Numbers | None = None,
) -> pl.DataFrame:
    """One row a slice of at least `slice_minimum_records`; schema SLICES, by slice and value.

    recall       share of the slice's frauds with a score from `threshold` on
    pr_auc_gain  PR-AUC less the champion's on the same rows; null without a champion
    low, high    intervals over the guards of `resamples`, whose rows are those of `holdout`
    collapse     why the slice blocks, in words; null: it does not. Of fewer frauds than
                 `slice_minimum_fraud` none does, and null stands for what no fraud tells
    """
    labels = holdout["is_fraud"].to_numpy()
    whole = float((scores[labels] >= threshold).mean())
    rows: list[dict[str, str | float | int | None]] = []
    for name, values in _slices(holdout).items():
        for value in values.drop_nulls().unique().sort():
            chosen = (values == value).fill_null(value=False).to_numpy()
            if chosen.sum() < settings.slice_minimum_records:
                continue
            champion = None if champion_scores is None else champion_scores[chosen]
            found = _measured(resamples.of(chosen), labels[chosen], scores[chosen], threshold, champion)
            row = {"slice": name, "value": str(value), "records": int(chosen.sum()), **found}
            rows.append(row | {"collapse": _collapse(row, whole, settings)})
    return pl.DataFrame(rows, schema=SLICES)


def collapsed(slices: pl.DataFrame) -> tuple[str, ...]:
    """Why slices of a `report` block, in words."""
    return tuple(slices["collapse"].drop_nulls())


def _slices(holdout: pl.DataFrame) -> dict[str, pl.Series]:
    """Name -> the value of each row."""
    at_night = (pl.col("hour_of_day") >= 20) | (pl.col("hour_of_day") < 7)
    observations = pl.col("profile_observations")
    history = (
        pl.when(observations.is_null())
        .then(pl.lit("without a sufficient profile"))
        .when(observations < LONG_OBSERVED)
        .then(pl.lit(f"under {LONG_OBSERVED} observations"))
        .otherwise(pl.lit(f"{LONG_OBSERVED} observations or more"))
    )
    columns = holdout.select(
        site=pl.col("site_id"),
        night=pl.when(at_night).then(pl.lit("night")).otherwise(pl.lit("day")),
        entry=pl.col("entry_source").cast(pl.String),
        history=history,
    )
    return {column.name: column for column in columns}


def _measured(
    resamples: Resamples,
    labels: Labels,
    scores: Numbers,
    threshold: float,
    champion: Numbers | None,
) -> dict[str, float | int | None]:
    if not labels.any():
        return {"fraud": 0}
    caught = labels & (scores >= threshold)
    recall = bootstrap.interval(resamples.share(caught, labels))
    found = bootstrap.compare(resamples, labels, scores, scores if champion is None else champion)
    return {
        "fraud": int(labels.sum()),
        "recall": float(caught.sum() / labels.sum()),
        "recall_low": recall.low,
        "recall_high": recall.high,
        "pr_auc": found.pr_auc,
        "pr_auc_gain": None if champion is None else found.gain,
        "pr_auc_gain_low": None if champion is None else found.interval.low,
        "pr_auc_gain_high": None if champion is None else found.interval.high,
    }


def _collapse(row: dict[str, str | float | int | None], whole: float, settings: Settings) -> str | None:
    fraud, recall_high, gain_high = row["fraud"], row.get("recall_high"), row.get("pr_auc_gain_high")
    if not isinstance(fraud, int) or fraud < settings.slice_minimum_fraud:
        return None
    where = f"in the slice {row['slice']} = {shown(str(row['value']), 50)}"
    if isinstance(recall_high, float) and recall_high < settings.slice_collapse_share * whole:
        return (
            f"{where} it finds {row['recall']:.0%} of {fraud} frauds ({row['recall_low']:.0%} to "
            f"{recall_high:.0%}), and {whole:.0%} of all"
        )
    if isinstance(gain_high, float) and gain_high < -settings.slice_maximum_loss:
        return (
            f"{where} PR-AUC {row['pr_auc']:.2f} is {-float(row['pr_auc_gain'] or 0):.2f} below the "
            f"champion's ({row['pr_auc_gain_low']:.2f} to {gain_high:.2f})"
        )
    return None
