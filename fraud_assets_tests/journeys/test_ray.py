"""A night over three Ray nodes, of which two die in the middle. `scripts/ray` runs it."""

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
from fraud_assets_tests.journeys.test_daemon import daemon, ticks
from fraud_assets_tests.journeys.test_launcher import runs_of
from fraud_assets_tests.mlflow_server import mlflow_server
from fraud_assets_tests.postgres import fresh_database, with_driver

TRAINED = {"alcazar-security", "bluewater-guards", "citadel-large", "drift-patrol"}
ACTIVE = dict.fromkeys(TRAINED, 30) | {"ember-watch": 8}
UNDER = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
"""What the run does under which a node dies."""

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
    """Three nodes, and every store on a server; `installation` is told where they are."""
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
        for place in (ray_nodes.HEAD, *ray_nodes.WORKERS):
            node = stack.enter_context(ray_nodes.node(place, installation.environment, folders["ray"]))
            installation.wait_for("a node of Ray", node.is_ready)
            nodes.append(node)
        yield nodes


def run_on(node: Node, instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> dg.DagsterRun | None:
    """A run of that status which is executed there."""
    runs = instance.get_runs(dg.RunsFilter(statuses=[status]))
    return next((run for run in runs if node.executes(run.run_id)), None)


def ends(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """How the runs of each tenant ended, oldest first."""
    return {tenant: [run.status.value for run in runs_of(instance, tenant)] for tenant in ACTIVE}


def is_over(instance: dg.DagsterInstance) -> bool:
    return all(runs and runs[-1] == "SUCCESS" for runs in ends(instance).values())


@pytest.mark.journey
def test_a_night_completes_though_a_node_dies_under_a_run_at_work_and_one_under_a_run_that_starts(
    installation: Installation, cluster: list[Node]
) -> None:
    _, *workers = cluster
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    victims = []
    with daemon(installation) as instance:
        installation.wait_for("a first tick", lambda: ticks(instance))
        installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
        for node, status in zip(workers, UNDER, strict=True):
            run = installation.wait_for(
                f"a run on {node.address}", lambda node=node, status=status: run_on(node, instance, status)
            )
            node.kill()
            victims.append(run.tags["dagster/partition"])
        installation.wait_for("the end of the night", lambda: is_over(instance), seconds=400)
        found = ends(instance)
    assert len(set(victims)) == len(UNDER)
    expected = {each: ["FAILURE", "SUCCESS"] if each in victims else ["SUCCESS"] for each in ACTIVE}
    assert found == expected
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
