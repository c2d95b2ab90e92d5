"""Large tenants leave places in the queue for the others."""

from datetime import timedelta
from typing import Any, cast

import dagster as dg
import pytest
import yaml
from dagster._core.events import DagsterEvent
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import BaseWorkspaceRequestContext
from dagster._serdes import ConfigurableClassData
from dagster._utils.tags import TagConcurrencyLimitsCounter

from fraud_assets.cli import PROJECT
from fraud_assets.orchestration.queue import LONG, FairQueue
from fraud_assets.orchestration.traces import PARTITION
from fraud_assets_tests.builders import NOON

INSTANCES = ("dagster.yaml", "deploy/postgres/dagster.yaml", "deploy/ray/dagster.yaml")
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", port=1), "__repository__"), "night"
)
NOWHERE = cast("BaseWorkspaceRequestContext", None)


night = dg.GraphDefinition(name="night").to_job()


def fair(instance: dg.DagsterInstance, **settings: object) -> FairQueue:
    """As Dagster makes it of `dagster.yaml`."""
    data = ConfigurableClassData(FairQueue.__module__, FairQueue.__name__, yaml.safe_dump(settings))
    made = data.rehydrate(as_type=FairQueue)
    made.register_instance(instance)
    return made


def ran(instance: dg.DagsterInstance, tenant: str, seconds: float, status: str = "SUCCESS") -> None:
    run = instance.create_run_for_job(night, tags={PARTITION: tenant})
    ended = dg.DagsterEventType[f"PIPELINE_{status}"]
    for kind, at in ((dg.DagsterEventType.PIPELINE_START, NOON), (ended, NOON + timedelta(seconds=seconds))):
        instance.run_storage.handle_run_event(run.run_id, DagsterEvent(kind.value, "night"), at)


def queued(queue: FairQueue, instance: dg.DagsterInstance, tenant: str | None) -> dg.DagsterRun:
    tags = {PARTITION: tenant} if tenant else {}
    run = create_run_for_test(instance, job_name="night", tags=tags, remote_job_origin=ORIGIN)
    return queue.submit_run(SubmitRunContext(run, workspace=NOWHERE))


def told(queue: FairQueue, instance: dg.DagsterInstance, *tenants: str | None) -> list[str | None]:
    """Those whose runs enter the queue as runs that take long."""
    return [tenant for tenant in tenants if LONG in queued(queue, instance, tenant).tags]


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED"])
def test_a_tenant_whose_last_run_took_long_is_told_however_it_ended_and_its_neighbour_is_not(
    instance: dg.DagsterInstance, status: str
) -> None:
    ran(instance, "large", 61, status)
    ran(instance, "small", 59, status)
    assert told(fair(instance), instance, "large", "small", "new", None) == ["large"]


def test_a_run_waits_in_the_queue(instance: dg.DagsterInstance) -> None:
    assert queued(fair(instance), instance, "large").status is dg.DagsterRunStatus.QUEUED


def test_runs_of_longer_ago_do_not_count(instance: dg.DagsterInstance) -> None:
    ran(instance, "large", 61)
    for _ in range(7):
        ran(instance, "large", 1)
    assert told(fair(instance), instance, "large") == ["large"]
    ran(instance, "large", 1)
    assert told(fair(instance), instance, "large") == []


def test_what_is_long_and_how_many_runs_are_looked_at_are_settings(instance: dg.DagsterInstance) -> None:
    ran(instance, "large", 61)
    ran(instance, "large", 20)
    assert told(fair(instance, long_seconds=70), instance, "large") == []
    assert told(fair(instance, last_runs=1), instance, "large") == []
    assert told(fair(instance, last_runs=1, long_seconds=19.5), instance, "large") == ["large"]


def limits(file: str) -> dict[str, Any]:
    return yaml.safe_load((PROJECT / file).read_text())["concurrency"]["runs"]


@pytest.mark.parametrize("file", INSTANCES)
def test_what_the_files_set_is_what_the_queue_takes(file: str, instance: dg.DagsterInstance) -> None:
    queue = fair(instance, **yaml.safe_load((PROJECT / file).read_text())["run_coordinator"]["config"])
    ran(instance, "large", 61)
    ran(instance, "small", 59)
    assert queue.dequeue_interval_seconds == 1
    assert told(queue, instance, "large", "small") == ["large"]


@pytest.mark.parametrize("file", INSTANCES)
def test_a_tenant_never_has_two_runs_at_once_and_holds_up_nobody_else(file: str) -> None:
    going_on = [dg.DagsterRun(job_name="night", tags={PARTITION: "acme"})]
    counter = TagConcurrencyLimitsCounter(limits(file)["tag_concurrency_limits"], going_on)
    assert counter.is_blocked(dg.DagsterRun(job_name="another job", tags={PARTITION: "acme"}))
    assert not counter.is_blocked(dg.DagsterRun(job_name="night", tags={PARTITION: "acme-2"}))


@pytest.mark.parametrize("file", INSTANCES)
def test_large_tenants_have_half_of_the_places_and_the_rest_is_for_the_others(file: str) -> None:
    given = limits(file)
    half = given["max_concurrent_runs"] // 2
    going_on = [
        dg.DagsterRun(job_name="night", tags={PARTITION: f"large-{number}", LONG: "yes"})
        for number in range(half)
    ]
    counter = TagConcurrencyLimitsCounter(given["tag_concurrency_limits"], going_on)
    assert counter.is_blocked(dg.DagsterRun(job_name="night", tags={PARTITION: "large", LONG: "yes"}))
    assert not counter.is_blocked(dg.DagsterRun(job_name="night", tags={PARTITION: "small"}))
    fewer = TagConcurrencyLimitsCounter(given["tag_concurrency_limits"], going_on[1:])
    assert not fewer.is_blocked(dg.DagsterRun(job_name="night", tags={PARTITION: "large", LONG: "yes"}))
