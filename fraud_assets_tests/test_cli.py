"""What the commands print and return, without the demo itself and without real servers."""

import json
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets import cli
from fraud_assets.domain.errors import InvalidSettings, SourceUnreachable
from fraud_assets.storage.platform import Platform
from fraud_assets_tests.builders import entry, history, training_dataset
from fraud_assets_tests.world import TONIGHT, World

COLUMNS = ("tenant", "events", "records", "fraud", "decision", "model_version", "pr_auc", "activated_at")
VARIABLES = ("SOURCE_URL", "LEDGER_URL", "MLFLOW_PAGES", "DAGSTER_URL", "RAY_ADDRESS")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder that the environment names, not made yet; no server is named."""
    for variable in ["MLFLOW_TRACKING_URI", *(f"FRAUD_ASSETS_{name}" for name in VARIABLES)]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FRAUD_ASSETS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    made = World(tmp_path, instance, acme=history(as_read=True))
    made.now = TONIGHT
    return made


def run_cycle(world: World) -> None:
    cli._run_cycle(world.platform, "acme", world.definitions.resolve_job_def("tenant_cycle"), world.instance)


def add_tenants(home: Path, **tenants: bool) -> None:
    """A source in the home folder, with tenants by name, active or not."""
    home.mkdir()
    with closing(sqlite3.connect(home / "source.db")) as source, source:
        source.execute("CREATE TABLE tenant (tenant_id TEXT, name TEXT, is_active, tz TEXT, country TEXT)")
        rows = [(name, name, is_active, "UTC", "ES") for name, is_active in tenants.items()]
        source.executemany("INSERT INTO tenant VALUES (?, ?, ?, ?, ?)", rows)


def opened(home: Path) -> Platform:
    return Platform.from_environment({"FRAUD_ASSETS_HOME": str(home)})


def test_the_command_is_known_without_loading_anything_heavy() -> None:
    code = "import sys, fraud_assets.cli; print({'dagster', 'polars', 'mlflow'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["status", "acme"], ["demo", "--jsn"], ["ui", "--dagster-port", "high"]]
)
def test_wrong_usage_says_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: fraud-assets" in capsys.readouterr().err


def test_status_of_an_empty_home_is_one_clear_sentence(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fraud-assets: expected ")
    assert f"{home}/source.db" in said.err
    assert said.err.count("\n") == 1


def test_status_with_broken_settings_is_one_clear_sentence(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / "settings.toml").write_text("[default")
    assert cli.main(["status"]) == 1
    assert "settings.toml" in capsys.readouterr().err


def test_ctrl_c_ends_a_command_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "status", interrupted)
    assert cli.main(["status"]) == 130
    assert capsys.readouterr().err == ""


def test_status_has_a_row_for_each_tenant_of_the_source(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_tenants(home, zeta=True, acme=True, gone=False, **{"Not-Valid": True})
    platform = opened(home)
    platform.ledger.append(entry("acme", model_version=3))
    platform.ledger.append(entry("acme", verdict="reject", model_version=4, reasons=("it is worse",)))
    platform.ledger.append(entry("gone"))
    platform.tables.write("acme", "training_dataset", training_dataset(10), {"events": "4321"})
    assert cli.main(["status", "--json"]) == 0
    answer = capsys.readouterr()
    assert "that break a rule: tenant_id|regex: 1; " in answer.err
    assert "'Not-Valid' (tenant_id|regex)" in answer.err
    acme, gone, zeta = [json.loads(line) for line in answer.out.splitlines()]
    assert tuple(acme) == COLUMNS
    assert (acme["tenant"], acme["events"], acme["records"], acme["fraud"]) == ("acme", 4321, 1234, 56)
    assert (acme["decision"], acme["model_version"]) == ("Rejected: it is worse.", 3)
    assert (gone["decision"], gone["model_version"]) == ("Suspended: not run.", 1)
    assert zeta == dict.fromkeys(COLUMNS) | {"tenant": "zeta", "decision": "No decision yet."}


def test_the_table_of_no_tenants_is_its_head(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_tenants(home)
    assert cli.main(["status"]) == 0
    head, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["tenant", "events", "records", "fraud", "model", "PR-AUC", "age", "decision"]
    assert rest == ["", "To look at it, start both user interfaces with: uv run fraud-assets ui"]


@pytest.mark.parametrize(
    "error", [RuntimeError("the disk is gone"), SourceUnreachable("no answer"), KeyError()]
)
def test_a_failure_is_said_with_its_cause_and_goes_no_further(
    world: World, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    world.source.failing = {"acme": error}
    run_cycle(world)
    line = f"  behavioural_profiles failed: .*{type(error).__name__}.*{error}"
    assert re.search(line, capsys.readouterr().err)


def test_a_cycle_that_was_decided_is_not_run_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.platform.ledger.append(entry(cycle_started_at=world.platform.cycle_start("acme")))
    run_cycle(world)
    said = "  nothing to do: decided for the cycle of 2026-06-01 02:00 UTC. Activated: "
    assert capsys.readouterr().err.startswith(said)
    assert world.instance.get_runs() == []


def test_the_environment_of_the_servers_names_the_home_folder_and_lays_out_dagsters(home: Path) -> None:
    found = cli.environment()
    assert found["FRAUD_ASSETS_HOME"] == str(home)
    assert found["DAGSTER_HOME"] == str(home / "dagster")
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "telemetry:\n  enabled: false" in (home / "dagster" / "dagster.yaml").read_text()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_dagster_is_laid_out_on_postgresql_if_its_url_is_given(
    home: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("FRAUD_ASSETS_DAGSTER_URL", f"{scheme}://fraud:a%40b@db.example/dagster")
    url = cli.environment()["FRAUD_ASSETS_DAGSTER_URL"]
    assert url == "postgresql+psycopg2://fraud:a%40b@db.example/dagster"
    assert "FRAUD_ASSETS_DAGSTER_URL" in (home / "dagster" / "dagster.yaml").read_text()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to Ray, and every store is on a server."""
    monkeypatch.setattr(cli, "find_spec", lambda name: name)
    for name in ("SOURCE", "LEDGER"):
        monkeypatch.setenv(f"FRAUD_ASSETS_{name}_URL", "postgresql://fraud:a@db.example/fraud")
    monkeypatch.setenv("FRAUD_ASSETS_DAGSTER_URL", "postgresql+psycopg2://fraud:a@db.example/dagster")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    monkeypatch.setenv("FRAUD_ASSETS_RAY_ADDRESS", "http://head.example:8265")


@pytest.mark.usefixtures("cluster")
def test_dagster_is_laid_out_on_ray_if_its_address_is_given(home: Path) -> None:
    cli.environment()
    assert "class: RayRunLauncher" in (home / "dagster" / "dagster.yaml").read_text()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FRAUD_ASSETS_LEDGER_URL", "", "none in FRAUD_ASSETS_LEDGER_URL"),
        ("FRAUD_ASSETS_SOURCE_URL", "sqlite:////source.db", "none in FRAUD_ASSETS_SOURCE_URL"),
        ("MLFLOW_TRACKING_URI", "sqlite:////mlflow.db", "none in MLFLOW_TRACKING_URI"),
        ("FRAUD_ASSETS_DAGSTER_URL", "postgresql://fraud:a@db.example/dagster", "postgresql+psycopg2://"),
    ],
)
def test_a_store_that_a_node_of_ray_does_not_reach_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=re.escape(said)):
        cli.environment()


@pytest.mark.usefixtures("cluster")
def test_without_ray_its_address_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda _: None)
    with pytest.raises(InvalidSettings, match="uv sync --extra ray"):
        cli.environment()


def test_outside_a_checkout_the_servers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    with pytest.raises(InvalidSettings, match="from a checkout of the project"):
        cli.environment()


@pytest.mark.parametrize("port", ["-1", "0", "65536"])
def test_a_port_that_cannot_be_is_wrong_usage(port: str) -> None:
    with pytest.raises(SystemExit):
        cli._parser().parse_args(["ui", f"--dagster-port={port}"])


@pytest.mark.parametrize("name", ["dagster", "mlflow"])
def test_a_taken_port_is_one_clear_sentence_and_nothing_is_started(
    home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert cli.main(["ui", f"--{name}-port={port}"]) == 1
    assert re.search(
        f"^fraud-assets: expected port {port} to be free.*--{name}-port", capsys.readouterr().err
    )
    assert not home.exists()


WHY = ("--reason", "too many alarms")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rollback", "acme", "1"),
        ("rollback", "acme", *WHY),
        ("rollback", "acme", "0", *WHY),
        ("rollback", "acme", "one", *WHY),
        ("activate", "acme", "3", *WHY),
        ("activate", "acme", "3", "--by", "Ana"),
        ("adopt", "acme", *WHY),
        ("rebuild", "acme"),
        ("history",),
        ("offboard", "acme"),
        ("offboard", "acme", "--by", "Ana"),
        ("offboard", "--by", "Ana", *WHY),
        ("backup",),
        ("restore",),
    ],
)
def test_what_is_missing_is_wrong_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: fraud-assets" in capsys.readouterr().err
