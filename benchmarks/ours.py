"""The platform's own features over Parquet, batch by batch, as the other contenders give theirs."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from benchmarks.tenant import SNAPSHOTS
from fraud_assets.compute import features, profiles
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.domain.settings import Settings


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES of every event."""
    return pl.concat(_batches(folder)).select("event_id", *FEATURES)


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """Per feature how many values are known, and their sum: nothing else is kept."""
    known, total = dict.fromkeys(FEATURES, 0), dict.fromkeys(FEATURES, 0.0)
    for batch in _batches(folder):
        counts, sums = batch.select(FEATURES).count(), batch.select(_number(name).sum() for name in FEATURES)
        for name in FEATURES:
            known[name] += counts[name].item()
            total[name] += float(sums[name].item() or 0)
    return {name: (known[name], total[name]) for name in FEATURES}


def _number(name: str) -> pl.Expr:
    return pl.col(name).to_physical() if name == "entry_source" else pl.col(name)


def _batches(folder: Path) -> Iterator[pl.DataFrame]:
    events, shifts = (pl.scan_parquet(folder / f"{name}.parquet") for name in ("attendance_event", "shift"))
    sites = pl.read_parquet(folder / "site.parquet")
    return features.batches(events, shifts, sites, profiles.made(sites, SNAPSHOTS, Settings()))
