"""The compose file starts what `fraud-assets serve` starts, with as few rights as it can."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_assets import cli, servers

DEPLOY = Path(__file__).parent.parent / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PRODUCTION = {
    server.word: server
    for server in servers.production({"dagster": 3000, "mlflow": 5000, "code-server": 4000}, Path("/home"))
}
LASTING = sorted(set(SERVICES) - {"migrate"})


def variables(service: str) -> dict[str, str]:
    return SERVICES[service].get("environment", {})


def test_there_is_a_service_for_every_server_beside_the_database() -> None:
    assert set(SERVICES) == {*PRODUCTION, "postgres", "migrate"}


@pytest.mark.parametrize("name", PRODUCTION)
def test_a_service_runs_and_checks_the_server_of_its_name(name: str) -> None:
    assert SERVICES[name]["command"] == ["serve", name]
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "fraud-assets", "health", name]
    for command in (SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"][2:]):
        assert cli._parser().parse_args(command).server == name


@pytest.mark.parametrize("name", PRODUCTION)
def test_a_service_waits_for_whom_its_server_waits_for(name: str) -> None:
    words = {server.name: server.word for server in PRODUCTION.values()}
    well = {words[other]: {"condition": "service_healthy"} for other in PRODUCTION[name].after}
    migrated = {"migrate": {"condition": "service_completed_successfully"}}
    assert SERVICES[name]["depends_on"] == (well or migrated)


def test_the_databases_are_migrated_once_the_server_is_well() -> None:
    assert cli._parser().parse_args(SERVICES["migrate"]["command"]).command.__name__ == "migrate"
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", LASTING)
def test_a_service_that_stays_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)
    assert service.get("user") == ("postgres" if name == "postgres" else None)


def test_our_image_does_not_run_as_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER fraud-assets"]
    assert lines[-1] == 'ENTRYPOINT ["fraud-assets"]'


def test_ports_are_published_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"dagster": ["127.0.0.1:3000:3000"], "mlflow": ["127.0.0.1:5000:5000"]}


def test_the_databases_are_reached_from_inside_alone() -> None:
    assert COMPOSE["networks"]["stores"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["stores"]


def test_a_service_knows_the_address_of_those_stores_alone_that_it_needs() -> None:
    stores = ("SOURCE", "LEDGER", "DAGSTER", "MLFLOW")
    known = {
        name: {store for store in stores if f"FRAUD_ASSETS_{store}_URL" in variables(name)}
        for name in SERVICES
    }
    assert known == {
        "postgres": set(),
        "migrate": {"LEDGER", "DAGSTER", "MLFLOW"},
        "mlflow": {"MLFLOW"},
        "code-server": {"SOURCE", "LEDGER", "DAGSTER"},
        "dagster": {"DAGSTER"},
        "dagster-daemon": {"SOURCE", "LEDGER", "DAGSTER"},
    }


def test_every_password_comes_from_the_environment_and_stands_in_the_example() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example = (DEPLOY / "env.example").read_text(encoding="utf-8").splitlines()
    told = {line.partition("=")[0] for line in example if "=" in line and not line.startswith("#")}
    asked = {part.partition(":?}")[0] for part in text.split("${")[1:]}
    assert asked == told
    assert all(line.endswith("=") for line in example if "PASSWORD=" in line)


def test_the_scripts_take_the_passwords_that_the_database_is_given() -> None:
    script = (DEPLOY / "postgres" / "databases.sql").read_text(encoding="utf-8")
    taken = {line.split()[-1] for line in script.splitlines() if line.startswith("\\getenv")}
    assert taken | {"POSTGRES_PASSWORD"} == set(variables("postgres"))
