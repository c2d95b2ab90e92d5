"""What `serve`, `health` and `migrate` do, without real servers."""

import os
from pathlib import Path

import pytest

from fraud_assets import cli, servers, supervisor
from fraud_assets.servers import Server

DATABASE = "postgresql://fraud:a%40b@db.example:5432/mlflow"
NAMES = ("MLflow", "Code server", "Dagster", "Dagster daemon")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder that the environment names; the process goes back to its own folder and environment."""
    monkeypatch.chdir(tmp_path)
    kept = {name: value for name, value in os.environ.items() if "FRAUD_ASSETS" not in name}
    kept.pop("MLFLOW_TRACKING_URI", None)
    monkeypatch.setattr(os, "environ", kept | {"FRAUD_ASSETS_HOME": str(tmp_path / "home")})
    return tmp_path / "home"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """Those that would have been started together."""
    servers_started: list[Server] = []

    def run(wanted: list[Server], *_: object) -> int:
        servers_started.extend(wanted)
        return 0

    monkeypatch.setattr(supervisor, "run", run)
    monkeypatch.setattr("fraud_assets.serving._prepare_stores", lambda: None)
    return servers_started


def test_serve_starts_all_servers_of_production(started: list[Server], home: Path) -> None:
    assert cli.main(["serve", "--code-server-port", "4001"]) == 0
    ports = {"dagster": 3000, "mlflow": 5000, "code-server": 4001}
    assert started == servers.production(ports, home)
    assert os.environ["FRAUD_ASSETS_CODE_HOST"] == "127.0.0.1"
    assert os.environ["FRAUD_ASSETS_CODE_PORT"] == "4001"
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{home}/mlflow.db"
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.parametrize("command", ["ui", "serve"])
def test_one_setting_puts_mlflow_on_postgresql_and_the_others_ask_its_server(
    started: list[Server], command: str
) -> None:
    os.environ["FRAUD_ASSETS_MLFLOW_URL"] = DATABASE
    assert cli.main([command, "--mlflow-port", "5001"]) == 0
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == DATABASE.replace("postgresql:", "postgresql+psycopg2:")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5001"
    assert os.environ["FRAUD_ASSETS_MLFLOW_PAGES"] == "http://127.0.0.1:5001"
    assert not [word for server in started for word in server.command if "db.example" in word]


def test_an_mlflow_that_is_served_elsewhere_is_not_started(started: list[Server]) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = "http://mlflow.example:5000"
    assert cli.main(["serve"]) == 0
    assert [server.name for server in started] == list(NAMES[1:])


@pytest.mark.parametrize("command", ["serve", "health", "migrate"])
def test_another_database_for_mlflow_is_refused_without_its_password(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["FRAUD_ASSETS_MLFLOW_URL"] = "mysql://fraud:a%40b@db.example/mlflow"
    assert cli.main([command]) == 1
    said = capsys.readouterr().err
    assert "correct FRAUD_ASSETS_MLFLOW_URL" in said
    assert "a%40b" not in said


def test_serve_of_one_server_becomes_that_server(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    became: list[object] = []

    def become(*given: object) -> None:
        became.extend(given)
        raise SystemExit

    monkeypatch.setattr(os, "execve", become)
    os.environ["FRAUD_ASSETS_BIND"] = "0.0.0.0"  # noqa: S104
    with pytest.raises(SystemExit):
        cli.main(["serve", "code-server"])
    expected = servers.code_server(4000, "0.0.0.0")  # noqa: S104
    assert became[:2] == [expected.command[0], expected.command]
    assert Path.cwd() == home
    assert os.environ["DAGSTER_HOME"] == str(home / "dagster")


@pytest.mark.parametrize("sick", [None, "Dagster daemon"])
def test_health_names_who_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sick: str | None
) -> None:
    monkeypatch.setattr(servers, "is_well", lambda server, _: server.name != sick)
    assert cli.main(["health"]) == (0 if sick is None else 1)
    said = [f"{name}: {'does not answer' if name == sick else 'well'}" for name in NAMES]
    assert capsys.readouterr().out.splitlines() == said


def test_health_of_one_server_asks_that_one_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "is_well", lambda server, _: server.word == "mlflow")
    assert cli.main(["health", "mlflow"]) == 0
    assert capsys.readouterr().out == "MLflow: well\n"


def test_a_database_of_dagster_that_is_away_is_one_clear_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["FRAUD_ASSETS_DAGSTER_URL"] = "postgresql://fraud:secret@127.0.0.1:1/dagster"
    assert cli.main(["migrate"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fraud-assets: expected Dagster's database to answer, got: ")
    assert "secret" not in said
