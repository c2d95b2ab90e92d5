"""How long a tenant's outcomes take to be known. No label and no rule that uses the delay.

An outcome is seen only if its delay, from punch-in to the first `known_at`, is at most the event's age at
the cut-off: the delays are right-truncated. Of recent events only the quick outcomes are there, so that a
plain quantile of what is seen comes out short; and since most events are never reviewed, those without an
outcome cannot be counted as still waiting, as Kaplan and Meier's estimate would. What can be estimated
is the delay of the events that will be reviewed, by the product-limit estimate in reversed time:

    F(x) = product over delays u > x of 1 - d(u) / r(u)

where d(u) outcomes took u, and r(u) took at most u and are of events at least u old (Lynden-Bell, MNRAS
155, 1971; Lagakos, Barraj and De Gruttola, Biometrika 75, 1988). It takes delay and punch-in for
independent. Nothing can be said on delays beyond `longest_label_delay_days`; F is of those within.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_assets.domain.settings import Settings

_Days = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelDelay:
    """After `days` from punch-in, all but a few of the outcomes that will come are known.

    days         whole days, so that a night more of outcomes seldom changes it; at least 1
    outcomes     reviewed events that it was measured on, or that were too few
    is_measured  False: too few outcomes of old events, `days` is the tenant's `maturity_days`
    """

    days: float
    outcomes: int
    is_measured: bool


def measure(events: pl.DataFrame, outcomes: pl.DataFrame, as_of: datetime, settings: Settings) -> LabelDelay:
    """The `label_delay_quantile` of the delays of a tenant's outcomes, as known at `as_of` (aware UTC).

    `events` has event_id and punch_in_at; `outcomes` has event_id and known_at, where the first of an event
    counts, whatever its verdict. Without `minimum_delay_outcomes` of events that are old enough for the
    longest delay, the estimate would hang on a few of them (its r(u) would be small): not measured.
    """
    waited, ages = _seen(events, outcomes, as_of)
    is_within = waited <= settings.longest_label_delay_days
    waited, ages = waited[is_within], ages[is_within]
    old = int((ages >= settings.longest_label_delay_days).sum())
    if old < settings.minimum_delay_outcomes:
        return LabelDelay(float(settings.maturity_days), waited.size, is_measured=False)
    delays, shares = distribution(waited, ages)
    days = delays[np.searchsorted(shares, settings.label_delay_quantile)]
    return LabelDelay(float(max(1, ceil(days))), waited.size, is_measured=True)


def distribution(waited: _Days, ages: _Days) -> tuple[_Days, _Days]:
    """Each distinct delay, ascending, and the share F of delays up to it; the last share is 1.

    `waited` and `ages` are the delay of each outcome seen and the age of its event, delay <= age.
    """
    delays, counts = np.unique(waited, return_counts=True)
    at_risk = np.searchsorted(np.sort(waited), delays, "right") - np.searchsorted(np.sort(ages), delays)
    kept = (1 - counts / at_risk)[:0:-1]
    return delays, np.append(np.cumprod(kept)[::-1], 1.0)


def _seen(events: pl.DataFrame, outcomes: pl.DataFrame, as_of: datetime) -> tuple[_Days, _Days]:
    """Days waited for each event's first outcome, and days since its punch-in."""
    first = outcomes.filter(pl.col("known_at") <= as_of).group_by("event_id").agg(pl.col("known_at").min())
    day = timedelta(days=1) / timedelta(microseconds=1)
    reviewed = (
        events.select("event_id", "punch_in_at")
        .join(first, on="event_id")
        .filter(pl.col("known_at") >= pl.col("punch_in_at"))
        .select(
            waited=(pl.col("known_at") - pl.col("punch_in_at")).dt.total_microseconds() / day,
            age=(as_of - pl.col("punch_in_at")).dt.total_microseconds() / day,
        )
    )
    return reviewed["waited"].to_numpy(), reviewed["age"].to_numpy()
