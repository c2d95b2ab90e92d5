"""What differs between SQLite and PostgreSQL when the source is read. No connection is opened here.

Each dialect reads a value as its declared type, or as null if it cannot be read so. Table and column
names come from `domain.schemas`, never from outside; values are bound, never written into the text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

import polars as pl


@dataclass(frozen=True)
class Dialect:
    """How one engine is asked.

    begin       statements that start a read-only transaction with one snapshot
    columns     query of the names and types of the table `$1`, no rows if there is no such table
    values      by polars type: SQL of the value of `{c}`, null where it cannot be read
    types       by polars type: the column types that can be read; a type that is missing: any
    old         SQL that is true only if the instant `{c}` can be read and is before `{since}`
    instant     an aware datetime as the engine binds it
    tenant      SQL of the tenant's id that a read asks for, `$1` of it
    since       SQL of the instant from which on it asks, `$2`
    join        SQL behind the table `t` that joins the query `{values}` of a column `{c}`; none: not needed
    is_one      SQL of whether the row's `{c}` is one of `{values}`
    give        query that makes the values `$1` and `$2` known to `tenant` and `since`; none: they are bound
    options     of each statement
    """

    begin: Sequence[str]
    columns: str
    values: Mapping[type[pl.DataType], str]
    types: Mapping[type[pl.DataType], frozenset[str]]
    old: str
    instant: Callable[[datetime], object]
    join: str
    is_one: str
    tenant: str = "$1"
    since: str = "$2"
    give: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    def select(self, table: str, columns: Mapping[str, pl.DataType], where: str, *more: str) -> str:
        """A query of each column of `table AS t` and, as `<column>_given`, of whether it has a value."""
        values = [
            f"{self.values[dtype.base_type()].format(c=f't.{name}')} AS {name}, "
            f"t.{name} IS NOT NULL AS {name}_given"
            for name, dtype in columns.items()
        ]
        return f"SELECT {', '.join([*values, *more])} FROM {table} WHERE {where}"  # noqa: S608

    def recent(self, column: str) -> str:
        """True unless the instant is surely before `since`; what cannot be read comes along."""
        return f"NOT COALESCE({self.old.format(c=column, since=self.since)}, false)"

    def can_read(self, dtype: pl.DataType, found: str | None) -> bool:
        """Whether a column of the type `found` (None: there is none) can hold values of `dtype`."""
        types = self.types.get(dtype.base_type())
        return found is not None and (types is None or found in types)

    def expected(self, dtype: pl.DataType) -> str:
        """The column types for `dtype`, in words."""
        return " or ".join(sorted(self.types.get(dtype.base_type(), {str(dtype)})))


def _first_seconds(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()[:19]


# Any value may stand in any column. Text is read as bytes, since it need not be valid UTF-8; the driver
# infers a column's type from its first batch, so one batch holds all rows: a table of a tenant in SQLite has
# to fit into memory.
SQLITE: Final = Dialect(
    begin=("PRAGMA busy_timeout = 10000", "BEGIN"),
    columns="SELECT lower(name) AS name, type FROM pragma_table_xinfo($1)",
    values={
        pl.String: "CAST({c} AS BLOB)",
        pl.Datetime: "CAST({c} AS BLOB)",
        pl.Date: "CAST({c} AS BLOB)",
        pl.Float64: "CASE WHEN typeof({c}) IN ('real', 'integer') THEN CAST({c} AS REAL) END",
        pl.Int64: "CASE WHEN typeof({c}) = 'integer' THEN {c} END",
        pl.Boolean: "CASE WHEN typeof({c}) = 'integer' AND {c} IN (0, 1) THEN {c} END",
    },
    types={},
    old=(
        "{c} < {since} AND strftime('%Y-%m-%dT%H:%M:%S', {c}) = substr({c}, 1, 19) "
        "AND ({c} LIKE '%Z' OR {c} LIKE '%+00:00')"
    ),
    instant=_first_seconds,
    # A join would go through all values for each row: SQLite expects few of them, and makes no index.
    join="",
    is_one="COALESCE(t.{c} IN ({values}), false)",
    options={"adbc.sqlite.query.batch_rows": 100_000_000},
)

_INTEGERS: Final = frozenset({"bigint", "integer", "smallint"})
_FINITE: Final = "{{c}} >= {type} '0001-01-01{utc}' AND {{c}} < {type} '10000-01-01{utc}'"
_FINITE_INSTANT: Final = _FINITE.format(type="timestamptz", utc=" 00:00+00")
_FINITE_DATE: Final = _FINITE.format(type="date", utc="")

POSTGRESQL: Final = Dialect(
    begin=(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "SET LOCAL statement_timeout = '10min'",
        "SET LOCAL client_encoding = 'UTF8'",
    ),
    columns=(
        "SELECT CAST(a.attname AS text) AS name, "
        "CASE WHEN t.typtype = 'e' THEN 'enum' ELSE format_type(t.oid, NULL) END AS type "
        "FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
        "WHERE a.attrelid = to_regclass($1) AND a.attnum > 0"
    ),
    values={
        pl.String: "CAST({c} AS text)",
        pl.Datetime: f"CASE WHEN {_FINITE_INSTANT} THEN {{c}} END",
        pl.Date: f"CASE WHEN {_FINITE_DATE} THEN {{c}} END",
        pl.Float64: "CAST({c} AS double precision)",
        pl.Int64: "CAST({c} AS bigint)",
        pl.Boolean: "{c}",
    },
    types={
        pl.String: frozenset({"text", "character varying", "character", "enum"}),
        pl.Datetime: frozenset({"timestamp with time zone"}),
        pl.Date: frozenset({"date"}),
        pl.Float64: _INTEGERS | {"double precision", "real"},
        pl.Int64: _INTEGERS,
        pl.Boolean: frozenset({"boolean"}),
    },
    old=f"{_FINITE_INSTANT} AND {{c}} < {{since}}",
    instant=lambda instant: instant.astimezone(UTC).isoformat(),
    # IN would go through all values for each row, where they are too many for its memory.
    join=" LEFT JOIN ({values}) AS e ON e.{c} = t.{c}",
    is_one="e.{c} IS NOT NULL",
    tenant="current_setting('fraud_assets.tenant')",
    since="CAST(current_setting('fraud_assets.since') AS timestamptz)",
    # The driver streams what COPY gives, and COPY takes no bound values. Both are gone with the transaction.
    give=(
        "SELECT set_config('fraud_assets.tenant', $1, true) AS tenant, "
        "set_config('fraud_assets.since', $2, true) AS since"
    ),
)


def typed(rows: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The result of `Dialect.select` as the declared types, with `unreadable`; other columns stay.

    An instant without an offset cannot be read, nor one outside the years 1 to 9999.
    """
    rows = rows.with_columns(_text(values) for values in rows if values.dtype == pl.Binary)
    values = rows.with_columns(_value(name, dtype, rows.schema[name]) for name, dtype in columns.items())
    lost = [
        pl.when(pl.col(f"{name}_given").cast(pl.Boolean) & pl.col(name).is_null()).then(pl.lit(name))
        for name in columns
    ]
    named = pl.concat_str(lost, separator=",", ignore_nulls=True)
    return values.with_columns(unreadable=pl.when(named != "").then(named)).drop(
        f"{name}_given" for name in columns
    )


def _value(name: str, dtype: pl.DataType, given: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    if given != pl.String or dtype == pl.String:
        return value.cast(dtype)
    if dtype == pl.Date:
        day = value.str.to_date("%Y-%m-%d", strict=False)
        return pl.when(day.dt.to_string("%Y-%m-%d") == value, day >= date.min).then(day).alias(name)
    instant = value.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    years = instant.is_between(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    return pl.when(years).then(instant).alias(name)


def _text(values: pl.Series) -> pl.Series:
    """Bytes as text; null where they are not UTF-8, which polars can only refuse as a whole."""
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series(values.name, [_decoded(value) for value in values], dtype=pl.String)


def _decoded(value: bytes | None) -> str | None:
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return None
