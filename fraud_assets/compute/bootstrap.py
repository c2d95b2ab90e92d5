"""Intervals by resampling guards, and what a ranking is worth by luck. Arrays in, arrays out; no decision.

The events of one guard resemble each other, so that rows are no independent evidence. A resample draws as
many guards as there are, with replacement, and all rows of a guard come with it: it is a weight per guard,
and a measure of a resample is a measure of weighted rows. All models of a holdout are measured on the same
resamples, so that their differences are paired.

A resample without fraud says nothing for a model: PR-AUC, precision and recall count as 0 there, and so do
differences. A holdout whose frauds are those of one or two guards therefore has an interval that reaches
down to 0, however well these few are ranked.
"""

# SciPy and scikit-learn have no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fraud_assets.domain.settings import Settings

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

PR_AUC_DIGITS: Final = 12
"""What a sum of a million shares keeps; the digits behind them would tell equal models apart."""


class Interval(NamedTuple):
    """Where a number lies in 90 of 100 resamples: from the 5th to the 95th of a hundred."""

    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """B resamples of the G guards of N rows.

    drawn  (B, G) how often a guard was drawn; guards in the order of their names, so that the order of the
           rows changes nothing. Whole numbers as floats: their sums are exact on any number of threads
    guard  (N,) the guard of each row, as a column of `drawn`
    """

    drawn: Numbers
    guard: Places

    def of(self, chosen: Labels) -> "Resamples":
        """The same resamples, of some of the rows."""
        return Resamples(self.drawn, self.guard[chosen])

    def sums(self, values: Numbers, column: Places, columns: int) -> Numbers:
        """(B, columns): the weighted sum of `values` (N,) over the rows of each column."""
        from scipy.sparse import csr_array

        shape = (self.drawn.shape[1], columns)
        by_guard = csr_array((values, (self.guard, column)), shape=shape)
        return np.asarray(self.drawn @ by_guard, dtype=np.float64)

    def total(self, values: npt.ArrayLike) -> Numbers:
        """(B,): the weighted sum of `values` (N,)."""
        return self.sums(np.asarray(values, np.float64), np.zeros(self.guard.size, np.int64), 1)[:, 0]

    def share(self, part: npt.ArrayLike, whole: npt.ArrayLike) -> Numbers:
        """(B,): the weighted sum of `part` over that of `whole`; 0 where the whole is 0."""
        return _ratio(self.total(part), self.total(whole))


@dataclass(frozen=True)
class Curves:
    """What each of the P distinct scores of frauds gives as threshold, strictest first, in each resample.

    Between two of them precision only falls and recall stays, so that no other threshold matters.

    caught, flagged  (B, P) the frauds, and all rows, that score at least as high
    tied             (B, P) legitimate rows of exactly that score
    fraud, others    (B,) all frauds, all legitimate rows
    """

    caught: Numbers
    flagged: Numbers
    tied: Numbers
    fraud: Numbers
    others: Numbers

    @property
    def precision(self) -> Numbers:
        """(B, P)."""
        return _ratio(self.caught, self.flagged)

    @property
    def recall(self) -> Numbers:
        """(B, P)."""
        return _ratio(self.caught, self.fraud[:, None])

    def average_precision(self) -> Numbers:
        """(B,): as scikit-learn's average_precision_score with these weights; 0 without fraud."""
        gain = np.diff(self.recall, axis=1, prepend=0.0)
        return (gain * self.precision).sum(axis=1)

    def precision_at(self, recall: float) -> Numbers:
        """(B,): the best precision among the thresholds that reach `recall`; 0 without fraud."""
        return np.where(self.recall >= recall, self.precision, 0.0).max(axis=1)

    def band(self, recall: Numbers) -> tuple[Numbers, Numbers]:
        """The interval of precision at the first threshold that reaches each of `recall`, ascending."""
        rows = np.arange(self.fraud.size)
        reached = (self.precision[rows, np.argmax(self.recall >= each, axis=1)] for each in recall)
        low, high = np.transpose([interval(precision) for precision in reached])
        return low, high

    def roc_auc(self) -> Numbers:
        """(B,): the share of pairs in the right order, a tie as half; 0 where a class is missing."""
        at = np.diff(self.caught, axis=1, prepend=0.0)
        beaten = self.others[:, None] - (self.flagged - self.caught) + self.tied / 2
        return _ratio((at * beaten).sum(axis=1), self.fraud * self.others)


def draw(guards: npt.ArrayLike, settings: Settings) -> Resamples:
    """`bootstrap_resamples` resamples of the guards named by row, from the tenant's seed."""
    names, guard = np.unique(np.asarray(guards), return_inverse=True)
    random = np.random.default_rng(settings.seed)
    count = names.size
    drawn = random.multinomial(count, np.full(count, 1 / count), size=settings.bootstrap_resamples)
    return Resamples(drawn.astype(np.float64), guard.astype(np.int64))


def curves(resamples: Resamples, is_fraud: Labels, scores: Numbers) -> Curves:
    """The precision-recall curve of `scores` in each resample; there is at least one fraud.

    The rows between two thresholds are counted by guard, which makes a sparse matrix (G, P): its product
    with the draws, summed up along the thresholds, is every curve at once.
    """
    thresholds = np.unique(scores[is_fraud])[::-1]
    # The first threshold that flags the row; the last column is for rows that none flags.
    column = np.searchsorted(-thresholds, -scores).astype(np.int64)
    columns = thresholds.size + 1
    is_tied = ~is_fraud & (thresholds[np.minimum(column, thresholds.size - 1)] == scores)
    rows = resamples.sums(np.ones(scores.size), column, columns)
    caught = resamples.sums(is_fraud.astype(np.float64), column, columns)[:, :-1].cumsum(axis=1)
    return Curves(
        caught=caught,
        flagged=rows[:, :-1].cumsum(axis=1),
        tied=resamples.sums(is_tied.astype(np.float64), column, columns)[:, :-1],
        fraud=caught[:, -1],
        others=rows.sum(axis=1) - caught[:, -1],
    )


def average_precision(resamples: Resamples, is_fraud: Labels, scores: Numbers) -> Numbers:
    """(B,): PR-AUC in each resample."""
    return curves(resamples, is_fraud, scores).average_precision()


@dataclass(frozen=True)
class Compared:
    """One ranking held against another on the same rows and the same resamples.

    pr_auc, other  of the whole; `gain` is their difference
    interval       of the gain
    better         share of the resamples in which it is the better one
    """

    pr_auc: float
    other: float
    interval: Interval
    better: float

    @property
    def gain(self) -> float:
        """How much PR-AUC is above the other's."""
        return self.pr_auc - self.other


def pr_auc(is_fraud: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """scikit-learn's average_precision_score to PR_AUC_DIGITS: two perfect rankings are equally good."""
    from sklearn.metrics import average_precision_score

    return round(float(average_precision_score(is_fraud, scores)), PR_AUC_DIGITS)


def compare(resamples: Resamples, is_fraud: Labels, scores: Numbers, others: Numbers) -> Compared:
    """`scores` against the scores `others`, paired: each resample weighs both alike."""
    gain = average_precision(resamples, is_fraud, scores) - average_precision(resamples, is_fraud, others)
    return Compared(
        pr_auc=pr_auc(is_fraud, scores),
        other=pr_auc(is_fraud, others),
        interval=interval(gain),
        better=float((gain.round(PR_AUC_DIGITS) > 0).mean()),
    )


def interval(values: Numbers) -> Interval:
    """The 5% and the 95% quantile of a number's resamples."""
    low, high = np.quantile(values, (0.05, 0.95))
    return Interval(float(low), float(high))


def by_luck(is_fraud: Labels, scores: Numbers, settings: Settings) -> Numbers:
    """(bootstrap_resamples,): PR-AUC of `scores` if the same number of frauds lay at random rows.

    It is what a model is worth that knows nothing; scores that tie stay tied.
    """
    random = np.random.default_rng(settings.seed)
    rows, fraud = scores.size, int(is_fraud.sum())
    descending = np.sort(-scores)
    flagged = np.searchsorted(descending, descending, side="right")
    places = np.array(
        [
            random.choice(rows, fraud, replace=False, shuffle=False)
            for _ in range(settings.bootstrap_resamples)
        ]
    )
    ends = np.sort(flagged[places], axis=1)
    return (_count_up_to(ends) / ends).mean(axis=1)


def _count_up_to(ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each value of a row in ascending order, how many of the row are at most as large."""
    rows, length = ends.shape
    is_last = np.ones((rows, length), dtype=np.bool_)
    is_last[:, :-1] = ends[:, :-1] != ends[:, 1:]
    counts = np.where(is_last, np.arange(1, length + 1), length)
    return np.minimum.accumulate(counts[:, ::-1], axis=1)[:, ::-1]


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
