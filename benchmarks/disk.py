"""What an installation holds on disk: its databases on PostgreSQL, and the folders of its home."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks import fleet
from benchmarks.fleet import STORES, Installation


def held(installation: Installation) -> dict[str, int]:
    """Bytes by part. `dagster/storage` are the logs of runs, `models` is what MLflow serves, `logs` are the
    servers' own."""
    databases = {f"database {store}": _database(installation.url(store)) for store in STORES}
    names = ("tables", "models", "dagster/storage", "logs")
    return databases | {f"folder {name}": _folder(installation.home / name) for name in names}


def a_tenant(before: Mapping[str, int], after: Mapping[str, int], tenants: int) -> dict[str, float]:
    """By how many bytes each part grew, for each of so many tenants."""
    return {name: (size - before[name]) / tenants for name, size in after.items()}


def _database(url: str) -> int:
    [(size,)] = fleet.asked(url, "SELECT pg_database_size(current_database())")
    return size


def _folder(folder: Path) -> int:
    """In whole blocks, as the disk gives them."""
    whole = 0
    for path in folder.rglob("*"):
        # A server may delete it at this moment.
        with suppress(FileNotFoundError):
            whole += path.lstat().st_blocks * 512
    return whole
