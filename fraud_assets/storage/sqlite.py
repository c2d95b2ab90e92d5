"""What an embedded database's file needs beside SQL: nothing left of deleted rows, and a whole copy."""

import sqlite3
from contextlib import closing
from pathlib import Path

from fraud_assets.domain.errors import Refused

_PATIENCE_SECONDS = 60


def compact(path: Path) -> None:
    """Writes the file anew, without what deleted rows left in it; others may use it meanwhile.

    Raises Refused if somebody keeps it locked.
    """
    with closing(sqlite3.connect(path, timeout=_PATIENCE_SECONDS, isolation_level=None)) as connection:
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            raise Refused(f"expected {path} to be free to be cleaned, got: {error}; try again") from error


def copy(path: Path, target: Path) -> None:
    """The database as of one instant, whoever writes to it meanwhile. Never makes one."""
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", _PATIENCE_SECONDS, uri=True)) as source,
        closing(sqlite3.connect(target)) as copied,
    ):
        source.backup(copied)
