"""Nights in each of which a server is killed while runs are going on, and one with a daemon too many."""

import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest

from fraud_assets import servers
from fraud_assets.domain.errors import TableNotFound
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.storage.platform import Platform
from fraud_assets_tests.journeys.installation import Installation, free_port
from fraud_assets_tests.journeys.test_daemon import at_work, ticks
from fraud_assets_tests.postgres import PostgresServer, administer, running_server

TRAINED = ("alcazar-security", "bluewater-guards", "citadel-large", "drift-patrol")
ACTIVE = {**dict.fromkeys(TRAINED, 30), "fairplay-guarding": 30, "ember-watch": 8, "garrison-paused": 8}
STORES = ("source", "ledger", "dagster", "mlflow")


@dataclass
class Fleet:
    """All servers of production, each in a process of its own, as containers are."""

    installation: Installation
    postgres: PostgresServer
    ports: dict[str, int]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, server: str) -> None:
        self.running[server] = self.installation.serve(server, self.ports)

    def kill(self, server: str) -> None:
        """The runs of a daemon go on without it."""
        if server == "postgres":
            self.postgres.crash()
        else:
            self.installation.kill(self.running[server], with_children=server != "dagster-daemon")

    def bring_back(self, server: str) -> None:
        """It is well when this returns."""
        if server == "postgres":
            self.postgres.start()
            return
        self.start(server)
        known = {each.word: each for each in servers.production(self.ports, self.installation.home)}
        environment = self.installation.dagster_environment()
        self.installation.wait_for(
            f"{server} to be well", lambda: servers.is_well(known[server], environment)
        )


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def fleet(installation: Installation, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """On databases of one server, an hour before the night."""
    ports = {name: free_port() for name in ("dagster", "mlflow", "code-server")}
    for store in STORES:
        administer(postgres.url, f"CREATE DATABASE {store}")
        url = f"{postgres.url.rpartition('/')[0]}/{store}"
        installation.variables[f"FRAUD_ASSETS_{store.upper()}_URL"] = url
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=1))
    assert installation.run("migrate").returncode == 0
    installation.variables["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{ports['mlflow']}"
    made = Fleet(installation, postgres, ports)
    for server in ("mlflow", "code-server", "dagster-daemon"):
        made.start(server)
    for name, value in installation.dagster_environment().items():
        monkeypatch.setenv(name, value)
    return made


def runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs())


def cycle_of(platform: Platform, tenant: str) -> datetime | None:
    """The cycle of the tenant's newest profiles."""
    with suppress(TableNotFound):
        return datetime.fromisoformat(platform.tables.facts(tenant, "profiles")["as_of"])
    return None


def call_a_night(fleet: Fleet) -> Callable[[dg.DagsterInstance], bool]:
    """It begins; whether every tenant had its cycle, and nothing is left to do."""
    start = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
    fleet.installation.cycle_at(start)
    platform = Platform.from_environment(fleet.installation.environment)

    def is_over(instance: dg.DagsterInstance) -> bool:
        done = all(cycle_of(platform, tenant) == start for tenant in ACTIVE)
        return done and all(run.is_finished for run in runs(instance))

    return is_over


def require_one_at_a_time(instance: dg.DagsterInstance) -> None:
    """No two runs of a tenant went on at once."""
    spans = defaultdict[str, list[tuple[float, float]]](list)
    for record in instance.get_run_records():
        assert record.end_time is not None, record
        # One that was ended before it began took no time.
        began = record.start_time or record.end_time
        spans[record.dagster_run.tags["dagster/partition"]].append((began, record.end_time))
    for each in spans.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(each)))


def require_sound(platform: Platform, tenant: str) -> None:
    """Every decision stands once, and what the ledger says is active is what the registry serves."""
    decisions = [
        (entry.cycle_started_at, entry.verdict, entry.model_version)
        for entry in platform.ledger.history(tenant)
    ]
    assert len(set(decisions)) == len(decisions)
    champion = platform.champion(tenant)
    assert platform.registry.champion_version(tenant) == (champion and champion.version)
    if champion:
        assert platform.registry.damage(tenant, champion.version, champion.digest) is None


def begin_a_night(fleet: Fleet, instance: dg.DagsterInstance) -> set[str]:
    """Its runs that go on once it has begun."""
    earlier = {run.run_id for run in runs(instance)}
    call_a_night(fleet)
    return fleet.installation.wait_for("runs at work", lambda: set(at_work(instance)) - earlier)


def end_of_runs(fleet: Fleet, instance: dg.DagsterInstance, of: set[str]) -> set[str]:
    """How those runs ended."""

    def ended() -> Sequence[dg.DagsterRun]:
        found = instance.get_runs(dg.RunsFilter(run_ids=list(of)))
        return found if all(run.is_finished for run in found) else []

    return {run.status.value for run in fleet.installation.wait_for("the end of the runs", ended)}


@pytest.mark.journey
def test_nights_survive_the_death_of_each_server_and_the_last_one_a_second_daemon(fleet: Fleet) -> None:
    installation = fleet.installation
    with dg.DagsterInstance.get() as instance:
        name = str(tenants.name)
        installation.wait_for(
            "the tenants", lambda: set(instance.get_dynamic_partitions(name)) == set(ACTIVE)
        )
        installation.wait_for("a first tick", lambda: ticks(instance))
        going_on = begin_a_night(fleet, instance)
        fleet.kill("dagster-daemon")
        # They were launched by the daemon, and go on without it.
        assert end_of_runs(fleet, instance, going_on) == {"SUCCESS"}, installation.told()
        fleet.bring_back("dagster-daemon")
        for server in ("mlflow", "code-server", "postgres"):
            begin_a_night(fleet, instance)
            fleet.kill(server)
            fleet.bring_back(server)
            installation.wait_for(
                "the end of the runs", lambda: all(run.is_finished for run in runs(instance))
            )
        first = fleet.running["dagster-daemon"]
        fleet.start("dagster-daemon")
        next_night = call_a_night(fleet)
        installation.wait_for("the end of the last night", lambda: next_night(instance), seconds=400)
        assert first.poll() is fleet.running["dagster-daemon"].poll() is None
        # At the next heartbeat of one of them, each thirty seconds.
        installation.wait_for(
            "the two to be noticed", lambda: "daemon is still sending heartbeats" in installation.said()
        )
        require_one_at_a_time(instance)
    platform = Platform.from_environment(installation.environment)
    for tenant in ACTIVE:
        require_sound(platform, tenant)
    assert set(platform.ledger.champions()) >= set(TRAINED)
