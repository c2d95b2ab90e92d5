"""A copy of the home folder that is whole, though everybody goes on writing; and a home made from it.

What is copied later may be newer than what was copied before, so whatever names something comes before what
it names: the automation before its runs, the ledger before the models, the models before their tables. A
restored ledger never names a model that is not there.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fraud_assets.domain.errors import Refused
from fraud_assets.storage import sqlite

NOTE: Final = "backup.json"
_ORDER: Final = (
    "dagster/schedules",
    "dagster/history/runs.db",
    "dagster",
    "ledger.db",
    "mlflow.db",
    "models",
)
# Logs and caches; SQLite's own files beside a database, which belong to the instant of the original.
_LEFT_OUT: Final = ("logs", "matplotlib", "tables/*/scratch", NOTE)
_BESIDE: Final = ("-wal", "-shm", "-journal")
# A hint for readers, who look for themselves where it is missing; it may be newer than the files it names.
_HINT: Final = "_last_checkpoint"
# Where MLflow notes a path in the home folder.
_LOCATIONS: Final = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def back_up(home: Path, target: Path) -> None:
    """Copies the home folder to `target`, which comes into being whole. Raises Refused if it is there."""
    _require_new(target)
    if not home.is_dir():
        raise Refused(f"expected an installation in {home}, found none; set FRAUD_ASSETS_HOME")
    if target.is_relative_to(home):
        raise Refused(f"expected a folder outside of {home}, got {target}; choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        copied = Path(folder, "home")
        copied.mkdir()
        for path in _files(home):
            _copy(path, copied / path.relative_to(home))
        (copied / NOTE).write_text(json.dumps({"home": str(home)}), encoding="utf-8")
        copied.rename(target)


def restore(source: Path, home: Path) -> None:
    """Makes the home folder, which must not be there or be empty, from a copy by `back_up`.

    It may be another than the one that was copied. Raises Refused.
    """
    try:
        was = json.loads((source / NOTE).read_text(encoding="utf-8"))["home"]
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"expected a folder made by fraud-assets backup, got {source}") from error
    if not (home.is_dir() and not any(home.iterdir())):
        _require_new(home)
    home.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as folder:
        copied = Path(folder, "home")
        shutil.copytree(source, copied, ignore=shutil.ignore_patterns(NOTE))
        _relocate(copied / "mlflow.db", was, str(home))
        copied.rename(home)


def _require_new(folder: Path) -> None:
    if folder.exists():
        raise Refused(
            f"expected a folder that is not there yet, got {folder}; choose another or move it away"
        )


def _files(home: Path) -> Iterator[Path]:
    """Each file once, in the order in which they have to be copied."""
    seen: set[Path] = set()
    left_out = {path for pattern in _LEFT_OUT for path in home.glob(pattern)}
    for part in (*(home / name for name in _ORDER), home):
        for path in [part] if part.is_file() else _below(part):
            if path not in seen and left_out.isdisjoint({path, *path.parents}):
                seen.add(path)
                yield path


def _below(folder: Path) -> Iterator[Path]:
    """Files before folders, so a table's log comes before its data: `_delta_log` is the first folder."""
    if not folder.is_dir():
        return
    names = sorted(folder.iterdir(), key=lambda path: (path.name != "_delta_log", path.is_dir(), path.name))
    for path in names:
        if path.is_dir():
            yield from _below(path)
        elif path.is_file() and path.name != _HINT and not path.name.endswith(_BESIDE):
            yield path


def _copy(path: Path, target: Path) -> None:
    """What has gone since it was listed was of no use any more: a temporary file, a pruned version."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        sqlite.copy(path, target) if path.name.endswith(".db") else shutil.copy2(path, target)
    except (OSError, sqlite3.OperationalError) as error:
        target.unlink(missing_ok=True)
        if path.exists():
            raise Refused(f"expected to be able to copy {path}, got: {error}; then try again") from error


def _relocate(database: Path, was: str, now: str) -> None:
    """MLflow notes whole paths: lets those in the home folder of then lie in today's."""
    if was == now or not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, columns in _LOCATIONS.items():
            for column in columns:
                connection.execute(
                    f"UPDATE {table} SET {column} = :now || substr({column}, length(:was) + 1) "  # noqa: S608
                    f"WHERE substr({column}, 1, length(:was) + 1) = :was || '/'",
                    {"was": was, "now": now},
                )
