"""The sensor that follows the source's tenants and reports their freshness."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets.orchestration.partitions import tenants
from fraud_assets.storage.source import Source
from fraud_assets_tests.builders import entry, history
from fraud_assets_tests.world import TONIGHT, World

NOBODY = history(as_read=True)
WEEK, MINUTE = timedelta(days=7), timedelta(minutes=1)


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    made = World(tmp_path, instance, acme=NOBODY, beta=NOBODY)
    made.platform.ledger.append(entry("acme", cycle_started_at=TONIGHT, decided_at=TONIGHT))
    return made


def tick(world: World, cursor: str | None = None) -> dg.SensorResult:
    sensor = world.definitions.resolve_sensor_def("tenant_directory")
    with dg.build_sensor_context(world.instance, cursor=cursor) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def added(result: dg.SensorResult) -> list[str]:
    return [key for request in result.dynamic_partitions_requests or [] for key in request.partition_keys]


def reported(result: dg.SensorResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The evaluations by tenant; a tick reports nothing else, and nobody twice."""
    found = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    by_tenant = {str(check.partition): check for check in found}
    assert len(by_tenant) == len(result.asset_events)
    return by_tenant


def passed(result: dg.SensorResult) -> dict[str, bool]:
    return {tenant: check.passed for tenant, check in reported(result).items()}


def company_of(folder: Path, *names: str) -> Source:
    """A source whose tenants have `names` as ids, whatever those are."""
    with closing(sqlite3.connect(folder / "source.db")) as company, company:
        company.execute("CREATE TABLE tenant (tenant_id TEXT, name TEXT, is_active INT, tz TEXT, country TEXT)")
        rows = [(name, name, 1, "UTC", "ES") for name in names]
        company.executemany("INSERT INTO tenant VALUES (?, ?, ?, ?, ?)", rows)
    return Source(f"sqlite:///{folder}/source.db")


def test_a_new_active_tenant_is_added(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    assert added(tick(world)) == ["gamma"]


def test_a_known_tenant_is_not_added_again(world: World) -> None:
    assert added(tick(world)) == []


def test_a_suspended_tenant_is_not_added(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    world.source.suspended = {"gamma"}
    assert added(tick(world)) == []


def test_a_tenant_that_is_suspended_keeps_its_partition_and_is_reported_no_more(world: World) -> None:
    world.source.suspended = {"acme"}
    result = tick(world)
    assert not result.dynamic_partitions_requests
    assert sorted(world.instance.get_dynamic_partitions(str(tenants.name))) == ["acme", "beta"]
    assert passed(result) == {"beta": False}


@pytest.mark.parametrize("hostile", ["../acme", "Acme", "a,b", "", "acme\n", "a" * 51, "-a", "%41", "é"])
def test_a_hostile_id_never_becomes_a_partition_and_stops_nobody(
    world: World, tmp_path: Path, hostile: str
) -> None:
    world.with_platform(source=company_of(tmp_path, "gamma", hostile, "zeta"))
    result = tick(world)
    assert added(result) == ["gamma", "zeta"]
    assert passed(result) == {"gamma": False, "zeta": False}


def test_freshness_is_reported_for_each_tenant_with_its_numbers(world: World) -> None:
    world.now = TONIGHT + timedelta(days=2, hours=12)
    found = reported(tick(world))
    acme, beta = found["acme"], found["beta"]
    assert (acme.asset_key, acme.check_name) == (dg.AssetKey("active_model"), "champion_is_fresh")
    assert (acme.passed, acme.severity) == (True, dg.AssetCheckSeverity.WARN)
    assert {name: value.value for name, value in acme.metadata.items()} == {
        "tenant": "acme",
        "model_age_days": 2.5,
        "fail_window_days": 7.0,
    }
    assert (beta.passed, beta.description) == (False, "no champion")
    assert beta.metadata["model_age_days"].value is None


def test_freshness_is_reported_once_a_change(world: World) -> None:
    world.now = TONIGHT + WEEK - MINUTE
    first = tick(world)
    assert passed(first) == {"acme": True, "beta": False}
    assert passed(tick(world, first.cursor)) == {}
    world.now += MINUTE
    stale = tick(world, first.cursor)
    assert passed(stale) == {"acme": False}
    assert passed(tick(world, stale.cursor)) == {}


def test_a_tenant_that_comes_back_is_reported_again(world: World) -> None:
    world.source.suspended = {"acme"}
    without = tick(world)
    world.source.suspended = set()
    assert passed(tick(world, without.cursor)) == {"acme": True}


def test_a_tenant_with_broken_settings_is_logged_and_the_others_are_reported(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    world.with_platform(overrides={"tenants": {"acme": {"minimum_pr_auc": 7}}})
    broken = tick(world)
    assert passed(broken) == {"beta": False}
    assert "settings of tenant acme: minimum_pr_auc" in capfd.readouterr().err
    world.with_platform(overrides={})
    assert passed(tick(world, broken.cursor)) == {"acme": True}


def test_a_tenants_own_limit_counts(world: World) -> None:
    world.with_platform(overrides={"tenants": {"acme": {"retrain_after": "P1D"}}})
    world.now = TONIGHT + timedelta(days=1)
    acme = reported(tick(world))["acme"]
    assert (acme.passed, acme.metadata["fail_window_days"].value) == (False, 1.0)
    assert acme.description == "1.0 days old, retrained from 1 days"


def test_the_stored_evaluation_is_the_tenants_alone(world: World) -> None:
    for check in reported(tick(world)).values():
        world.instance.report_runless_asset_event(check)
    key = dg.AssetCheckKey(dg.AssetKey("active_model"), "champion_is_fresh")
    records = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
    assert {record.partition: record.status.value for record in records} == {
        "acme": "SUCCEEDED",
        "beta": "FAILED",
    }
