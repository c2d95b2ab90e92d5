"""Fixtures that every test may ask for. Values for tests live in `builders.py`."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import HealthCheck, settings

from fraud_assets.storage.registry import Registry
from fraud_assets_tests.fakes import draw_nothing
from fraud_assets_tests.postgres import fresh_database, postgres_server

# How long an example takes says something about the machine, not about the code. On top of Hypothesis' own
# profile, which draws the same examples each time where the variable CI is set.
settings.register_profile(
    "fraud_assets", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fraud_assets")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two a core: journeys wait for servers and for Dagster's intervals most of the time."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long ones first: who has nothing left takes short ones from the others until the end.

    Each worker is given one of as many equal pieces as there are workers, with its share of the long ones.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("journey")]
    short = iter([item for item in items if not item.get_closest_marker("journey")])
    size = -(-len(items) // workers)
    shares = [long[one::workers] for one in range(workers)]
    items[:] = [item for share in shares for item in (*share, *islice(short, max(size - len(share), 0)))]


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A server of this worker's own, started by the first test that asks."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    with fresh_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster of this test's own, in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that nobody looks at, in place of pictures."""
    draw_nothing(monkeypatch.setattr)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has migrated, which takes seconds; tests copy it."""
    folder = tmp_path_factory.mktemp("migrated")
    Registry(f"sqlite:///{folder}/mlflow.db").prepare()
    return folder / "mlflow.db"
