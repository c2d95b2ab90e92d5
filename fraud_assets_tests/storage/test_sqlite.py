"""Nothing is left of deleted rows, and a copy is of one instant, whoever uses the database meanwhile."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fraud_assets.domain.errors import Refused
from fraud_assets.storage import sqlite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a höme?.db"


@pytest.fixture(params=["DELETE", "WAL"])
def connection(path: Path, request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    """To a database of which much was deleted; some builds of SQLite would clean it by themselves."""
    with closing(sqlite3.connect(path)) as opened:
        opened.execute(f"PRAGMA journal_mode = {request.param}")
        opened.execute("PRAGMA secure_delete = OFF")
        opened.execute("CREATE TABLE t (text)")
        opened.executemany("INSERT INTO t VALUES (?)", [("gone " * 99,)] * 99 + [("kept",)])
        opened.commit()
        opened.execute("DELETE FROM t WHERE text <> 'kept'")
        opened.commit()
        yield opened


def content(path: Path) -> bytes:
    """Of the database and what lies beside it."""
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


def test_nothing_is_left_of_deleted_rows_while_others_have_it_open(
    connection: sqlite3.Connection, path: Path
) -> None:
    assert b"gone gone" in content(path)
    sqlite.compact(path)
    assert b"gone" not in content(path)
    assert connection.execute("SELECT text FROM t").fetchall() == [("kept",)]


def test_a_copy_holds_what_was_committed(connection: sqlite3.Connection, path: Path, tmp_path: Path) -> None:
    connection.execute("INSERT INTO t VALUES ('not yet')")
    sqlite.copy(path, tmp_path / "copy.db")
    connection.commit()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copied:
        assert copied.execute("SELECT text FROM t").fetchall() == [("kept",)]


def test_what_is_locked_or_not_there_says_so(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(sqlite3.OperationalError):
        sqlite.copy(path, tmp_path / "copy.db")
    assert not path.exists()
    monkeypatch.setattr(sqlite, "_PATIENCE_SECONDS", 0)
    with closing(sqlite3.connect(path)) as busy:
        busy.execute("CREATE TABLE t (text)")
        busy.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Refused, match=r"to be free to be cleaned, got: .*locked; try again"):
            sqlite.compact(path)
