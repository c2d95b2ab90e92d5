"""A night over two Ray nodes, of which one dies in the middle. `scripts/ray` runs it."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec

import dagster as dg
import pytest

from fraud_assets.domain.errors import RegistryError
from fraud_assets.storage.platform import Platform
from fraud_assets_tests.journeys import ray_nodes
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.journeys.ray_nodes import Node
from fraud_assets_tests.journeys.test_daemon import at_work, daemon, ticks
from fraud_assets_tests.journeys.test_launcher import runs_of
from fraud_assets_tests.mlflow_server import mlflow_server
from fraud_assets_tests.postgres import fresh_database, with_driver

TRAINED = {"alcazar-security", "bluewater-guards", "citadel-large", "drift-patrol"}
ACTIVE = dict.fromkeys(TRAINED, 30) | {"ember-watch": 8}

pytestmark = [
    pytest.mark.skipif(find_spec("dagster_ray") is None, reason="Ray is not installed: run scripts/ray"),
    pytest.mark.skipif(
        {name for _, name in socket.if_nameindex()} != {"lo"},
        reason="Ray listens on all interfaces, and there are more than loopback: run scripts/ray",
    ),
]


@pytest.fixture
def cluster(
    installation: Installation, postgres_server_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Node]]:
    """Two nodes, and every store on a server; `installation` is told where they are."""
    folders = {name: installation.folder / name for name in ("mlflow", "ray")}
    for folder in folders.values():
        folder.mkdir()
    with ExitStack() as stack:
        databases = {
            f"FRAUD_ASSETS_{store}_URL": stack.enter_context(fresh_database(postgres_server_url))
            for store in ("SOURCE", "LEDGER", "DAGSTER")
        }
        url = "FRAUD_ASSETS_DAGSTER_URL"
        databases[url] = with_driver(databases[url])
        tracking = {"MLFLOW_TRACKING_URI": stack.enter_context(mlflow_server(folders["mlflow"]))}
        address = {"FRAUD_ASSETS_RAY_ADDRESS": ray_nodes.ADDRESS}
        installation.variables |= databases | tracking | address | ray_nodes.variables()
        for name, value in installation.variables.items():
            monkeypatch.setenv(name, value)
        nodes = []
        for place in (ray_nodes.HEAD, ray_nodes.WORKER):
            node = stack.enter_context(ray_nodes.node(place, installation.environment, folders["ray"]))
            installation.wait_for("a node of Ray", node.is_ready)
            nodes.append(node)
        yield nodes


def run_on(node: Node, instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """A run that has started there."""
    return next((run for run_id, run in at_work(instance).items() if node.executes(run_id)), None)


def ends(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """How the runs of each tenant ended, oldest first."""
    return {tenant: [run.status.value for run in runs_of(instance, tenant)] for tenant in ACTIVE}


def is_over(instance: dg.DagsterInstance) -> bool:
    return all(runs and runs[-1] == "SUCCESS" for runs in ends(instance).values())


@pytest.mark.journey
def test_a_night_over_two_nodes_completes_though_one_dies_in_the_middle(
    installation: Installation, cluster: list[Node]
) -> None:
    head, worker = cluster
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    with daemon(installation) as instance:
        installation.wait_for("a first tick", lambda: ticks(instance))
        installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
        killed = installation.wait_for("a run on the worker", lambda: run_on(worker, instance))
        assert run_on(head, instance) != killed
        worker.kill()
        installation.wait_for("the end of the night", lambda: is_over(instance), seconds=400)
        found = ends(instance)
    victim = killed.tags["dagster/partition"]
    assert found == {tenant: ["SUCCESS"] for tenant in ACTIVE} | {victim: ["FAILURE", "SUCCESS"]}
    for tenant in ACTIVE:
        assert_decided_once(installation.platform, tenant)


def assert_decided_once(platform: Platform, tenant: str) -> None:
    """One decision, and for a tenant with enough records one version, which is the champion."""
    [decision] = platform.ledger.history(tenant)
    expected = 1 if tenant in TRAINED else None
    assert decision.is_activation == (tenant in TRAINED)
    assert decision.model_version == platform.registry.champion_version(tenant) == expected
    with pytest.raises(RegistryError, match="got none"):
        platform.registry.version(tenant, 2)
