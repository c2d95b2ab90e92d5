"""What a tick of the sensor `nightly_cycle` takes, at the instant when every tenant's cycle starts.

It is evaluated as the code server does, on an instance with the cursor and the events of a night before.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster._core.test_utils import freeze_time

from benchmarks import fleet
from benchmarks.fleet import Installation
from fraud_assets import cli, cycle
from fraud_assets.definitions import defs
from fraud_assets.orchestration.partitions import tenants
from fraud_assets_tests.postgres import postgres_server

_SENSOR: Final = "nightly_cycle"
_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)


def after_a_night(installation: Installation, count: int) -> dict[str, float]:
    """The daemon's longest tick of the night, with the start of its runs, and an evaluation a day later."""
    with _instance(installation) as instance:
        state = next(each for each in instance.all_instigator_state() if each.instigator_name == _SENSOR)
        now = datetime.now(UTC)
        evaluated = _warm_seconds(instance, now + _MINUTE, now + _DAY, _cursor(state), count)
        return {"evaluated": evaluated, "longest": _longest(instance, state)}


def of_many(count: int) -> float:
    """An evaluation for `count` tenants without rows, whose assets were all materialized the day before."""
    with TemporaryDirectory(prefix="tick-") as folder, postgres_server() as url:
        server = url.rpartition("/")[0]
        made = Installation("tick", Path(folder), server, "tick_source", "http://127.0.0.1:9")
        for store in fleet.STORES:
            fleet.administer(server, f"CREATE DATABASE tick_{store}")
        night = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0)
        fleet.enrol(made, count, night)
        with _instance(made) as instance:
            names = made.platform.source.active_tenants()
            instance.add_dynamic_partitions(str(tenants.name), names)
            first = _evaluated(instance, night - _DAY - _MINUTE, None)
            last = _evaluated(instance, night - _DAY, first.cursor)
            _report(names, night - _DAY)
            return _warm_seconds(instance, night - _DAY + _MINUTE, night, last.cursor, count)


def _warm_seconds(
    instance: dg.DagsterInstance, before: datetime, at: datetime, cursor: str | None, count: int
) -> float:
    """Of the evaluation at `at`, which starts all; the one `before`, which starts nothing, imports a lot."""
    cursor = _evaluated(instance, before, cursor).cursor
    start = time.perf_counter()
    requests = len(_evaluated(instance, at, cursor).run_requests or [])
    seconds = time.perf_counter() - start
    if requests != count:
        raise SystemExit(f"expected a tick that asks for {count} runs, got {requests}")
    return seconds


def _evaluated(instance: dg.DagsterInstance, at: datetime, cursor: str | None) -> Any:
    repository = defs.get_repository_def()
    ticked = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
    # It names all tenants in its log.
    logging.disable(logging.INFO)
    try:
        with freeze_time(at), ticked as context:
            return repository.get_sensor_def(_SENSOR).evaluate_tick(context)
    finally:
        logging.disable(logging.NOTSET)


def _report(names: list[str], at: datetime) -> None:
    with freeze_time(at), dg.DagsterInstance.get() as instance:
        # A new connection a query, which is the default, would take longer than all the rest.
        instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=60, max_overflow=20)
        for asset in cycle.CYCLE_STAGES:
            for name in names:
                instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=name))


def _cursor(state: InstigatorState) -> str | None:
    data = state.instigator_data
    return data.cursor if isinstance(data, SensorInstigatorData) else None


def _longest(instance: dg.DagsterInstance, state: InstigatorState) -> float:
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    return max(tick.end_timestamp - tick.timestamp for tick in ticks if tick.end_timestamp)


@contextmanager
def _instance(installation: Installation) -> Iterator[dg.DagsterInstance]:
    with patch.dict(os.environ, installation.environment, clear=True):
        os.environ.update(cli.environment())
        with dg.DagsterInstance.get() as instance:
            yield instance
