"""Every measure against a slow oracle that counts, threshold by threshold and pair by pair."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fraud_assets.compute import evaluation
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.domain.errors import UnusableRecords
from fraud_assets.domain.settings import Settings

RULES = Settings()
RECORDS = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40)
Records = list[tuple[bool, int]]


def measured(records: Records, target: float = 0.8) -> Metrics:
    """Few distinct scores, so that ties are the rule."""
    labels, scores = zip(*records, strict=True)
    assume(any(labels) and not all(labels))
    return evaluation.measure(np.array(labels), np.array(scores) / 6, Settings(target_recall=target))


def points(records: Records) -> list[tuple[int, Fraction, Fraction, Fraction]]:
    """(score, precision, recall, false-positive rate) of each threshold, strictest first."""
    fraud = sum(label for label, _ in records)
    counted = []
    for threshold in sorted({score for _, score in records}, reverse=True):
        flagged = [label for label, score in records if score >= threshold]
        caught = sum(flagged)
        false_alarms = Fraction(len(flagged) - caught, len(records) - fraud)
        counted.append((threshold, Fraction(caught, len(flagged)), Fraction(caught, fraud), false_alarms))
    return counted


@given(RECORDS)
def test_pr_auc_is_the_gain_in_recall_times_the_precision_of_each_threshold(records: Records):
    found, area, before = measured(records), Fraction(0), Fraction(0)
    for _, precision, recall, _ in points(records):
        area += (recall - before) * precision
        before = recall
    assert found.pr_auc == pytest.approx(float(area), abs=1e-12)


@given(RECORDS, st.sampled_from([0.25, 0.5, 0.8, 1.0]))
def test_the_threshold_has_the_best_precision_of_those_that_reach_the_target(records: Records, target: float):
    found = measured(records, target)
    reached = [point for point in points(records) if point[2] >= Fraction(str(target))]
    best = max(reached, key=lambda point: (point[1], -point[0]))
    assert found.threshold == best[0] / 6
    numbers = (found.precision_at_target_recall, found.recall, found.false_positive_rate)
    assert numbers == pytest.approx([float(share) for share in best[1:]])


@given(RECORDS)
def test_roc_auc_is_the_share_of_pairs_in_the_right_order_with_ties_as_half(records: Records):
    found = measured(records)
    fraud = [score for label, score in records if label]
    others = [score for label, score in records if not label]
    won = sum((high > low) + (high == low) / 2 for high in fraud for low in others)
    assert found.roc_auc == pytest.approx(won / len(fraud) / len(others))


@given(RECORDS, st.randoms())
def test_the_order_of_the_rows_changes_nothing(records: Records, random):
    shuffled = records.copy()
    random.shuffle(shuffled)
    assert measured(shuffled) == measured(records)


def test_a_perfect_ranking_has_no_false_alarm_and_finds_all():
    found = evaluation.measure([0, 0, 1, 1, 1, 1, 1], [0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9], RULES)
    assert (found.pr_auc, found.precision_at_target_recall, found.false_positive_rate) == (1, 1, 0)
    assert (found.recall, found.threshold, found.roc_auc) == (1, 0.5, 1)


def test_scores_that_all_tie_are_worth_the_base_rate():
    found = evaluation.measure([0, 0, 0, 1], [0.5] * 4, RULES)
    assert (found.pr_auc, found.precision_at_target_recall, found.base_rate) == (0.25, 0.25, 0.25)
    assert (found.false_positive_rate, found.roc_auc) == (1, 0.5)


def test_precision_at_target_recall_is_not_read_where_recall_is_one():
    """Four of five frauds stand alone at the top; the fifth lies under everything."""
    labels = [0] * 95 + [1] * 5
    scores = [0.5] * 95 + [0.9, 0.9, 0.9, 0.9, 0.1]
    found = evaluation.measure(labels, scores, RULES)
    assert (found.precision_at_target_recall, found.recall, found.base_rate) == (1, 0.8, 0.05)


def test_the_published_names_are_fixed_and_read_back():
    found = evaluation.measure([0, 1, 0, 1], [0.1, 0.9, 0.5, 0.4], RULES)
    assert list(found.as_dict()) == [
        "pr_auc",
        "precision_at_80_recall",
        "threshold",
        "false_positive_rate",
        "recall",
        "roc_auc",
        "base_rate",
        "holdout_records",
        "holdout_fraud",
    ]
    assert (found.records, found.fraud) == (4, 2)
    assert Metrics.from_dict(found.as_dict() | {"other": 1.0}) == found


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_a_holdout_without_both_classes_gets_no_score(labels: list[int]):
    with pytest.raises(UnusableRecords, match=f"{sum(labels)} frauds among {len(labels)} records"):
        evaluation.measure(labels, np.zeros(len(labels)), RULES)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_not_measured(bad: float):
    with pytest.raises(UnusableRecords, match="got 1 that are not"):
        evaluation.measure([0, 1, 1], [0.1, bad, 0.3], RULES)


def test_there_is_one_score_a_record():
    with pytest.raises(UnusableRecords, match="one score a record"):
        evaluation.measure([0, 1, 1], [0.1, 0.2], RULES)
