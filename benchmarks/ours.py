"""The platform's own features over Parquet, batch by batch, as the other contenders give theirs."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.tenant import SNAPSHOTS
from fraud_assets.compute import features, profiles
from fraud_assets.domain.schemas import FEATURES, History
from fraud_assets.domain.settings import Settings


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES of every event."""
    with TemporaryDirectory() as scratch:
        return pl.concat(_batches(folder, Path(scratch))).select("event_id", *FEATURES)


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """Per feature how many values are known, and their sum: nothing is kept but these."""
    known, total = dict.fromkeys(FEATURES, 0), dict.fromkeys(FEATURES, 0.0)
    with TemporaryDirectory() as scratch:
        for batch in _batches(folder, Path(scratch)):
            numbers = batch.select(
                pl.col(name).to_physical() if name == "entry_source" else pl.col(name) for name in FEATURES
            )
            for column in numbers:
                known[column.name] += column.len() - column.null_count()
                total[column.name] += float(column.cast(pl.Float64).sum())
    return {name: (known[name], total[name]) for name in FEATURES}


def _batches(folder: Path, scratch: Path) -> Iterator[pl.DataFrame]:
    events = pl.scan_parquet(folder / "attendance_event.parquet")
    shifts = pl.scan_parquet(folder / "shift.parquet")
    sites = pl.read_parquet(folder / "site.parquet")
    for number, made in enumerate(_profiles(events, shifts, sites)):
        made.write_parquet(scratch / f"{number:06}.parquet")
    known = pl.scan_parquet(scratch / "*.parquet")
    return features.batches(events, events, shifts, sites, known)


def _profiles(events: pl.LazyFrame, shifts: pl.LazyFrame, sites: pl.DataFrame) -> Iterator[pl.DataFrame]:
    empty = History(*[pl.DataFrame()] * 5)
    for guards in features.batches_of_guards(events, events, features.BATCH_EVENTS):
        own = features.of_guards(guards)
        ...
