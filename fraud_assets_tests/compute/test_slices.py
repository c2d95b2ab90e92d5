"""Slices: what is reported, by which words, and which of them blocks."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from fraud_assets.compute import bootstrap, slices
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.compute.holdouts import holdout, labels_of

RULES = Settings()
FRAME = holdout(np.random.default_rng(0), 800, 120, 40).with_columns(
    site_id=pl.format("s{}", pl.int_range(800) % 4), hour_of_day=pl.int_range(800) % 24
)
LABELS = labels_of(FRAME)
SCORES = np.where(LABELS, 0.9, 0.1)


def report(
    scores: np.ndarray = SCORES, champion: np.ndarray | None = None, frame: pl.DataFrame = FRAME, **rules: Any
) -> pl.DataFrame:
    settings = Settings(**rules)
    resamples = bootstrap.draw(frame["guard_id"], settings)
    return slices.report(frame, scores, 0.5, resamples, settings, champion)


def row(found: pl.DataFrame, name: str, value: str) -> dict[str, Any]:
    return found.row(by_predicate=(pl.col("slice") == name) & (pl.col("value") == value), named=True)


def where(name: str, value: object) -> np.ndarray:
    return (FRAME[name] == value).to_numpy()


def test_the_four_kinds_of_slice_are_reported_with_their_counts():
    found = report()
    assert found.schema == slices.SLICES
    assert found["slice"].unique(maintain_order=True).to_list() == ["site", "night", "entry", "history"]
    for name in ("site", "night"):
        of = found.filter(pl.col("slice") == name)
        assert (of["records"].sum(), of["fraud"].sum()) == (800, 120)
    night = row(found, "night", "night")
    assert night["records"] == int(((FRAME["hour_of_day"] >= 20) | (FRAME["hour_of_day"] < 7)).sum())


def test_history_tells_a_guard_without_a_profile_from_one_that_was_seen_often():
    frame = FRAME.with_columns(profile_observations=pl.Series([None, 59, 60, 61] * 200, dtype=pl.Int64))
    found = report(frame=frame).filter(pl.col("slice") == "history")
    assert dict(found.select("value", "records").iter_rows()) == {
        "without a sufficient profile": 200,
        "under 60 observations": 200,
        "60 observations or more": 400,
    }


def test_a_slice_of_few_records_is_not_reported():
    assert report(slice_minimum_records=201).filter(pl.col("slice") == "site").is_empty()
    assert report(slice_minimum_records=200).filter(pl.col("slice") == "site").height == 4


def test_the_numbers_are_those_of_the_slices_own_rows():
    random = np.random.default_rng(1)
    scores, champion = random.random(800), random.random(800)
    found = row(report(scores, champion), "site", "s2")
    chosen = where("site_id", "s2")
    of = LABELS[chosen]
    area = average_precision_score(of, scores[chosen])
    assert found["pr_auc"] == pytest.approx(area)
    assert found["pr_auc_gain"] == pytest.approx(area - average_precision_score(of, champion[chosen]))
    assert found["recall"] == pytest.approx((scores[chosen][of] >= 0.5).mean())
    assert found["recall_low"] < found["recall"] < found["recall_high"]


def test_without_a_champion_there_is_no_gain_and_without_fraud_no_recall():
    frame = FRAME.with_columns(is_fraud=pl.col("is_fraud") & (pl.col("site_id") != "s1"))
    found = row(report(frame=frame), "site", "s1")
    assert (found["fraud"], found["recall"], found["pr_auc"], found["collapse"]) == (0, None, None, None)
    assert report()["pr_auc_gain"].null_count() == report().height


def test_a_good_candidate_has_no_slice_that_blocks():
    assert slices.collapsed(report(SCORES, SCORES)) == ()


def test_a_site_where_the_fraud_is_not_found_blocks_and_is_named():
    blind = np.where(where("site_id", "s3"), 0.1, SCORES)
    fraud = int((LABELS & where("site_id", "s3")).sum())
    [reason] = slices.collapsed(report(blind))
    share = 1 - fraud / 120
    assert reason == (
        f"in the slice site = s3 it finds 0% of {fraud} frauds (0% to 0%), and {share:.0%} of all"
    )


def test_a_hostile_site_is_named_on_one_short_line() -> None:
    blind = np.where(where("site_id", "s1"), 0.1, SCORES)
    hostile = "s1\n2026-06-01 02:00 ERROR forged \u202e" + "x" * 300
    [reason] = slices.collapsed(
        report(blind, frame=FRAME.with_columns(pl.col("site_id").replace("s1", hostile)))
    )
    assert reason.startswith(r"in the slice site = s1\n2026-06-01 02:00 ERROR forged \u202ex")
    assert reason.isprintable()
    assert len(reason) < 200


def test_a_site_with_few_frauds_cannot_block():
    blind = np.where(where("site_id", "s3"), 0.1, SCORES)
    fraud = int((LABELS & where("site_id", "s3")).sum())
    assert slices.collapsed(report(blind, slice_minimum_fraud=fraud + 1)) == ()
    assert len(slices.collapsed(report(blind, slice_minimum_fraud=fraud))) == 1


def test_a_site_that_was_better_under_the_champion_blocks():
    """Every fraud is still found there, and so are as many of the others."""
    is_there = where("site_id", "s0")
    drowned = np.where(is_there & (FRAME["hour_of_day"] % 3 == 1).to_numpy(), 0.95, SCORES)
    reasons = slices.collapsed(report(drowned, SCORES))
    assert any(
        reason.startswith("in the slice site = s0 PR-AUC 0.") and "below the champion's" in reason
        for reason in reasons
    )
    assert slices.collapsed(report(drowned, drowned)) == ()


def test_a_loss_within_the_margin_does_not_block():
    is_there = where("site_id", "s0")
    drowned = np.where(is_there & (FRAME["hour_of_day"] % 3 == 1).to_numpy(), 0.95, SCORES)
    assert slices.collapsed(report(drowned, SCORES, slice_maximum_loss=1.0)) == ()
