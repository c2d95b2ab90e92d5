"""`fraud-assets migrate` on PostgreSQL: databases are made, and earlier ones keep their history."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from unittest.mock import patch

import dagster as dg
import psycopg2
import pytest
from mlflow import MlflowClient

from fraud_assets.storage.registry_database import server_url
from fraud_assets_tests import downgrade
from fraud_assets_tests.builders import entry
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.postgres import fresh_database

# Not in the ledger of the first release.
NEW_COLUMNS = ("decided_by", "champion_version", "window_start", "as_of")


@pytest.fixture
def urls(postgres_server_url: str) -> Iterator[dict[str, str]]:
    """A database of its own for each store, empty."""
    with ExitStack() as stack:
        yield {
            store: server_url(stack.enter_context(fresh_database(postgres_server_url)))
            for store in ("LEDGER", "DAGSTER", "MLFLOW")
        }


@dg.asset
def profiles() -> None:
    """Anything that leaves a run and a materialization."""


def migrate(installation: Installation) -> None:
    done = installation.run("migrate")
    assert (done.returncode, done.stdout) == (0, "The databases are up to date.\n"), done.stderr


def write_history(installation: Installation, urls: dict[str, str]) -> None:
    installation.platform.ledger.append(entry())
    with patch.dict(os.environ, installation.dagster_environment()), dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("tenants", ["acme"])
        assert dg.materialize([profiles], instance=instance).success
    client = MlflowClient(urls["MLFLOW"], urls["MLFLOW"])
    client.create_experiment("fraud-assets/acme")
    client.create_registered_model("attendance-fraud-acme", {"champion_version": "7"})


def require_history(installation: Installation, urls: dict[str, str]) -> None:
    assert installation.platform.ledger.history("acme") == [entry()]
    with patch.dict(os.environ, installation.dagster_environment()), dg.DagsterInstance.get() as instance:
        assert instance.get_dynamic_partitions("tenants") == ["acme"]
        assert [run.status.value for run in instance.get_runs()] == ["SUCCESS"]
        assert instance.get_latest_materialization_event(dg.AssetKey("profiles"))
    client = MlflowClient(urls["MLFLOW"], urls["MLFLOW"])
    assert client.get_experiment_by_name("fraud-assets/acme")
    assert client.get_registered_model("attendance-fraud-acme").tags == {"champion_version": "7"}


def go_back(urls: dict[str, str]) -> None:
    """To what earlier releases of all three have."""
    downgrade.mlflow(urls["MLFLOW"])
    downgrade.dagster(urls["DAGSTER"])
    plain = urls["LEDGER"].replace("+psycopg2", "")
    with closing(psycopg2.connect(plain)) as connection, connection, connection.cursor() as cursor:
        for column in NEW_COLUMNS:
            cursor.execute(f"ALTER TABLE fraud_assets_decision DROP COLUMN {column}")


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_databases_of_earlier_releases_keep_their_history(
    installation: Installation, urls: dict[str, str]
) -> None:
    installation.variables |= {f"FRAUD_ASSETS_{store}_URL": url for store, url in urls.items()}
    migrate(installation)
    latest = {store: downgrade.revision(urls[store]) for store in ("DAGSTER", "MLFLOW")}
    write_history(installation, urls)
    migrate(installation)
    require_history(installation, urls)

    go_back(urls)
    assert downgrade.revision(urls["DAGSTER"]) == downgrade.DAGSTER != latest["DAGSTER"]
    assert downgrade.revision(urls["MLFLOW"]) == downgrade.MLFLOW != latest["MLFLOW"]
    migrate(installation)
    assert {store: downgrade.revision(urls[store]) for store in latest} == latest
    installation.__dict__.pop("platform")
    require_history(installation, urls)
