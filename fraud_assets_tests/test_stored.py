"""What training in parts takes of memory, for a dataset that memory does not hold. Linux tells of it."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import polars as pl
import pytest

from fraud_assets.compute import records, search, training
from fraud_assets.domain.settings import Settings
from fraud_assets.storage.spool import Spool
from fraud_assets_tests.builders import training_dataset

STATUS = Path("/proc/self/status")
PART = 5_000
FEW, MANY = 4, 80
"""Parts."""


def fit(parts: int, in_memory: int, folder: Path) -> training.Model:
    """As `stored.opened` reads a dataset and `stored.fitted` fits it, part by part from its first row on."""
    some = training_dataset(PART)

    def read() -> Iterator[pl.DataFrame]:
        for part in range(parts):
            # Gathered, so that no two parts share their memory.
            own = some.select(pl.all().gather(pl.int_range(pl.len())))
            yield own.with_columns(pl.col("punch_in_at") + part * timedelta(days=10))

    rows = Spool(folder / "stored", some.clear(), in_memory).keep(read())
    return training.fit(rows, Settings(), spill=str(folder / "fit") if in_memory < parts * PART else None)


def peak_mib() -> float:
    """Of this process up to now."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def peaks(folder: Path) -> tuple[float, float]:
    """What 400,000 records add to the peak that 20,000 had: in parts, then in memory. To the same model.

    Less is read at once, and fewer rounds are made, so that fewer records tell.
    """
    records._ROWS_AT_ONCE = PART  # pyright: ignore[reportAttributeAccessIssue]
    search.MOST_ROUNDS = 2  # pyright: ignore[reportAttributeAccessIssue]
    fit(FEW, PART, folder / "few")
    before = peak_mib()
    in_parts = fit(MANY, PART, folder / "parts")
    between = peak_mib()
    assert fit(MANY, MANY * PART, folder / "memory") == in_parts
    return between - before, peak_mib() - before


@pytest.mark.skipif(not STATUS.exists(), reason="the system does not tell a process's peak memory")
def test_a_training_in_parts_takes_less_than_a_third_of_the_memory(tmp_path: Path) -> None:
    for name in ("few", "parts", "memory"):
        (tmp_path / name).mkdir()
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        in_parts, in_memory = fresh.submit(peaks, tmp_path).result()
    assert in_parts < in_memory / 3, (in_parts, in_memory)
