"""The registered models: their names, aliases, digests and files. `registry_database` and this import MLflow.

One experiment and one registered model a tenant. A version is created after its files and with all
its tags at once, so that every version is whole. What is read back is `model.ubj` alone, held against
a digest that the caller keeps elsewhere: loading through MLflow would run code that an altered
`MLmodel` names. No decision is taken here.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import metadata
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fraud_assets.compute.activation import Candidate, Submission
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.compute.training import Model, features_digest
from fraud_assets.domain.errors import InvalidSettings, ModelDamaged, RegistryError, RegistryUnreachable
from fraud_assets.domain.schemas import FEATURES, tenant_id
from fraud_assets.storage import registry_database, sqlite

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
MODEL_FILE: Final = "model.ubj"
CARD_FILE: Final = "model_card.md"
_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # With the default of 7 a server that is away is asked for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_TRANSIENT: Final = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED"}


# What an experiment is called between being marked as deleted and being gone: without its tenant.
_ERASED: Final = "fraud-assets-erased/"


@dataclass(frozen=True)
class Erased:
    """How much was erased now, and what somebody else has to do so that nothing remains; None: nothing."""

    versions: int
    runs: int
    remains: str | None = None


def model_name(tenant: str) -> str:
    """The registered model of `tenant`. Raises InvalidTenantId."""
    return f"attendance-fraud-{tenant_id(tenant)}"


def version_link(tenant: str, version: int) -> str:
    """The page of a version, relative to the address of MLflow's pages."""
    return f"/#/models/{model_name(tenant)}/versions/{version}"


class Registry:
    """The models of all tenants. Every method raises RegistryUnreachable when nothing answers."""

    def __init__(self, tracking_uri: str, artifact_root: str | None = None):
        """`tracking_uri` is `sqlite:////...` or `http(s)://...`; opens nothing yet.

        Files lie in `artifact_root`/tenant; None: in `models` beside the database, or where the server says.
        """
        address = urlsplit(tracking_uri)
        if address.scheme not in {"sqlite", "http", "https"} or "@" in address.netloc:
            expected = "a tracking address sqlite:////path or http(s)://host:port without credentials"
            advice = "give those as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            raise InvalidSettings(f"expected {expected}, got scheme {address.scheme!r}; {advice}")
        self.tracking_uri = tracking_uri
        self._database = Path(address.path[1:]) if address.scheme == "sqlite" else None
        self.artifact_root = artifact_root or (self._database and str(self._database.parent / "models"))

    def prepare(self) -> None:
        """Make the embedded database, or bring it up to date; before a server is started on it."""
        with self._client():
            if self._database:
                registry_database.prepare(self.tracking_uri)

    def register(self, tenant: str, submission: Submission) -> Candidate:
        """A new version, which `challenger` then names; if anything fails, a failed run and no version."""
        name = model_name(tenant)
        with self._client() as client:
            named = submission.tags.get("cycle_started_at")
            tags = submission.tags | _source(submission.tags)
            run = client.create_run(self._experiment(client, tenant), tags=tags, run_name=named)
            try:
                logged = _log(client, tenant, run, submission)
                client.set_terminated(run.info.run_id)
                version = _publish(client, name, logged, submission.tags)
                client.set_registered_model_alias(name, CHALLENGER, str(version))
            except BaseException:
                _abandon(client, run.info.run_id)
                raise
            return _candidate(client, client.get_model_version(name, str(version)))

    def find(self, tenant: str, fingerprint: Mapping[str, str]) -> Candidate | None:
        """The newest version that carries all the tags of `fingerprint`."""
        with self._client() as client:
            name = f"name='{model_name(tenant)}'"
            versions = client.search_model_versions(name, 1000, ["version_number DESC"])
            found = (version for version in versions if fingerprint.items() <= version.tags.items())
            return next((_candidate(client, version) for version in found), None)

    def version(self, tenant: str, version: int) -> Candidate:
        """That version, whatever became of it. Raises RegistryError if there is none, or of another maker."""
        with self._client() as client:
            if found := _found(client, tenant, version):
                return _candidate(client, found)
        raise RegistryError(
            f"expected v{version} of {tenant} in the registry, got none; name another version"
        )

    def challenger(self, tenant: str) -> Candidate | None:
        """The version that the alias `challenger` names."""
        name = model_name(tenant)
        with self._client() as client:
            version = _named(client, name, CHALLENGER)
            return _candidate(client, client.get_model_version(name, str(version))) if version else None

    def challenge(self, tenant: str, candidate: Candidate, facts: Mapping[str, str]) -> Candidate:
        """Let `challenger` name a version that `find` found, with the facts of this cycle; idempotent."""
        name, version = model_name(tenant), str(candidate.version)
        with self._client() as client:
            for key, value in facts.items():
                client.set_model_version_tag(name, version, key, value)
            client.set_registered_model_alias(name, CHALLENGER, version)
        return replace(candidate, tags={**candidate.tags, **facts})

    def champion_version(self, tenant: str) -> int | None:
        """The version that the alias `champion` names."""
        with self._client() as client:
            return _named(client, model_name(tenant), CHAMPION)

    def set_champion(self, tenant: str, version: int, *, pr_auc: float) -> None:
        """Move the alias `champion`, the only place that does; idempotent."""
        name = model_name(tenant)
        with self._client() as client:
            if _found(client, tenant, version) is None:
                raise RegistryError(f"the model registry refused: no v{version} of {tenant}")
            # MLflow's list of models shows the alias of the newest version only.
            client.set_registered_model_tag(name, "champion_version", str(version))
            client.set_registered_model_tag(name, "champion_pr_auc", f"{pr_auc:.4f}")
            client.set_registered_model_alias(name, CHAMPION, str(version))

    def clear_champion(self, tenant: str) -> None:
        """Let the alias `champion` name no version; idempotent."""
        name = model_name(tenant)
        with self._client() as client:
            if _named(client, name, CHAMPION) is not None:
                client.delete_registered_model_tag(name, "champion_version")
                client.delete_registered_model_tag(name, "champion_pr_auc")
                client.delete_registered_model_alias(name, CHAMPION)

    def annotate(self, tenant: str, version: int, notes: Mapping[str, str], card: str | None = None) -> None:
        """Write on a version what was decided on it: tags by name, and its page in words; idempotent.

        The page, Markdown, is the version's and its run's description, and a file of the run.
        """
        name = model_name(tenant)
        with self._client() as client:
            for key, value in notes.items():
                client.set_model_version_tag(name, str(version), key, str(value))
            if card is not None:
                found = client.update_model_version(name, str(version), card)
                client.set_tag(str(found.run_id), "mlflow.note.content", card)
                client.log_stream(str(found.run_id), BytesIO(card.encode()), CARD_FILE)

    def load(self, tenant: str, version: int, digest: str) -> bytes:
        """The bytes of a version's model file, whose SHA-256 is `digest`. Nothing is executed.

        Raises ModelDamaged when it is not there, not those bytes, or fitted on other features than today's.
        """
        with self._client() as client:
            content = self._fetch(client, tenant, version)
        if (found := sha256(content).hexdigest()) != digest:
            what = f"SHA-256 {digest:.12}, got {found:.12} ({len(content)} bytes; truncated or altered)"
            raise ModelDamaged(f"expected v{version} of {tenant} with {what}; retrain the tenant")
        return content

    def damage(self, tenant: str, version: int, digest: str) -> str | None:
        """Why a version cannot be served; None if it can."""
        try:
            self.load(tenant, version, digest)
        except ModelDamaged as error:
            return str(error)
        return None

    def erase(self, tenant: str) -> Erased:
        """Deletes the tenant's models, runs, datasets and files; idempotent.

        Embedded, nothing is left in the database's file either. Of a server's runs a client can only mark the
        rows as deleted.
        """
        with self._client() as client:
            versions = _take_back(client, model_name(tenant))
            runs = self._empty(client, f"fraud-assets/{tenant_id(tenant)}")
            marked = _marked(client)
            if self._database:
                for experiment in marked:
                    _purge(client, experiment)
                sqlite.compact(self._database)
                marked = []
        gc = f"mlflow gc --tracking-uri {self.tracking_uri} --experiment-ids {','.join(marked)}"
        return Erased(
            versions,
            runs,
            f"The model registry keeps rows that are marked as deleted until its operator runs: {gc} "
            "--backend-store-uri <its database>"
            if marked
            else None,
        )

    def _empty(self, client: "MlflowClient", experiment: str) -> int:
        """Marks the experiment's runs and models as deleted, deletes its files, and takes its name away."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if (found := client.get_experiment_by_name(experiment)) is None:
            return 0
        identity = found.experiment_id
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(identity)
        runs = list(_each(client.search_runs, [identity]))
        for run in runs:
            client.delete_run(run.info.run_id)
        for model in list(_each(client.search_logged_models, [identity])):
            client.delete_logged_model(model.model_id)
        get_artifact_repository(found.artifact_location, tracking_uri=self.tracking_uri).delete_artifacts()
        client.rename_experiment(identity, f"{_ERASED}{identity}")
        return len(runs)

    def run_link(self, run_id: str) -> str:
        """The page of a run, relative to the address of MLflow's pages."""
        with self._client() as client:
            return f"/#/experiments/{client.get_run(run_id).info.experiment_id}/runs/{run_id}"

    def _experiment(self, client: "MlflowClient", tenant: str) -> str:
        from mlflow.exceptions import MlflowException

        name = f"fraud-assets/{tenant_id(tenant)}"
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        location = f"{self.artifact_root.rstrip('/')}/{tenant}" if self.artifact_root else None
        try:
            return client.create_experiment(name, location)
        except MlflowException:
            # Another process may have been quicker.
            if found := client.get_experiment_by_name(name):
                return found.experiment_id
            raise

    def _fetch(self, client: "MlflowClient", tenant: str, version: int) -> bytes:
        from mlflow.artifacts import download_artifacts, list_artifacts

        label = f"v{version} of {tenant}"
        if (registered := _found(client, tenant, version)) is None:
            raise ModelDamaged(f"expected {label} in the registry, got none; retrain the tenant")
        if registered.tags.get("features_digest") != features_digest(FEATURES):
            raise ModelDamaged(f"expected {label} with today's features, got others; retrain the tenant")
        # A server reports a missing file as it does a broken connection: look before asking for it.
        files = list_artifacts(registered.source, tracking_uri=self.tracking_uri)
        if not any(Path(file.path).name == MODEL_FILE and not file.is_dir for file in files):
            raise ModelDamaged(f"expected the file {MODEL_FILE} of {label}, got none; retrain the tenant")
        with TemporaryDirectory() as target:
            uri = f"{registered.source}/{MODEL_FILE}"
            return Path(download_artifacts(uri, dst_path=target, tracking_uri=self.tracking_uri)).read_bytes()

    @contextmanager
    def _client(self) -> "Iterator[MlflowClient]":
        """A client of this address alone: MLflow's global address is neither read nor set."""
        for default in _ENVIRONMENT.items():
            os.environ.setdefault(*default)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._database and not self._database.exists():
                _make(self._database, str(self.artifact_root))
            yield MlflowClient(self.tracking_uri, self.tracking_uri)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if isinstance(error, MlflowException) and error.error_code not in _TRANSIENT:
                raise RegistryError(f"the model registry refused: {error}") from error
            raise RegistryUnreachable(
                f"expected an answer of the model registry at {self.tracking_uri}, got: {error}; "
                "check that it runs and that its disk has room, then try again"
            ) from error


def _make(database: Path, artifact_root: str) -> None:
    """Made beside and put into place whole: MLflow's own first use breaks when two do it at once."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with TemporaryDirectory(dir=database.parent) as folder, suppress(FileExistsError):
        SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", artifact_root).engine.dispose()
        os.link(f"{folder}/mlflow.db", database)


def _source(tags: Mapping[str, str]) -> dict[str, str]:
    """The code's version where MLflow's pages look for it."""
    return {"mlflow.source.git.commit": tags["git_commit"]} if "git_commit" in tags else {}


def _log(client: "MlflowClient", tenant: str, run: "Run", submission: Submission) -> "LoggedModel":
    """The run's parameters, numbers, datasets, files and model."""
    from mlflow.entities import LoggedModelOutput, Metric, Param

    run_id, experiment = run.info.run_id, run.info.experiment_id
    parameters = {key: str(value) for key, value in submission.model.parameters.items()}
    logged = client.create_logged_model(experiment, "model", run_id, params=parameters, model_type="xgboost")
    training, holdout = _datasets(tenant, submission)
    client.log_inputs(run_id, [training, holdout])
    now, measured_on = time.time_ns() // 1_000_000, (holdout.dataset.name, holdout.dataset.digest)
    published = submission.metrics.as_dict().items()
    numbers = [Metric(*pair, now, 0, logged.model_id, *measured_on, run_id) for pair in published]
    client.log_batch(run_id, numbers, [Param(*pair) for pair in parameters.items()])
    for file, content in submission.files.items():
        client.log_stream(run_id, BytesIO(content), file)
    with TemporaryDirectory() as folder:
        _write_model(Path(folder), logged, submission.model)
        client.log_model_artifacts(logged.model_id, folder)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _datasets(tenant: str, submission: Submission) -> "Iterator[DatasetInput]":
    """Training and holdout; their names differ, because MLflow merges datasets of one name and digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps(submission.tags)
    for name, part in {"training": submission.train, "holdout": submission.holdout}.items():
        schema = part.rows.collect_schema().items()
        columns = [{"name": column, "type": str(dtype)} for column, dtype in schema]
        profile = {"num_rows": part.records, "num_fraud": part.fraud}
        texts = ("delta", source, json.dumps({"mlflow_colspec": columns}), json.dumps(profile))
        dataset = Dataset(f"{tenant}-{name}", submission.dataset_digest[:32], *texts)
        yield DatasetInput(dataset, [InputTag("mlflow.data.context", name)])


def _write_model(folder: Path, logged: "LoggedModel", model: Model) -> None:
    """The layout of `mlflow.xgboost`, with the very bytes that were digested and no environment guessed."""
    from mlflow import models
    from mlflow.types.schema import ColSpec, Schema

    inputs = Schema([ColSpec("float", name, required=False) for name in model.features])
    signature = models.ModelSignature(inputs, Schema([ColSpec("float", "score")]))
    source, run_id, identity = logged.artifact_location, logged.source_run_id, logged.model_id
    description = models.Model(source, run_id, signature=signature, model_uuid=identity, model_id=identity)
    booster = {"model_class": "xgboost.core.Booster", "xgb_version": metadata.version("xgboost")}
    description.add_flavor("python_function", data=MODEL_FILE, loader_module="mlflow.xgboost")
    description.add_flavor("xgboost", data=MODEL_FILE, model_format="ubj", **booster)
    description.save(folder / "MLmodel")
    (folder / MODEL_FILE).write_bytes(model.content)


def _publish(client: "MlflowClient", name: str, logged: "LoggedModel", tags: dict[str, str]) -> int:
    """A new version of the registered model `name`, which is made if need be."""
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    # The source is a location, not models:/<id>: MLflow resolves that at its global address.
    source, run_id, identity = logged.artifact_location, logged.source_run_id, logged.model_id
    created = client.create_model_version(name, source, run_id, tags, None, None, 0, identity)
    link = json.dumps([{"name": name, "version": created.version}])
    client.set_logged_model_tags(identity, {"mlflow.modelVersions": link})
    return int(created.version)


def _abandon(client: "MlflowClient", run_id: str) -> None:
    """Mark a run as failed and take back its version, as far as the registry still answers."""
    with suppress(Exception):
        for version in client.search_model_versions(f"run_id='{run_id}'"):
            client.delete_model_version(version.name, version.version)
        client.set_terminated(run_id, status="FAILED")


def _found(client: "MlflowClient", tenant: str, version: int) -> "ModelVersion | None":
    exactly = f"name='{model_name(tenant)}' and version_number={int(version)}"
    return next(iter(client.search_model_versions(exactly)), None)


def _named(client: "MlflowClient", name: str, alias: str) -> int | None:
    models = client.search_registered_models(f"name='{name}'")
    return int(models[0].aliases[alias]) if models and alias in models[0].aliases else None


def _candidate(client: "MlflowClient", version: "ModelVersion") -> Candidate:
    run_id, tags = str(version.run_id), version.tags
    if "model_digest" not in tags:
        raise RegistryError(f"expected a version of this platform, got {version.name} v{version.version}")
    metrics = Metrics.from_dict(client.get_run(run_id).data.metrics)
    return Candidate(int(version.version), run_id, tags["model_digest"], metrics, tags)


def _each(search: Callable[..., Any], *arguments: object, **named: object) -> "Iterator[Any]":
    """All results of a search that answers in pages."""
    token = None
    while True:
        page = search(*arguments, **named, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _take_back(client: "MlflowClient", name: str) -> int:
    """Deletes the registered model with its versions; how many they were."""
    if not client.search_registered_models(f"name='{name}'"):
        return 0
    versions = sum(1 for _ in _each(client.search_model_versions, f"name='{name}'"))
    client.delete_registered_model(name)
    return versions


def _marked(client: "MlflowClient") -> list[str]:
    """The experiments that were emptied, all of them now marked as deleted."""
    from mlflow.entities import ViewType

    filters = {"view_type": ViewType.ALL, "filter_string": f"name LIKE '{_ERASED}%'"}
    emptied = list(_each(client.search_experiments, **filters))
    for experiment in emptied:
        if experiment.lifecycle_stage != "deleted":
            client.delete_experiment(experiment.experiment_id)
    return [experiment.experiment_id for experiment in emptied]


def _purge(client: "MlflowClient", experiment: str) -> None:
    """What `mlflow gc` does with an experiment that is marked as deleted, and the links that it leaves."""
    from mlflow.entities import ViewType
    from mlflow.store.tracking.dbmodels.models import SqlInput, SqlInputTag

    store: Any = client._tracking_client.store
    runs = [run.info.run_id for run in _each(client.search_runs, [experiment], run_view_type=ViewType.ALL)]
    for run in runs:
        store._hard_delete_run(run)
    with store.ManagedSessionMaker(read_only=False) as session:
        links = session.query(SqlInput).filter(
            SqlInput.destination_id.in_(runs) | SqlInput.source_id.in_(runs)
        )
        uuids = [link.input_uuid for link in links]
        session.query(SqlInputTag).filter(SqlInputTag.input_uuid.in_(uuids)).delete(synchronize_session=False)
        links.delete(synchronize_session=False)
    # Its models and datasets go with it.
    store._hard_delete_experiment(experiment)
