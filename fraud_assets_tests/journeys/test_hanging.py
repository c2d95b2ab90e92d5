"""A source that hangs, at a tick and while a run reads: both give up in time, and the next night heals."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import psycopg2
import pytest
from dagster._core.scheduler.instigation import TickStatus

from fraud_assets import servers
from fraud_assets_tests.journeys.installation import Installation, free_port
from fraud_assets_tests.postgres import fresh_database, postgres_server

TENANT = "ember-watch"
TICK_SECONDS, RUN_SECONDS = 10, 45
"""Limits that a sound tick and a sound run of a tiny tenant keep on a busy machine too."""


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """The server answers nobody, and closes no connection."""
    port = url.rpartition(":")[2].partition("/")[0]
    children = psutil.Process().children(recursive=True)
    [server] = [child for child in children if f"--port={port}" in child.cmdline()]
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Who reads events waits, as behind a migration that somebody forgot."""
    with psycopg2.connect(url) as connection:
        connection.cursor().execute("LOCK TABLE attendance_event IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()
    connection.close()


def readers(url: str) -> set[int]:
    """The connections that wait for a lock, by their processes in the server."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        found = {pid for (pid,) in cursor.fetchall()}
    connection.close()
    return found


def limit_runs(home: Path) -> None:
    """What the operator sets in `dagster.yaml`."""
    path = home / "dagster.yaml"
    given = path.read_text()
    assert "max_runtime_seconds: 7200" in given
    path.write_text(
        given.replace("max_runtime_seconds: 7200", f"max_runtime_seconds: {RUN_SECONDS}").replace(
            "poll_interval_seconds: 10", "poll_interval_seconds: 2"
        )
    )


def ticks(instance: dg.DagsterInstance, sensor: str) -> list[tuple[TickStatus, str]]:
    """The sensor's ended ticks, newest first, and what went wrong."""
    return [
        (tick.status, str(tick.error))
        for state in instance.all_instigator_state()
        if state.instigator_name == sensor
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
        if tick.status is not TickStatus.STARTED
    ]


def ended(instance: dg.DagsterInstance, count: int) -> list[dg.DagsterRun]:
    """All runs, oldest first, once there are so many and each has ended."""
    runs = list(instance.get_runs(ascending=True))
    return runs if len(runs) >= count and all(run.is_finished for run in runs[:count]) else []


@pytest.mark.journey
def test_a_source_that_hangs_costs_a_tick_and_a_run_their_time_and_the_next_night_heals(
    installation: Installation,
) -> None:
    with postgres_server() as server, fresh_database(server) as url:
        installation.variables["FRAUD_ASSETS_SOURCE_URL"] = url
        installation.variables["DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS"] = str(TICK_SECONDS)
        installation.create_company({TENANT: 8})
        installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
        environment = installation.dagster_environment()
        limit_runs(Path(environment["DAGSTER_HOME"]))
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            installation.start(servers.dagster(free_port())[1].command, environment)
            follow(installation, instance, url)


def follow(installation: Installation, instance: dg.DagsterInstance, url: str) -> None:
    def succeeded(sensor: str) -> bool:
        return any(
            status in {TickStatus.SUCCESS, TickStatus.SKIPPED} for status, _ in ticks(instance, sensor)[:1]
        )

    for sensor in ("tenant_directory", "nightly_cycle"):
        installation.wait_for(f"a first tick of {sensor}", lambda name=sensor: succeeded(name))
    with frozen(url):
        failed = installation.wait_for(
            "a tick that gives up",
            lambda: [each for each in ticks(instance, "tenant_directory") if each[0] is TickStatus.FAILURE],
        )
    assert "DEADLINE_EXCEEDED" in failed[0][1] or "timed out" in failed[0][1], failed
    installation.wait_for("a tick that is well", lambda: succeeded("tenant_directory"))

    with locked(url):
        installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
        waiting = installation.wait_for("a run that waits for the source", lambda: readers(url))
        [run, *_] = installation.wait_for("its end", lambda: ended(instance, 1))
        assert run.status is dg.DagsterRunStatus.FAILURE, installation.told()
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
        assert any(f"maximum runtime of {RUN_SECONDS}" in str(each.message) for each in events), events
        installation.wait_for("its connection to be gone", lambda: not waiting & readers(url))
    # Dagster makes a run again, once, that it had to end: the source goes on meanwhile.
    [_, again, *_] = installation.wait_for("its second try", lambda: ended(instance, 2))
    assert again.tags["dagster/parent_run_id"] == run.run_id
    assert again.status is dg.DagsterRunStatus.SUCCESS, installation.told()
    [decision] = installation.platform.ledger.history(TENANT)

    installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
    [*_, last] = installation.wait_for("the next night", lambda: ended(instance, 3))
    assert last.status is dg.DagsterRunStatus.SUCCESS, installation.told()
    assert installation.platform.ledger.history(TENANT)[:1] == [decision]
