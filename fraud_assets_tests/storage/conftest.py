"""Registries for the tests of storage."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_assets.storage.registry import Registry
from fraud_assets_tests.mlflow_server import mlflow_server


@pytest.fixture
def embedded(migrated: Path, tmp_path: Path) -> Registry:
    """A registry of this test's own, in `tmp_path`."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(scope="session")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of this worker's server, started by the first test that asks, and its files."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    with mlflow_server(folder) as address:
        yield address, folder / "files"
