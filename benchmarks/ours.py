"""The platform's own features over Parquet, batch by batch, as the other contenders give theirs."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.tenant import SNAPSHOTS
from fraud_assets.compute import features, profiles
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.domain.settings import Settings


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES of every event."""
    with TemporaryDirectory() as scratch:
        return pl.concat(_batches(folder, Path(scratch))).select("event_id", *FEATURES)


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """Per feature how many values are known, and their sum: nothing else is kept."""
    known, total = dict.fromkeys(FEATURES, 0), dict.fromkeys(FEATURES, 0.0)
    with TemporaryDirectory() as scratch:
        for batch in _batches(folder, Path(scratch)):
            counts, sums = (
                batch.select(FEATURES).count(),
                batch.select(_number(name).sum() for name in FEATURES),
            )
            for name in FEATURES:
                known[name] += counts[name].item()
                total[name] += float(sums[name].item() or 0)
    return {name: (known[name], total[name]) for name in FEATURES}


def _number(name: str) -> pl.Expr:
    return pl.col(name).to_physical() if name == "entry_source" else pl.col(name)


def _batches(folder: Path, scratch: Path) -> Iterator[pl.DataFrame]:
    events, shifts = (pl.scan_parquet(folder / f"{name}.parquet") for name in ("attendance_event", "shift"))
    sites, rules = pl.read_parquet(folder / "site.parquet"), Settings()
    for number, made in enumerate(profiles.batches(events, shifts, sites, SNAPSHOTS, rules, {})):
        sufficient = made.filter(pl.col("observations") >= rules.profile_minimum_observations)
        sufficient.write_parquet(scratch / f"{number:06}.parquet", compression="lz4")
    known = pl.scan_parquet(scratch / "*.parquet")
    yield from features.batches(events, shifts, sites, known)
