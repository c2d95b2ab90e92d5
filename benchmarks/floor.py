"""What no contender can be faster than: reading the events and one pass over their columns."""

from pathlib import Path

import polars as pl


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """Reads every column of every event and counts its values; nothing is computed."""
    counts = pl.scan_parquet(folder / "attendance_event.parquet").select(pl.all().max().is_null()).collect()
    return dict.fromkeys(counts.columns, (counts.height, 0.0))
