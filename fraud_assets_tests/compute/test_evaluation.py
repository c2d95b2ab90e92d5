"""Every measure against a slow oracle that counts, threshold by threshold and pair by pair."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from fraud_assets.compute import evaluation
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.domain.errors import UnusableRecords
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import NOON
from fraud_assets_tests.compute.holdouts import holdout, labels_of

RULES = Settings()
RANDOM = np.random.default_rng(3)
HOLDOUT = holdout(RANDOM, 300, 40, 25)
LABELS = labels_of(HOLDOUT)
CHANCES = 1 / (1 + np.exp(1 - RANDOM.normal(LABELS * 2.0)))
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


def test_the_assessed_numbers_are_read_back_too_and_an_earlier_release_lacks_them():
    found = evaluation.assess(HOLDOUT, CHANCES, RULES)
    assert set(found.as_dict()) == set(evaluation.PUBLISHED)
    assert Metrics.from_dict(found.as_dict()) == found
    plain = evaluation.measure(LABELS, CHANCES, RULES)
    assert Metrics.from_dict(plain.as_dict()).intervals == {}


def test_an_assessment_has_the_measured_numbers_and_every_interval_holds_its_number():
    found = evaluation.assess(HOLDOUT, CHANCES, RULES)
    plain = evaluation.measure(LABELS, CHANCES, RULES).as_dict()
    assert plain.items() <= found.as_dict().items()
    for name, interval in found.intervals.items():
        assert interval.low < getattr(found, name) < interval.high


def test_the_brier_score_and_the_calibration_are_those_of_scikit_learn():
    found = evaluation.assess(HOLDOUT, CHANCES, RULES)
    assert found.brier_score == pytest.approx(brier_score_loss(LABELS, CHANCES))
    bins = evaluation.reliability(LABELS, CHANCES)
    observed, predicted = calibration_curve(LABELS, CHANCES, n_bins=10, strategy="quantile")
    assert bins.observed == pytest.approx(observed)
    assert bins.predicted == pytest.approx(predicted)
    assert bins.records.sum() == LABELS.size
    error = np.average(np.abs(observed - predicted), weights=bins.records)
    assert found.calibration_error == pytest.approx(error)


def test_a_calibrated_score_has_no_calibration_error_and_ties_share_a_bin():
    labels = np.repeat([True, False, True, False], [1, 9, 5, 5])
    scores = np.repeat([0.1, 0.5], 10)
    assert evaluation.calibration_error(labels, scores) == pytest.approx(0)
    assert evaluation.reliability(labels, scores).records.tolist() == [10, 10]


def test_scores_that_are_no_probabilities_have_neither():
    found = evaluation.assess(HOLDOUT, CHANCES * 3, RULES)
    assert (found.brier_score, found.calibration_error) == (None, None)
    assert "brier_score" not in found.as_dict()
    assert "brier_score" not in found.intervals


def at_desk(rows: list[tuple[int, str, float, bool]], places: int) -> float:
    """The share of fraud among the reviewed, by counting: (day, guard, score, is_fraud)."""
    frame = pl.DataFrame(rows, schema=["day", "guard_id", "score", "is_fraud"], orient="row").with_columns(
        punch_in_at=pl.lit(NOON) + pl.duration(days="day")
    )
    found = evaluation.at_desk(frame, Settings(desk_guards_per_day=places))
    return float(np.average(found["is_fraud"].to_numpy(), weights=found["reviewed"].to_numpy()))


def test_the_desk_reviews_the_guards_of_highest_score_of_each_day():
    day_one = [(0, "a", 0.9, False), (0, "a", 0.1, True), (0, "b", 0.8, False), (0, "c", 0.2, True)]
    day_two = [(1, "a", 0.3, False), (1, "b", 0.4, True)]
    assert at_desk(day_one + day_two, 1) == 1
    assert at_desk(day_one + day_two, 2) == 2 / 4
    assert at_desk(day_one + day_two, 9) == 3 / 5


def test_guards_that_tie_for_the_last_place_share_it():
    tied = [(0, "a", 0.9, False), (0, "b", 0.5, True), (0, "c", 0.5, False), (0, "d", 0.1, True)]
    assert at_desk(tied, 2) == pytest.approx(0.5 / 2)
    assert at_desk(tied, 3) == pytest.approx(1 / 3)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("abcdef"), st.integers(0, 3), st.booleans()), min_size=1
    )
)
def test_the_desk_reviews_as_many_guards_a_day_as_it_can_and_by_chance_among_equals(records):
    rows = [(day, guard, score / 3, fraud) for day, guard, score, fraud in records]
    caught = reviews = 0.0
    for day in {row[0] for row in rows}:
        guards = {row[1]: (-1.0, False) for row in rows if row[0] == day}
        for _, guard, score, fraud in (row for row in rows if row[0] == day):
            guards[guard] = (max(guards[guard][0], score), guards[guard][1] or fraud)
        orders = [sorted(order, key=lambda found: -found[0])[:2] for order in permutations(guards.values())]
        caught += float(np.mean([sum(fraud for _, fraud in order) for order in orders]))
        reviews += min(2, len(guards))
    assert at_desk(rows, 2) == pytest.approx(caught / reviews)


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
