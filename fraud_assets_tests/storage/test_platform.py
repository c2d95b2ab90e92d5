"""Where an installation keeps its stores, and what happens when its own files are not as expected."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from fraud_assets.domain.errors import InvalidSettings, InvalidTenantId, SourceUnreachable
from fraud_assets.storage.platform import DEFAULT_HOME, Platform, champion_of, home
from fraud_assets_tests.builders import NOON, entry, submission

AWKWARD_FOLDERS = ["with a space", "josé", "a&b=c+d", 'it\'s; "so"']


def opened(folder: Path, **environment: str) -> Platform:
    return Platform.from_environment({"FRAUD_ASSETS_HOME": str(folder), **environment})


def with_settings(folder: Path, content: bytes) -> Platform:
    (folder / "settings.toml").write_bytes(content)
    return opened(folder)


def test_everything_lies_under_the_home_folder(tmp_path: Path):
    platform = opened(tmp_path)
    assert platform.source.url == f"sqlite:///{tmp_path}/source.db"
    assert platform.ledger.url == f"sqlite:///{tmp_path}/ledger.db"
    assert platform.registry.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert platform.tables.root == tmp_path / "tables"
    assert platform.registry_pages == "http://127.0.0.1:5000"


def test_the_home_folder_is_in_the_current_folder_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert home({}) == home({"FRAUD_ASSETS_HOME": ""}) == tmp_path / DEFAULT_HOME
    assert home({"FRAUD_ASSETS_HOME": "here"}) == tmp_path / "here"


def test_a_home_that_is_not_there_yet_is_made_and_nothing_in_it_is(tmp_path: Path):
    opened(tmp_path / "new" / "home")
    assert list((tmp_path / "new" / "home").iterdir()) == []


def test_each_store_can_be_a_server(tmp_path: Path):
    server = "postgresql://fraud:secret@db.example:5432"
    platform = opened(
        tmp_path,
        FRAUD_ASSETS_SOURCE_URL=f"{server}/company",
        FRAUD_ASSETS_LEDGER_URL=f"{server}/ledger",
        MLFLOW_TRACKING_URI="http://mlflow.example:5000",
    )
    assert platform.source.url == f"{server}/company"
    assert platform.ledger.url == f"{server}/ledger"
    assert platform.registry.tracking_uri == platform.registry_pages == "http://mlflow.example:5000"
    assert platform.registry.artifact_root is None


def test_the_pages_of_the_registry_may_stand_elsewhere_than_the_registry(tmp_path: Path):
    pages = "https://mlflow.example/pages"
    tracking = "http://10.0.0.7:5000"
    found = opened(tmp_path, MLFLOW_TRACKING_URI=tracking, FRAUD_ASSETS_MLFLOW_PAGES=pages)
    assert found.registry_pages == pages


@pytest.mark.parametrize(
    "variable", ["FRAUD_ASSETS_SOURCE_URL", "FRAUD_ASSETS_LEDGER_URL", "MLFLOW_TRACKING_URI"]
)
def test_an_address_of_an_unknown_kind_is_refused(tmp_path: Path, variable: str):
    with pytest.raises(InvalidSettings, match="expected"):
        opened(tmp_path, **{variable: "oracle://somewhere/else"})


@pytest.mark.parametrize("variable", ["FRAUD_ASSETS_SOURCE_URL", "FRAUD_ASSETS_LEDGER_URL"])
def test_a_password_is_not_shown(tmp_path: Path, variable: str):
    platform = opened(tmp_path, **{variable: "postgresql://fraud:secret@db.example:5432/company"})
    assert "db.example" in repr(platform)
    assert "secret" not in repr(platform)


@pytest.mark.parametrize("name", AWKWARD_FOLDERS)
def test_an_awkward_home_holds_the_source_and_the_ledger(tmp_path: Path, name: str):
    platform = opened(tmp_path / name)
    with pytest.raises(SourceUnreachable, match="no such file"):
        platform.source.tenants()
    (tmp_path / name / "source.db").touch()
    with pytest.raises(Exception, match="no such table"):
        platform.source.tenants()
    assert platform.ledger.append(entry())
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["ledger.db", "source.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
@pytest.mark.parametrize("name", AWKWARD_FOLDERS)
def test_an_awkward_home_holds_the_models(migrated: Path, tmp_path: Path, name: str):
    platform = opened(tmp_path / name)
    shutil.copy(migrated, tmp_path / name / "mlflow.db")
    made = platform.registry.register("acme", submission())
    assert platform.registry.load("acme", made.version, made.digest) == submission().model.content
    assert [path.name for path in (tmp_path / name / "models").iterdir()] == ["acme"]


@pytest.mark.parametrize("name", ["100%25 of it", "what?", "no #1", "a\nb", "\udce9"])
def test_a_home_whose_name_a_url_would_read_otherwise_is_refused_and_not_made(tmp_path: Path, name: str):
    with pytest.raises(InvalidSettings, match="set FRAUD_ASSETS_HOME to another"):
        opened(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_read_from_the_home_folder(tmp_path: Path):
    platform = with_settings(tmp_path, b"[default]\nminimum_records = 200\n[tenants.acme]\nthreads = 2\n")
    assert (platform.settings("acme").minimum_records, platform.settings("acme").threads) == (200, 2)
    assert (platform.settings("beta").minimum_records, platform.settings("beta").threads) == (200, 1)


@pytest.mark.parametrize("content", [b"[default", b"\xff\xfe", b"minimum_records = 1\nminimum_records = 2"])
def test_a_settings_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes):
    with pytest.raises(InvalidSettings, match=r"TOML file at .*settings\.toml"):
        with_settings(tmp_path, content)


def test_a_folder_in_the_place_of_the_settings_file_is_refused(tmp_path: Path):
    (tmp_path / "settings.toml").mkdir()
    with pytest.raises(InvalidSettings, match=r"settings\.toml"):
        opened(tmp_path)


def test_an_unknown_section_of_the_settings_file_is_refused_when_a_tenant_asks(tmp_path: Path):
    platform = with_settings(tmp_path, b"[tenant.acme]\nthreads = 2\n")
    with pytest.raises(InvalidSettings, match="tenant acme: tenant"):
        platform.settings("acme")


@pytest.mark.parametrize("tenant", ["", "../acme", "Acme", "acme\n", "a" * 51, "a,b"])
def test_a_hostile_tenant_has_no_settings(tmp_path: Path, tenant: str):
    with pytest.raises(InvalidTenantId):
        opened(tmp_path).settings(tenant)


def test_the_ledgers_activation_is_the_champion(tmp_path: Path):
    platform = opened(tmp_path)
    assert platform.champion("acme") is None
    activation = entry(decided_at=NOON + timedelta(minutes=7))
    platform.ledger.append(activation)
    platform.ledger.append(entry(verdict="reject", model_version=2))
    champion = platform.champion("acme")
    assert champion == champion_of(activation)
    assert champion is not None
    assert (champion.version, champion.cycle_started_at) == (1, NOON)
    assert champion.activated_at == NOON + timedelta(minutes=7)


def test_an_entry_without_a_model_makes_no_champion():
    with pytest.raises(ValueError, match="expected an activation"):
        champion_of(entry(verdict="not trained", model_version=None, model_digest=None))
