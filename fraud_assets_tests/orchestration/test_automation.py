"""What the nightly automation asks for, and that Dagster is told to ask us."""

from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

# The clock of Dagster's own ticks has no public handle.
from dagster._core.test_utils import freeze_time

from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets.domain.errors import LedgerUnreachable
from fraud_assets.orchestration.assets.model import fail_window
from fraud_assets.orchestration.automation import ChampionFoundDamaged, CycleStarts, RetrainIsDue
from fraud_assets.storage.ledger import FOUND_DAMAGED, Ledger
from fraud_assets_tests.builders import entry, history
from fraud_assets_tests.world import TONIGHT, World

NOBODY = history(as_read=True)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """Champions of yesterday's cycle."""
    made = World(tmp_path, instance, acme=NOBODY, beta=NOBODY)
    for tenant in ("acme", "beta"):
        made.platform.ledger.append(entry(tenant, cycle_started_at=TONIGHT - DAY, decided_at=TONIGHT - DAY))
    return made


def requests(world: World, at: datetime, cursor: str | None) -> tuple[list[dg.RunRequest], str | None]:
    """The nightly sensor as the code server evaluates it: the runs that it asks for; its cursor."""
    world.now = at
    repository = world.definitions.get_repository_def()
    sensor = repository.get_sensor_def("nightly_cycle")
    ticked = dg.build_sensor_context(world.instance, cursor=cursor, repository_def=repository)
    with freeze_time(at), ticked as context:
        result = sensor.evaluate_tick(context)
    return list(result.run_requests or []), result.cursor


def tick(world: World, at: datetime, cursor: str | None) -> tuple[dict[str, set[str]], str | None]:
    """Assets by tenant, one run each; the sensor's cursor."""
    wanted, cursor = requests(world, at, cursor)
    asked = {
        str(each.partition_key): {key.to_user_string() for key in each.asset_selection or []}
        for each in wanted
    }
    assert len(asked) == len(wanted)
    return asked, cursor


def due(world: World, at: datetime = TONIGHT) -> set[str]:
    condition = RetrainIsDue(lambda: world.platform)
    return set(condition.chosen(world.platform, {"acme", "beta"}, at - MINUTE, at))


def test_the_sensor_is_evaluated_by_the_code_server_and_makes_no_backfills(world: World) -> None:
    sensor = world.definitions.resolve_sensor_def("nightly_cycle")
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert sensor.sensor_type.value == "AUTOMATION"
    assert not sensor.emit_backfills
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_the_conditions_of_our_own_stand_on_the_assets_of_the_built_definitions(world: World) -> None:
    graph = world.definitions.resolve_asset_graph()
    profiles, dataset, *following = [
        graph.get(dg.AssetKey(stage)).automation_condition for stage in CYCLE_STAGES
    ]
    assert isinstance(profiles, CycleStarts)
    assert dataset is not None
    nightly, damaged = dataset.children
    assert [type(child) for child in nightly.children] == [CycleStarts, RetrainIsDue]
    assert isinstance(damaged, ChampionFoundDamaged)
    assert None not in following


def test_the_sensor_asks_for_one_run_a_tenant_with_all_that_is_due(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    _, cursor = tick(world, TONIGHT - MINUTE, None)
    world.instance.add_dynamic_partitions("fraud_assets_tenants", ["gamma"])
    asked, cursor = tick(world, TONIGHT, cursor)
    profiles = {"behavioural_profiles"}
    assert asked == {"acme": profiles, "beta": profiles, "gamma": set(CYCLE_STAGES)}
    assert tick(world, TONIGHT + MINUTE, cursor)[0] == {}


def test_a_cycle_starts_once_though_dagster_forgets_the_cursor_when_it_resumes_a_tick(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    world.instance.add_dynamic_partitions("fraud_assets_tenants", ["gamma"])
    assert tick(world, TONIGHT - MINUTE, None)[0] == {}
    profiles = {"behavioural_profiles"}
    asked = {"acme": profiles, "beta": profiles, "gamma": set(CYCLE_STAGES)}
    assert tick(world, TONIGHT, None)[0] == asked
    assert tick(world, TONIGHT + MINUTE, None)[0] == {}


def test_each_asset_that_the_sensor_asks_for_comes_with_its_checks(world: World) -> None:
    world.source.histories["gamma"] = NOBODY
    _, cursor = tick(world, TONIGHT - MINUTE, None)
    world.instance.add_dynamic_partitions("fraud_assets_tenants", ["gamma"])
    wanted, _ = requests(world, TONIGHT, cursor)
    checks = {str(each.partition_key): {key.name for key in each.asset_check_keys or []} for each in wanted}
    nightly = {"source_rows_are_sound"}
    assert checks == {
        "acme": nightly,
        "beta": nightly,
        "gamma": nightly | {"enough_records", "dataset_has_no_leak", "champion_is_fresh"},
    }


def test_a_ledger_that_does_not_answer_fails_the_tick_which_is_made_up_for(
    world: World, tmp_path: Path
) -> None:
    _, cursor = tick(world, TONIGHT - MINUTE, None)
    answers = world.platform.ledger
    world.with_platform(ledger=Ledger(f"sqlite:///{tmp_path}/not/there.db"))
    with pytest.raises(Exception, match="Error while evaluating") as failed:
        tick(world, TONIGHT, cursor)
    assert isinstance(failed.value.__cause__, LedgerUnreachable)
    world.with_platform(ledger=answers)
    assert set(tick(world, TONIGHT + MINUTE, cursor)[0]) == {"acme", "beta"}


def test_the_tick_asks_no_registry(world: World) -> None:
    world.with_platform(registry=None)
    _, cursor = tick(world, TONIGHT - MINUTE, None)
    assert set(tick(world, TONIGHT, cursor)[0]) == {"acme", "beta"}


def found_damaged(world: World, tenant: str, at: datetime) -> None:
    world.platform.ledger.append(entry(tenant, verdict=FOUND_DAMAGED, cycle_started_at=at, decided_at=at))


def test_a_champion_that_a_run_finds_damaged_is_trained_again_in_the_same_night_and_once(
    world: World,
) -> None:
    _, cursor = tick(world, TONIGHT - MINUTE, None)
    _, cursor = tick(world, TONIGHT, cursor)
    found_damaged(world, "acme", TONIGHT + 2 * MINUTE)
    asked, cursor = tick(world, TONIGHT + 3 * MINUTE, cursor)
    assert asked == {"acme": set(CYCLE_STAGES[1:])}
    assert tick(world, TONIGHT + 4 * MINUTE, cursor)[0] == {}


def test_a_champion_that_stays_damaged_is_due_every_night(world: World) -> None:
    found_damaged(world, "acme", TONIGHT - DAY)
    assert due(world) == {"acme"}
    world.platform.ledger.append(entry("acme", cycle_started_at=TONIGHT, decided_at=TONIGHT))
    assert due(world) == set()


def test_broken_settings_make_their_tenant_due_and_no_other(world: World) -> None:
    world.with_platform(overrides={"tenants": {"acme": {"minimum_pr_auc": 7}}})
    assert due(world) == {"acme"}


def test_a_tenant_without_a_champion_is_due(world: World, tmp_path: Path) -> None:
    condition = RetrainIsDue(lambda: world.platform)
    assert set(condition.chosen(world.platform, {"acme", "gamma"}, TONIGHT - MINUTE, TONIGHT)) == {"gamma"}


def test_the_limit_is_the_freshness_policy_of_the_active_model(world: World) -> None:
    policy = world.definitions.resolve_asset_graph().get(dg.AssetKey("active_model")).freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert fail_window() == policy.fail_window.to_timedelta() == timedelta(days=7)
    assert due(world, TONIGHT - DAY + fail_window() - DAY) == set()
    assert due(world, TONIGHT - DAY + fail_window()) == {"acme", "beta"}


def test_a_tenants_own_limit_overrides_the_policy_for_it_alone(world: World) -> None:
    world.with_platform(overrides={"tenants": {"acme": {"retrain_after": "P1D"}}})
    assert due(world) == {"acme"}
    world.with_platform(overrides={"tenants": {"acme": {"retrain_after": "P30D"}}})
    assert due(world, TONIGHT + 7 * DAY) == {"beta"}


def test_the_source_is_not_asked_between_two_cycles(world: World) -> None:
    condition = CycleStarts(lambda: world.platform)
    world.with_platform(source=None)
    at = TONIGHT + MINUTE
    assert set(condition.chosen(world.platform, {"acme", "beta"}, TONIGHT, at)) == set()


def test_a_tenant_that_is_not_active_does_not_start(world: World) -> None:
    world.source.suspended = {"beta"}
    condition = CycleStarts(lambda: world.platform)
    started = condition.chosen(world.platform, {"acme", "beta", "gone"}, TONIGHT - MINUTE, TONIGHT)
    assert set(started) == {"acme"}
