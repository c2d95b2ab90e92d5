"""The whole gate on simulated holdouts, seeded: noise does not get in, and what is truly better does.

The size that is stated: 600 held-out events of 50 guards, 30 of them fraud. There a candidate of PR-AUC 0.86
on average, against a champion of 0.74 and a simpler model of 0.60, is activated in over 80% of tries.
"""

from collections import Counter
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score

from fraud_assets.compute import activation, evidence, records, rivals, training
from fraud_assets.compute.activation import Verdict
from fraud_assets.compute.evidence import Evidence
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.builders import training_dataset
from fraud_assets_tests.compute.holdouts import holdout, labels_of

RULES = Settings()
ROWS = {size: holdout(np.random.default_rng(0), *size) for size in [(20, 5, 8), (20, 6, 8), (60, 8, 10)]}


def noise(size: tuple[int, int, int], seed: int) -> Verdict:
    """The gate on scores that know nothing; where PR-AUC is below the rule it is not asked: it rejects."""
    random, frame = np.random.default_rng(seed), ROWS[size]
    scores = random.random(frame.height)
    if average_precision_score(labels_of(frame), scores) < RULES.minimum_pr_auc:
        return Verdict.REJECT
    found = evidence.gather(frame, scores, {"noise": random.random(frame.height)}, RULES)
    return activation.decide(found, RULES).verdict


@pytest.mark.parametrize("size", ROWS)
def test_noise_is_activated_in_under_one_per_cent_of_tries(size: tuple[int, int, int]):
    verdicts = Counter(noise(size, seed) for seed in range(1000))
    assert verdicts[Verdict.ACTIVATE] < 10


def test_luck_alone_would_pass_the_threshold_more_often_than_that():
    """What the gate is for: with few frauds noise reaches a PR-AUC of 0.70 in over 1% of tries."""
    labels, random = labels_of(ROWS[20, 6, 8]), np.random.default_rng(0)
    areas = [average_precision_score(labels, random.random(20)) for _ in range(2000)]
    assert np.mean(np.array(areas) >= RULES.minimum_pr_auc) > 0.01


def scored(labels: np.ndarray, habit: np.ndarray, tell: float, random: np.random.Generator) -> np.ndarray:
    """Probabilities whose log-odds are `tell` higher for fraud; half of their noise is the event's own."""
    odds = tell * labels + (habit + random.normal(size=labels.size)) / np.sqrt(2) - 3
    return 1 / (1 + np.exp(-odds))


def better(seed: int, candidate: float = 3.1, champion: float = 2.5) -> Evidence:
    random = np.random.default_rng(seed)
    frame = holdout(random, 600, 30, 50)
    labels, habit = labels_of(frame), random.normal(size=600)
    rival = {"logistic regression": scored(labels, habit, 2.0, random)}
    champion_scores = scored(labels, habit, champion, random)
    return evidence.gather(frame, scored(labels, habit, candidate, random), rival, RULES, champion_scores)


def test_a_truly_better_candidate_is_activated_in_over_80_per_cent_of_tries():
    tries = [better(seed) for seed in range(60)]
    mean = np.mean(
        [[found.candidate.pr_auc, found.champion.other] for found in tries if found.champion], axis=0
    )
    assert mean == pytest.approx([0.87, 0.73], abs=0.03)
    verdicts = Counter(activation.decide(found, RULES).verdict for found in tries)
    assert verdicts[Verdict.ACTIVATE] > 0.8 * len(tries)


def test_a_truly_worse_candidate_is_activated_in_under_20_per_cent_of_tries():
    verdicts = Counter(activation.decide(better(seed, 2.5, 3.1), RULES).verdict for seed in range(20))
    assert verdicts[Verdict.ACTIVATE] < 0.2 * 20


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_was_fitted_on_noise_is_not_activated(seed: int):
    frame = training_dataset(100, seed=seed).with_columns(
        is_fraud=pl.Series(np.random.default_rng(seed).permutation(np.arange(100) % 4 == 0))
    )
    parts = records.split(frame, RULES, timedelta(0))
    scores = training.score(training.fit(parts.train.rows, RULES).content, parts.holdout.rows)
    simpler = rivals.scores(parts.train.rows, parts.holdout.rows, RULES)
    found = evidence.gather(evidence.judged(parts.holdout.rows), scores, simpler, RULES)
    assert activation.decide(found, RULES).verdict is not Verdict.ACTIVATE
