"""One contract for the fake, the embedded and the served registry; then what only MLflow has."""

import inspect
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import polars as pl
import pytest

from fraud_assets.compute.activation import Submission
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.compute.training import Model
from fraud_assets.domain.errors import (
    InvalidSettings,
    InvalidTenantId,
    ModelDamaged,
    RegistryError,
    RegistryUnreachable,
)
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.storage.registry import MODEL_FILE, Registry, version_link
from fraud_assets_tests.fakes import FakeRegistry

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

METRICS = Metrics(0.812345678901234, 0.6, 0.1 + 0.2, 0.03, 0.8, 0.9, 0.05, 200, 10)
TENANTS = count(1)
Tamper = Callable[[str, int, bytes | None], None]


@dataclass
class Bench:
    """A registry, and a way to replace (or, with None, remove) a version's file behind its back."""

    registry: Registry | FakeRegistry
    tamper: Tamper


def submission(content: bytes = b"model one", **facts: str) -> Submission:
    return Submission(
        model=Model(content, FEATURES, {"max_depth": 4, "scale_pos_weight": 19.5}),
        metrics=METRICS,
        dataset_digest="d" * 64,
        facts={"cycle_started_at": "2026-03-09T02:00:00+00:00", **facts},
        train=pl.DataFrame({"is_fraud": [True, False, False]}),
        holdout=pl.DataFrame({"is_fraud": [True, False]}),
        pictures={"curve.png": b"\x89PNG picture"},
    )


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def overwrite(files: Path, content: bytes | None) -> None:
    (found,) = files.rglob(MODEL_FILE)
    found.unlink()
    if content is not None:
        found.write_bytes(content)


def client_of(registry: Registry) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(registry.tracking_uri, registry.tracking_uri)


def source_of(registry: Registry, tenant: str, version: int) -> str:
    return str(client_of(registry).get_model_version(f"attendance-fraud-{tenant}", str(version)).source)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has migrated, which takes seconds; tests copy it."""
    folder = tmp_path_factory.mktemp("migrated")
    Registry(f"sqlite:///{folder}/mlflow.db", str(folder)).champion_version("acme")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a tracking server on loopback, and the folder of its files."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated, folder / "mlflow.db")
    process, address = _serve(folder)
    yield address, folder / "files"
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=30)


def _serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Tried again, because another process may take the free port before the server does."""
    stores = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/files"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for _ in range(3):
        port = _free_port()
        command = [sys.executable, "-m", "mlflow", "server", f"--port={port}", "--workers=1", *stores]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **quiet}, cwd=folder, stderr=log, start_new_session=True
            )
        if _answers(f"http://127.0.0.1:{port}/health", process):
            return process, f"http://127.0.0.1:{port}"
    raise RuntimeError(f"expected the MLflow server to answer, got {(folder / 'log').read_text()}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    """False once the process has ended, or after a minute of silence."""
    for _ in range(600):
        try:
            with urlopen(address, timeout=5):  # noqa: S310
                return True
        except OSError:
            if process.poll() is not None:
                return False
            time.sleep(0.1)
    process.kill()
    return False


@pytest.fixture
def embedded(migrated: Path, tmp_path: Path) -> Registry:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "models"))


@pytest.fixture(params=["fake", "embedded", "served"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        fake = FakeRegistry()
        return Bench(fake, lambda tenant, version, content: _replace(fake, tenant, version, content))
    if request.param == "embedded":
        registry = request.getfixturevalue("embedded")
        return Bench(registry, lambda *which: overwrite(Path(source_of(registry, *which[:2])), which[2]))
    address, files = request.getfixturevalue("server")
    served = Registry(address)

    def tamper(tenant: str, version: int, content: bytes | None) -> None:
        overwrite(files / source_of(served, tenant, version).removeprefix("mlflow-artifacts:/"), content)

    return Bench(served, tamper)


def _replace(fake: FakeRegistry, tenant: str, version: int, content: bytes | None) -> None:
    del fake.files[tenant, version]
    if content is not None:
        fake.files[tenant, version] = content


@pytest.fixture
def tenant() -> str:
    """Another one each time: the server is shared by all tests."""
    return f"tenant-{next(TENANTS)}"


def test_a_registered_model_is_the_challenger_and_is_found_again(bench: Bench, tenant: str):
    made = bench.registry.register(tenant, submission(training="t1"))
    assert (made.version, made.digest, made.metrics) == (1, digest_of(b"model one"), METRICS)
    assert made.tags["model_digest"] == made.digest
    assert bench.registry.challenger(tenant) == made
    assert bench.registry.find(tenant, {"dataset_digest": "d" * 64, "training": "t1"}) == made


def test_what_was_not_registered_is_not_found(bench: Bench, tenant: str):
    assert bench.registry.challenger(tenant) is None
    assert bench.registry.champion_version(tenant) is None
    assert bench.registry.find(tenant, {}) is None
    bench.registry.register(tenant, submission(training="t1"))
    assert bench.registry.find(tenant, {"dataset_digest": "d" * 64, "training": "t2"}) is None
    assert bench.registry.champion_version(tenant) is None


def test_the_newest_of_equals_is_found(bench: Bench, tenant: str):
    bench.registry.register(tenant, submission())
    newest = bench.registry.register(tenant, submission())
    assert newest.version == 2
    assert bench.registry.find(tenant, {"dataset_digest": "d" * 64}) == newest


def test_a_tenant_never_meets_another_s_models(bench: Bench, tenant: str):
    made = bench.registry.register(tenant, submission())
    bench.registry.set_champion(tenant, made.version, reason="good", pr_auc=0.8)
    neighbour = f"{tenant}-b"
    assert bench.registry.find(neighbour, {}) is None
    assert bench.registry.champion_version(neighbour) is None
    assert bench.registry.damage(neighbour, made.version, made.digest)


def test_an_older_version_may_challenge_again_with_the_facts_of_the_day(bench: Bench, tenant: str):
    first = bench.registry.register(tenant, submission())
    bench.registry.register(tenant, submission(b"model two"))
    again = bench.registry.challenge(tenant, first, {"dataset_version": "7"})
    assert again == replace(first, tags={**first.tags, "dataset_version": "7"})
    assert bench.registry.challenger(tenant) == again


def test_the_champion_moves_only_when_it_is_set_and_setting_it_twice_is_once(bench: Bench, tenant: str):
    first = bench.registry.register(tenant, submission())
    for _ in range(2):
        bench.registry.set_champion(tenant, first.version, reason="good", pr_auc=0.8)
    bench.registry.register(tenant, submission(b"model two"))
    bench.registry.annotate(tenant, 2, verdict="reject", reason="too low")
    assert bench.registry.champion_version(tenant) == 1
    decided = [{"verdict": "activate", "reason": "good"}, {"verdict": "reject", "reason": "too low"}]
    found = [bench.registry.find(tenant, tags) for tags in decided]
    assert [each and each.version for each in found] == [1, 2]


def test_a_version_that_is_not_there_cannot_be_champion(bench: Bench, tenant: str):
    bench.registry.register(tenant, submission())
    with pytest.raises(RegistryError, match="refused"):
        bench.registry.set_champion(tenant, 9, reason="good", pr_auc=0.8)
    assert bench.registry.champion_version(tenant) is None


def test_a_sound_model_is_loaded_byte_for_byte(bench: Bench, tenant: str):
    made = bench.registry.register(tenant, submission(bytes(range(256)) * 100))
    assert bench.registry.load(tenant, made.version, made.digest) == bytes(range(256)) * 100
    assert bench.registry.damage(tenant, made.version, made.digest) is None


@pytest.mark.parametrize(
    "left", [None, b"", b"model on", b"model ONE"], ids=["missing", "empty", "cut", "altered"]
)
def test_a_damaged_file_is_never_served(bench: Bench, tenant: str, left: bytes | None):
    made = bench.registry.register(tenant, submission())
    bench.tamper(tenant, made.version, left)
    with pytest.raises(ModelDamaged, match=f"v1 of {tenant}"):
        bench.registry.load(tenant, made.version, made.digest)
    assert f"v1 of {tenant}" in str(bench.registry.damage(tenant, made.version, made.digest))


def test_the_digest_of_the_caller_counts_and_not_the_registry_s(bench: Bench, tenant: str):
    made = bench.registry.register(tenant, submission())
    assert bench.registry.damage(tenant, made.version, digest_of(b"another model"))


def test_a_version_that_is_gone_is_damaged(bench: Bench, tenant: str):
    with pytest.raises(ModelDamaged, match=f"v4 of {tenant}"):
        bench.registry.load(tenant, 4, "d" * 64)


def test_a_model_of_other_features_cannot_be_served(bench: Bench, tenant: str):
    made = submission()
    old = replace(made, model=replace(made.model, features=FEATURES[1:]))
    bench.registry.register(tenant, old)
    assert "features" in str(bench.registry.damage(tenant, 1, old.model.digest))


@pytest.mark.parametrize("hostile", ["../acme", "a'b", "", "ACME", "a/b"])
def test_a_hostile_tenant_id_is_refused(bench: Bench, hostile: str):
    for act in (bench.registry.challenger, bench.registry.champion_version):
        with pytest.raises(InvalidTenantId):
            act(hostile)
    with pytest.raises(InvalidTenantId):
        bench.registry.register(hostile, submission())


def test_the_fake_has_the_real_one_s_methods():
    real = {name: member for name, member in vars(Registry).items() if not name.startswith("_")}
    for name, method in real.items():
        assert inspect.signature(getattr(FakeRegistry, name)) == inspect.signature(method), name


def test_a_run_shows_parameters_numbers_datasets_pictures_and_the_model(embedded: Registry, tmp_path: Path):
    made = embedded.register("acme", submission())
    run = client_of(embedded).get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"max_depth": "4", "scale_pos_weight": "19.5"}
    assert run.data.metrics == METRICS.as_dict()
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
    assert {metric.key: metric.value for metric in logged.metrics} == METRICS.as_dict()
    assert '"attendance-fraud-acme"' in logged.tags["mlflow.modelVersions"]
    signature: Any = Description.load(logged.artifact_location).signature
    assert tuple(signature.inputs.input_names()) == FEATURES
    assert not any(signature.inputs.required_input_names())


def test_the_list_of_models_shows_the_champion(embedded: Registry):
    embedded.register("acme", submission())
    embedded.set_champion("acme", 1, reason="good", pr_auc=0.81234)
    embedded.register("acme", submission(b"model two"))
    (model,) = client_of(embedded).search_registered_models()
    assert model.tags == {"champion_version": "1", "champion_pr_auc": "0.8123"}
    assert model.aliases == {"champion": 1, "challenger": 2}


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
    address = f"sqlite:///{tmp_path}/new/mlflow.db"
    program = f"from fraud_assets.storage.registry import Registry; Registry({address!r}).prepare()"
    crowd = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [each.wait(timeout=120) for each in crowd] == [0, 0, 0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]
    assert Registry(address).register("acme", submission()).version == 1


def test_opening_a_registry_touches_nothing(tmp_path: Path):
    Registry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "models"))
    assert list(tmp_path.iterdir()) == []
