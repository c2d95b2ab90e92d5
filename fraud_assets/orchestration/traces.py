"""What Dagster keeps of a tenant, and how it is erased: runs, events, checks, ticks, and lines in log files.

Dagster can delete a run, but not the events of one partition, nor a tick. What it has no method for is
deleted from its tables, whose shape the pin of its minor version holds. Everything here can be done again.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import dagster as dg
import sqlalchemy as sa
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.runs.schema import BulkActionsTable, RunsTable, RunTagsTable
from dagster._core.storage.schedules.schema import AssetDaemonAssetEvaluationsTable, JobTickTable
from dagster_shared.serdes import serialize_value

from fraud_assets.domain.errors import Refused
from fraud_assets.storage import logs, sqlite

PARTITION: Final = "dagster/partition"
_RUNLESS: Final = ""
_DATABASES: Final = ("history/runs.db", "history/runs/index.db", "history/runs/.db", "schedules/schedules.db")
_OF_ASSETS: Final = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION")
_IN_PROGRESS: Final = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


def require_idle(instance: dg.DagsterInstance, tenant: str) -> None:
    """Raises Refused while a run of the tenant waits or goes on, or a backfill, which may start one."""
    running = [run.run_id for run in _runs(instance, tenant) if not run.is_finished]
    if running:
        raise Refused(
            f"expected no run of {tenant} in progress, got {', '.join(running)}; wait for it, or terminate it"
        )
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=_IN_PROGRESS))
    if backfills:
        names = ", ".join(backfill.backfill_id for backfill in backfills)
        raise Refused(f"expected no backfill in progress, got {names}; wait for it, or cancel it")


def erase(instance: dg.DagsterInstance, tenant: str, log_folder: Path) -> int:
    """Erases the tenant's runs with all that they left, and what ticks and logs say of it; how many runs.

    `log_folder` is where the servers write. Log files keep their length: who writes to them goes on.
    """
    runs = [run.run_id for run in _runs(instance, tenant)]
    mentions = logs.mention([tenant, *runs])
    for folder in (log_folder, Path(instance.storage_directory())):
        logs.blank(folder, mentions)
    for run in runs:
        _erase_run(instance, run)
    _erase_events(instance, tenant)
    _erase_ticks(instance, tenant)
    _forget_newest(instance, logs.mention([tenant]))
    for name in _DATABASES:
        if (path := Path(instance.root_directory, name)).exists():
            sqlite.compact(path)
    return len(runs)


def prune(instance: dg.DagsterInstance, ended_before: datetime) -> tuple[int, int]:
    """Deletes the runs that ended before, but those with the newest event or check of an asset of a tenant;
    how many were deleted, and how many kept."""
    old = instance.get_run_ids(dg.RunsFilter(statuses=FINISHED_STATUSES, updated_before=ended_before))
    newest = _newest_runs(instance)
    deleted = [run for run in old if run not in newest]
    for run in deleted:
        _erase_run(instance, run)
    return len(deleted), len(old) - len(deleted)


def _newest_runs(instance: dg.DagsterInstance) -> set[str]:
    """The runs with the newest materialization, observation or check of each asset of each tenant."""
    event, check = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
    events = sa.select(sa.func.max(event.id)).where(event.dagster_event_type.in_(_OF_ASSETS))
    events = events.group_by(event.dagster_event_type, event.asset_key, event.partition)
    checks = sa.select(sa.func.max(check.id)).group_by(check.asset_key, check.check_name, check.partition)
    with cast("Any", instance.event_log_storage).index_connection() as connection:
        found = connection.execute(sa.select(event.run_id).where(event.id.in_(events))).scalars().all()
        found += connection.execute(sa.select(check.run_id).where(check.id.in_(checks))).scalars().all()
    return set(found)


def _runs(instance: dg.DagsterInstance, tenant: str) -> Sequence[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(tags={PARTITION: tenant}))


def _erase_run(instance: dg.DagsterInstance, run: str) -> None:
    """Its logs and events first: as long as the run itself is there, it is found again after a crash."""
    instance.compute_log_manager.delete_logs(prefix=[run])
    events = cast("Any", instance.event_log_storage)
    events.delete_events(run)
    with events.index_connection() as connection:
        connection.execute(
            sa.delete(AssetCheckExecutionsTable).where(AssetCheckExecutionsTable.c.run_id == run)
        )
    if isinstance(events, SqliteEventLogStorage):
        for end in ("", "-wal", "-shm"):
            Path(f"{events.path_for_shard(run)}{end}").unlink(missing_ok=True)
    with cast("Any", instance.run_storage).connect() as connection:
        connection.execute(sa.delete(RunsTable).where(RunsTable.c.run_id == run))
        # PostgreSQL does so by itself.
        connection.execute(sa.delete(RunTagsTable).where(RunTagsTable.c.run_id == run))


def _erase_events(instance: dg.DagsterInstance, tenant: str) -> None:
    """Those without a run, which a person reported, and checks that were planned and never run."""
    events = cast("Any", instance.event_log_storage)
    is_theirs = SqlEventLogStorageTable.c.partition == tenant
    for connect in _connections(events):
        with connect as connection:
            known = sa.select(SqlEventLogStorageTable.c.id).where(is_theirs)
            connection.execute(
                sa.delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(known))
            )
            connection.execute(sa.delete(SqlEventLogStorageTable).where(is_theirs))
    with events.index_connection() as connection:
        checks = AssetCheckExecutionsTable.c.partition == tenant
        connection.execute(sa.delete(AssetCheckExecutionsTable).where(checks))


def _connections(events: Any) -> Iterator[Any]:
    """SQLite keeps the events without a run in a file of their own as well."""
    yield events.index_connection()
    if isinstance(events, SqliteEventLogStorage) and Path(events.path_for_shard(_RUNLESS)).exists():
        yield events.run_connection(_RUNLESS)


def _erase_ticks(instance: dg.DagsterInstance, tenant: str) -> None:
    """Ticks and evaluations that name the tenant, and backfills: notes of Dagster's about what it started."""
    # An instance in memory knows no ticks.
    if schedules := cast("Any", instance.schedule_storage):
        with schedules.connect() as connection:
            _delete(connection, JobTickTable, "tick_body", tenant, JobTickTable.c.status != "STARTED")
            _delete(connection, AssetDaemonAssetEvaluationsTable, "asset_evaluation_body", tenant)
    with cast("Any", instance.run_storage).connect() as connection:
        _delete(connection, BulkActionsTable, "body", tenant)


def _delete(connection: sa.Connection, table: sa.Table, body: str, tenant: str, *which: Any) -> None:
    """Deletes the rows whose text names the tenant."""
    rows = sa.select(table.c.id, table.c[body]).where(table.c[body].contains(tenant), *which)
    for row, text in connection.execute(rows).all():
        if logs.mention([tenant]).search(text.encode()):
            connection.execute(sa.delete(table).where(table.c.id == row))


def _forget_newest(instance: dg.DagsterInstance, mentions: re.Pattern[bytes]) -> None:
    """Each asset notes its newest materialization: where it was the tenant's, the newest of the others."""
    with cast("Any", instance.event_log_storage).index_connection() as connection:
        noted = connection.execute(sa.select(AssetKeyTable)).mappings().all()
    for row in noted:
        if not mentions.search(f"{row['last_materialization']} {row['cached_status_data']}".encode()):
            continue
        key = dg.AssetKey.from_db_string(row["asset_key"])
        newest = key and next(iter(instance.fetch_materializations(key, limit=1).records), None)
        values = {
            "last_materialization": serialize_value(newest) if newest else None,
            "last_run_id": newest.run_id if newest else None,
            "cached_status_data": None,
        }
        # Unless a run has noted another one meanwhile.
        is_as_read = (
            AssetKeyTable.c.id == row["id"]
        ) & AssetKeyTable.c.last_materialization.is_not_distinct_from(row["last_materialization"])
        with cast("Any", instance.event_log_storage).index_connection() as connection:
            connection.execute(sa.update(AssetKeyTable).where(is_as_read).values(values))
