"""How well the platform's own model tells the demo's frauds: well where it should, and by no column alone."""

from datetime import timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest

from fraud_assets.compute import (
    activation,
    dataset,
    delay,
    evaluation,
    evidence,
    leaks,
    profiles,
    records,
    rivals,
    training,
)
from fraud_assets.compute.activation import Verdict
from fraud_assets.compute.evidence import Evidence
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.demo.worlds import UNTIL, cleaned

SETTINGS = Settings()
ACTIVATED = ["alcazar-security", "bluewater-guards", "harbour-corrupt"]


@cache
def parts(tenant: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is trained on, and what is held out."""
    clean = cleaned(tenant).history
    guards = clean.guard.filter("is_enabled", "is_verified")["guard_id"].to_list()
    built = profiles.build(clean, profiles.snapshot_instants(UNTIL, SETTINGS), guards, SETTINGS)
    assembled = dataset.assemble(clean, built.profiles, UNTIL, SETTINGS)
    measured = delay.measure(clean.attendance_event, clean.outcome, UNTIL, SETTINGS)
    split = records.split(assembled.frame, SETTINGS, timedelta(days=measured.days))
    return split.train.rows.collect(), split.holdout.rows.collect()


@cache
def found(tenant: str) -> Evidence:
    train, holdout = parts(tenant)
    scores = training.score(training.fit(train, SETTINGS).content, holdout)
    return evidence.gather(holdout, scores, rivals.scores(train, holdout, SETTINGS), SETTINGS)


def alone(tenant: str, feature: str) -> float:
    """The better PR-AUC of a feature as the score, large or small first; null last."""
    _, holdout = parts(tenant)
    values = records.matrix(holdout)[:, FEATURES.index(feature)].astype(np.float64)
    rankings = (np.nan_to_num(sign * values, nan=-1e12) for sign in (1, -1))
    labels = holdout["is_fraud"].to_numpy()
    return max(evaluation.measure(labels, ranking, SETTINGS).pr_auc for ranking in rankings)


@pytest.mark.parametrize("tenant", ACTIVATED)
def test_the_first_model_of_a_tenant_with_steady_frauds_is_activated(tenant: str):
    assert activation.decide(found(tenant), SETTINGS).verdict is Verdict.ACTIVATE


@pytest.mark.parametrize("tenant", ACTIVATED)
def test_the_model_is_not_perfect(tenant: str):
    assert found(tenant).candidate.pr_auc < 0.99


def test_the_model_of_the_drifting_tenant_is_rejected_for_its_pr_auc():
    decision = activation.decide(found("drift-patrol"), SETTINGS)
    assert decision.verdict is Verdict.REJECT
    assert any("PR-AUC" in reason for reason in decision.reasons)


@pytest.mark.parametrize("feature", FEATURES)
def test_no_feature_alone_tells_the_frauds(feature: str):
    assert max(alone(tenant, feature) for tenant in ACTIVATED) < 0.6


@pytest.mark.parametrize("tenant", ACTIVATED)
def test_the_holdout_has_enough_frauds_to_judge_by(tenant: str):
    assert found(tenant).candidate.fraud >= 2 * SETTINGS.minimum_holdout_fraud


@pytest.mark.parametrize("tenant", [*ACTIVATED, "drift-patrol"])
def test_no_demo_dataset_has_a_leak(tenant: str):
    frame = pl.concat(parts(tenant))
    assert leaks.find(frame, UNTIL, SETTINGS) == ()


def test_the_fair_and_the_new_tenant_have_too_few_records_to_train():
    for tenant in ("fairplay-guarding", "ember-watch"):
        frame = pl.concat(parts(tenant))
        assert dataset.shortage(frame.height, int(frame["is_fraud"].sum()), SETTINGS) is not None
