"""The servers of production on PostgreSQL, each store under a role of its own, through a night."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import pytest

from fraud_assets.storage.registry import Registry
from fraud_assets_tests.journeys import graphql
from fraud_assets_tests.journeys.installation import Installation, port_options
from fraud_assets_tests.postgres import fresh_database, postgres_server, run_script, under

ACTIVE = {"alcazar-security": 30, "ember-watch": 8}
SCRIPTS = Path(__file__).parents[2] / "deploy" / "postgres"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

TENANTS = """
query Tenants {
  assetNodeOrError(assetKey: {path: ["active_model"]}) { ... on AssetNode { partitionKeys } }
}
"""
TICKS = """
query Ticks($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) { ... on Sensor { sensorState { ticks { status } } } }
}
"""
RUNS = "query Runs { runsOrError { ... on Runs { results { status tags { key value } } } } }"


@dataclass(frozen=True)
class Stores:
    """variables    as an installation gets them
    source      the source's URL for who fills it
    secrets     what no command line and no log may show
    """

    variables: dict[str, str]
    source: str
    secrets: list[str]


@pytest.fixture
def stores() -> Iterator[Stores]:
    """A server with a database for each store, made by the scripts that production uses."""
    # Characters that mean something in a URL, in a configuration file and in a shell.
    passwords = {store: f"{token_hex(8)}@%/$'" for store in ("ledger", "dagster", "mlflow", "reader")}
    given = {f"FRAUD_ASSETS_{store.upper()}_PASSWORD": word for store, word in passwords.items()}
    with postgres_server() as server, fresh_database(server) as source:
        run_script(server, SCRIPTS / "databases.sql", **given)

        def url(store: str) -> str:
            database = f"{server.rpartition('/')[0]}/fraud_assets_{store}"
            return under(f"fraud_assets_{store}", passwords[store], database)

        variables = {f"FRAUD_ASSETS_{store.upper()}_URL": url(store) for store in passwords}
        variables["FRAUD_ASSETS_SOURCE_URL"] = under("fraud_assets_reader", passwords["reader"], source)
        del variables["FRAUD_ASSETS_READER_URL"]
        secrets = [*passwords.values(), *(quote(word, safe="") for word in passwords.values())]
        yield Stores(variables, source, secrets)


def let_read(stores: Stores) -> None:
    """Once the tables are there."""
    password = stores.secrets[3]
    run_script(stores.source, SCRIPTS / "reader.sql", FRAUD_ASSETS_READER_PASSWORD=password)


def ticks(port: int) -> list[dict[str, Any]]:
    sensor = graphql.REPOSITORY | {"sensorName": "nightly_cycle"}
    return graphql.ask(port, TICKS, sensor=sensor)["sensorOrError"]["sensorState"]["ticks"]


def runs(port: int) -> list[tuple[str, str]]:
    """Tenant and status of every run there is."""
    found = graphql.ask(port, RUNS)["runsOrError"]["results"]
    tenants = [{tag["key"]: tag["value"] for tag in run["tags"]}["dagster/partition"] for run in found]
    return sorted(zip(tenants, [run["status"] for run in found], strict=True))


def follow_a_night(installation: Installation, port: int) -> None:
    def tenants() -> list[str]:
        return graphql.ask(port, TENANTS)["assetNodeOrError"]["partitionKeys"]

    installation.wait_for("the tenants to be added", lambda: set(tenants()) == set(ACTIVE))
    installation.wait_for("a first tick", lambda: ticks(port))
    installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
    night = [(tenant, "SUCCESS") for tenant in sorted(ACTIVE)]
    ended = {"SUCCESS", "FAILURE", "CANCELED"}
    installation.wait_for(
        "a finished run of each tenant",
        lambda: len(runs(port)) == len(ACTIVE) and {status for _, status in runs(port)} <= ended,
    )
    assert runs(port) == night, installation.said()


def fetched(port: int, page: str, **parameters: str) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}{page}?{urlencode(parameters)}", timeout=60) as answer:
        return answer.read()


def require_model(installation: Installation, port: int) -> None:
    """The version of the ledger's champion is in MLflow, and MLflow serves its files."""
    champion = installation.platform.champion("alcazar-security")
    assert champion is not None
    found = json.loads(fetched(port, "/api/2.0/mlflow/model-versions/search"))["model_versions"]
    assert [(each["name"], each["version"]) for each in found] == [("attendance-fraud-alcazar-security", "1")]
    assert found[0]["source"].startswith("mlflow-artifacts:/")
    card = fetched(port, "/get-artifact", path="model_card.md", run_uuid=found[0]["run_id"])
    assert b"Activated" in card
    model = Registry(f"http://127.0.0.1:{port}").load("alcazar-security", 1, champion.digest)
    assert sha256(model).hexdigest() == champion.digest


def require_secrecy(installation: Installation, stores: Stores) -> None:
    logs = [path.read_text(errors="replace") for path in (installation.home / "logs").iterdir()]
    commands = [" ".join(process.cmdline()) for process in installation.processes()]
    shown = [installation.said(), *logs, *commands]
    assert len(commands) > 4
    assert not [text for text in shown for secret in stores.secrets if secret in text]


@pytest.mark.journey
def test_a_night_of_production_on_postgresql(installation: Installation, stores: Stores) -> None:
    installation.variables |= stores.variables
    installation.create_company(ACTIVE, stores.source)
    let_read(stores)
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    process, ports = installation.start_servers()
    told = installation.run("health", *port_options(ports))
    assert (told.returncode, told.stdout.count(": well\n")) == (0, 4), told

    follow_a_night(installation, ports["dagster"])
    decided = {name: entry.verdict for name, entry in installation.platform.ledger.latest_all().items()}
    assert decided == {"alcazar-security": "activate", "ember-watch": "not trained"}
    require_model(installation, ports["mlflow"])

    assert {address for address, _ in installation.listening()} <= LOOPBACK
    assert {port for _, port in installation.listening()} == set(ports.values())
    assert list(installation.home.rglob("*.db")) == []
    require_secrecy(installation, stores)

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, installation.said()
    installation.wait_for("no process left", lambda: not installation.processes(), seconds=10)
