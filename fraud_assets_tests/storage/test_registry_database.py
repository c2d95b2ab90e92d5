"""MLflow's own database is made, or brought up to date, and keeps what is in it."""

import shutil
from pathlib import Path
from secrets import token_hex

import pytest
from sqlalchemy import make_url

from fraud_assets.domain.errors import InvalidSettings, RegistryUnreachable
from fraud_assets.storage import registry_database
from fraud_assets.storage.registry import Registry
from fraud_assets_tests import downgrade
from fraud_assets_tests.builders import submission


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_an_embedded_registry_of_an_earlier_mlflow_keeps_its_models(migrated: Path, tmp_path: Path) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    url = f"sqlite:///{tmp_path}/mlflow.db"
    latest = downgrade.revision(url)
    made = Registry(url).register("acme", submission())
    downgrade.mlflow(url)
    assert downgrade.revision(url) == downgrade.MLFLOW

    Registry(url).prepare()
    assert downgrade.revision(url) == latest
    assert Registry(url).load("acme", made.version, made.digest) == submission().model.content
    assert Registry(url).challenger("acme") == made


def test_the_url_is_given_to_mlflow_with_the_driver_that_is_there() -> None:
    for scheme in ("postgresql", "postgresql+psycopg2"):
        url = registry_database.server_url(f"{scheme}://fraud:a%40b%25@db.example:5432/mlflow")
        assert url == "postgresql+psycopg2://fraud:a%40b%25@db.example:5432/mlflow"


@pytest.mark.parametrize("url", ["", "mysql://fraud:secret@db/x", "postgresql:///x", "sqlite:////x.db"])
def test_another_kind_of_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSettings, match="correct FRAUD_ASSETS_MLFLOW_URL") as caught:
        registry_database.server_url(url)
    assert "secret" not in str(caught.value)


def test_a_wrong_password_is_told_without_the_password(postgres_url: str) -> None:
    password = token_hex()
    wrong = make_url(registry_database.server_url(postgres_url)).set(password=password)
    with pytest.raises(RegistryUnreachable, match="expected MLflow's database") as caught:
        registry_database.prepare(wrong.render_as_string(hide_password=False))
    assert password not in str(caught.value)
