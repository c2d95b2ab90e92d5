"""What the commands print and return, without the demo itself and without real servers."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_assets import cli
from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.storage.platform import Platform
from fraud_assets_tests.builders import NOON, entry, training_dataset
from fraud_assets_tests.world import World, company

VARIABLES = ("SOURCE_URL", "LEDGER_URL", "MLFLOW_PAGES", "DAGSTER_URL")
ROW = {
    "tenant": "acme",
    "events": 12345,
    "records": 1234,
    "fraud": 56,
    "decision": "Activated: PR-AUC 0.81 is at least 0.70.",
    "model_version": 3,
    "pr_auc": 0.8123,
    "activated_at": NOON.isoformat(),
}
UNKNOWN = {name: None for name in ROW} | {"tenant": "a", "decision": "No decision yet."}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder that the environment names, not made yet; no server is named."""
    for variable in ["MLFLOW_TRACKING_URI", *(f"FRAUD_ASSETS_{name}" for name in VARIABLES)]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FRAUD_ASSETS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def add_tenants(home: Path, **tenants: bool) -> None:
    """A source with tenants by name, active or not; and the platform of the home folder."""
    home.mkdir()
    with closing(sqlite3.connect(home / "source.db")) as source, source:
        source.execute("CREATE TABLE tenant (tenant_id TEXT, name TEXT, is_active, tz TEXT, country TEXT)")
        rows = [(name, name, is_active, "UTC", "ES") for name, is_active in tenants.items()]
        source.executemany("INSERT INTO tenant VALUES (?, ?, ?, ?, ?)", rows)


def opened(home: Path) -> Platform:
    return Platform.from_environment({"FRAUD_ASSETS_HOME": str(home)})


def table(capsys: pytest.CaptureFixture[str], *rows: Mapping[str, Any]) -> list[str]:
    cli._print_table(rows, NOON + timedelta(hours=47))
    return capsys.readouterr().out.splitlines()


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


@pytest.mark.parametrize("command", ["demo", "status", "ui"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert command in capsys.readouterr().out


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
    acme, gone, zeta = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert tuple(acme) == cli.COLUMNS
    assert (acme["tenant"], acme["events"], acme["records"], acme["fraud"]) == ("acme", 4321, 1234, 56)
    assert (acme["decision"], acme["model_version"]) == ("Rejected: it is worse.", 3)
    assert (gone["decision"], gone["model_version"]) == ("Suspended: not run.", 1)
    assert zeta == UNKNOWN | {"tenant": "zeta"}


def test_the_table_of_no_tenants_is_its_head(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_tenants(home)
    assert cli.main(["status"]) == 0
    head, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["tenant", "events", "records", "fraud", "model", "PR-AUC", "age", "decision"]
    assert rest == ["", "To look at it, start both user interfaces with: uv run fraud-assets ui"]


def test_the_columns_of_the_table_stand_under_their_heads(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(capsys, ROW, UNKNOWN) == [
        "tenant  events  records  fraud  model  PR-AUC     age  decision",
        "acme    12,345    1,234     56     v3   0.812  47.0 h  Activated: PR-AUC 0.81 is at least 0.70.",
        "a            -        -      -      -       -       -  No decision yet.",
    ]


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (None, "-"), (1000, "1,000")])
def test_zero_is_a_number_and_what_is_not_known_a_dash(
    capsys: pytest.CaptureFixture[str], value: int | None, shown: str
) -> None:
    assert table(capsys, ROW | {"fraud": value})[1].split()[3] == shown


def test_an_age_of_two_days_is_said_in_days(capsys: pytest.CaptureFixture[str]) -> None:
    since = (NOON - timedelta(hours=1)).isoformat()
    assert "  2.0 d  " in table(capsys, ROW | {"activated_at": since})[1]


@pytest.mark.parametrize("hostile", ["[red]a[/red]", "{0} %s", "<b>", 'a,b;"c"', "é漢字"])
def test_hostile_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], hostile: str) -> None:
    assert table(capsys, ROW | {"decision": hostile})[1].endswith(f"  {hostile}")


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[2J", "\r", "\x00", "\u202e", "\x9b31m"])
def test_control_characters_never_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], hostile: str
) -> None:
    lines = table(capsys, ROW | {"decision": hostile})
    assert len(lines) == 2
    assert "".join(lines).isprintable()


def test_a_failure_is_the_tenants_alone_and_is_said(
    tmp_path: Path, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, instance, acme=company("acme"))
    world.source.failing = {"acme": RuntimeError("the disk is gone")}
    job = world.definitions.resolve_job_def("tenant_cycle")
    cli._run_cycle(world.platform, "acme", job, instance)
    said = capsys.readouterr().err
    assert "  No champion yet.\n" in said
    assert "  behavioural_profiles failed: " in said
    assert "the disk is gone" in said


def test_a_cycle_that_was_decided_is_not_run_again(
    tmp_path: Path, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, instance, acme=company("acme"))
    world.platform.ledger.append(entry(cycle_started_at=world.platform.cycle_start("acme")))
    cli._run_cycle(world.platform, "acme", world.definitions.resolve_job_def("tenant_cycle"), instance)
    assert capsys.readouterr().err.startswith(
        "  nothing to do: decided for the cycle of 2026-05-31 02:00 UTC."
    )
    assert instance.get_runs() == []


def test_the_environment_of_the_servers_names_the_home_folder_and_lays_out_dagsters(home: Path) -> None:
    found = cli.environment()
    assert found["FRAUD_ASSETS_HOME"] == str(home)
    assert found["DAGSTER_HOME"] == str(home / "dagster")
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "telemetry:\n  enabled: false" in (home / "dagster" / "dagster.yaml").read_text()


def test_dagster_is_laid_out_on_postgresql_if_its_url_is_given(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAUD_ASSETS_DAGSTER_URL", "postgresql+psycopg2://db.example/dagster")
    cli.environment()
    assert "FRAUD_ASSETS_DAGSTER_URL" in (home / "dagster" / "dagster.yaml").read_text()


def test_outside_a_checkout_the_servers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    with pytest.raises(InvalidSettings, match="from a checkout of the project"):
        cli.environment()


@pytest.mark.parametrize("port", ["-1", "0", "65536"])
def test_a_port_that_cannot_be_is_wrong_usage(port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["ui", f"--dagster-port={port}"])
    assert ended.value.code == 2
