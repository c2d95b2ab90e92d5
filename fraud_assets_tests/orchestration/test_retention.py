"""Old runs are deleted; what they say that nothing newer says is kept."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from fraud_assets.orchestration import retention, traces
from fraud_assets.storage.platform import Platform

PROFILES = dg.AssetKey("profiles")
tenants = dg.DynamicPartitionsDefinition(name="tenants")


@dg.asset(key=PROFILES, partitions_def=tenants)
def profiles() -> None:
    """Made for each tenant."""


@dg.asset_check(asset=profiles)
def is_sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


of_nobody = dg.GraphDefinition(name="of_nobody").to_job()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as made:
        made.add_dynamic_partitions("tenants", ["acme", "zebra"])
        yield made


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform.from_environment({"FRAUD_ASSETS_HOME": str(tmp_path / "home")})


def run_of(tenant: str, instance: dg.DagsterInstance, what: Sequence[object] = (profiles, is_sound)) -> str:
    made = dg.materialize(what, partition_key=tenant, instance=instance)  # type: ignore[arg-type]
    return made.run_id


def left(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def a_minute_on() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def test_the_newest_run_of_each_tenant_is_kept_however_old_and_the_others_go(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    old = [run_of(tenant, instance) for tenant in ("acme", "acme", "zebra")]
    newest = [run_of(tenant, instance) for tenant in ("acme", "zebra")]
    old.append(of_nobody.execute_in_process(instance=instance).run_id)
    assert traces.prune(instance, a_minute_on()) == (4, 2)
    assert left(instance) == set(newest)
    assert not [path for path in tmp_path.rglob("*") if any(run in path.name for run in old)]
    materialized = instance.get_materialized_partitions(PROFILES)
    assert materialized == {"acme", "zebra"}
    assert traces.prune(instance, a_minute_on()) == (0, 2)


def test_a_run_that_holds_the_newest_check_is_kept_when_the_asset_was_made_again_without_it(
    instance: dg.DagsterInstance,
) -> None:
    checked = run_of("acme", instance)
    unchecked = run_of("acme", instance, [profiles])
    assert traces.prune(instance, a_minute_on()) == (0, 2)
    assert left(instance) == {checked, unchecked}


def test_runs_that_ended_later_and_runs_that_go_on_are_kept(instance: dg.DagsterInstance) -> None:
    for _ in range(2):
        run_of("acme", instance)
    going_on = instance.create_run_for_job(of_nobody, status=dg.DagsterRunStatus.STARTED).run_id
    assert traces.prune(instance, datetime.now(UTC) - timedelta(days=1)) == (0, 0)
    assert traces.prune(instance, a_minute_on()) == (1, 1)
    assert going_on in left(instance)


def test_the_job_deletes_by_the_clock_it_is_given_and_says_what_it_did(
    instance: dg.DagsterInstance, platform: Platform
) -> None:
    superseded, newest = run_of("acme", instance), run_of("acme", instance)

    def pruned(days: int) -> list[str]:
        now = datetime.now(UTC) + timedelta(days=days)
        clocked = {"platform": replace(platform, now=lambda: now)}
        done = retention.prune_runs.execute_in_process(instance=instance, resources=clocked)
        told = [entry.user_message for entry in instance.all_logs(done.run_id)]
        return [line for line in told if line.startswith("delete_old_runs ")]

    assert pruned(399) == ["delete_old_runs       0 runs deleted, 0 old ones kept"]
    assert left(instance) >= {superseded, newest}
    # The job's own first run is as old by then.
    assert pruned(401) == ["delete_old_runs       2 runs deleted, 1 old ones kept"]
    assert newest in left(instance)
    assert superseded not in left(instance)


def test_the_job_refuses_to_keep_runs_for_less_than_a_month(
    instance: dg.DagsterInstance, platform: Platform
) -> None:
    few = {"ops": {"delete_old_runs": {"config": {"days": 29}}}}
    with pytest.raises(ValidationError, match="greater than or equal to 30"):
        retention.prune_runs.execute_in_process(
            instance=instance, run_config=few, resources={"platform": platform}
        )


def test_it_is_asked_for_each_day_by_a_schedule_that_is_on() -> None:
    assert retention.daily.default_status is dg.DefaultScheduleStatus.RUNNING
    assert retention.daily.cron_schedule == "0 12 * * *"
