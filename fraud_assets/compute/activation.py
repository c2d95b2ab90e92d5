"""From a submission to a candidate to the champion, and the two decisions on that way.

Is a retrain due, and may a candidate become the champion: pure rules with their reasons in words.
Nothing is moved, loaded or written here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from fraud_assets.compute import slices
from fraud_assets.compute.bootstrap import Compared
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.compute.evidence import Evidence
from fraud_assets.compute.records import Part
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
    """All that is recorded of a training. `facts` become tags, `files` are pictures and a sheet by name."""

    model: Model
    metrics: Metrics
    dataset_digest: str
    facts: Mapping[str, str]
    train: Part
    holdout: Part
    files: Mapping[str, bytes]

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


def decide(evidence: Evidence, settings: Settings) -> Decision:
    """The verdict on a candidate; all of the evidence is measured on the same holdout rows.

    Too few frauds are no evidence either way. Then a candidate is rejected that misses a threshold, is worse
    than the champion, does not beat a simpler model, or fails in a slice. One that passes all of it is
    activated unless the pass could be chance: see `_doubts`. A value that equals its limit passes, and so
    does a candidate that equals the champion.
    """
    if too_few := _too_few(evidence.candidate.fraud, settings):
        return Decision(Verdict.INSUFFICIENT_EVIDENCE, (too_few,))
    rules = tuple(_rules(evidence, settings))
    if failed := tuple(reason for passed, reason in rules if not passed):
        return Decision(Verdict.REJECT, failed)
    if doubts := tuple(_doubts(evidence.candidate, settings)):
        return Decision(Verdict.INSUFFICIENT_EVIDENCE, doubts)
    reasons = (*(reason for _, reason in rules), *_surety(evidence.candidate))
    return Decision(Verdict.ACTIVATE, reasons)


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


def _too_few(fraud: int, settings: Settings) -> str | None:
    needed = settings.minimum_holdout_fraud
    if fraud >= needed:
        return None
    return f"the holdout has {fraud} frauds, and {needed} are needed; {_more(fraud, needed, settings)}"


def _rules(evidence: Evidence, settings: Settings) -> Iterator[tuple[bool, str]]:
    """Each rule as (passed, reason)."""
    candidate = evidence.candidate
    precision = f"precision at {settings.target_recall:.0%} recall"
    yield _at_least("PR-AUC", candidate.pr_auc, settings.minimum_pr_auc)
    yield _at_least(
        precision, candidate.precision_at_target_recall, settings.minimum_precision_at_target_recall
    )
    yield _at_most("false-positive rate", candidate.false_positive_rate, settings.maximum_false_positive_rate)
    if evidence.champion is not None:
        yield _not_worse(evidence.champion)
    yield from _beats(evidence, settings)
    for collapse in slices.collapsed(evidence.slices):
        yield False, collapse


def _not_worse(champion: Compared) -> tuple[bool, str]:
    """The rule holds for the numbers themselves: an interval that reaches above 0 excuses no loss."""
    passed, reason = _at_least("PR-AUC", champion.pr_auc, champion.other, "the champion's ")
    return passed, f"{reason} ({_difference(champion)})"


def _beats(evidence: Evidence, settings: Settings) -> Iterator[tuple[bool, str]]:
    """Beaten is a simpler model if the candidate is better in `rival_confidence` of the resamples.

    One reason for each that is not beaten; if all are, one that names the strongest.
    """
    unbeaten = {
        name: rival for name, rival in evidence.rivals.items() if rival.better < settings.rival_confidence
    }
    for name, rival in unbeaten.items():
        surely = f"better in {rival.better:.1%} of resamples, {settings.rival_confidence:.0%} are needed"
        yield False, f"PR-AUC {rival.pr_auc:.3f} does not beat {name}: {_other(rival)}, {surely}"
    if evidence.rivals and not unbeaten:
        name, rival = evidence.strongest
        yield True, f"it beats every simpler model, the best being {name}: PR-AUC {_other(rival)}"


def _other(compared: Compared) -> str:
    return f"{compared.other:.3f} ({_difference(compared)})"


def _difference(compared: Compared) -> str:
    low, high = compared.interval
    return f"difference {compared.gain:+.3f}, {low:+.3f} to {high:+.3f}"


def _doubts(candidate: Metrics, settings: Settings) -> Iterator[str]:
    """Why a pass could be chance, and how many more frauds would tell.

    Luck: random rankings reach this PR-AUC too often. Width: the interval of PR-AUC reaches more than
    `pr_auc_low_margin` below the threshold. Both distances, of luck above the base rate and of the interval
    below the value, shrink with the square root of the number of frauds: so many are needed that they
    would fit at the same PR-AUC. It is an estimate, since later frauds will not be like these.
    """
    lucky, interval = candidate.pr_auc_by_luck, candidate.intervals.get("pr_auc")
    if lucky is not None and candidate.pr_auc <= lucky:
        needed = _frauds(candidate, lucky - candidate.base_rate, candidate.pr_auc - candidate.base_rate)
        shown, bound = _told_apart(candidate.pr_auc, lucky)
        yield (
            f"PR-AUC {shown} could be luck: among {candidate.fraud} frauds in {candidate.records} records "
            f"{settings.maximum_luck:.1%} of random rankings reach {bound}; "
            f"{_more(candidate.fraud, needed, settings)}"
        )
    # 0.7 - 0.2 is a little under 0.5 in binary, and would be told so.
    floor = round(settings.minimum_pr_auc - settings.pr_auc_low_margin, 9)
    if interval is not None and interval.low < floor:
        needed = _frauds(candidate, candidate.pr_auc - interval.low, candidate.pr_auc - floor)
        shown, bound = _told_apart(interval.low, floor)
        yield (
            f"PR-AUC {candidate.pr_auc:.2f} may be as low as {shown}, below {bound}, with "
            f"{candidate.fraud} frauds (5% to 95% over guards: {shown} to {interval.high:.2f}); "
            f"{_more(candidate.fraud, needed, settings)}"
        )


def _surety(candidate: Metrics) -> Iterator[str]:
    if interval := candidate.intervals.get("pr_auc"):
        yield (
            f"PR-AUC is {interval.low:.2f} to {interval.high:.2f} in 90 of 100 resamples of the guards, with "
            f"{candidate.fraud} frauds"
        )


def _frauds(candidate: Metrics, distance: float, allowed: float) -> int:
    """How many frauds shrink `distance` to `allowed`; one more than there are, at least."""
    ratio = distance / allowed if allowed > 0 else 1.0
    return max(candidate.fraud + 1, ceil(candidate.fraud * ratio**2))


def _more(fraud: int, needed: int, settings: Settings) -> str:
    more = needed - fraud
    cases = "confirmed case is" if more == 1 else "confirmed cases are"
    return f"about {more} more {cases} needed among the latest {settings.holdout_share:.0%} of events"


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
