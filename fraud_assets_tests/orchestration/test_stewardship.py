"""The job that rolls a model back does what the command does, and shows it on the tenant's page."""

from pathlib import Path

import dagster as dg
import pytest

from fraud_assets.definitions import defs
from fraud_assets.domain.errors import RegistryUnreachable
from fraud_assets.orchestration.stewardship import RollBack
from fraud_assets_tests.builders import entry, history, submission
from fraud_assets_tests.fakes import FakeRegistry
from fraud_assets_tests.world import TONIGHT, World


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """acme with v1 and v2 activated."""
    made = World(tmp_path, instance, acme=history(as_read=True))
    for version in (1, 2):
        digest = made.registry.register("acme", submission(f"model {version}".encode())).digest
        made.platform.ledger.append(entry(model_version=version, model_digest=digest))
    made.registry.set_champion("acme", 2, pr_auc=0.8)
    made.now = TONIGHT
    return made


def run(world: World, version: int, reason: str = "too many alarms") -> dg.ExecuteInProcessResult:
    job = world.definitions.resolve_job_def("roll_back_model")
    config = dg.RunConfig(ops={"roll_back": RollBack(version=version, reason=reason, by="Ana")})
    return job.execute_in_process(
        run_config=config, partition_key="acme", instance=world.instance, raise_on_error=False
    )


def test_the_job_rolls_back_under_its_run_and_materializes_the_active_model(world: World) -> None:
    result = run(world, 1)
    assert result.success
    newest = world.platform.ledger.latest("acme")
    assert newest is not None
    assert newest.sentence == "Rolled back from v2 to v1 by Ana: too many alarms."
    assert newest.dagster_run_id == result.run_id
    assert world.registry.champion_version("acme") == 1
    [made] = result.asset_materializations_for_node("roll_back")
    assert (made.asset_key, made.partition) == (dg.AssetKey("active_model"), "acme")
    assert made.metadata["decision"].value == newest.sentence
    assert world.materialized("active_model") == {"acme"}


def test_what_is_active_already_is_green_and_materializes_nothing(world: World) -> None:
    result = run(world, 2)
    assert result.success
    assert result.asset_materializations_for_node("roll_back") == []


@pytest.mark.parametrize(
    ("version", "reason", "words"), [(9, "why", "got v9"), (1, " ", "expected a reason")]
)
def test_what_cannot_be_done_is_red_with_its_sentence(
    world: World, version: int, reason: str, words: str
) -> None:
    result = run(world, version, reason)
    [failure] = result.filter_events(lambda event: event.is_step_failure)
    assert words in str(failure.step_failure_data.error)
    assert world.registry.champion_version("acme") == 2


def test_a_registry_that_does_not_answer_once_is_asked_again(world: World) -> None:
    class Hesitant(FakeRegistry):
        asked = 0

        def load(self, tenant: str, version: int, digest: str) -> bytes:
            self.asked += 1
            if self.asked == 1:
                raise RegistryUnreachable("expected an answer, got none")
            return super().load(tenant, version, digest)

    world.with_platform(registry=Hesitant(**vars(world.registry)))
    assert run(world, 1).success
    assert [each.model_version for each in world.platform.ledger.history("acme")] == [1, 2, 1]


def test_every_field_that_is_asked_for_is_described() -> None:
    assert set(RollBack.model_fields) == {"version", "reason", "by"}
    assert all(field.description for field in RollBack.model_fields.values())
    assert defs.resolve_job_def("roll_back_model").partitions_def is not None
