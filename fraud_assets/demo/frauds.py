"""Which guards of a demo tenant cheat, how and when: bursts by a few. No punches, no marks."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Final

import numpy as np
import polars as pl

from fraud_assets.demo.chance import happens
from fraud_assets.demo.tenants import DRIFT_DAYS, DemoTenant

_BURST_DAYS: Final = (3, 9)
_BURST_SHARE: Final = 0.9
_MINIMUM_DAYS: Final = 10
_GOLDEN: Final = 0.618034


def planned(
    days: pl.DataFrame, tenant: DemoTenant, first: date, last: date, rng: np.random.Generator
) -> pl.DataFrame:
    """`days` with `typology`, null where honest. A ghost shift on a day off makes it a cover."""
    none = days.select("guard_id", "date", typology=pl.lit(None, dtype=pl.String)).clear()
    marks = [
        _bursts(_eligible(days, typology, rng), start, end, wanted, rng).with_columns(
            typology=pl.lit(typology)
        )
        for start, end, typology, wanted in _orders(days, tenant, first, last)
    ]
    marked = pl.concat([none, *marks]).unique(["guard_id", "date"], keep="first", maintain_order=True)
    is_ghost = (pl.col("typology") == "ghost_shift").fill_null(False) & (pl.col("kind") == "off")
    return days.join(marked, on=["guard_id", "date"], how="left", maintain_order="left").with_columns(
        kind=pl.when(is_ghost).then(pl.lit("cover")).otherwise("kind")
    )


def _orders(
    days: pl.DataFrame, tenant: DemoTenant, first: date, last: date
) -> Iterator[tuple[date, date, str, int]]:
    """From when to when, which typology, how many."""
    turn = last - timedelta(days=DRIFT_DAYS)
    phases: list[tuple[date, date, Mapping[str, float]]] = [(first, last, tenant.mix)]
    if tenant.late_mix is not None:
        phases = [(first, turn, tenant.mix), (turn + timedelta(days=1), last, tenant.late_mix)]
    for start, end, mix in phases:
        worked = days.filter(pl.col("date").is_between(start, end), pl.col("kind") != "off").height
        for typology, share in mix.items():
            yield start, end, typology, round(tenant.fraud_share * share * worked)


def _eligible(days: pl.DataFrame, typology: str, rng: np.random.Generator) -> pl.DataFrame:
    regular = pl.col("kind") == "regular"
    if typology == "buddy_punching":
        return days.filter(regular, pl.col("partner_id").is_not_null(), pl.col("is_face_checked"))
    if typology == "ghost_shift":
        is_open = pl.Series(happens(rng, days.height, 0.05))
        return days.filter((pl.col("kind") == "off") & (pl.col("is_closed") | is_open))
    return days.filter(regular)


def _bursts(
    eligible: pl.DataFrame, start: date, end: date, wanted: int, rng: np.random.Generator
) -> pl.DataFrame:
    """The first `wanted` guard-days of bursts of a few guards: guard_id, date.

    Bursts begin at multiples of the golden ratio, so that any number of them is spread evenly.
    """
    within = eligible.filter(pl.col("date").is_between(start, end)).select("guard_id", "date")
    known = within.group_by("guard_id").len().filter(pl.col("len") >= _MINIMUM_DAYS)["guard_id"].sort()
    if known.is_empty():
        return within.clear()
    cheats = rng.permutation(known.to_numpy())[: max(2, len(known) // 8)]
    index = np.arange(wanted + 5)
    begins = (rng.random() + index * _GOLDEN) % 1 * (end - start).days
    bursts = pl.DataFrame(
        {
            "burst": index,
            "guard_id": cheats[index % len(cheats)].tolist(),
            "begins": [start + timedelta(days=int(day)) for day in begins],
            "days": rng.integers(*_BURST_DAYS, len(index)),
        }
    )
    in_burst = pl.col("date").is_between("begins", pl.col("begins") + pl.duration(days=pl.col("days")))
    spanned = bursts.join(within, on="guard_id").filter(in_burst).sort("burst", "date")
    once = spanned.unique(["guard_id", "date"], keep="first", maintain_order=True)
    cheating = once.filter(pl.Series(happens(rng, once.height, _BURST_SHARE)))
    return cheating.head(wanted).select("guard_id", "date")
