"""Truth tables of both decisions, with every reason in words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import activation
from fraud_assets.compute.activation import Champion, Verdict
from fraud_assets.compute.bootstrap import Interval
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.compute.holdouts import against, evidence

RULES = Settings()
WEEK = timedelta(days=7)
CYCLE = datetime(2026, 3, 9, 2, tzinfo=UTC)
SHARES = st.floats(0, 1)


def champion_of(cycle: datetime) -> Champion:
    return Champion("acme", 3, "d" * 64, cycle, cycle + timedelta(minutes=7), 0.8)


def test_a_good_candidate_without_a_champion_is_activated():
    decision = activation.decide(evidence(), RULES)
    assert decision.verdict is Verdict.ACTIVATE
    assert decision.sentence == (
        "Activated: PR-AUC 0.81 is at least 0.70; precision at 80% recall 0.62 is at least 0.50; "
        "false-positive rate 0.03 is at most 0.10; "
        "PR-AUC is 0.66 to 0.90 in 90 of 100 resamples of the guards, with 10 frauds."
    )


LEFT = "among the latest 20% of events"


@pytest.mark.parametrize(
    ("given", "verdict", "reason"),
    [
        ({"pr_auc": 0.61}, Verdict.REJECT, "PR-AUC 0.61 is below 0.70"),
        (
            {"precision_at_target_recall": 0.31},
            Verdict.REJECT,
            "precision at 80% recall 0.31 is below 0.50",
        ),
        ({"false_positive_rate": 0.2}, Verdict.REJECT, "false-positive rate 0.20 is above 0.10"),
        (
            {"champion": 0.83},
            Verdict.REJECT,
            "PR-AUC 0.81 is below the champion's 0.83 (difference -0.020, -0.070 to +0.030)",
        ),
        (
            {"rivals": {"logistic regression": against(0.81, 0.82, better=0.4)}},
            Verdict.REJECT,
            "PR-AUC 0.810 does not beat logistic regression: 0.820 (difference -0.010, -0.060 to +0.040), "
            "better in 40.0% of resamples, 90% are needed",
        ),
        (
            {"rivals": {"the location rule": against(0.81, 0.80, better=0.89)}},
            Verdict.REJECT,
            "PR-AUC 0.810 does not beat the location rule: 0.800 (difference +0.010, -0.040 to +0.060), "
            "better in 89.0% of resamples, 90% are needed",
        ),
        (
            {"rivals": {"a constant": against(0.81, 0.81, better=0.0)}},
            Verdict.REJECT,
            "PR-AUC 0.810 does not beat a constant: 0.810 (difference +0.000, -0.050 to +0.050), "
            "better in 0.0% of resamples, 90% are needed",
        ),
        ({"collapse": ("at site s1 it finds nothing",)}, Verdict.REJECT, "at site s1 it finds nothing"),
        (
            {"fraud": 4},
            Verdict.INSUFFICIENT_EVIDENCE,
            f"the holdout has 4 frauds, and 5 are needed; about 1 more confirmed case is needed {LEFT}",
        ),
        (
            {"fraud": 0, "pr_auc": 0.1},
            Verdict.INSUFFICIENT_EVIDENCE,
            f"the holdout has 0 frauds, and 5 are needed; about 5 more confirmed cases are needed {LEFT}",
        ),
        (
            {"pr_auc_by_luck": 0.86},
            Verdict.INSUFFICIENT_EVIDENCE,
            "PR-AUC 0.81 could be luck: among 10 frauds in 200 records 0.5% of random rankings reach "
            f"0.86; about 2 more confirmed cases are needed {LEFT}",
        ),
        (
            {"intervals": {"pr_auc": Interval(0.19, 0.95)}},
            Verdict.INSUFFICIENT_EVIDENCE,
            "PR-AUC 0.81 may be as low as 0.19, below 0.50, with 10 frauds (5% to 95% over guards: 0.19 to "
            f"0.95); about 30 more confirmed cases are needed {LEFT}",
        ),
    ],
    ids=[
        *("pr-auc", "precision", "false alarms", "champion", "rival is better", "rival is not surely worse"),
        *("rival is equal", "slice", "one fraud short", "no fraud", "luck", "wide interval"),
    ],
)
def test_each_reason_alone_decides_and_is_the_one_reason(
    given: dict[str, Any], verdict: Verdict, reason: str
):
    decision = activation.decide(evidence(**given), RULES)
    assert (decision.verdict, decision.reasons) == (verdict, (reason,))


def test_all_that_fails_is_said():
    poor = evidence(
        champion=0.81,
        rivals={"a constant": against(0.61, 0.7, better=0.1), "the location rule": against(0.61, 0.5)},
        collapse=("at night it finds nothing",),
        pr_auc=0.61,
        precision_at_target_recall=0.31,
        false_positive_rate=0.2,
    )
    assert activation.decide(poor, RULES).sentence == (
        "Rejected: PR-AUC 0.61 is below 0.70; precision at 80% recall 0.31 is below 0.50; "
        "false-positive rate 0.20 is above 0.10; "
        "PR-AUC 0.61 is below the champion's 0.81 (difference -0.200, -0.250 to -0.150); "
        "PR-AUC 0.610 does not beat a constant: 0.700 (difference -0.090, -0.140 to -0.040), "
        "better in 10.0% of resamples, 90% are needed; "
        "at night it finds nothing."
    )


def test_all_that_passes_is_said_and_of_the_simpler_models_the_best():
    rivals = {"a constant": against(0.81, 0.05), "the location rule": against(0.81, 0.4)}
    assert activation.decide(evidence(champion=0.79, rivals=rivals), RULES).reasons[3:-1] == (
        "PR-AUC 0.81 is at least the champion's 0.79 (difference +0.020, -0.030 to +0.070)",
        "it beats every simpler model, the best being the location rule: "
        "PR-AUC 0.400 (difference +0.410, +0.360 to +0.460)",
    )


def test_what_fails_anyway_is_rejected_and_not_doubted():
    unlucky = evidence(pr_auc=0.61, pr_auc_by_luck=0.9, intervals={"pr_auc": Interval(0.1, 0.9)})
    assert activation.decide(unlucky, RULES).verdict is Verdict.REJECT


def test_both_doubts_are_told():
    doubtful = evidence(pr_auc_by_luck=0.81, intervals={"pr_auc": Interval(0.49, 0.9)})
    first, second = activation.decide(doubtful, RULES).reasons
    assert "could be luck" in first
    assert "about 1 more confirmed case is needed" in first
    assert "may be as low as 0.49, below 0.50" in second


@pytest.mark.parametrize(("champion", "verdict"), [(0.80, "activate"), (0.81, "activate"), (0.82, "reject")])
def test_a_candidate_must_not_be_worse_than_the_champion(champion: float, verdict: str):
    decision = activation.decide(evidence(champion=champion), RULES)
    assert decision.verdict == verdict
    assert any(f"the champion's {champion:.2f} (difference " in reason for reason in decision.reasons)


def test_a_value_at_its_limit_passes():
    edge = evidence(
        champion=0.7,
        rivals={"a constant": against(0.7, 0.69, better=0.9)},
        pr_auc=0.7,
        precision_at_target_recall=0.5,
        false_positive_rate=0.1,
        fraud=5,
        pr_auc_by_luck=0.6999,
        intervals={"pr_auc": Interval(0.5, 0.9)},
    )
    assert activation.decide(edge, RULES).verdict is Verdict.ACTIVATE


def test_metrics_of_an_earlier_release_are_judged_by_what_they_have():
    plain = evidence(pr_auc_by_luck=None, intervals={})
    assert activation.decide(plain, RULES).verdict is Verdict.ACTIVATE


def test_a_tenant_s_own_limits_count():
    strict = Settings(minimum_pr_auc=0.9, target_recall=0.6)
    assert activation.decide(evidence(), strict).reasons == ("PR-AUC 0.81 is below 0.90",)
    assert "precision at 60% recall" in activation.decide(evidence(), Settings(target_recall=0.6)).sentence


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
    decision = activation.decide(evidence(pr_auc=value), Settings(minimum_pr_auc=limit))
    assert decision.reasons[0] == f"PR-AUC {said}"


@given(SHARES, SHARES)
def test_a_rejection_never_shows_two_equal_numbers(value: float, limit: float):
    found = evidence(pr_auc=value, pr_auc_by_luck=None, intervals={})
    decision = activation.decide(found, Settings(minimum_pr_auc=limit))
    shown, bound = (float(word) for word in decision.reasons[0].split() if word[0].isdigit())
    assert (shown < bound) == (value < limit)


@given(SHARES, SHARES, SHARES, SHARES, SHARES, SHARES)
def test_a_better_candidate_is_never_treated_worse(auc, precision, alarms, more, sharper, fewer):
    def verdict(auc: float, precision: float, alarms: float) -> Verdict:
        found = evidence(
            champion=0.75,
            rivals={"a constant": against(auc, 0.05)},
            pr_auc=auc,
            precision_at_target_recall=precision,
            false_positive_rate=alarms,
            intervals={"pr_auc": Interval(auc - 0.2, 1)},
        )
        return activation.decide(found, RULES).verdict

    if verdict(auc, precision, alarms) is Verdict.ACTIVATE:
        better = verdict(max(auc, more), max(precision, sharper), min(alarms, fewer))
        assert better is Verdict.ACTIVATE


@given(st.integers(5, 200), st.floats(0.71, 1), st.floats(0.01, 0.49))
def test_the_cases_that_are_needed_would_narrow_the_interval_to_the_limit(
    fraud: int, value: float, low: float
):
    """The half-width goes with the square root of the number of frauds."""
    found = evidence(fraud=fraud, pr_auc=value, intervals={"pr_auc": Interval(low, 1)})
    [reason] = activation.decide(found, RULES).reasons
    more = int(reason.split("; about ")[1].split()[0])
    widths = [(value - low) * sqrt(fraud / (fraud + cases)) for cases in (more - 1, more)]
    assert value - widths[1] >= 0.5 - 1e-9
    assert more == 1 or value - widths[0] < 0.5 + 1e-9


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
