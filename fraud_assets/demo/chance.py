"""Random draws that every part of the demo company shares. The generator is always handed in."""

import numpy as np
import polars as pl


def happens(rng: np.random.Generator, size: int, share: float) -> np.ndarray:
    """`size` independent booleans, true with probability `share`."""
    return rng.random(size) < share


def chosen(rng: np.random.Generator, size: int, share: float) -> np.ndarray:
    """`size` booleans of which exactly `share`, rounded up, are true."""
    return rng.permutation(size) < np.ceil(share * size)


def minutes(values: np.ndarray) -> pl.Series:
    """Minutes as durations of whole seconds."""
    return pl.Series(np.round(values * 60).astype(np.int64) * 1_000_000).cast(pl.Duration("us"))


def between(rng: np.random.Generator, size: int, low: float, high: float) -> pl.Series:
    """`size` durations from `low` to `high` minutes."""
    return minutes(rng.uniform(low, high, size))
