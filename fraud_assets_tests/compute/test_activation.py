"""Truth tables of both decisions, with every reason in words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import activation
from fraud_assets.compute.activation import Champion, Verdict
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.domain.settings import Settings

RULES = Settings()
WEEK = timedelta(days=7)
CYCLE = datetime(2026, 3, 9, 2, tzinfo=UTC)
GOOD = Metrics(
    pr_auc=0.81,
    precision_at_target_recall=0.62,
    threshold=0.4,
    false_positive_rate=0.03,
    recall=0.8,
    roc_auc=0.9,
    base_rate=0.05,
    records=200,
    fraud=10,
)
SHARES = st.floats(0, 1)


def champion_of(cycle: datetime) -> Champion:
    return Champion("acme", 3, "d" * 64, cycle, cycle + timedelta(minutes=7), 0.8)


def test_a_good_candidate_without_a_champion_is_activated():
    decision = activation.decide(GOOD, None, RULES)
    assert decision.verdict is Verdict.ACTIVATE
    assert decision.sentence == (
        "Activated: PR-AUC 0.81 is at least 0.70; precision at 80% recall 0.62 is at least 0.50; "
        "false-positive rate 0.03 is at most 0.10."
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pr_auc": 0.61}, "PR-AUC 0.61 is below 0.70"),
        ({"precision_at_target_recall": 0.31}, "precision at 80% recall 0.31 is below 0.50"),
        ({"false_positive_rate": 0.2}, "false-positive rate 0.20 is above 0.10"),
    ],
)
def test_one_missed_threshold_rejects_and_is_the_one_reason(change: dict[str, float], reason: str):
    decision = activation.decide(replace(GOOD, **change), None, RULES)
    assert (decision.verdict, decision.reasons) == (Verdict.REJECT, (reason,))


def test_all_that_fails_is_said():
    poor = replace(GOOD, pr_auc=0.61, precision_at_target_recall=0.31, false_positive_rate=0.2)
    decision = activation.decide(poor, GOOD, RULES)
    assert decision.sentence == (
        "Rejected: PR-AUC 0.61 is below 0.70; precision at 80% recall 0.31 is below 0.50; "
        "false-positive rate 0.20 is above 0.10; PR-AUC 0.61 is below the champion's 0.81."
    )


@pytest.mark.parametrize(("champion", "verdict"), [(0.80, "activate"), (0.81, "activate"), (0.82, "reject")])
def test_a_candidate_must_not_be_worse_than_the_champion(champion: float, verdict: str):
    decision = activation.decide(GOOD, replace(GOOD, pr_auc=champion), RULES)
    assert decision.verdict == verdict
    assert decision.reasons[-1].endswith(f"the champion's {champion:.2f}")


def test_a_value_at_its_limit_passes():
    edge = replace(GOOD, pr_auc=0.7, precision_at_target_recall=0.5, false_positive_rate=0.1, fraud=5)
    assert activation.decide(edge, edge, RULES).verdict is Verdict.ACTIVATE


def test_too_little_fraud_in_the_holdout_is_no_evidence_either_way():
    decision = activation.decide(replace(GOOD, fraud=4, pr_auc=0.1), None, RULES)
    assert decision.verdict is Verdict.INSUFFICIENT_EVIDENCE
    assert decision.sentence == "Insufficient evidence: the holdout has 4 frauds, and 5 are needed."


def test_a_tenant_s_own_limits_count():
    strict = Settings(minimum_pr_auc=0.9, target_recall=0.6)
    assert activation.decide(GOOD, None, strict).reasons == ("PR-AUC 0.81 is below 0.90",)
    assert "precision at 60% recall" in activation.decide(GOOD, None, Settings(target_recall=0.6)).sentence


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (0.6999, 0.7, "0.6999 is below 0.7000"),
        (0.7001, 0.7, "0.7001 is at least 0.7000"),
        (0.7, 0.7, "0.70 is at least 0.70"),
        (0.61, 0.705, "0.610 is below 0.705"),
        (0.7 - 1e-12, 0.7, "0.699999999999 is below 0.7"),
    ],
)
def test_a_close_call_is_told_with_enough_digits(value: float, limit: float, said: str):
    decision = activation.decide(replace(GOOD, pr_auc=value), None, Settings(minimum_pr_auc=limit))
    assert decision.reasons[0] == f"PR-AUC {said}"


@given(SHARES, SHARES)
def test_a_rejection_never_shows_two_equal_numbers(value: float, limit: float):
    decision = activation.decide(replace(GOOD, pr_auc=value), None, Settings(minimum_pr_auc=limit))
    shown, bound = (float(word) for word in decision.reasons[0].split() if word[0].isdigit())
    assert (shown < bound) == (value < limit)


@given(SHARES, SHARES, SHARES, SHARES, SHARES, SHARES)
def test_a_better_candidate_is_never_treated_worse(auc, precision, alarms, more, sharper, fewer):
    candidate = replace(GOOD, pr_auc=auc, precision_at_target_recall=precision, false_positive_rate=alarms)
    better = replace(
        GOOD,
        pr_auc=max(auc, more),
        precision_at_target_recall=max(precision, sharper),
        false_positive_rate=min(alarms, fewer),
    )
    if activation.decide(candidate, GOOD, RULES).verdict is Verdict.ACTIVATE:
        assert activation.decide(better, GOOD, RULES).verdict is Verdict.ACTIVATE


def test_without_a_champion_a_retrain_is_due():
    due = activation.retrain(None, None, CYCLE, WEEK)
    assert (due.is_due, due.reason) == (True, "No champion yet.")


def test_a_champion_that_cannot_be_served_is_retrained_whatever_its_age():
    due = activation.retrain(champion_of(CYCLE), "the file is missing", CYCLE, WEEK)
    assert (due.is_due, due.reason) == (True, "Champion v3 cannot be served: the file is missing")


@pytest.mark.parametrize(
    ("age", "is_due", "reason"),
    [
        (timedelta(0), False, "Champion v3 is 0.0 days old; the next retrain is due at 7 days."),
        (timedelta(days=2), False, "Champion v3 is 2.0 days old; the next retrain is due at 7 days."),
        (
            WEEK - timedelta(minutes=1),
            False,
            "Champion v3 is 6.9 days old; the next retrain is due at 7 days.",
        ),
        (WEEK, True, "Champion v3 is 7.0 days old; a retrain is due at 7 days."),
        (timedelta(days=9, hours=12), True, "Champion v3 is 9.5 days old; a retrain is due at 7 days."),
    ],
)
def test_a_retrain_is_due_from_the_seventh_day(age: timedelta, is_due: bool, reason: str):
    due = activation.retrain(champion_of(CYCLE - age), None, CYCLE, WEEK)
    assert (due.is_due, due.reason) == (is_due, reason)


def test_age_counts_from_the_cycle_and_not_from_the_activation():
    late = replace(champion_of(CYCLE - WEEK), activated_at=CYCLE - timedelta(days=6))
    assert activation.retrain(late, None, CYCLE, WEEK).is_due


def test_a_champion_from_the_future_is_not_retrained_and_the_clock_is_named():
    due = activation.retrain(champion_of(CYCLE + timedelta(days=30)), None, CYCLE, WEEK)
    assert not due.is_due
    assert due.reason == (
        "Champion v3 is of the cycle of 2026-04-08 02:00, which is after this cycle's start, "
        "2026-03-09 02:00 (was the clock set back?): no retrain."
    )


@given(st.timedeltas(timedelta(0), timedelta(days=60)), st.timedeltas(timedelta(0), timedelta(days=60)))
def test_once_due_a_retrain_stays_due(age: timedelta, more: timedelta):
    champion = champion_of(CYCLE - age)
    first = activation.retrain(champion, None, CYCLE, WEEK)
    assert first.is_due == (age >= WEEK)
    assert activation.retrain(champion, None, CYCLE + more, WEEK).is_due >= first.is_due
