"""Writes the demo company into a new SQLite file or an empty PostgreSQL schema. All of it or nothing.

Nothing here reads or changes a real source: a database that has other tables of ours is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import quote

import dataframely as dy
import polars as pl
import polars.selectors as cs
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as postgresql
from adbc_driver_sqlite import dbapi as sqlite
from sqlalchemy import URL, make_url

from fraud_assets.demo.company import generate
from fraud_assets.demo.tenants import TENANTS, DemoTenant
from fraud_assets.domain.errors import SourceMismatch, SourceUnreachable
from fraud_assets.domain.schemas import SOURCE_TABLES, History, Tenant, source_columns
from fraud_assets.storage.source import Source

_TABLES: Final[Mapping[str, type[dy.Schema]]] = {"tenant": Tenant, **SOURCE_TABLES}
# Events and outcomes have no key: the demo has duplicates of them on purpose.
_KEYS: Final = {
    "tenant": "tenant_id",
    "site": "tenant_id, site_id",
    "guard": "tenant_id, guard_id",
    "shift": "tenant_id, shift_id",
}
_INDEXES: Final = (
    "CREATE INDEX attendance_event_by_time ON attendance_event (tenant_id, punch_in_at)",
    "CREATE INDEX attendance_event_by_id ON attendance_event (tenant_id, event_id)",
    "CREATE INDEX outcome_by_event ON outcome (tenant_id, event_id)",
    "CREATE INDEX shift_by_time ON shift (tenant_id, scheduled_start)",
)
_COUNTS: Final = """
    SELECT t.tenant_id, count(e.tenant_id) FROM tenant AS t
    LEFT JOIN attendance_event AS e ON e.tenant_id = t.tenant_id GROUP BY t.tenant_id
"""


@dataclass(frozen=True)
class _Engine:
    """What differs between the two: column types, the tables there are, statements that keep a table's
    tenants apart, how values are handed over, and expressions for a column that no typed frame can hold,
    each for one event of a corrupt tenant."""

    types: Mapping[type[pl.DataType], str]
    tables: str
    walls: Sequence[str]
    prepared: Callable[[pl.DataFrame], pl.DataFrame]
    unreadable: Sequence[tuple[str, str]]


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Instants and dates as ISO 8601, booleans as 0 and 1: SQLite has no types for them."""
    return frame.with_columns(
        cs.datetime().dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"),
        cs.date().dt.strftime("%Y-%m-%d"),
        cs.boolean().cast(pl.Int64),
    )


_SQLITE: Final = _Engine(
    types={
        **{pl.String: "TEXT", pl.Datetime: "TEXT", pl.Date: "TEXT", pl.Float64: "REAL"},
        **{pl.Boolean: "INTEGER", pl.Int64: "INTEGER"},
    },
    tables="SELECT name FROM sqlite_master WHERE type = 'table'",
    walls=(),
    prepared=_as_text,
    unreadable=(
        ("punch_in_at", "substr(punch_in_at, 1, 19)"),
        ("punch_in_at", "'2026-02-30T25:61:00+00:00'"),
        ("known_at", "'yesterday'"),
        ("latitude", "'NaN'"),
        ("accuracy_m", "'about ten'"),
        ("is_mock_location", "'maybe'"),
        ("face_attempts", "'two'"),
    ),
)
_POSTGRESQL: Final = _Engine(
    types={
        **{pl.String: "text", pl.Datetime: "timestamptz", pl.Date: "date", pl.Float64: "double precision"},
        **{pl.Boolean: "boolean", pl.Int64: "bigint"},
    },
    tables="SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
    # Whoever is not the owner sees the rows of the tenant that the transaction names, as the reader does.
    walls=(
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY one_tenant ON {table} FOR SELECT "
        "USING (tenant_id = current_setting('fraud_assets.tenant', true))",
    ),
    prepared=lambda frame: frame,
    unreadable=(("punch_out_at", "'infinity'"),),
)


def create(
    url: str,
    until: datetime,
    seed: int = 7,
    on_progress: Callable[[str], None] = lambda _: None,
    tenants: Sequence[DemoTenant] = TENANTS,
) -> list[tuple[str, int]]:
    """Each tenant's id and number of events, in the database that is at `url` afterwards.

    url             sqlite:////absolute/path.db or postgresql://user:password@host:port/database
    until           aware; the end of the data
    on_progress     told in a sentence of each step

    Does nothing if the tenants are there already, and says so. Raises InvalidSettings for another URL,
    a naive `until` or a negative seed, SourceMismatch if the database has other tables in their place,
    SourceUnreachable if it cannot be written.
    """
    source, parsed = Source(url), make_url(url)
    engine = _SQLITE if parsed.drivername == "sqlite" else _POSTGRESQL
    there = _found(source, parsed, engine, [tenant.id for tenant in tenants])
    if there is not None:
        on_progress(f"The demo company is already in {parsed}; nothing was written.")
        return there
    with _writable(parsed) as connection:
        _execute(connection, *_tables(engine))
        _ingest(connection, engine, "tenant", _tenant_table(tenants))
        written = [
            (tenant.id, _write(connection, engine, tenant, generate(tenant, until, seed), on_progress))
            for tenant in tenants
        ]
        _execute(connection, *_INDEXES)
    return written


def _found(source: Source, url: URL, engine: _Engine, ids: Sequence[str]) -> list[tuple[str, int]] | None:
    """The tenants and events that are there; None if there is room for the demo."""
    if engine is _SQLITE and not Path(url.database or "").exists():
        return None
    with source.snapshot() as snapshot:
        names = set(snapshot.fetch(engine.tables).to_series())
        # The file is replaced as a whole, so nothing else may be in it.
        if not (names if engine is _SQLITE else names & set(_TABLES)):
            return None
        counts = dict(snapshot.fetch(_COUNTS).iter_rows()) if names >= set(_TABLES) else {}
    if not counts.keys() >= set(ids):
        raise SourceMismatch(
            f"expected no tables in {url}, or those of the demo company, "
            f"got {', '.join(sorted(names))} without the demo's tenants; give another database"
        )
    return [(tenant, counts[tenant]) for tenant in ids]


def _tables(engine: _Engine) -> Iterator[str]:
    for table, schema in _TABLES.items():
        types = source_columns(schema).items()
        columns = [f"{name} {engine.types[dtype.base_type()]}" for name, dtype in types]
        key = [f"PRIMARY KEY ({_KEYS[table]})"] if table in _KEYS else []
        yield f"CREATE TABLE {table} ({', '.join([*columns, *key])})"
        # The directory of tenants is no tenant's.
        if table in SOURCE_TABLES:
            yield from (wall.format(table=table) for wall in engine.walls)


def _tenant_table(tenants: Sequence[DemoTenant]) -> pl.DataFrame:
    rows = [
        (each.id, each.name, each.is_active, each.cities[0].tz, each.cities[0].country) for each in tenants
    ]
    return pl.DataFrame(rows, schema=source_columns(Tenant), orient="row")


def _write(
    connection: dbapi.Connection,
    engine: _Engine,
    tenant: DemoTenant,
    history: History,
    on_progress: Callable[[str], None],
) -> int:
    for name in SOURCE_TABLES:
        _ingest(connection, engine, name, getattr(history, name))
    if tenant.corrupt_guards:
        _make_unreadable(connection, engine, history.attendance_event)
    events = history.attendance_event.height
    on_progress(f"{tenant.id}: {events:,} events; {tenant.shows}.")
    return events


def _ingest(connection: dbapi.Connection, engine: _Engine, table: str, rows: pl.DataFrame) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_ingest(table, engine.prepared(rows).to_arrow(), mode="append")


def _make_unreadable(connection: dbapi.Connection, engine: _Engine, events: pl.DataFrame) -> None:
    """One of the newest events for each value that no typed frame can hold."""
    newest = events.select("tenant_id", "event_id").reverse().gather_every(20)
    for (column, value), (tenant, event) in zip(engine.unreadable, newest.iter_rows(), strict=False):
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE attendance_event SET {column} = {value} WHERE tenant_id = $1 AND event_id = $2",  # noqa: S608
                (tenant, event),
            )


def _execute(connection: dbapi.Connection, *statements: str) -> None:
    for statement in statements:
        with connection.cursor() as cursor:
            cursor.execute(statement)


@contextmanager
def _writable(url: URL) -> Iterator[dbapi.Connection]:
    """A connection whose work is there after the block, or not at all."""
    try:
        if url.drivername == "sqlite":
            with _new_file(Path(url.database or "")) as connection:
                yield connection
        else:
            with postgresql.connect(url.render_as_string(hide_password=False)) as connection:
                yield connection
                connection.commit()
    except (dbapi.Error, OSError) as error:
        said = str(error).replace(url.password, "***") if url.password else str(error)
        raise SourceUnreachable(
            f"expected to write the demo company to {url}, got: {said}; check that its user may write there"
        ) from None


@contextmanager
def _new_file(path: Path) -> Iterator[dbapi.Connection]:
    """Written beside `path` and renamed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        unfinished = Path(folder, path.name)
        with sqlite.connect(f"file:{quote(str(unfinished))}") as connection:
            yield connection
            connection.commit()
        unfinished.replace(path)
