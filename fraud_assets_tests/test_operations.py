"""The commands about an installation, as they are typed: what they print, ask and refuse."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fraud_assets import cli
from fraud_assets.demo import database
from fraud_assets.demo.tenants import TENANTS
from fraud_assets.storage.platform import Platform
from fraud_assets_tests.builders import NOON, entry

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

Said = Callable[..., tuple[int, list[str], list[str]]]
WHY = ("--by", "Ana", "--reason", "the contract ended")


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A home with two tenants, the first of them active; both were decided on."""
    for variable in ("FRAUD_ASSETS_LEDGER_URL", "FRAUD_ASSETS_DAGSTER_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    # `offboard` sets the others for its own process.
    for variable in ("DAGSTER_HOME", "MPLCONFIGDIR", "MLFLOW_LOGGING_LEVEL"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("FRAUD_ASSETS_HOME", str(tmp_path / "home"))
    opened = Platform.from_environment({"FRAUD_ASSETS_HOME": str(tmp_path / "home")})
    small = [replace(tenant, guards=4, days=30) for tenant in TENANTS[:2]]
    companies = [replace(small[0], id="acme", is_active=True), replace(small[1], id="beta", is_active=False)]
    database.create(opened.source.url, NOON, tenants=companies)
    for tenant in ("acme", "beta"):
        opened.ledger.append(entry(tenant, verdict="reject"))
    return opened


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command: what it returns, the lines of its answer, and those that it says beside."""

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        code = cli.main(arguments)
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    return run


def test_a_tenant_is_erased_when_its_id_was_typed_again(
    platform: Platform, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("acme\n"))
    code, lines, [beside] = said("offboard", "beta", *WHY)
    assert (code, lines) == (1, [])
    assert beside == (
        "Everything that is kept of beta will be erased. Type its id again: fraud-assets: "
        "expected beta to be typed again, got 'acme': nothing was erased"
    )
    assert [each.verdict for each in platform.ledger.history("beta")] == ["reject"]

    monkeypatch.setattr("sys.stdin", io.StringIO("beta\n"))
    code, [line], _ = said("offboard", "beta", *WHY)
    assert code == 0
    assert line == (
        "beta was erased: all tables, 0 runs, 0 models and 1 decisions. One line is left in the ledger. "
        "Erased by Ana: the contract ended."
    )
    assert [each.verdict for each in platform.ledger.history("beta")] == ["erase"]
    assert said("offboard", "beta", *WHY, "--yes")[1] == ["Nothing is kept of beta: nothing was written."]


def test_an_active_tenant_is_refused_before_anything_is_asked(platform: Platform, said: Said) -> None:
    code, lines, [beside] = said("offboard", "acme", *WHY)
    assert (code, lines) == (1, [])
    assert beside.startswith("fraud-assets: expected acme to be suspended in the source")
    assert len(platform.ledger.history("acme")) == 1


def test_a_copy_is_made_and_restored_in_its_place(
    platform: Platform, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://models:5000")
    monkeypatch.setenv("FRAUD_ASSETS_LEDGER_URL", f"sqlite:///{home}/ledger.db")
    monkeypatch.setenv("FRAUD_ASSETS_DAGSTER_URL", "")
    assert said("backup", str(copy)) == (
        0,
        [f"{home} was copied to {copy}."],
        [
            "Not in it: the model registry, which lies where MLFLOW_TRACKING_URI says; "
            "copy it with its own tools."
        ],
    )
    before = platform.ledger.history("acme")
    assert said("restore", str(copy))[0] == 1
    home.rename(tmp_path / "lost")
    assert said("restore", str(copy)) == (0, [f"{home} was made from {copy}."], [])
    assert platform.ledger.history("acme") == before
    assert platform.source.active_tenants() == ["acme"]
