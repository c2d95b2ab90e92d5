"""Nights with Dagster's own daemon: nobody launches anything; some tenants crash, each in another stage."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorTick

from fraud_assets import servers
from fraud_assets.orchestration.partitions import tenants
from fraud_assets_tests.journeys.installation import Installation, free_port

BROKEN = {
    "fairplay-guarding": "behavioural_profiles",
    "bluewater-guards": "training_dataset",
    "citadel-large": "trained_model",
    "drift-patrol": "active_model",
}
"""The stage in which each of them crashes."""
ACTIVE = {
    "alcazar-security": 30,
    "ember-watch": 8,
    "fairplay-guarding": 8,
    "bluewater-guards": 8,
    "citadel-large": 30,
    "drift-patrol": 30,
}
TRAINED = {"alcazar-security", "bluewater-guards", "citadel-large", "drift-patrol"}
TRIGGER = """
CREATE TRIGGER crash BEFORE INSERT ON {table} WHEN NEW.{column} = '{value}'
BEGIN SELECT RAISE(ABORT, 'crashed on purpose'); END
"""
TRIGGERS = {
    "mlflow.db": {"table": "model_versions", "column": "name", "value": "attendance-fraud-citadel-large"},
    "ledger.db": {"table": "fraud_assets_decision", "column": "tenant", "value": "drift-patrol"},
}


@contextmanager
def daemon(installation: Installation) -> Iterator[dg.DagsterInstance]:
    """What the running daemon knows and does; it is ended by force."""
    _, server = servers.dagster(free_port())
    environment = installation.dagster_environment()
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        process = installation.start(server.command, environment)
        yield instance
        installation.kill(process)


def crash(installation: Installation) -> None:
    """Files lie where folders should be; the databases refuse a tenant."""
    folder = installation.home / "tables"
    (folder / "bluewater-guards").mkdir(parents=True)
    (folder / "bluewater-guards" / "training_dataset").touch()
    (folder / "fairplay-guarding").touch()
    execute(installation, {name: TRIGGER.format(**values) for name, values in TRIGGERS.items()})


def mend(installation: Installation) -> None:
    (installation.home / "tables" / "bluewater-guards" / "training_dataset").unlink()
    (installation.home / "tables" / "fairplay-guarding").unlink()
    execute(installation, dict.fromkeys(TRIGGERS, "DROP TRIGGER crash"))


def execute(installation: Installation, statements: dict[str, str]) -> None:
    for name, statement in statements.items():
        with closing(sqlite3.connect(installation.home / name, timeout=30)) as connection:
            connection.execute(statement)


def ticks(instance: dg.DagsterInstance) -> list[InstigatorTick]:
    """The finished ticks of the nightly automation, newest first."""
    return [
        tick
        for state in instance.all_instigator_state()
        if state.instigator_name == "nightly_cycle"
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
        if tick.is_completed
    ]


def statuses(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    """Tenant and status of every run there is."""
    return sorted((run.tags["dagster/partition"], run.status.value) for run in instance.get_runs())


def at_work(instance: dg.DagsterInstance) -> dict[str, dg.DagsterRun]:
    """The runs that execute, by id."""
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    return {run.run_id: run for run in started}


def finished(instance: dg.DagsterInstance, count: int) -> bool:
    runs = instance.get_runs()
    return len(runs) >= count and all(run.is_finished for run in runs)


def crashed(instance: dg.DagsterInstance) -> dict[str, str]:
    """The step in which the run of a tenant failed."""
    failures = {
        run.tags["dagster/partition"]: instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        for run in instance.get_runs()
    }
    return {tenant: str(found[0].step_key) for tenant, found in failures.items() if found}


def require_nothing_more(installation: Installation, instance: dg.DagsterInstance) -> None:
    before, known = len(ticks(instance)), statuses(instance)
    installation.wait_for("another tick", lambda: len(ticks(instance)) > before)
    assert statuses(instance) == known


def follow_a_night(installation: Installation, instance: dg.DagsterInstance) -> None:
    name = str(tenants.name)
    installation.wait_for("the sensor to add the tenants", lambda: instance.get_dynamic_partitions(name))
    assert set(instance.get_dynamic_partitions(name)) == set(ACTIVE)
    installation.wait_for("a first tick", lambda: ticks(instance))
    assert instance.get_runs() == []

    installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
    installation.wait_for("a finished run of each tenant", lambda: finished(instance, len(ACTIVE)))
    night = [(tenant, "FAILURE" if tenant in BROKEN else "SUCCESS") for tenant in sorted(ACTIVE)]
    assert statuses(instance) == night, installation.told()
    assert crashed(instance) == BROKEN
    require_nothing_more(installation, instance)


def follow_the_night_that_was_missed(installation: Installation, instance: dg.DagsterInstance) -> None:
    installation.wait_for(
        "a second run of each tenant", lambda: finished(instance, 2 * len(ACTIVE)), seconds=400
    )
    second = [(tenant, "SUCCESS") for tenant in ACTIVE]
    first = [(tenant, "FAILURE" if tenant in BROKEN else "SUCCESS") for tenant in ACTIVE]
    assert statuses(instance) == sorted(first + second), installation.told()
    require_nothing_more(installation, instance)


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_tenants_that_crash_in_each_stage_fail_alone_and_the_next_night_heals_them_though_its_tick_was_missed(
    installation: Installation,
) -> None:
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    assert installation.run("migrate").returncode == 0
    crash(installation)
    with daemon(installation) as instance:
        follow_a_night(installation, instance)
    platform = installation.platform
    assert set(platform.ledger.latest_all()) == set(ACTIVE) - set(BROKEN)
    assert set(platform.ledger.champions()) == TRAINED - set(BROKEN)
    assert not any(platform.registry.champion_version(tenant) for tenant in BROKEN)
    unharmed = platform.ledger.history("alcazar-security")

    mend(installation)
    start = datetime.now(UTC) + timedelta(seconds=1)
    installation.cycle_at(start)
    # The machine is off as the night begins.
    time.sleep(3)
    with daemon(installation) as instance:
        follow_the_night_that_was_missed(installation, instance)
    assert set(platform.ledger.latest_all()) == set(ACTIVE)
    assert set(platform.ledger.champions()) == TRAINED
    assert platform.ledger.history("alcazar-security") == unharmed
    for tenant in TRAINED:
        [activation] = [each for each in platform.ledger.history(tenant) if each.is_activation]
        assert platform.registry.champion_version(tenant) == activation.model_version
    assert {len(platform.ledger.history(tenant)) for tenant in BROKEN} == {1}
