"""The sensor that follows the source's tenants and reports the champions that turn stale."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets.orchestration.automation import PATIENCE
from fraud_assets.orchestration.checks import CHAMPION_IS_FRESH
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.storage.source import Source
from fraud_assets_tests.builders import entry, history
from fraud_assets_tests.world import TONIGHT, World

NOBODY = history(as_read=True)
WEEK, MINUTE = timedelta(days=7), timedelta(minutes=1)


def activate(world: World, tenant: str) -> None:
    """A champion of the cycle of now."""
    world.platform.ledger.append(entry(tenant, cycle_started_at=world.now, decided_at=world.now))


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """Two tenants that Dagster knows, with champions of tonight; in a minute they are stale for too long."""
    made = World(tmp_path, instance, acme=NOBODY, beta=NOBODY)
    made.now = TONIGHT
    activate(made, "acme")
    activate(made, "beta")
    made.now = TONIGHT + WEEK + PATIENCE - MINUTE
    return made


def tick(world: World) -> tuple[list[str], dict[str, dg.RunRequest]]:
    """The tenants that the sensor adds, and the run that it asks for by tenant."""
    repository = world.definitions.get_repository_def()
    with dg.build_sensor_context(world.instance, repository_def=repository) as context:
        result = repository.get_sensor_def("tenant_directory").evaluate_tick(context)
    added = [key for request in result.dynamic_partitions_requests or [] for key in request.partition_keys]
    runs = {request.tags["dagster/partition"]: request for request in result.run_requests or []}
    assert len(runs) == len(result.run_requests or [])
    return added, runs


def stale(world: World) -> set[str]:
    return set(tick(world)[1])


def company_of(folder: Path, *names: str) -> Source:
    """A source whose tenants have `names` as ids, whatever those are."""
    with closing(sqlite3.connect(folder / "source.db")) as company, company:
        company.execute("CREATE TABLE tenant (tenant_id TEXT, name TEXT, is_active, tz TEXT, country TEXT)")
        rows = [(name, name, 1, "UTC", "ES") for name in names]
        company.executemany("INSERT INTO tenant VALUES (?, ?, ?, ?, ?)", rows)
    return Source(f"sqlite:///{folder}/source.db")


def test_a_new_active_tenant_is_added_and_a_known_one_is_not_added_again(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    assert tick(world) == (["gamma"], {})
    world.instance.add_dynamic_partitions(str(tenants.name), ["gamma"])
    assert tick(world) == ([], {})


def test_a_suspended_tenant_is_not_added(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    world.source.suspended = {"gamma"}
    assert tick(world) == ([], {})


def test_a_tenant_that_is_suspended_keeps_its_partition_and_is_not_reported(world: World) -> None:
    world.source.suspended = {"acme"}
    world.now += MINUTE
    assert stale(world) == {"beta"}
    assert sorted(world.instance.get_dynamic_partitions(str(tenants.name))) == ["acme", "beta"]


@pytest.mark.parametrize("hostile", ["../acme", "Acme", "a,b", "", "acme\n", "a" * 51, "-a", "%41", "é"])
def test_a_hostile_id_never_becomes_a_partition_and_stops_nobody(
    world: World, tmp_path: Path, hostile: str
) -> None:
    world.with_platform(source=company_of(tmp_path, "beta", "gamma", hostile, "zeta"))
    world.now += MINUTE
    added, runs = tick(world)
    assert added == ["gamma", "zeta"]
    assert set(runs) == {"beta"}


def test_a_row_of_the_source_that_can_be_no_tenant_is_logged_once_until_others_come(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repository, said, cursor = world.definitions.get_repository_def(), list[str](), None
    for position, ids in enumerate([["../x"], ["../x"], ["../x", "B"], []]):
        folder = tmp_path / str(position)
        folder.mkdir()
        world.with_platform(source=company_of(folder, "acme", *ids))
        with dg.build_sensor_context(world.instance, cursor, repository_def=repository) as context:
            cursor = repository.get_sensor_def("tenant_directory").evaluate_tick(context).cursor
        said.append(capfd.readouterr().err)
    assert ["left out" in each for each in said] == [True, False, True, False]
    assert "tenant_id|regex: 1; correct them in the source: '../x' (tenant_id|regex)" in said[0]


def test_a_champion_is_reported_when_the_night_did_not_bring_the_retrain_that_was_due(world: World) -> None:
    assert stale(world) == set()
    world.now += MINUTE
    assert stale(world) == {"acme", "beta"}


def test_the_check_of_that_tenant_alone_is_run(world: World) -> None:
    world.now += MINUTE
    run = tick(world)[1]["acme"]
    assert run.asset_check_keys == [CHAMPION_IS_FRESH]
    assert not run.asset_selection


def test_a_stale_champion_is_reported_once_and_its_successor_again(world: World) -> None:
    world.now += MINUTE
    first = tick(world)[1]
    world.now += MINUTE
    assert tick(world)[1] == first
    activate(world, "acme")
    assert stale(world) == {"beta"}
    world.now += WEEK + PATIENCE
    second = tick(world)[1]
    assert second["acme"].run_key != first["acme"].run_key
    assert second["beta"].run_key == first["beta"].run_key


def test_a_new_tenant_without_a_champion_is_not_reported(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    world.instance.add_dynamic_partitions(str(tenants.name), ["gamma"])
    assert stale(world) == set()


def test_a_tenant_with_broken_settings_is_logged_and_the_others_are_reported(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.with_platform(overrides={"tenants": {"acme": {"minimum_pr_auc": 7}}})
    world.now += MINUTE
    assert stale(world) == {"beta"}
    assert "settings of tenant acme: minimum_pr_auc" in capfd.readouterr().err


def test_a_tenants_own_limit_counts(world: World) -> None:
    world.with_platform(overrides={"tenants": {"acme": {"retrain_after": "P1D"}}})
    assert stale(world) == {"acme"}
