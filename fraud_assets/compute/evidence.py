"""All that a decision on a candidate rests on, measured on one holdout. No decision, no threshold of one.

Candidate, champion and simpler models are scored on the same rows and compared on the same resamples.
"""

from dataclasses import dataclass
from typing import Final

import polars as pl

from fraud_assets.compute import bootstrap, evaluation, slices
from fraud_assets.compute.bootstrap import Compared, Numbers
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.compute.records import Records
from fraud_assets.domain.settings import Settings

COMPARED: Final = (
    *("champion_pr_auc", "pr_auc_gain", "pr_auc_gain_low", "pr_auc_gain_high"),
    *("rival_pr_auc", "rival_gain", "rival_gain_low", "rival_gain_high"),
)
"""Every name that `Evidence.as_dict` may give on top of `evaluation.PUBLISHED`."""


_JUDGED: Final = (
    *("guard_id", "punch_in_at", "event_id", "site_id", "is_fraud"),
    *("hour_of_day", "profile_observations", "entry_source"),
)


@dataclass(frozen=True)
class Evidence:
    """A candidate on its holdout.

    champion  the candidate against the champion; None: there is none to compare with
    rivals    the candidate against each simpler model, by its name
    slices    schema `slices.SLICES`
    """

    candidate: Metrics
    champion: Compared | None
    rivals: dict[str, Compared]
    slices: pl.DataFrame

    @property
    def strongest(self) -> tuple[str, Compared]:
        """The rival of the best PR-AUC, with its name."""
        return max(self.rivals.items(), key=lambda named: named[1].other)

    def as_dict(self) -> dict[str, float]:
        """The numbers that are known under their published names; the rival is the strongest one."""
        champion = () if self.champion is None else _numbers(self.champion)
        rival = _numbers(self.strongest[1]) if self.rivals else ()
        compared = dict(zip(COMPARED, champion, strict=False)) | dict(zip(COMPARED[4:], rival, strict=False))
        return self.candidate.as_dict() | compared


def judged(holdout: Records) -> pl.DataFrame:
    """What the evidence looks at of each held-out record besides its scores."""
    return holdout.lazy().select(_JUDGED).collect()


def gather(
    holdout: pl.DataFrame,
    scores: Numbers,
    rival_scores: dict[str, Numbers],
    settings: Settings,
    champion_scores: Numbers | None = None,
) -> Evidence:
    """The evidence on `scores`; every array has one number a row of `holdout`, which `judged` gives.

    `rival_scores` come from `rivals.scores`. The order of the rows changes nothing. Raises
    UnusableRecords as `evaluation.measure` does.
    """
    candidate = evaluation.assess(holdout, scores, settings)
    order = holdout.select(pl.arg_sort_by("punch_in_at", "event_id")).to_series().to_numpy()
    ordered, ranks = holdout[order], scores[order]
    labels = ordered["is_fraud"].to_numpy()
    resamples = bootstrap.draw(ordered["guard_id"], settings)
    champion = None if champion_scores is None else champion_scores[order]
    return Evidence(
        candidate=candidate,
        champion=None if champion is None else bootstrap.compare(resamples, labels, ranks, champion),
        rivals={
            name: bootstrap.compare(resamples, labels, ranks, rival[order])
            for name, rival in rival_scores.items()
        },
        slices=slices.report(ordered, ranks, candidate.threshold, resamples, settings, champion),
    )


def _numbers(compared: Compared) -> tuple[float, ...]:
    return compared.other, compared.gain, *compared.interval
