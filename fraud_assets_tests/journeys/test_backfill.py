"""A backfill of the job `tenant_cycle` over all tenants, launched as Dagster's page launches it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import urlopen

import dagster as dg
import pytest

from fraud_assets.cycle import NOT_TRAINED
from fraud_assets_tests.journeys import graphql
from fraud_assets_tests.journeys.installation import Installation

ACTIVE = {"alcazar-security": 30, "ember-watch": 8}

TENANTS = """
query Tenants {
  assetNodeOrError(assetKey: {path: ["active_model"]}) { ... on AssetNode { partitionKeys } }
}
"""
LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status runs { status tags { key value } } }
  }
}
"""


def partitions(port: int) -> list[str]:
    return graphql.ask(port, TENANTS)["assetNodeOrError"]["partitionKeys"]


def launch(port: int) -> str:
    """The backfill's id."""
    selector = {"partitionSetName": "tenant_cycle_partition_set", "repositorySelector": graphql.REPOSITORY}
    parameters = {"selector": selector, "partitionNames": sorted(ACTIVE)}
    launched = graphql.ask(port, LAUNCH, params=parameters)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return launched["backfillId"]


def ended(port: int, backfill: str) -> dict[str, Any] | None:
    """The backfill, when it has ended."""
    found = graphql.ask(port, STATUS, id=backfill)["partitionBackfillOrError"]
    return None if found["status"] == "REQUESTED" else found


def registered_models(port: int) -> list[str]:
    """What MLflow's page of models lists."""
    with urlopen(f"http://127.0.0.1:{port}/api/2.0/mlflow/registered-models/search", timeout=60) as answer:
        return [model["name"] for model in json.load(answer).get("registered_models", [])]


def tenant_of(run: dict[str, Any]) -> str:
    return next(tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition")


def require_one_at_a_time(installation: Installation) -> None:
    """The run of a tenant that came second began when the first had ended."""
    home = installation.dagster_environment()["DAGSTER_HOME"]
    with dg.DagsterInstance.from_config(home) as instance:
        records = instance.get_run_records()
    for tenant in ACTIVE:
        times = [
            (record.start_time or 0, record.end_time or 0)
            for record in records
            if record.dagster_run.tags["dagster/partition"] == tenant
        ]
        (_, first_end), (second_start, _) = sorted(times)
        assert 0 < first_end <= second_start


@pytest.mark.journey
def test_two_backfills_over_all_tenants_take_turns_and_decide_once_and_too_few_records_turn_nothing_red(
    installation: Installation,
) -> None:
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) - timedelta(hours=1))
    _, dagster, mlflow = installation.start_ui()
    installation.wait_for("the tenants to be added", lambda: set(partitions(dagster)) == set(ACTIVE))

    identities = [launch(dagster), launch(dagster)]
    for identity in identities:
        found = installation.wait_for("the backfill to end", lambda which=identity: ended(dagster, which))
        assert found["status"] == "COMPLETED_SUCCESS", found
        runs = {tenant_of(run): run["status"] for run in found["runs"]}
        assert runs == dict.fromkeys(ACTIVE, "SUCCESS")
    require_one_at_a_time(installation)
    assert {len(installation.platform.ledger.history(tenant)) for tenant in ACTIVE} == {1}
    decided = {name: entry.verdict for name, entry in installation.platform.ledger.latest_all().items()}
    assert decided == {"alcazar-security": "activate", "ember-watch": NOT_TRAINED}
    assert registered_models(mlflow) == ["attendance-fraud-alcazar-security"]
