"""What reviewers of a demo tenant found, when they decided and when it was known. Append-only."""

from datetime import datetime

import numpy as np
import polars as pl

from fraud_assets.demo.chance import between, happens

_DAY = 1440.0
_SOURCES = ("review", "payroll", "client", "random_audit")


def outcomes(events: pl.DataFrame, until: datetime, rng: np.random.Generator) -> pl.DataFrame:
    """The outcomes known at `until` of `events` (with their true `typology`), oldest first.

    Nineteen frauds in twenty are reviewed; of the honest events mostly those that look odd.
    A tenant without fraud has no mistaken confirmation either.
    """
    first = _first_decisions(events, rng)
    known = pl.concat([first, _reversals(first, rng)]).filter(pl.col("known_at") <= until)
    number = pl.int_range(1, pl.len() + 1).cast(pl.String).str.zfill(7)
    return known.sort("known_at", "event_id").with_columns(
        outcome_id=pl.lit("o-") + number,
        typology=pl.when(pl.col("verdict") == "fraud").then(pl.col("typology").fill_null("padding")),
    )


def _first_decisions(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Decided 3 to 27 days after the punch-in, one in twenty up to 58 days; known within two days."""
    is_fraud = pl.col("typology").is_not_null()
    odd = (
        (pl.col("entry_source") == "supervisor")
        | pl.col("is_mock_location").fill_null(False)
        | ~pl.col("face_verified").fill_null(True)
        | (pl.col("punch_in_at") < pl.col("scheduled_start") - pl.duration(minutes=30))
    )
    share = pl.when(is_fraud).then(0.95).when(odd).then(0.2).otherwise(0.02)
    reviewed = events.filter(pl.Series(rng.random(events.height)) < share)
    count = reviewed.height
    delay = np.where(happens(rng, count, 0.05), rng.uniform(27, 58, count), rng.uniform(3, 26, count)) * _DAY
    return reviewed.select(
        "event_id",
        "typology",
        verdict=_verdict(
            is_fraud, events["typology"].null_count() < events.height, pl.Series(rng.random(count))
        ),
        source=pl.Series(rng.choice(_SOURCES, count, p=(0.6, 0.15, 0.1, 0.15)).tolist(), dtype=pl.String),
        decided_at=pl.col("punch_in_at")
        + pl.Series(delay * 60_000_000).cast(pl.Int64).cast(pl.Duration("us")),
    ).with_columns(known_at=pl.col("decided_at") + between(rng, count, 60, 2 * _DAY))


def _verdict(is_fraud: pl.Expr, errs: bool, draw: pl.Series) -> pl.Expr:
    """A few are inconclusive, a few wrong; `errs`: honest events may be taken for fraud."""
    wrong = 0.005 if errs else 0.0
    honest = pl.when(draw < wrong).then(pl.lit("fraud")).when(draw < 0.03).then(pl.lit("inconclusive"))
    cheating = (
        pl.when(draw < 0.025).then(pl.lit("legitimate")).when(draw < 0.045).then(pl.lit("inconclusive"))
    )
    return (
        pl.when(is_fraud)
        .then(cheating.otherwise(pl.lit("fraud")))
        .otherwise(honest.otherwise(pl.lit("legitimate")))
    )


def _reversals(first: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Most wrong verdicts are put right 4 to 20 days later."""
    is_fraud = pl.col("typology").is_not_null()
    wrong = is_fraud == (pl.col("verdict") == "legitimate")
    reversed_ = first.filter(
        (wrong & (pl.col("verdict") != "inconclusive")), pl.Series(happens(rng, first.height, 0.8))
    )
    later = between(rng, reversed_.height, 4 * _DAY, 20 * _DAY)
    return reversed_.with_columns(
        pl.col("decided_at", "known_at") + later,
        verdict=pl.when(is_fraud).then(pl.lit("fraud")).otherwise(pl.lit("legitimate")),
    )
