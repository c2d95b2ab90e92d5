"""A copy that is made while everybody writes is a whole installation, in the same place and elsewhere."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from fraud_assets import cycle
from fraud_assets.domain.errors import Refused
from fraud_assets.storage import backup
from fraud_assets.storage.ledger import Ledger
from fraud_assets.storage.registry import Registry
from fraud_assets.storage.tables import Tables
from fraud_assets_tests.builders import entry, submission
from fraud_assets_tests.mlflow_server import mlflow_server
from fraud_assets_tests.postgres import binary, fresh_database, with_driver
from fraud_assets_tests.world import TONIGHT, World, company

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

PROJECT = Path(__file__).parents[2]
WEEK = timedelta(days=7)
STORES = ("LEDGER", "MLFLOW")
"""Of an installation on servers, beside Dagster's."""


@pytest.fixture
def home(tmp_path: Path, migrated: Path) -> Path:
    """With a registry, and with a database of Dagster's that is being written to."""
    made = tmp_path / "its hömé"
    (made / "dagster/history").mkdir(parents=True)
    shutil.copy(migrated, made / "mlflow.db")
    return made


@pytest.fixture
def writing(home: Path) -> Iterator[sqlite3.Connection]:
    """As Dagster does it: with a log beside the database, in which the newest rows are."""
    with closing(sqlite3.connect(home / "dagster/history/runs.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE runs (id)")
        connection.execute("INSERT INTO runs VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO runs VALUES (2)")
        yield connection


def opened(home: Path, instance: dg.DagsterInstance) -> World:
    """The installation in `home`, with a source of its own."""
    world = World(home, instance, acme=company("acme", records=300))
    world.with_platform(registry=Registry(f"sqlite:///{home}/mlflow.db", f"{home}/models"))
    return world


class Busy:
    """Another tenant: it has a decision before each store is copied, and a new table before each file."""

    def __init__(self, home: Path, copy: Callable[[Path, Path], None]) -> None:
        self.home, self.copy, self.decided, self.last = home, copy, 0, ""

    def __call__(self, path: Path, target: Path) -> None:
        if (store := path.relative_to(self.home).parts[0]) != self.last:
            self.last = store
            self.decide()
        elif store == "tables":
            self.write()
        self.copy(path, target)

    def write(self) -> int:
        rows = pl.DataFrame({"n": [self.decided]})
        return Tables(self.home / "tables").write("busy", "training_dataset", rows, {})

    def decide(self) -> None:
        self.decided += 1
        table = self.write()
        models = Registry(f"sqlite:///{self.home}/mlflow.db", f"{self.home}/models")
        made = models.register("busy", submission(f"{self.decided}".encode(), dataset_version=str(table)))
        facts = {"model_version": made.version, "model_digest": made.digest, "dataset_version": table}
        Ledger(f"sqlite:///{self.home}/ledger.db").append(entry("busy", **facts))


def test_an_installation_is_restored_elsewhere_and_its_next_cycle_is_as_ever(
    home: Path,
    writing: sqlite3.Connection,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = opened(home, instance)
    world.cycle()
    before, champion = world.platform.ledger.history("acme"), world.platform.champion("acme")
    assert champion is not None
    model = world.platform.registry.load("acme", champion.version, champion.digest)

    busy = Busy(home, backup._copy)
    monkeypatch.setattr(backup, "_copy", busy)
    backup.back_up(home, tmp_path / "copies/monday")
    shutil.rmtree(home)
    backup.restore(tmp_path / "copies/monday", tmp_path / "new home")

    restored = opened(tmp_path / "new home", instance)
    assert restored.platform.ledger.history("acme") == before
    assert restored.platform.champion("acme") == champion
    assert restored.platform.registry.champion_version("acme") == champion.version
    assert restored.platform.registry.load("acme", champion.version, champion.digest) == model
    assert not cycle.retrain_due(restored.platform, "acme", TONIGHT + timedelta(days=1), WEEK).is_due
    with closing(sqlite3.connect(tmp_path / "new home/dagster/history/runs.db")) as connection:
        assert connection.execute("SELECT id FROM runs").fetchall() == [(1,)]
    require_whole(restored, busy.decided)

    restored.source.histories["acme"] = company("acme", records=300, until=TONIGHT + WEEK)
    entry = restored.cycle(TONIGHT + WEEK)
    assert (entry.model_version, entry.champion_version) == (2, 1)
    assert restored.platform.registry.damage("acme", 2, str(entry.model_digest)) is None
    assert not home.exists()


@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="tenant"))
def made() -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(metadata={"rows": 3})


def known(instance: dg.DagsterInstance) -> tuple[object, ...]:
    """What Dagster shows of the tenants, their runs and what those made."""
    runs = instance.get_runs()
    newest = instance.get_latest_materialization_event(dg.AssetKey("made"))
    assert newest is not None
    events = [[str(event) for event in instance.all_logs(run.run_id)] for run in runs]
    return instance.get_dynamic_partitions("tenant"), runs, events, newest.asset_materialization


@contextmanager
def used_dagster(home: Path) -> Iterator[dg.DagsterInstance]:
    """With a run of a tenant."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("tenant", ["acme"])
        assert dg.materialize([made], instance=instance, partition_key="acme").success
        yield instance


def test_dagster_opens_a_restored_home_and_knows_what_it_knew(home: Path, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "dagster.yaml", home / "dagster")
    with used_dagster(home / "dagster") as instance:
        backup.back_up(home, tmp_path / "copy")
        before = known(instance)
    shutil.rmtree(home)
    backup.restore(tmp_path / "copy", tmp_path / "new home")
    with dg.DagsterInstance.from_config(str(tmp_path / "new home/dagster")) as restored:
        assert known(restored) == before
        assert dg.materialize([made], instance=restored, partition_key="acme").success


def documented(command: str) -> list[str]:
    """The lines of the operations page that begin so."""
    lines = (PROJECT / "docs/operations.md").read_text().splitlines()
    return [line for line in lines if line.startswith(command)]


def test_a_dagster_on_postgresql_is_dumped_and_restored_by_the_documented_commands(
    postgres_server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [dump] = [line for line in documented("pg_dump") if "FRAUD_ASSETS_DAGSTER_URL" in line]
    [restore] = documented("pg_restore")
    restore = restore.replace("LEDGER", "DAGSTER").replace("ledger", "dagster")
    monkeypatch.setenv("PATH", f"{Path(binary('pg_dump')).parent}:{os.environ['PATH']}")
    shutil.copy(PROJECT / "deploy/postgres/dagster.yaml", tmp_path / "dagster.yaml")
    with fresh_database(postgres_server_url) as old, fresh_database(postgres_server_url) as new:
        monkeypatch.setenv("FRAUD_ASSETS_DAGSTER_URL", with_driver(old))
        with used_dagster(tmp_path) as instance:
            subprocess.run(["/bin/bash", "-euc", dump], cwd=tmp_path, check=True)
            before = known(instance)
        monkeypatch.setenv("FRAUD_ASSETS_DAGSTER_URL", with_driver(new))
        subprocess.run(["/bin/bash", "-euc", restore], cwd=tmp_path, check=True)
        with dg.DagsterInstance.from_config(str(tmp_path)) as restored:
            assert known(restored) == before
            assert dg.materialize([made], instance=restored, partition_key="acme").success


def served(home: Path, instance: dg.DagsterInstance, address: str, ledger: str) -> World:
    """The installation in `home`, with a registry and a ledger on servers."""
    world = World(home, instance, acme=company("acme", records=300))
    world.with_platform(registry=Registry(address), ledger=Ledger(ledger))
    return world


def test_stores_on_postgresql_are_restored_by_the_documented_commands_and_the_next_cycle_is_as_ever(
    postgres_server_url: str,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, old, new = (tmp_path / name for name in ("home", "old", "new"))
    for folder in (home, old, new):
        folder.mkdir()
    [restore] = documented("pg_restore")
    monkeypatch.setenv("PATH", f"{Path(binary('pg_dump')).parent}:{os.environ['PATH']}")

    def databases(stack: ExitStack) -> tuple[str, str]:
        urls = [stack.enter_context(fresh_database(postgres_server_url)) for _ in STORES]
        made = {store: url.replace("://", "+psycopg2://", 1) for store, url in zip(STORES, urls, strict=True)}
        for store, url in made.items():
            monkeypatch.setenv(f"FRAUD_ASSETS_{store}_URL", url)
        return made["LEDGER"], made["MLFLOW"]

    def run(command: str) -> None:
        subprocess.run(["/bin/bash", "-euc", command], cwd=tmp_path, check=True)

    with ExitStack() as stack:
        ledger, database = databases(stack)
        world = served(home, instance, stack.enter_context(mlflow_server(old, database)), ledger)
        world.cycle()
        before, champion = world.platform.ledger.history("acme"), world.platform.champion("acme")
        assert champion is not None
        model = world.platform.registry.load("acme", champion.version, champion.digest)
        for command in documented("pg_dump"):
            if any(store in command for store in STORES):
                run(command)
        shutil.copytree(old / "files", new / "files")
        backup.back_up(home, tmp_path / "copies/monday")
    for folder in (home, old):
        shutil.rmtree(folder)

    with ExitStack() as stack:
        ledger, database = databases(stack)
        for store in STORES:
            run(restore.replace("LEDGER", store).replace("ledger", store.lower()))
        backup.restore(tmp_path / "copies/monday", home)
        restored = served(home, instance, stack.enter_context(mlflow_server(new, database)), ledger)
        assert restored.platform.ledger.history("acme") == before
        assert restored.platform.registry.champion_version("acme") == champion.version
        assert restored.platform.registry.load("acme", champion.version, champion.digest) == model
        restored.source.histories["acme"] = company("acme", records=300, until=TONIGHT + WEEK)
        entry = restored.cycle(TONIGHT + WEEK)
        assert (entry.model_version, entry.champion_version) == (2, 1)
        assert restored.platform.registry.damage("acme", 2, str(entry.model_digest)) is None


def require_whole(world: World, decided: int) -> None:
    """What the ledger names is in the registry with its file, and its dataset among the tables."""
    history = world.platform.ledger.history("busy")
    assert 0 < len(history) < decided
    for each in history:
        assert each.model_version is not None
        assert world.platform.registry.damage("busy", each.model_version, str(each.model_digest)) is None
        stored = world.platform.tables.read("busy", "training_dataset", each.dataset_version)
        assert stored["n"].to_list() == [each.model_version]
    assert world.platform.tables.read("busy", "training_dataset").height == 1


def test_what_is_no_record_is_left_out_and_a_tenant_may_be_called_like_it(home: Path, tmp_path: Path) -> None:
    kept = ("settings.toml", "tables/logs/profiles/x", "tables/scratch/x", "models/matplotlib/x", "dagster/x")
    gone = ("logs/dagster.log", "matplotlib/x", "tables/acme/scratch/t/x", "dagster/history/runs.db-journal")
    for name in (*kept, *gone):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    backup.back_up(home, tmp_path / "copy")
    backup.restore(tmp_path / "copy", tmp_path / "again")
    found = {
        str(path.relative_to(tmp_path / "again"))
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    }
    assert found == {*kept, "mlflow.db"}


def test_a_copy_that_fails_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (home / "settings.toml").touch()
    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(Refused, match=r"to copy .*settings\.toml, got: .*No space left"):
        backup.back_up(home, tmp_path / "copies/monday")
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("name", ["x.txt", "x.db"])
def test_what_goes_away_meanwhile_is_passed_over(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (home / name).touch()
    copy = backup._copy

    def late(path: Path, target: Path) -> None:
        if path.name == name:
            path.unlink()
        copy(path, target)

    monkeypatch.setattr(backup, "_copy", late)
    backup.back_up(home, tmp_path / "copy")
    assert not (tmp_path / "copy" / name).exists()
    assert not (home / name).exists()


def test_nothing_is_written_over(home: Path, tmp_path: Path) -> None:
    backup.back_up(home, tmp_path / "copy")
    with pytest.raises(Refused, match=r"not there yet, got .*copy; choose another"):
        backup.back_up(home, tmp_path / "copy")
    with pytest.raises(Refused, match=r"not there yet, got .*hömé; choose another or move it away"):
        backup.restore(tmp_path / "copy", home)
    with pytest.raises(Refused, match="expected a folder outside of"):
        backup.back_up(home, home / "copy")
    with pytest.raises(Refused, match=r"made by fraud-assets backup, got .*hömé"):
        backup.restore(home, tmp_path / "new")
    with pytest.raises(Refused, match=r"expected an installation in .*nowhere, found none"):
        backup.back_up(tmp_path / "nowhere", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", home.name]


def test_a_home_that_is_there_and_empty_is_filled(home: Path, tmp_path: Path) -> None:
    backup.back_up(home, tmp_path / "copy")
    shutil.rmtree(home)
    home.mkdir()
    backup.restore(tmp_path / "copy", home)
    assert [path.name for path in home.iterdir()] == ["mlflow.db"]
