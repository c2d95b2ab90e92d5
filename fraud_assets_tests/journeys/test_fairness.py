"""A night with tenants that take long: Dagster's own daemon leaves places for the others."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.storage.dagster_run import RunRecord

from fraud_assets.orchestration.queue import LONG
from fraud_assets.orchestration.traces import PARTITION
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.journeys.test_daemon import daemon, ticks

LARGE = ("alcazar-security", "bluewater-guards", "drift-patrol")
SMALL = ("ember-watch", "fairplay-guarding", "harbour-corrupt")

night = dg.GraphDefinition(name="night").to_job()


def took_long(instance: dg.DagsterInstance, tenant: str) -> None:
    """A run of yesterday that went on for two minutes."""
    run = instance.create_run_for_job(night, tags={PARTITION: tenant})
    began = datetime.now(UTC) - timedelta(days=1)
    steps = {dg.DagsterEventType.PIPELINE_START: began}
    steps[dg.DagsterEventType.PIPELINE_SUCCESS] = began + timedelta(minutes=2)
    for kind, instant in steps.items():
        instance.run_storage.handle_run_event(run.run_id, DagsterEvent(kind.value, "night"), instant)


def tonight(instance: dg.DagsterInstance) -> list[RunRecord]:
    """In the order in which they began; none before all have ended."""
    records = [each for each in instance.get_run_records() if each.dagster_run.job_name != night.name]
    if len(records) < len(LARGE + SMALL) or not all(each.dagster_run.is_finished for each in records):
        return []
    return sorted(records, key=lambda each: each.start_time or 0)


def at_once(records: list[RunRecord]) -> int:
    """The most of them that went on at the same time."""
    began = [(each.start_time or 0, 1) for each in records]
    ended = [(each.end_time or 0, -1) for each in records]
    going_on, most = 0, 0
    for _, step in sorted(began + ended):
        going_on += step
        most = max(most, going_on)
    return most


@pytest.mark.journey
def test_large_tenants_at_the_head_of_the_queue_leave_half_of_the_places_to_the_others(
    installation: Installation,
) -> None:
    installation.create_company({**dict.fromkeys(LARGE, 30), **dict.fromkeys(SMALL, 6)})
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    with daemon(installation) as instance:
        for tenant in LARGE:
            took_long(instance, tenant)
        installation.wait_for("a first tick", lambda: ticks(instance))
        installation.cycle_at(datetime.now(UTC) + timedelta(seconds=1))
        records = installation.wait_for("the end of the night", lambda: tonight(instance))
    long = [each for each in records if LONG in each.dagster_run.tags]
    assert {each.dagster_run.tags[PARTITION] for each in long} == set(LARGE), installation.told()
    assert {each.dagster_run.status for each in records} == {dg.DagsterRunStatus.SUCCESS}, installation.told()
    assert at_once(long) <= 2
    assert 2 < at_once(records) <= 4
    # The third of them waits for a place of the other two; nobody small waits for it.
    *_, last = long
    others = [each for each in records if LONG not in each.dagster_run.tags]
    assert all((small.start_time or 0) < (last.start_time or 0) for small in others[:2])
    assert (last.start_time or 0) >= min(each.end_time or 0 for each in long[:2])
