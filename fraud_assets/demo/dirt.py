"""Bad rows of every kind that a typed frame can hold. Text in numbers and the like: `database.py`."""

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from fraud_assets.demo.chance import chosen, happens
from fraud_assets.demo.tenants import TENANTS, DemoTenant
from fraud_assets.domain.schemas import History

_IMPOSSIBLE: Final = datetime(2150, 1, 1, tzinfo=UTC)

EVENT_DIRT: Final[dict[str, dict[str, pl.Expr]]] = {
    "unknown guard": {"guard_id": pl.lit("g-unknown")},
    "unknown site": {"site_id": pl.lit("site-unknown")},
    "site of another tenant": {"site_id": pl.col("foreign_site_id")},
    "punch-out before punch-in": {"punch_out_at": pl.col("punch_in_at") - timedelta(hours=2)},
    "punch-in in the future": {"punch_in_at": pl.col("known_at") + timedelta(days=2)},
    "impossible instant": {"punch_out_at": pl.lit(_IMPOSSIBLE)},
    "latitude 91": {"latitude": pl.lit(91.0), "longitude": pl.lit(0.5)},
    "null island": {"latitude": pl.lit(0.0), "longitude": pl.lit(0.0)},
    "half a position": {"latitude": pl.lit(1.0), "longitude": pl.lit(None, dtype=pl.Float64)},
    "not a number": {"latitude": pl.lit(float("nan")), "longitude": pl.lit(1.0)},
    "infinity": {"accuracy_m": pl.lit(float("inf"))},
    "negative accuracy": {"accuracy_m": pl.lit(-5.0)},
    "negative face distance": {"face_distance": pl.lit(-0.2)},
    "empty guard": {"guard_id": pl.lit("")},
    "empty device": {"device_id": pl.lit("")},
    "unknown entry source": {"entry_source": pl.lit("fax")},
}
"""Each kind of bad event: the columns that it overwrites."""

COPY_DIRT: Final[dict[str, dict[str, pl.Expr]]] = {
    "the same row twice": {},
    "two rows with one id": {"punch_in_at": pl.col("punch_in_at") - timedelta(minutes=11)},
}
"""Each kind of second row with the id of a good event: the columns in which it differs."""

_OTHER_VERDICT: Final = (
    pl.when(pl.col("verdict") == "fraud").then(pl.lit("legitimate")).otherwise(pl.lit("inconclusive"))
)

OUTCOME_DIRT: Final[dict[str, dict[str, pl.Expr]]] = {
    "outcome of an unknown event": {"event_id": pl.lit("e-unknown")},
    "outcome of no event": {"event_id": pl.lit("")},
    "unknown verdict": {"verdict": pl.lit("maybe")},
    "a verdict that disagrees": {"verdict": _OTHER_VERDICT},
}
"""Each kind of bad outcome: the columns in which it differs from a good one."""


def spoiled(history: History, tenant: DemoTenant, rng: np.random.Generator) -> History:
    """`history` with bad rows: a sprinkle everywhere, and nearly all of the tenant's corrupt guards."""
    foreign = next(other.cities[0].code for other in TENANTS if other.cities != tenant.cities)
    events = history.attendance_event.with_columns(foreign_site_id=pl.lit(f"{foreign}-01"))
    corrupt = _longest_serving(history.guard)["guard_id"].head(tenant.corrupt_guards).to_list()
    of_corrupt = events["guard_id"].is_in(corrupt)
    sprinkled = pl.Series(chosen(rng, events.height, tenant.dirty_share))
    is_bad = sprinkled | (of_corrupt & pl.Series(happens(rng, events.height, 0.95)))
    twice = events.filter(~is_bad & pl.Series(happens(rng, events.height, tenant.dirty_share / 5)))
    spoilt = [events.filter(~is_bad), _in_turn(events.filter(is_bad), EVENT_DIRT), _in_turn(twice, COPY_DIRT)]
    return History(
        site=history.site,
        guard=history.guard,
        shift=history.shift,
        attendance_event=pl.concat(spoilt).sort("known_at", maintain_order=True).drop("foreign_site_id"),
        outcome=pl.concat([history.outcome, _bad_outcomes(history.outcome)]),
    )


def _longest_serving(guards: pl.DataFrame) -> pl.DataFrame:
    is_active = pl.col("is_enabled") & pl.col("is_verified") & pl.col("left_on").is_null()
    return guards.filter(is_active).sort("joined_on", "guard_id")


def _in_turn(rows: pl.DataFrame, kinds: dict[str, dict[str, pl.Expr]]) -> pl.DataFrame:
    """The first of `rows` spoiled in the first of `kinds`, the second in the second, and so on."""
    parts = [
        rows.gather_every(len(kinds), offset).with_columns(**columns)
        for offset, columns in enumerate(kinds.values())
    ]
    return pl.concat(parts) if parts else rows


def _bad_outcomes(outcomes: pl.DataFrame) -> pl.DataFrame:
    """One more row of each kind, with an id of its own; of confirmed frauds where there are enough."""
    frauds = outcomes.filter(pl.col("verdict") == "fraud")
    known = frauds if frauds.height >= 3 * len(OUTCOME_DIRT) else outcomes
    own_id = pl.format("x-{}", pl.int_range(1, pl.len() + 1))
    recent = known.slice(known.height * 2 // 3, len(OUTCOME_DIRT))
    return _in_turn(recent, OUTCOME_DIRT).with_columns(outcome_id=own_id)
