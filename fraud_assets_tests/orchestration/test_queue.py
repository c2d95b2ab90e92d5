"""Large tenants leave places in the queue for the others."""

from typing import Any, cast

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import BaseWorkspaceRequestContext
from dagster._utils.tags import TagConcurrencyLimitsCounter

from fraud_assets.cli import PROJECT
from fraud_assets.orchestration import queue
from fraud_assets.orchestration.queue import LONG, FairQueue
from fraud_assets.orchestration.traces import PARTITION

INSTANCES = ("dagster.yaml", "deploy/postgres/dagster.yaml", "deploy/ray/dagster.yaml")
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", port=1), "__repository__"), "night"
)
NOWHERE = cast("BaseWorkspaceRequestContext", None)


night = dg.GraphDefinition(name="night").to_job()


@pytest.fixture
def fair(instance: dg.DagsterInstance) -> FairQueue:
    made = FairQueue()
    made.register_instance(instance)
    return made


def ran(instance: dg.DagsterInstance, tenant: str) -> None:
    assert night.execute_in_process(instance=instance, tags={PARTITION: tenant}).success


def queued(fair: FairQueue, instance: dg.DagsterInstance, tenant: str | None) -> dg.DagsterRun:
    tags = {PARTITION: tenant} if tenant else {}
    run = create_run_for_test(instance, job_name="night", tags=tags, remote_job_origin=ORIGIN)
    return fair.submit_run(SubmitRunContext(run, workspace=NOWHERE))


def test_a_tenant_whose_last_runs_took_long_is_told_and_its_neighbour_is_not(
    fair: FairQueue, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(instance, "large")
    monkeypatch.setattr(queue, "LONG_SECONDS", 0.0)
    large, neighbour = queued(fair, instance, "large"), queued(fair, instance, "neighbour")
    assert large.tags.get(LONG) == "yes"
    assert LONG not in neighbour.tags
    assert large.status is neighbour.status is dg.DagsterRunStatus.QUEUED


def test_a_tenant_whose_last_runs_were_short_and_a_run_of_no_tenant_are_not_told(
    fair: FairQueue, instance: dg.DagsterInstance
) -> None:
    ran(instance, "small")
    assert not any(LONG in queued(fair, instance, tenant).tags for tenant in ("small", None))


def test_runs_of_longer_ago_do_not_count(
    fair: FairQueue, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = instance.get_run_records

    def watched(filters: dg.RunsFilter, **named: Any) -> Any:
        asked.append(named)
        return real(filters, **named)

    monkeypatch.setattr(instance, "get_run_records", watched)
    queued(fair, instance, "large")
    assert asked == [{"limit": queue.LOOKED_AT}]


@pytest.mark.parametrize("file", INSTANCES)
def test_large_tenants_have_half_of_the_places_and_the_rest_is_for_the_others(file: str) -> None:
    limits = yaml.safe_load((PROJECT / file).read_text())["concurrency"]["runs"]
    half = limits["max_concurrent_runs"] // 2
    going_on = [
        dg.DagsterRun(job_name="night", tags={PARTITION: f"large-{number}", LONG: "yes"})
        for number in range(half)
    ]
    counter = TagConcurrencyLimitsCounter(limits["tag_concurrency_limits"], going_on)
    assert counter.is_blocked(dg.DagsterRun(job_name="night", tags={PARTITION: "large", LONG: "yes"}))
    assert not counter.is_blocked(dg.DagsterRun(job_name="night", tags={PARTITION: "small"}))
    fewer = TagConcurrencyLimitsCounter(limits["tag_concurrency_limits"], going_on[1:])
    assert not fewer.is_blocked(dg.DagsterRun(job_name="night", tags={PARTITION: "large", LONG: "yes"}))
