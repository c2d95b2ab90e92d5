"""The tenant's operational database: read-only, one consistent snapshot a read. No writing, no rules.

Rows that break a rule come along: `compute.quality` sets them aside. A value that cannot be read as
its declared type becomes null, and its column is named in the row's `unreadable`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import dataframely as dy
import polars as pl
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as postgresql
from adbc_driver_sqlite import dbapi as sqlite
from sqlalchemy import URL

from fraud_assets.domain.errors import InvalidSettings, SourceMismatch, SourceUnreachable
from fraud_assets.domain.schemas import (
    SOURCE_TABLES,
    LazyHistory,
    SourceTable,
    Tenant,
    source_columns,
    tenant_id,
)
from fraud_assets.domain.text import shown
from fraud_assets.storage import parts, urls
from fraud_assets.storage.dialects import POSTGRESQL, SQLITE, Dialect, typed
from fraud_assets.storage.spool import Spool

_NAMED: Final = 5
"""Rows that break a rule are shown, the others counted."""
_PARTED: Final[tuple[SourceTable, ...]] = ("attendance_event", "shift")
"""The tables that are too large for memory."""
# Without keepalives a reader waits two hours for a server that vanished.
_CONNECTION: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


@dataclass(frozen=True)
class Tenants:
    """The source's tenants, sorted by id: `valid` rows, and those `set_aside` because they break a
    rule of `schemas.Tenant`, with `rules`, the names of those rules."""

    valid: pl.DataFrame
    set_aside: pl.DataFrame

    @property
    def active(self) -> list[str]:
        """The ids of the valid tenants that are not suspended, sorted."""
        return self.valid.filter("is_active")["tenant_id"].to_list()

    @property
    def left_out(self) -> str | None:
        """One line on those set aside, counted by rule; None if there are none."""
        if self.set_aside.is_empty():
            return None
        rows = self.set_aside.select(pl.col("tenant_id").fill_null("no id"), "rules").sort(
            "tenant_id", "rules"
        )
        named = [f"{shown(tenant, 60)!r} ({rules})" for tenant, rules in rows.head(_NAMED).iter_rows()]
        more = [f"{rows.height - _NAMED} more"] if rows.height > _NAMED else []
        counts = rows["rules"].value_counts(name="tenants").sort("rules")
        return (
            "left out rows of the source's table tenant that break a rule: "
            f"{', '.join(f'{rules}: {count}' for rules, count in counts.iter_rows())}; "
            f"correct them in the source: {', '.join([*named, *more])}"
        )


@dataclass(frozen=True, repr=False)
class Source:
    """The database behind `sqlite:////absolute/path.db` or `postgresql://user:password@host:port/database`.

    Opens nothing until it is read. Raises InvalidSettings for any other URL. Reading raises
    SourceUnreachable and SourceMismatch, and returns nothing that is half-read.
    """

    url: str

    def __post_init__(self) -> None:
        _parsed(self.url)

    def __repr__(self) -> str:
        """Without the password."""
        return f"Source({str(_parsed(self.url))!r})"

    def tenants(self) -> Tenants:
        """Every tenant of the source, suspended ones too."""
        with self.snapshot() as snapshot:
            snapshot.check("tenant", Tenant)
            rows = snapshot.tenants()
        valid, failure = Tenant.filter(rows.select(Tenant.column_names()))
        return Tenants(valid.sort("tenant_id"), _with_rules(failure.details()))

    def active_tenants(self) -> list[str]:
        """The ids of the valid tenants that are not suspended, sorted."""
        return self.tenants().active

    def parts(
        self, tenant: str, since: datetime, until: datetime, size: int, folder: Path
    ) -> list[LazyHistory]:
        """A tenant's tables as known at `until`, as read: with `unreadable`, rows sorted by id.

        since, until    aware instants
        event           punched in at `since` or later
        outcome         of those events, and of events that the source does not have
        shift           scheduled from a day before `since` to a day after `until`, or of those events of its
                        guard
        site, guard     all, in each part

        A row comes along too if the instant that decides about it is missing or cannot be read.

        The parts are ranges of guards, in the order of their ids, with about `size` events each; one
        at least. Each event, shift and outcome is in one part, and a guard's all in the same: an outcome
        goes to the first part that has its event, else to the last. One part of up to `size` rows is in
        memory; more rows lie in `folder`, and can be read as long as that is there. The database is read
        once, and left before this returns. Raises InvalidTenantId besides.
        """
        tenant_id(tenant)
        with self.snapshot() as snapshot:
            for name, schema in SOURCE_TABLES.items():
                snapshot.check(name, schema)
            cuts = parts.cuts(snapshot.events_by_guard(tenant, since), size)

            def wanted(name: SourceTable) -> Iterator[pl.DataFrame]:
                is_wanted = parts.wanted(name, since, until)
                return (rows.filter(is_wanted) for rows in snapshot.table(name, tenant, since))

            def spooled(name: SourceTable) -> list[pl.LazyFrame]:
                spool = Spool(folder / name, SOURCE_TABLES[name].create_empty(), size)
                for rows in wanted(name):
                    for part, some in parts.split(rows, cuts):
                        spool.add(some, str(part))
                return [spool.scan(str(part)) for part in range(cuts.len() + 1)]

            parted = {name: spooled(name) for name in _PARTED}
            whole = {name: pl.concat(wanted(name)) for name in SOURCE_TABLES if name not in _PARTED}
        return parts.joined(whole, parted, since, until)

    @contextmanager
    def snapshot(self) -> Iterator["Snapshot"]:
        """A connection of its own in a transaction that cannot write; closed at the end."""
        url = _parsed(self.url)
        dialect = SQLITE if url.drivername == "sqlite" else POSTGRESQL
        with _connect(url) as connection:
            snapshot = Snapshot(url, dialect, connection)
            for statement in dialect.begin:
                snapshot.execute(statement)
            yield snapshot


@dataclass(frozen=True)
class Snapshot:
    """One connection in one transaction: every query sees the same moment."""

    url: URL
    dialect: Dialect
    connection: dbapi.Connection

    def execute(self, statement: str) -> None:
        """A statement without rows."""
        with self._cursor() as cursor:
            cursor.execute(statement)

    def fetch(self, query: str, *values: object) -> pl.DataFrame:
        """The rows of a query with bound values `$1`, `$2` and so on."""
        with self._cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetch_polars()

    def stream(self, query: str, *values: object) -> Iterator[pl.DataFrame]:
        """The rows of a query with bound values in the driver's batches, an empty one first.

        PostgreSQL's gives all rows in one batch if a value is bound.
        """
        with self._cursor() as cursor:
            cursor.execute(query, values or None)
            batches = cursor.fetch_record_batch()
            yield pl.DataFrame(batches.schema.empty_table())
            for batch in batches:
                yield pl.DataFrame(batch)

    @contextmanager
    def _cursor(self) -> Iterator[dbapi.Cursor]:
        try:
            with self.connection.cursor(adbc_stmt_kwargs=dict(self.dialect.options)) as cursor:
                yield cursor
        except (dbapi.Error, OSError, pl.exceptions.PolarsError) as error:
            raise _unreachable(self.url, str(error)) from None

    def tenants(self) -> pl.DataFrame:
        """The tenant table as read."""
        columns = source_columns(Tenant)
        return typed(self.fetch(self.dialect.select("tenant AS t", columns, "true")), columns)

    def table(self, name: SourceTable, tenant: str, since: datetime) -> Iterator[pl.DataFrame]:
        """A tenant's table as read, in batches, one at least; of events and shifts at least those that
        matter from `since` on.

        Outcomes have one more column, `has_event`: whether the source has the event at all.
        """
        columns = source_columns(SOURCE_TABLES[name])
        return self._typed(self._query(name, columns), columns, tenant, since)

    def _query(self, name: SourceTable, columns: Mapping[str, pl.DataType]) -> str:
        recent, more = self.dialect.recent, ()
        tables, where = f"{name} AS t", [self._of_tenant("t")]
        if name == "attendance_event":
            where.append(recent("t.punch_in_at"))
        elif name == "shift":
            join, is_referred_to = self._of_events("shift_id", recent("e.punch_in_at"))
            tables += join
            where.append(f"({is_referred_to} OR {recent('t.scheduled_start')})")
        elif name == "outcome":
            join, has_event = self._of_events("event_id", "true")
            tables += join
            more = (f"{has_event} AS has_event",)
        return self.dialect.select(tables, columns, " AND ".join(where), *more)

    def _of_events(self, column: str, where: str) -> tuple[str, str]:
        """SQL that joins the events' values of `column`, if need be, and asks if the row has one."""
        of_tenant = self._of_tenant("e")
        values = f"SELECT DISTINCT e.{column} FROM attendance_event AS e WHERE {of_tenant} AND {where}"  # noqa: S608
        join, is_one = self.dialect.join, self.dialect.is_one
        return join.format(c=column, values=values), is_one.format(c=column, values=values)

    def events_by_guard(self, tenant: str, since: datetime) -> pl.DataFrame:
        """guard_id, events: how many of the events in `table` each has; a guard may have several lines."""
        columns = {"tenant_id": pl.String(), "guard_id": pl.String()}
        where = f"{self._of_tenant('t')} AND {self.dialect.recent('t.punch_in_at')} GROUP BY 1, 2, 3, 4"
        query = self.dialect.select("attendance_event AS t", columns, where, "count(*) AS events")
        return pl.concat(self._typed(query, columns, tenant, since)).select("guard_id", "events")

    def _typed(
        self, query: str, columns: Mapping[str, pl.DataType], tenant: str, since: datetime
    ) -> Iterator[pl.DataFrame]:
        values = {"$1": tenant, "$2": self.dialect.instant(since - parts.DAY)}
        if self.dialect.give:
            self.fetch(self.dialect.give, *values.values())
        rows = self.stream(query, *(value for mark, value in values.items() if mark in query))
        # A collation may call other ids equal to the tenant's.
        return (typed(some, columns).filter(pl.col("tenant_id") == tenant) for some in rows)

    def _of_tenant(self, table: str) -> str:
        return f"{table}.tenant_id = {self.dialect.tenant}"

    def check(self, table: str, schema: type[dy.Schema]) -> None:
        """Raises SourceMismatch unless the source has the table with every column in a readable type."""
        columns, found = source_columns(schema), dict(self.fetch(self.dialect.columns, table).iter_rows())
        problems = [
            f"column {name}: expected {self.dialect.expected(dtype)}, got {found.get(name, 'no such column')}"
            for name, dtype in columns.items()
            if not self.dialect.can_read(dtype, found.get(name))
        ]
        if not found:
            problems = [f"expected the columns {', '.join(columns)}, got no such table"]
        if problems:
            raise SourceMismatch(
                f"table {table} of {self.url}: {'; '.join(problems)}; "
                "give it these columns, or put a view that has them in its place"
            )


def _parsed(url: str) -> URL:
    parsed = urls.parsed(url)
    if parsed is not None and (_is_sqlite_file(parsed) or _is_server(parsed)):
        return parsed
    raise InvalidSettings(
        "expected a source URL such as sqlite:////absolute/path.db or "
        f"postgresql://user:password@host:5432/database, got {urls.told(parsed)}; "
        "correct FRAUD_ASSETS_SOURCE_URL"
    )


def _is_sqlite_file(url: URL) -> bool:
    return url.drivername == "sqlite" and Path(url.database or "").is_absolute() and not url.query


def _is_server(url: URL) -> bool:
    return url.drivername == "postgresql" and url.host is not None and "password" not in url.query


def _connect(url: URL) -> dbapi.Connection:
    try:
        if url.drivername == "sqlite":
            return _open_file(url)
        chosen = url.set(query={**_CONNECTION, **url.query})
        return postgresql.connect(chosen.render_as_string(hide_password=False), autocommit=True)
    except dbapi.Error as error:
        raise _unreachable(url, str(error)) from None


def _open_file(url: URL) -> dbapi.Connection:
    path = Path(url.database or "")
    if not path.is_file():
        raise _unreachable(url, "no such file")
    return sqlite.connect(f"file:{quote(str(path))}?mode=ro", autocommit=True)


def _unreachable(url: URL, words: str) -> SourceUnreachable:
    """The driver's words without the password, which they may repeat, and without the query."""
    said = words.partition("\nQuery was")[0].strip()
    for secret in filter(None, (url.password, quote(url.password or "", safe=""))):
        said = said.replace(secret, "***")
    return SourceUnreachable(
        f"expected {url} to answer, got: {said}; check that it is there, and that its reader may read it"
    )


def _with_rules(details: pl.DataFrame) -> pl.DataFrame:
    columns = Tenant.column_names()
    rules = [name for name in details.columns if name not in columns]
    broken = [pl.when(pl.col(name) == "invalid").then(pl.lit(name)) for name in rules]
    return details.select(*columns, rules=pl.concat_str(broken, separator=", ", ignore_nulls=True))
