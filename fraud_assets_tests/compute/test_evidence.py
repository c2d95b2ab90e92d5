"""The evidence as a whole: paired, the same in any order of rows, and under fixed names."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fraud_assets.compute import evaluation, evidence
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.compute.holdouts import evidence as made
from fraud_assets_tests.compute.holdouts import holdout, labels_of

RULES = Settings(bootstrap_resamples=200)
RANDOM = np.random.default_rng(5)
FRAME = holdout(RANDOM, 300, 40, 20)
LABELS = labels_of(FRAME)
GOOD, POOR, BAD = (1 / (1 + np.exp(-RANDOM.normal(LABELS * tell))) for tell in (3, 1, 0))


def test_all_that_is_compared_is_compared_on_the_same_rows():
    found = evidence.gather(FRAME, GOOD, {"poor": POOR, "bad": BAD}, RULES, POOR)
    assert found.champion == found.rivals["poor"]
    assert found.strongest == ("poor", found.rivals["poor"])
    assert found.rivals["bad"].other == pytest.approx(average_precision_score(LABELS, BAD))


def test_the_order_of_the_rows_changes_nothing():
    order = RANDOM.permutation(300)
    first = evidence.gather(FRAME, GOOD, {"poor": POOR}, RULES, BAD)
    again = evidence.gather(FRAME[order], GOOD[order], {"poor": POOR[order]}, RULES, BAD[order])
    assert first.as_dict() == again.as_dict()
    assert first.slices.equals(again.slices)


def test_the_published_names_are_fixed():
    everything = evidence.gather(FRAME, GOOD, {"poor": POOR}, RULES, BAD).as_dict()
    assert set(everything) == {*evaluation.PUBLISHED, *evidence.COMPARED}
    assert all(np.isfinite(number) for number in everything.values())


def test_what_is_not_known_is_left_out():
    found = evidence.gather(FRAME, GOOD, {}, RULES).as_dict()
    assert set(evidence.COMPARED).isdisjoint(found)
    assert "pr_auc_gain" in made(champion=0.5).as_dict()
