"""Every resample against scikit-learn with sample weights, one at a time."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fraud_assets.compute import bootstrap
from fraud_assets.compute.bootstrap import Interval
from fraud_assets.domain.settings import Settings

FEW = Settings(bootstrap_resamples=100)
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 5)), min_size=2, max_size=40)
Rows = list[tuple[bool, int, int]]


def columns(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with many ties, and the names of the guards."""
    labels, scores, guards = (np.array(column) for column in zip(*rows, strict=True))
    assume(any(labels))
    return labels, scores / 6, np.array([f"g{guard}" for guard in guards])


@given(ROWS)
def test_every_curve_of_a_resample_is_that_of_its_weighted_rows(rows: Rows):
    labels, scores, guards = columns(rows)
    resamples = bootstrap.draw(guards, FEW)
    curves = bootstrap.curves(resamples, labels, scores)
    found = (curves.average_precision(), curves.precision_at(0.8), curves.roc_auc())
    # The oracle is slow: a few resamples of many examples.
    few = zip(*found, resamples.drawn[:, resamples.guard], strict=True)
    for area, precision, roc, weight in islice(few, 6):
        if weight[labels].sum() == 0:
            assert (area, precision, roc) == (0, 0, 0)
            continue
        assert area == pytest.approx(average_precision_score(labels, scores, sample_weight=weight))
        precisions, recalls, _ = precision_recall_curve(labels, scores, sample_weight=weight)
        assert precision == pytest.approx(precisions[:-1][recalls[:-1] >= 0.8 - 1e-12].max())
        if weight[~labels].sum() > 0:
            assert roc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weight))


@given(ROWS)
def test_sums_and_shares_are_those_of_the_rows_repeated(rows: Rows):
    labels, scores, guards = columns(rows)
    resamples = bootstrap.draw(guards, FEW)
    for weights, total, share in zip(
        resamples.drawn, resamples.total(scores), resamples.share(labels, scores > 0.5), strict=True
    ):
        repeated = np.repeat(np.arange(labels.size), weights[resamples.guard].astype(int))
        assert total == pytest.approx(scores[repeated].sum())
        whole = (scores[repeated] > 0.5).sum()
        assert share == pytest.approx(labels[repeated].sum() / whole if whole else 0)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(rows: Rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)

    def areas(of: Rows) -> list[float]:
        labels, scores, guards = columns(of)
        return bootstrap.average_precision(bootstrap.draw(guards, FEW), labels, scores).tolist()

    assert areas(rows) == areas(shuffled)


def test_a_resample_has_as_many_guards_as_there_are_and_the_seed_decides_which():
    guards = ["g1", "g2", "g2", "g3", "g4"]
    drawn = bootstrap.draw(guards, FEW).drawn
    assert drawn.shape == (100, 4)
    assert (drawn.sum(axis=1) == 4).all()
    assert (drawn == bootstrap.draw(guards, FEW).drawn).all()
    assert (drawn != bootstrap.draw(guards, Settings(bootstrap_resamples=100, seed=8)).drawn).any()


def test_the_interval_is_over_guards_and_not_over_rows():
    """A hundred frauds of two guards are evidence of two guards: some resamples have neither."""
    labels = np.repeat([True, False], [100, 900])
    guards = np.concatenate([np.repeat(["a", "b"], 50), [f"g{row % 30}" for row in range(900)]])
    scores = np.linspace(1, 0, 1000)
    spread = bootstrap.interval(
        bootstrap.average_precision(bootstrap.draw(guards, Settings()), labels, scores)
    )
    assert spread == pytest.approx((0, 1))
    rows = bootstrap.draw(np.arange(1000), Settings())
    assert bootstrap.interval(bootstrap.average_precision(rows, labels, scores)) == pytest.approx((1, 1))


def test_a_comparison_is_paired_and_the_same_ranking_is_no_gain():
    random = np.random.default_rng(0)
    labels, guards = random.random(300) < 0.1, random.integers(20, size=300)
    scores = random.normal(labels * 2.0)
    resamples = bootstrap.draw(guards, Settings())
    same = bootstrap.compare(resamples, labels, scores, np.exp(scores))
    assert (same.gain, same.interval, same.better) == (0, Interval(0, 0), 0)
    worse = bootstrap.compare(resamples, labels, scores, scores + random.normal(size=300))
    assert worse.gain == pytest.approx(worse.pr_auc - worse.other)
    assert 0 < worse.interval.low < worse.gain < worse.interval.high
    assert worse.better > 0.95


@pytest.mark.parametrize("ties", [1000, 3])
def test_luck_is_what_shuffled_labels_give(ties: int):
    random = np.random.default_rng(1)
    labels = np.arange(30) < 6
    scores = random.integers(ties, size=30).astype(float)
    found = bootstrap.by_luck(labels, scores, Settings(bootstrap_resamples=2000))
    slow = [average_precision_score(random.permutation(labels), scores) for _ in range(2000)]
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(found, share) == pytest.approx(np.quantile(slow, share), abs=0.03)
    assert set(np.round(found, 9)) & set(np.round(slow, 9))


def test_the_band_is_the_interval_of_precision_at_each_recall():
    random = np.random.default_rng(2)
    labels, guards = random.random(200) < 0.2, random.integers(15, size=200)
    curves = bootstrap.curves(bootstrap.draw(guards, FEW), labels, random.normal(labels * 2.0))
    low, high = curves.band(np.array([0.3, 0.8]))
    for place, recall in enumerate((0.3, 0.8)):
        first = [
            precision[reached >= recall][0]
            for precision, reached in zip(curves.precision, curves.recall, strict=True)
        ]
        assert (low[place], high[place]) == bootstrap.interval(np.array(first))
