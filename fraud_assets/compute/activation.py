"""From a submission to a candidate to the champion, and the two decisions on that way.

Is a retrain due, and may a candidate become the champion: pure rules with their reasons in words.
Nothing is moved, loaded or written here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import polars as pl

from fraud_assets.compute.evaluation import Metrics
from fraud_assets.compute.training import Model, features_digest
from fraud_assets.domain.settings import Settings


class Verdict(StrEnum):
    """What becomes of a candidate."""

    ACTIVATE = "activate"
    REJECT = "reject"
    INSUFFICIENT_EVIDENCE = "insufficient evidence"


_OPENINGS = {
    Verdict.ACTIVATE: "Activated",
    Verdict.REJECT: "Rejected",
    Verdict.INSUFFICIENT_EVIDENCE: "Insufficient evidence",
}


@dataclass(frozen=True)
class Decision:
    """A verdict with its reasons: all that failed or, for an activation, all that passed."""

    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The whole decision in one sentence."""
        return f"{_OPENINGS[self.verdict]}: {'; '.join(self.reasons)}."


@dataclass(frozen=True)
class Submission:
    """All that is recorded of a training. `facts` become tags, `pictures` are PNG files by name."""

    model: Model
    metrics: Metrics
    dataset_digest: str
    facts: Mapping[str, str]
    train: pl.DataFrame
    holdout: pl.DataFrame
    pictures: Mapping[str, bytes]

    @property
    def tags(self) -> dict[str, str]:
        """What a version is found by: the facts and the digests of its dataset, features and model."""
        return {
            **self.facts,
            "dataset_digest": self.dataset_digest,
            "features_digest": features_digest(self.model.features),
            "model_digest": self.model.digest,
        }


@dataclass(frozen=True)
class Candidate:
    """A registered version. `digest` is the SHA-256 of its model file as it was handed in."""

    version: int
    run_id: str
    digest: str
    metrics: Metrics
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Champion:
    """The model in service. Its age counts from `cycle_started_at`, not from the activation."""

    tenant: str
    version: int
    digest: str
    cycle_started_at: datetime
    activated_at: datetime
    pr_auc: float | None


@dataclass(frozen=True)
class Due:
    """Whether this cycle trains, and why."""

    is_due: bool
    reason: str


def decide(candidate: Metrics, champion: Metrics | None, settings: Settings) -> Decision:
    """The verdict on `candidate`; both are measured on the same holdout rows.

    A value that equals its limit passes, and so does a candidate that equals the champion.
    """
    if candidate.fraud < settings.minimum_holdout_fraud:
        counts = f"the holdout has {candidate.fraud} frauds, and {settings.minimum_holdout_fraud} are needed"
        return Decision(Verdict.INSUFFICIENT_EVIDENCE, (counts,))
    rules = tuple(_rules(candidate, champion, settings))
    failed = tuple(reason for passed, reason in rules if not passed)
    if failed:
        return Decision(Verdict.REJECT, failed)
    return Decision(Verdict.ACTIVATE, tuple(reason for _, reason in rules))


def retrain(
    champion: Champion | None, damage: str | None, cycle_start: datetime, retrain_after: timedelta
) -> Due:
    """Whether the cycle that began at `cycle_start` trains.

    It does without a champion, with one that cannot be served (`damage` says why), and with one
    whose own cycle began `retrain_after` or longer ago.
    """
    if champion is None:
        return Due(True, "No champion yet.")
    name = f"Champion v{champion.version}"
    if damage is not None:
        return Due(True, f"{name} cannot be served: {damage}")
    age = cycle_start - champion.cycle_started_at
    if age < timedelta(0):
        return Due(
            False,
            f"{name} is of the cycle of {champion.cycle_started_at:%Y-%m-%d %H:%M}, which is after this "
            f"cycle's start, {cycle_start:%Y-%m-%d %H:%M} (was the clock set back?): no retrain.",
        )
    limit = f"{retrain_after / timedelta(days=1):g} days"
    if age >= retrain_after:
        return Due(True, f"{name} is {_days(age)} days old; a retrain is due at {limit}.")
    return Due(False, f"{name} is {_days(age)} days old; the next retrain is due at {limit}.")


def _rules(candidate: Metrics, champion: Metrics | None, settings: Settings) -> Iterator[tuple[bool, str]]:
    """Each rule as (passed, reason)."""
    precision = f"precision at {settings.target_recall:.0%} recall"
    yield _at_least("PR-AUC", candidate.pr_auc, settings.minimum_pr_auc)
    yield _at_least(
        precision, candidate.precision_at_target_recall, settings.minimum_precision_at_target_recall
    )
    yield _at_most("false-positive rate", candidate.false_positive_rate, settings.maximum_false_positive_rate)
    if champion is not None:
        yield _at_least("PR-AUC", candidate.pr_auc, champion.pr_auc, "the champion's ")


def _at_least(name: str, value: float, limit: float, whose: str = "") -> tuple[bool, str]:
    shown, bound = _told_apart(value, limit)
    passed = value >= limit
    return passed, f"{name} {shown} is {'at least' if passed else 'below'} {whose}{bound}"


def _at_most(name: str, value: float, limit: float) -> tuple[bool, str]:
    shown, bound = _told_apart(value, limit)
    passed = value <= limit
    return passed, f"{name} {shown} is {'at most' if passed else 'above'} {bound}"


def _told_apart(value: float, limit: float) -> tuple[str, str]:
    """Two decimals, or more until different numbers look different and a limit such as 0.705 is whole."""
    for digits in range(2, 9):
        shown, bound = f"{value:.{digits}f}", f"{limit:.{digits}f}"
        if (shown == bound) == (value == limit) and (float(bound) == limit or digits > 3):
            return shown, bound
    return repr(value), repr(limit)


def _days(age: timedelta) -> str:
    """Rounded down, so that a champion never reads older than it is."""
    return f"{age // timedelta(hours=2, minutes=24) / 10:.1f}"
