"""Rows of one table that wait to be read again: a few in memory, many in Parquet files. No paths of its own.

Nothing here is kept: the folder is scratch space, gone with whoever made it (`tables.Tables.scratch`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import polars as pl

_ROW_GROUP: Final = 100_000
# It is written once and read a few times.
_COMPRESSION: Final = "lz4"


class Spool:
    """Frames with the columns of `empty`, by name.

    When they come to more than `in_memory` rows, they go to files in `folder`: few rows never touch the disk.
    """

    def __init__(self, folder: Path, empty: pl.DataFrame, in_memory: int) -> None:
        self._folder, self._empty, self._in_memory = folder, empty, in_memory
        self._waiting: dict[str, list[pl.DataFrame]] = {}
        self._rows = 0
        self._files: dict[str, list[Path]] = {}

    def add(self, rows: pl.DataFrame, name: str = "rows") -> None:
        """`rows` behind those that have the name already."""
        self._waiting.setdefault(name, []).append(rows.select(self._empty.columns))
        self._rows += rows.height
        if self._rows > self._in_memory:
            self._write(list(self._waiting))

    def scan(self, name: str = "rows") -> pl.LazyFrame:
        """The rows added under the name, in their order; none if there are none."""
        if name in self._files:
            self._write([name] if name in self._waiting else [])
            return pl.scan_parquet(self._files[name])
        return pl.concat([self._empty, *self._waiting.get(name, [])]).lazy()

    def keep(self, frames: Iterable[pl.DataFrame]) -> pl.LazyFrame:
        """The rows of all `frames`, in their order."""
        for frame in frames:
            self.add(frame)
        return self.scan()

    def _write(self, names: Iterable[str]) -> None:
        for name in names:
            frames, files = self._waiting.pop(name), self._files.setdefault(name, [])
            path = self._folder / f"{name}-{len(files):06}.parquet"
            rows = pl.concat([self._empty, *frames])
            rows.write_parquet(path, compression=_COMPRESSION, row_group_size=_ROW_GROUP, mkdir=True)
            files.append(path)
            self._rows -= rows.height
