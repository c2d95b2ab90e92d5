"""What only MLflow has: its pages, its failures half-way, its traps."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fraud_assets.domain.errors import InvalidSettings, RegistryError, RegistryUnreachable
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.storage.registry import CARD_FILE, Registry, version_link
from fraud_assets_tests.builders import submission

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

NUMBERS = submission().metrics.as_dict()


def client_of(registry: Registry) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(registry.tracking_uri, registry.tracking_uri)


def test_a_run_shows_parameters_numbers_datasets_pictures_and_the_model(embedded: Registry, tmp_path: Path):
    made = embedded.register("acme", submission())
    run = client_of(embedded).get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"max_depth": "4", "scale_pos_weight": "19.5"}
    assert run.data.metrics == NUMBERS
    assert {each.dataset.name: each.tags[0].value for each in run.inputs.dataset_inputs} == {
        "acme-training": "training",
        "acme-holdout": "holdout",
    }
    assert [each.path for each in client_of(embedded).list_artifacts(made.run_id)] == ["curve.png"]
    assert (tmp_path / "models" / "acme").is_dir()


def test_the_model_page_has_signature_numbers_and_version(embedded: Registry):
    from mlflow.models import Model as Description

    made = embedded.register("acme", submission())
    (output,) = client_of(embedded).get_run(made.run_id).outputs.model_outputs
    logged = client_of(embedded).get_logged_model(output.model_id)
    assert (logged.status, logged.params["max_depth"]) == ("READY", "4")
    assert {metric.key: metric.value for metric in logged.metrics} == NUMBERS
    assert '"attendance-fraud-acme"' in logged.tags["mlflow.modelVersions"]
    signature: Any = Description.load(logged.artifact_location).signature
    assert tuple(signature.inputs.input_names()) == FEATURES
    assert not any(signature.inputs.required_input_names())


def test_the_list_of_models_shows_the_champion(embedded: Registry):
    embedded.register("acme", submission())
    embedded.set_champion("acme", 1, pr_auc=0.81234)
    embedded.register("acme", submission(b"model two"))
    (model,) = client_of(embedded).search_registered_models()
    assert model.tags == {"champion_version": "1", "champion_pr_auc": "0.8123"}
    assert model.aliases == {"champion": 1, "challenger": 2}


def test_without_a_champion_the_list_of_models_shows_none_even_if_the_alias_was_set_by_hand(
    embedded: Registry,
):
    embedded.register("acme", submission())
    client_of(embedded).set_registered_model_alias("attendance-fraud-acme", "champion", "1")
    embedded.clear_champion("acme")
    (model,) = client_of(embedded).search_registered_models()
    assert (model.tags, model.aliases) == ({}, {"challenger": 1})


def test_the_page_in_words_stands_on_the_version_on_its_run_and_as_a_file(embedded: Registry):
    made = embedded.register("acme", submission())
    for page in ("# First", "# Card ü"):
        embedded.annotate("acme", 1, {"verdict": "reject", "reason": "too low"}, page)
    client = client_of(embedded)
    version = client.get_model_version("attendance-fraud-acme", "1")
    assert version.description == "# Card ü"
    assert (version.tags["verdict"], version.tags["reason"]) == ("reject", "too low")
    assert client.get_run(made.run_id).data.tags["mlflow.note.content"] == "# Card ü"
    with TemporaryDirectory() as folder:
        assert Path(client.download_artifacts(made.run_id, CARD_FILE, folder)).read_text() == "# Card ü"


def test_the_commit_stands_where_mlflow_s_pages_look_for_it(embedded: Registry):
    made = embedded.register("acme", submission(git_commit="c" * 40))
    assert client_of(embedded).get_run(made.run_id).data.tags["mlflow.source.git.commit"] == "c" * 40
    assert embedded.version("acme", 1).tags["git_commit"] == "c" * 40


def test_logging_a_model_with_its_decision_costs_less_than_three_seconds_of_processor(embedded: Registry):
    embedded.register("acme", submission())
    picture, page = b"\x89PNG" * 20_000, "word " * 900
    large = replace(submission(bytes(300_000)), files={f"{name}.png": picture for name in range(6)})
    started = time.process_time()
    embedded.register("acme", large)
    embedded.annotate("acme", 2, {"verdict": "activate", "reason": "good"}, page)
    embedded.set_champion("acme", 2, pr_auc=0.8)
    assert time.process_time() - started < 3


def test_a_version_that_somebody_registered_by_hand_is_no_candidate(embedded: Registry):
    embedded.register("acme", submission())
    client_of(embedded).create_model_version("attendance-fraud-acme", "/elsewhere")
    client_of(embedded).set_registered_model_alias("attendance-fraud-acme", "challenger", "2")
    with pytest.raises(RegistryError, match="got attendance-fraud-acme v2"):
        embedded.challenger("acme")
    with pytest.raises(RegistryError, match="got attendance-fraud-acme v2"):
        embedded.version("acme", 2)
    assert "features" in str(embedded.damage("acme", 2, "d" * 64))


def test_links_lead_to_the_pages_of_run_and_version(embedded: Registry):
    made = embedded.register("acme", submission())
    assert embedded.run_link(made.run_id) == f"/#/experiments/1/runs/{made.run_id}"
    assert version_link("acme", 3) == "/#/models/attendance-fraud-acme/versions/3"


@pytest.mark.parametrize(
    "step", ["log_batch", "log_model_artifacts", "create_model_version", "set_registered_model_alias"]
)
def test_a_registration_that_breaks_off_leaves_a_failed_run_and_no_version(
    embedded: Registry, monkeypatch: pytest.MonkeyPatch, step: str
):
    """MLflow has no switch for this, so its client breaks at one step."""
    import mlflow

    kept = embedded.register("acme", submission())
    real = getattr(mlflow.MlflowClient, step)

    def break_off(*arguments: object, **named: object) -> None:
        real(*arguments, **named)
        raise OSError("No space left on device")

    monkeypatch.setattr(mlflow.MlflowClient, step, break_off)
    with pytest.raises(RegistryUnreachable, match="No space left"):
        embedded.register("acme", submission(b"model two"))
    monkeypatch.undo()
    runs = client_of(embedded).search_runs(["1"], order_by=["start_time DESC"])
    assert [run.info.status for run in runs] == ["FAILED", "FINISHED"]
    assert [each.version for each in client_of(embedded).search_model_versions()] == [1]
    assert embedded.find("acme", {}) == kept


def test_an_interruption_leaves_no_version_either(embedded: Registry, monkeypatch: pytest.MonkeyPatch):
    import mlflow

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", interrupt)
    with pytest.raises(KeyboardInterrupt):
        embedded.register("acme", submission())
    assert embedded.find("acme", {}) is None


def test_what_an_altered_description_names_is_not_run(embedded: Registry, tmp_path: Path):
    """MLflow's own loader springs this trap: it imports what `MLmodel` names."""
    made = embedded.register("acme", submission())
    (description,) = tmp_path.rglob("MLmodel")
    folder = description.with_name("code")
    folder.mkdir()
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()")
    sound = description.read_text()
    description.write_text(
        sound.replace("loader_module: mlflow.xgboost", "loader_module: trap\n    code: code")
    )
    assert description.read_text() != sound
    assert embedded.load("acme", made.version, made.digest) == b"model one"
    assert not (tmp_path / "sprung").exists()


def test_mlflow_s_global_address_is_left_alone(
    embedded: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    import mlflow

    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    made = embedded.register("acme", submission())
    embedded.load("acme", made.version, made.digest)
    assert mlflow.get_tracking_uri() == before
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "models"}


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Registry("http://127.0.0.1:9")
    for act in (
        lambda: away.champion_version("acme"),
        lambda: away.damage("acme", 1, "d" * 64),
        lambda: away.register("acme", submission()),
    ):
        with pytest.raises(RegistryUnreachable, match=r"at http://127\.0\.0\.1:9, got: .*try again"):
            act()


def test_a_database_that_is_none_is_unreachable(tmp_path: Path):
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RegistryUnreachable, match="not a database"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path)).damage("acme", 1, "d" * 64)


@pytest.mark.parametrize("address", ["file:///models", "models", "", "http://me:secret@host:5000"])
def test_an_address_of_another_kind_or_with_a_password_is_refused_and_not_repeated(address: str):
    with pytest.raises(InvalidSettings) as refused:
        Registry(address, "models")
    assert "secret" not in str(refused.value)


def test_the_files_of_an_embedded_registry_lie_beside_its_database_unless_told():
    assert Registry("sqlite:////somewhere/mlflow.db").artifact_root == "/somewhere/models"
    assert Registry("sqlite:////somewhere/mlflow.db", "/else").artifact_root == "/else"


def test_the_first_use_by_several_at_once_makes_one_whole_database(tmp_path: Path):
    """MLflow alone breaks here: each migrates what the other has begun."""
    address = f"sqlite:///{tmp_path}/mlflow.db"
    program = f"from fraud_assets.storage.registry import Registry; Registry({address!r}).prepare()"
    crowd = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [each.wait(timeout=120) for each in crowd] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert Registry(address).register("acme", submission()).version == 1


def test_opening_a_registry_touches_nothing(tmp_path: Path):
    Registry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "models"))
    assert list(tmp_path.iterdir()) == []
