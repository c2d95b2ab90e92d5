"""The checks of a tenant, on the very borders of what they allow."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from fraud_assets.compute import dataset
from fraud_assets.domain.schemas import Profile
from fraud_assets.orchestration import checks
from fraud_assets_tests.builders import entry, history, training_dataset
from fraud_assets_tests.world import TONIGHT, World

pytestmark = pytest.mark.usefixtures("undrawn")

NOBODY = history(as_read=True)
WEEK, MINUTE = timedelta(days=7), timedelta(minutes=1)
SOUND = dg.AssetCheckKey(dg.AssetKey("behavioural_profiles"), "source_rows_are_sound")
NO_LEAK = dg.AssetCheckKey(dg.AssetKey("training_dataset"), "dataset_has_no_leak")
ENOUGH, FRESH = dg.AssetCheckKey(dg.AssetKey("training_dataset"), "enough_records"), checks.CHAMPION_IS_FRESH


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    return World(tmp_path, instance, acme=NOBODY, beta=NOBODY)


def activated(world: World) -> None:
    world.platform.ledger.append(entry(cycle_started_at=TONIGHT, decided_at=TONIGHT))


def store(world: World, records: int, fraud_share: float = 0.5) -> None:
    write(world, training_dataset(records, fraud_share=fraud_share))


def write(world: World, frame: pl.DataFrame) -> None:
    # The records are minutes apart: a gap of days would leave none to train on.
    facts = {"as_of": TONIGHT.isoformat(), "digest": dataset.digest(frame.lazy()), "label_delay_days": "0.0"}
    world.platform.tables.write("acme", "training_dataset", frame, facts)


def run(world: World, *keys: dg.AssetCheckKey) -> dg.ExecuteInProcessResult:
    """The checks alone, in a run of acme's."""
    built = world.definitions
    both = dg.define_asset_job("both", dg.AssetSelection.checks(*keys))
    return (
        dg.Definitions(
            assets=built.assets, asset_checks=built.asset_checks, jobs=[both], resources=built.resources
        )
        .resolve_job_def("both")
        .execute_in_process(instance=world.instance, tags={"dagster/partition": "acme"}, raise_on_error=False)
    )


def evaluated(world: World, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation:
    result = run(world, key)
    assert result.success
    [evaluation] = result.get_asset_check_evaluations()
    return evaluation


def numbers(found: dg.AssetCheckEvaluation | dg.AssetCheckResult) -> dict[str, Any]:
    return {name: value.value for name, value in found.metadata.items()}


@pytest.mark.parametrize(
    ("records", "passed", "description"),
    [
        (99, False, "99 usable records, 100 are needed"),
        (100, True, "100 usable records, 100 are needed"),
    ],
)
def test_enough_records_are_those_that_the_training_needs(
    world: World, records: int, passed: bool, description: str
) -> None:
    store(world, records)
    found = evaluated(world, ENOUGH)
    assert (found.passed, found.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert (found.description, found.partition) == (description, "acme")
    fraud = int(training_dataset(records, fraud_share=0.5)["is_fraud"].sum())
    assert numbers(found) == {"tenant": "acme", "labelled_rows": records, "fraud_rows": fraud, "needed": 100}


def test_a_clean_dataset_has_no_leak(world: World) -> None:
    store(world, 300)
    found = evaluated(world, NO_LEAK)
    assert (found.passed, found.partition) == (True, "acme")
    assert found.description == "nothing in the dataset knows more than could be known"
    assert numbers(found) == {"tenant": "acme", "leaks": 0, "leak_pr_auc": 0.95}


def test_a_feature_with_the_outcome_in_it_is_a_leak(world: World) -> None:
    frame = training_dataset(300).with_columns(minutes_early=pl.col("is_fraud").cast(pl.Float64))
    write(world, frame)
    found = evaluated(world, NO_LEAK)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == (
        "the dataset has a leak: minutes_early alone tells the outcome: PR-AUC 1.000"
    )
    assert numbers(found)["leaks"] == 1


def test_records_of_one_class_are_not_enough(world: World) -> None:
    store(world, 300, fraud_share=0)
    found = evaluated(world, ENOUGH)
    assert not found.passed
    assert "one class only" in (found.description or "")


def test_a_tenants_own_minimum_counts(world: World) -> None:
    store(world, 100)
    world.with_platform(overrides={"tenants": {"acme": {"minimum_records": 101}}})
    assert evaluated(world, ENOUGH).description == "100 usable records, 101 are needed"


def test_a_check_without_profiles_is_an_error_and_never_an_answer(world: World) -> None:
    result = run(world, SOUND)
    assert not result.success
    assert not result.get_asset_check_evaluations()
    [event] = result.filter_events(lambda event: event.is_step_failure)
    assert "expected profiles of tenant acme, found none" in str(event.step_failure_data.error)


def test_profiles_of_an_earlier_release_do_not_tell_what_was_set_aside(world: World) -> None:
    facts = {"as_of": TONIGHT.isoformat(), "settings": "other"}
    world.platform.tables.write("acme", "profiles", Profile.create_empty(), facts)
    found = evaluated(world, SOUND)
    assert found.passed
    assert found.description == "the rows set aside are not known: an earlier release made the profiles"


def test_a_check_without_a_dataset_is_an_error_and_never_an_answer(world: World) -> None:
    result = run(world, ENOUGH)
    assert not result.success
    assert not result.get_asset_check_evaluations()
    [event] = result.filter_events(lambda event: event.is_step_failure)
    assert "expected a training dataset of acme, found none" in str(event.step_failure_data.error)


def test_a_champion_is_fresh_until_the_age_of_the_freshness_policy(world: World) -> None:
    activated(world)
    champion = world.platform.champion("acme")
    world.now = TONIGHT + WEEK - MINUTE
    assert checks.freshness(world.platform, "acme", champion).passed
    world.now = TONIGHT + WEEK
    assert not checks.freshness(world.platform, "acme", champion).passed


def test_freshness_says_the_age_and_what_is_allowed(world: World) -> None:
    activated(world)
    world.now = TONIGHT + timedelta(days=8, hours=12)
    found = evaluated(world, FRESH)
    assert (found.passed, found.severity, found.partition) == (False, dg.AssetCheckSeverity.WARN, "acme")
    assert found.description == "8.5 days old, 7 days are allowed"
    assert numbers(found) == {"tenant": "acme", "model_age_days": 8.5, "fail_window_days": 7.0}


def test_no_champion_is_not_fresh_and_has_no_age(world: World) -> None:
    found = checks.freshness(world.platform, "acme", None)
    assert (found.passed, found.description) == (False, "no champion")
    assert numbers(found)["model_age_days"] is None


@pytest.mark.parametrize(("own", "passed"), [("P1D", False), ("P30D", True)])
def test_a_tenants_own_age_counts(world: World, own: str, passed: bool) -> None:
    activated(world)
    world.now = TONIGHT + timedelta(days=10 if passed else 2)
    world.with_platform(overrides={"tenants": {"acme": {"retrain_after": own}}})
    champion = world.platform.champion("acme")
    assert checks.freshness(world.platform, "acme", champion).passed is passed


def test_the_answer_is_stored_for_the_tenant_alone(world: World) -> None:
    activated(world)
    world.now = TONIGHT
    run(world, FRESH)
    stored = world.instance.event_log_storage.get_asset_check_execution_history(FRESH, limit=9)
    assert [(record.partition, record.status.value) for record in stored] == [("acme", "SUCCEEDED")]
