"""The tenant's operational database: read-only, one consistent snapshot a read. No writing, no rules.

Rows that break a rule come along: `compute.quality` sets them aside. A value that cannot be read as
its declared type becomes null, and its column is named in the row's `unreadable`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import dataframely as dy
import polars as pl
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as postgresql
from adbc_driver_sqlite import dbapi as sqlite
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fraud_assets.domain.errors import InvalidSettings, SourceMismatch, SourceUnreachable
from fraud_assets.domain.schemas import SOURCE_TABLES, History, SourceTable, Tenant, source_columns, tenant_id
from fraud_assets.storage.dialects import POSTGRESQL, SQLITE, Dialect, typed

_DAY: Final = timedelta(days=1)
_EVENTS: Final = "FROM attendance_event AS e WHERE e.tenant_id = $1"
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


@dataclass(frozen=True, repr=False)
class Source:
    """The database behind `sqlite:////absolute/path.db` or `postgresql://user:password@host:port/database`.

    Opens nothing until it is read. Raises InvalidSettings for any other URL. Reading raises
    SourceUnreachable and SourceMismatch, and returns nothing rather than a part.
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
        return self.tenants().valid.filter("is_active")["tenant_id"].to_list()

    def read(self, tenant: str, since: datetime, until: datetime) -> History:
        """A tenant's tables as known at `until`, as read: with `unreadable`, rows sorted by id.

        since, until    aware instants
        event           punched in at `since` or later
        outcome         of those events, and of events that the source does not have
        shift           scheduled from a day before `since` to a day after `until`, or of those events
        site, guard     all

        A row comes along too if the instant that decides about it is missing or cannot be read.
        Raises InvalidTenantId besides.
        """
        tenant_id(tenant)
        with self.snapshot() as snapshot:
            for name, schema in SOURCE_TABLES.items():
                snapshot.check(name, schema)
            return _within(
                {name: snapshot.table(name, tenant, since) for name in SOURCE_TABLES}, since, until
            )

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

    @contextmanager
    def _cursor(self) -> Iterator[dbapi.Cursor]:
        try:
            with self.connection.cursor(adbc_stmt_kwargs=dict(self.dialect.options)) as cursor:
                yield cursor
        except (dbapi.Error, pl.exceptions.PolarsError) as error:
            raise _unreachable(self.url, str(error)) from None

    def tenants(self) -> pl.DataFrame:
        """The tenant table as read."""
        columns = source_columns(Tenant)
        return typed(self.fetch(self.dialect.select("tenant", columns, "true")), columns)

    def table(self, name: SourceTable, tenant: str, since: datetime) -> pl.DataFrame:
        """A tenant's table as read; of events and shifts at least those that matter from `since` on.

        Outcomes have one more column, `has_event`: whether the source has the event at all.
        """
        columns = source_columns(SOURCE_TABLES[name])
        of_tenant, window, more = "t.tenant_id = $1", self._window(name), ()
        if name == "outcome":
            more = (f"COALESCE(t.event_id IN (SELECT e.event_id {_EVENTS}), false) AS has_event",)
        query = self.dialect.select(name, columns, of_tenant + window, *more)
        values = (tenant, self.dialect.instant(since - _DAY)) if window else (tenant,)
        # A collation may call other ids equal to the tenant's.
        return typed(self.fetch(query, *values), columns).filter(pl.col("tenant_id") == tenant)

    def _window(self, name: SourceTable) -> str:
        recent = self.dialect.recent
        if name == "attendance_event":
            return f" AND {recent('t.punch_in_at', '$2')}"
        if name == "shift":
            referenced = f"t.shift_id IN (SELECT e.shift_id {_EVENTS} AND {recent('e.punch_in_at', '$2')})"
            return f" AND ({referenced} OR {recent('t.scheduled_start', '$2')})"
        return ""

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
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is not None and (_is_sqlite_file(parsed) or _is_server(parsed)):
        return parsed
    got = parsed.set(query={}) if parsed else "one that cannot be parsed"
    raise InvalidSettings(
        "expected a source URL such as sqlite:////absolute/path.db or "
        f"postgresql://user:password@host:5432/database, got {got}; correct FRAUD_ASSETS_SOURCE_URL"
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


def _within(tables: Mapping[SourceTable, pl.DataFrame], since: datetime, until: datetime) -> History:
    events = tables["attendance_event"].filter(_from("punch_in_at", since), _by("known_at", until))
    scheduled = _from("scheduled_start", since - _DAY) & _by("scheduled_start", until + _DAY)
    shifts = tables["shift"].filter(_by("published_at", until), scheduled | _is_one_of("shift_id", events))
    unknown = ~pl.col("has_event").cast(pl.Boolean)
    outcomes = tables["outcome"].filter(_by("known_at", until), unknown | _is_one_of("event_id", events))
    return History(
        site=_in_order("site", tables["site"]),
        guard=_in_order("guard", tables["guard"]),
        shift=_in_order("shift", shifts),
        attendance_event=_in_order("attendance_event", events),
        outcome=_in_order("outcome", outcomes),
    )


def _from(column: str, since: datetime) -> pl.Expr:
    return pl.col(column).is_null() | (pl.col(column) >= since)


def _by(column: str, until: datetime) -> pl.Expr:
    return pl.col(column).is_null() | (pl.col(column) <= until)


def _is_one_of(column: str, rows: pl.DataFrame) -> pl.Expr:
    return pl.col(column).is_in(rows[column].drop_nulls().implode())


def _in_order(name: SourceTable, rows: pl.DataFrame) -> pl.DataFrame:
    """By id, then by everything else, so that an engine's own order is never seen."""
    schema = SOURCE_TABLES[name]
    columns, key = schema.column_names(), schema.primary_key()
    return rows.select(columns).sort(*key, *(column for column in columns if column not in key))
