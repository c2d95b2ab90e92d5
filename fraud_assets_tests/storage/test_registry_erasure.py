"""Nothing of an erased tenant is left in MLflow: byte by byte, row by row."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fraud_assets.storage import registry_database
from fraud_assets.storage.registry import Registry
from fraud_assets_tests.builders import submission
from fraud_assets_tests.mlflow_server import mlflow_server
from fraud_assets_tests.postgres import rows as rows_as_text

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

GONE, STAYS = "zebra-guarding", "acme"


def fill(registry: Registry, tenant: str) -> None:
    for content in (b"model one", b"model two"):
        made = registry.register(tenant, submission(content))
        registry.annotate(tenant, made.version, {"reason": f"of {tenant}"}, f"# {tenant}")
    registry.set_champion(tenant, 1, pr_auc=0.8)


def rows(database: Path) -> dict[str, int]:
    """How many there are in each table."""
    with closing(sqlite3.connect(database)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in sorted(names)
        }


def test_nothing_is_left_in_the_embedded_registry(embedded: Registry, tmp_path: Path) -> None:
    fill(embedded, STAYS)
    before = rows(tmp_path / "mlflow.db")
    fill(embedded, GONE)
    assert GONE.encode() in (tmp_path / "mlflow.db").read_bytes()
    assert embedded.erase(GONE).remains is None
    assert GONE.encode() not in (tmp_path / "mlflow.db").read_bytes()
    assert rows(tmp_path / "mlflow.db") == before
    assert [path.name for path in (tmp_path / "models").iterdir()] == [STAYS]


def test_what_a_person_deleted_in_mlflow_is_erased_as_well(embedded: Registry, tmp_path: Path) -> None:
    before = rows(tmp_path / "mlflow.db")
    fill(embedded, GONE)
    client = MlflowClient(embedded.tracking_uri, embedded.tracking_uri)
    experiment = client.get_experiment_by_name(f"fraud-assets/{GONE}")
    assert experiment is not None
    client.delete_model_version(f"attendance-fraud-{GONE}", "2")
    client.delete_run(client.search_runs([experiment.experiment_id])[0].info.run_id)
    client.delete_experiment(experiment.experiment_id)
    embedded.erase(GONE)
    assert GONE.encode() not in (tmp_path / "mlflow.db").read_bytes()
    assert rows(tmp_path / "mlflow.db") == before


@pytest.mark.journey
def test_of_a_server_on_postgresql_the_operator_is_told_what_to_run_and_then_nothing_is_left(
    postgres_url: str, tmp_path: Path
) -> None:
    database, files = registry_database.server_url(postgres_url), tmp_path / "files"
    registry_database.prepare(database)
    with mlflow_server(tmp_path, database) as address:
        require_that_gc_erases(Registry(address), files, database)
    assert "acme" in "".join(rows_as_text(postgres_url))
    assert GONE not in "".join(rows_as_text(postgres_url))


def require_that_gc_erases(registry: Registry, files: Path, database: str) -> None:
    fill(registry, STAYS)
    kept = sorted(path for path in files.rglob("*") if path.is_file())
    fill(registry, GONE)
    remains = str(registry.erase(GONE).remains)
    assert sorted(path for path in files.rglob("*") if path.is_file()) == kept
    assert registry.erase(GONE).remains == remains, "it is said again until it is done"
    [command] = re.findall("mlflow (gc .*)", remains)
    said = command.replace("<its database>", database).split()
    subprocess.run([sys.executable, "-m", "mlflow", *said], check=True, capture_output=True)
    assert registry.erase(GONE).remains is None
    assert registry.load(STAYS, 1, submission(b"model one").model.digest) == b"model one"
