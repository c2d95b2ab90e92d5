"""A night with Dagster's own daemon: nobody launches anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorTick

from fraud_assets import servers
from fraud_assets.orchestration.partitions import tenants
from fraud_assets_tests.journeys.installation import Installation, free_port

BROKEN = "fairplay-guarding"
ACTIVE = {"alcazar-security": 30, "ember-watch": 8, BROKEN: 8}


@contextmanager
def daemon(installation: Installation) -> Iterator[dg.DagsterInstance]:
    """What the running daemon knows and does."""
    _, server = servers.dagster(free_port())
    environment = installation.dagster_environment()
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        installation.start(server.command, environment)
        yield instance


def break_tables_of(installation: Installation, tenant: str) -> None:
    """A file lies where the folder of the tenant's tables should be."""
    folder = installation.home / "tables"
    folder.mkdir()
    (folder / tenant).touch()


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


def finished(instance: dg.DagsterInstance) -> bool:
    runs = instance.get_runs()
    return len(runs) >= len(ACTIVE) and all(run.is_finished for run in runs)


def follow_a_night(installation: Installation, instance: dg.DagsterInstance) -> None:
    name = str(tenants.name)
    installation.wait_for("the sensor to add the tenants", lambda: instance.get_dynamic_partitions(name))
    assert set(instance.get_dynamic_partitions(name)) == set(ACTIVE)
    installation.wait_for("a first tick", lambda: ticks(instance))
    assert instance.get_runs() == []

    installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
    installation.wait_for("a finished run of each tenant", lambda: finished(instance))
    night = [(tenant, "FAILURE" if tenant == BROKEN else "SUCCESS") for tenant in sorted(ACTIVE)]
    assert statuses(instance) == night, installation.told()

    before = len(ticks(instance))
    installation.wait_for("another tick", lambda: len(ticks(instance)) > before)
    assert statuses(instance) == night


@pytest.mark.journey
def test_the_daemon_runs_each_active_tenant_once_a_day_and_a_broken_one_alone_fails(
    installation: Installation,
) -> None:
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    break_tables_of(installation, BROKEN)
    with daemon(installation) as instance:
        follow_a_night(installation, instance)
    assert set(installation.platform.ledger.latest_all()) == set(ACTIVE) - {BROKEN}
    assert set(installation.platform.ledger.champions()) == {"alcazar-security"}
