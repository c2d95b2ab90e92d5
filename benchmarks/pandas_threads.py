"""`pandas_rolling` on two threads: more than most users do."""

from pathlib import Path

from benchmarks import pandas_rolling


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """As `pandas_rolling.run`."""
    return pandas_rolling.run(folder, threads=2)
