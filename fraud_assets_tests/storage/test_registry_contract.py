"""One contract for the fake, the embedded and the served registry, so that the fake cannot lie."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_assets.domain.errors import InvalidTenantId, ModelDamaged, RegistryError
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.storage.registry import MODEL_FILE, Registry
from fraud_assets_tests.builders import submission
from fraud_assets_tests.fakes import FakeRegistry

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

TENANTS = count(1)
Tamper = Callable[[str, int, bytes | None], None]


@dataclass
class Bench:
    """A registry, and a way to replace (or, with None, remove) a version's file behind its back."""

    registry: Registry | FakeRegistry
    tamper: Tamper


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def overwrite(files: Path, content: bytes | None) -> None:
    (found,) = files.rglob(MODEL_FILE)
    found.unlink()
    if content is not None:
        found.write_bytes(content)


def source_of(registry: Registry, tenant: str, version: int) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(registry.tracking_uri, registry.tracking_uri)
    return str(client.get_model_version(f"attendance-fraud-{tenant}", str(version)).source)


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
    assert (made.version, made.digest, made.metrics) == (1, digest_of(b"model one"), submission().metrics)
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
    bench.registry.set_champion(tenant, made.version, pr_auc=0.8)
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
        bench.registry.set_champion(tenant, first.version, pr_auc=0.8)
    bench.registry.register(tenant, submission(b"model two"))
    bench.registry.annotate(tenant, 2, {"verdict": "reject"}, "# Card")
    assert bench.registry.champion_version(tenant) == 1


def test_the_champion_may_be_taken_away_and_taking_it_twice_is_once(bench: Bench, tenant: str):
    bench.registry.clear_champion(tenant)
    first = bench.registry.register(tenant, submission())
    bench.registry.set_champion(tenant, first.version, pr_auc=0.8)
    for _ in range(2):
        bench.registry.clear_champion(tenant)
        assert bench.registry.champion_version(tenant) is None
    assert bench.registry.challenger(tenant) == first


def test_what_is_noted_on_a_version_is_read_back_and_replaced_by_name(bench: Bench, tenant: str):
    made = bench.registry.register(tenant, submission())
    bench.registry.annotate(tenant, 1, {"verdict": "reject", "reason": "too low"}, "# Card")
    bench.registry.annotate(tenant, 1, {"verdict": "override", "decided_by": "<b>Ana</b>"})
    noted = {"verdict": "override", "reason": "too low", "decided_by": "<b>Ana</b>"}
    assert bench.registry.version(tenant, 1) == replace(made, tags={**made.tags, **noted})


def test_any_version_is_read_by_its_number_and_none_is_made_up(bench: Bench, tenant: str):
    made = [bench.registry.register(tenant, submission(each)) for each in (b"model one", b"model two")]
    assert [bench.registry.version(tenant, number) for number in (1, 2)] == made
    for act in (
        lambda: bench.registry.version(tenant, 3),
        lambda: bench.registry.version(f"{tenant}-b", 1),
        lambda: bench.registry.annotate(tenant, 3, {"verdict": "reject"}),
    ):
        with pytest.raises(RegistryError):
            act()


def test_a_version_that_is_not_there_cannot_be_champion(bench: Bench, tenant: str):
    bench.registry.register(tenant, submission())
    with pytest.raises(RegistryError, match="refused"):
        bench.registry.set_champion(tenant, 9, pr_auc=0.8)
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


@pytest.fixture(scope="module")
def model() -> bytes:
    """A real one, as XGBoost writes it."""
    import xgboost

    rows = np.random.default_rng(1).normal(size=(200, 3))
    trees = xgboost.train({"max_depth": 2, "nthread": 1}, xgboost.DMatrix(rows, rows[:, 0] > 0), 3)
    return bytes(trees.save_raw("ubj"))


PLACES: dict[str, Callable[[int, int], int]] = {
    "head": lambda size, at: at % 16,
    "body": lambda size, at: 16 + at % (size - 32),
    "end": lambda size, at: size - 1 - at % 16,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_model_with_an_altered_byte_or_an_end_cut_off_is_never_served(
    bench: Bench, tenant: str, model: bytes, place: str
):
    digest = digest_of(model)
    made = bench.registry.register(tenant, submission(model))
    assert bench.registry.load(tenant, made.version, digest) == model

    @settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(at=st.integers(0, 2**31), bits=st.integers(1, 255))
    def require(at: int, bits: int) -> None:
        offset = PLACES[place](len(model), at)
        altered = model[:offset] + bytes([model[offset] ^ bits]) + model[offset + 1 :]
        for damaged in (altered, model[:offset]):
            bench.tamper(tenant, made.version, damaged)
            with pytest.raises(ModelDamaged, match=f"v1 of {tenant}"):
                bench.registry.load(tenant, made.version, digest)
            assert bench.registry.damage(tenant, made.version, digest)

    require()


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


def test_an_erased_tenant_starts_from_nothing_and_the_others_stay(bench: Bench, tenant: str):
    neighbour = f"{tenant}-b"
    for each in (tenant, neighbour):
        bench.registry.register(each, submission())
        bench.registry.set_champion(each, 1, pr_auc=0.8)
        bench.registry.register(each, submission(b"model two"))
    before = [bench.registry.version(neighbour, number) for number in (1, 2)]
    done = bench.registry.erase(tenant)
    assert (done.versions, done.runs) == (2, 2)
    assert bench.registry.find(tenant, {}) is None
    assert (bench.registry.challenger(tenant), bench.registry.champion_version(tenant)) == (None, None)
    assert bench.registry.damage(tenant, 1, digest_of(b"model one"))
    again = bench.registry.erase(tenant)
    assert (again.versions, again.runs) == (0, 0)
    assert [bench.registry.version(neighbour, number) for number in (1, 2)] == before
    assert bench.registry.load(neighbour, 1, digest_of(b"model one")) == b"model one"
    assert bench.registry.champion_version(neighbour) == 1
    assert bench.registry.register(tenant, submission()).version == 1
    assert bench.registry.champion_version(tenant) is None


@pytest.mark.parametrize("hostile", ["../acme", "a'b", "", "ACME", "a/b"])
def test_a_hostile_tenant_id_is_refused(bench: Bench, hostile: str):
    for act in (bench.registry.challenger, bench.registry.champion_version, bench.registry.erase):
        with pytest.raises(InvalidTenantId):
            act(hostile)
    with pytest.raises(InvalidTenantId):
        bench.registry.register(hostile, submission())


def test_the_fake_has_the_real_one_s_methods():
    real = {name: member for name, member in vars(Registry).items() if not name.startswith("_")}
    for name, method in real.items():
        assert inspect.signature(getattr(FakeRegistry, name)) == inspect.signature(method), name
