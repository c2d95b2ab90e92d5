"""The append-only record of decisions: which model is active, since when and why. It decides nothing itself.

The ledger is the authority: the registry's alias and Dagster's pages mirror it. The database itself
refuses to change or delete an entry.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from fraud_assets.domain.errors import InvalidSettings, LedgerUnreachable
from fraud_assets.domain.schemas import tenant_id

ACTIVATE: Final = "activate"
_OPENINGS: Final = {ACTIVATE: "Activated", "reject": "Rejected"}


@dataclass(frozen=True)
class Entry:
    """One decision of one cycle of a tenant.

    decided_at          when the decision was made; cycle_started_at: the cycle's start and data cut-off
    verdict             "activate", "reject" or another word; reasons: why, in words
    records, fraud      usable records of the training dataset, and the fraudulent ones among them
    model_version       the registry's number of the candidate, with model_digest, the SHA-256 of its
                        file; both null if none was trained, both known in an activation
    metrics             finite numbers by name; what is not known is left out

    Raises InvalidTenantId, and ValueError for anything else that is not so.
    """

    tenant: str
    decided_at: datetime
    cycle_started_at: datetime
    verdict: str
    reasons: tuple[str, ...]
    records: int
    fraud: int
    model_version: int | None = None
    model_digest: str | None = None
    pr_auc: float | None = None
    dataset_digest: str | None = None
    dataset_version: int | None = None
    dagster_run_id: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tenant_id(self.tenant)
        if self.decided_at.tzinfo is None or self.cycle_started_at.tzinfo is None:
            raise ValueError(f"expected aware instants, got {self.decided_at}, {self.cycle_started_at}")
        if not self.verdict.strip() or not self.reasons:
            raise ValueError(f"expected a verdict with reasons, got {self.verdict!r}, {self.reasons}")
        if self.verdict == ACTIVATE and (self.model_version is None or self.model_digest is None):
            raise ValueError(f"expected an activation to name its model's version and digest, got {self}")
        if not all(isfinite(number) for number in [*self.metrics.values(), self.pr_auc or 0]):
            raise ValueError(
                f"expected finite metrics, got {self.metrics}, {self.pr_auc}; leave out the others"
            )

    @property
    def sentence(self) -> str:
        """The decision in words."""
        opening = _OPENINGS.get(self.verdict, self.verdict.capitalize())
        return f"{opening}: {'; '.join(self.reasons)}."


class _Instant(sa.TypeDecorator[datetime]):
    """An aware datetime in UTC on both engines; SQLite alone would lose the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        if value is None or value.tzinfo is None:
            return value and value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


_decisions: Final = sa.Table(
    "fraud_assets_decision",
    sa.MetaData(),
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False, index=True),
    sa.Column("decided_at", _Instant, nullable=False),
    sa.Column("cycle_started_at", _Instant, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("fraud", sa.BigInteger, nullable=False),
    sa.Column("model_version", sa.BigInteger),
    sa.Column("model_digest", sa.Text),
    sa.Column("pr_auc", sa.Double),
    sa.Column("dataset_digest", sa.Text),
    sa.Column("dataset_version", sa.BigInteger),
    sa.Column("dagster_run_id", sa.Text),
    sa.Column("metrics", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

_COLUMNS: Final = [column for column in _decisions.columns if column.name != "sequence"]
_LOCKS: Final = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(20260302)"}
# SQLite's REPLACE deletes a row without a DELETE: the insert is what has to be stopped.
_GUARDS: Final = {
    "sqlite": (
        """CREATE TRIGGER IF NOT EXISTS fraud_assets_decision_update BEFORE UPDATE ON fraud_assets_decision
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
        """CREATE TRIGGER IF NOT EXISTS fraud_assets_decision_delete BEFORE DELETE ON fraud_assets_decision
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
        """CREATE TRIGGER IF NOT EXISTS fraud_assets_decision_insert BEFORE INSERT ON fraud_assets_decision
        WHEN EXISTS (SELECT 1 FROM fraud_assets_decision WHERE sequence = NEW.sequence)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    ),
    "postgresql": (
        """CREATE OR REPLACE FUNCTION fraud_assets_append_only() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$""",
        """CREATE OR REPLACE TRIGGER fraud_assets_decision_append_only
        BEFORE UPDATE OR DELETE OR TRUNCATE ON fraud_assets_decision
        FOR EACH STATEMENT EXECUTE FUNCTION fraud_assets_append_only()""",
    ),
}
_WAITS: Final = {"sqlite": {"timeout": 30}, "postgresql": {"connect_timeout": 10}}


@dataclass(frozen=True, repr=False)
class Ledger:
    """The ledger behind `sqlite:////absolute/path.db` or `postgresql://user:password@host:port/database`.

    Opens nothing until it is asked; then makes its table if there is none. Raises InvalidSettings for any
    other URL; every method raises LedgerUnreachable.
    """

    url: str

    def __post_init__(self) -> None:
        _parsed(self.url)

    def __repr__(self) -> str:
        """Without the password."""
        return f"Ledger({str(_parsed(self.url))!r})"

    def append(self, entry: Entry) -> bool:
        """Writes the decision; False, and nothing written, if it is the tenant's newest one already.

        The same: of one cycle, verdict, model version and dataset digest. An older decision may be taken
        again: going back to an earlier model is a decision of its own.
        """
        with self._transaction() as connection:
            # Two runs that decide the same at once wait for each other.
            connection.exec_driver_sql(_LOCKS[connection.dialect.name])
            newest = _newest(connection, _is_of(entry.tenant)).get(entry.tenant)
            if newest and _identity(newest) == _identity(entry):
                return False
            connection.execute(_decisions.insert().values(_row(entry)))
            return True

    def champion(self, tenant: str) -> Entry | None:
        """The tenant's newest activation."""
        return self._newest(_is_of(tenant), _decisions.c.verdict == ACTIVATE).get(tenant)

    def champions(self) -> dict[str, Entry]:
        """The newest activation of every tenant that has one, in one query."""
        return self._newest(_decisions.c.verdict == ACTIVATE)

    def latest(self, tenant: str) -> Entry | None:
        """The tenant's newest decision, whatever it was."""
        return self._newest(_is_of(tenant)).get(tenant)

    def latest_all(self) -> dict[str, Entry]:
        """The newest decision of every tenant that has one, in one query."""
        return self._newest()

    def history(self, tenant: str) -> list[Entry]:
        """All decisions of the tenant in the order in which they were written."""
        query = sa.select(*_COLUMNS).where(_is_of(tenant)).order_by(_decisions.c.sequence)
        with self._transaction() as connection:
            return [_entry(row) for row in connection.execute(query).mappings()]

    def _newest(self, *conditions: sa.ColumnElement[bool]) -> dict[str, Entry]:
        with self._transaction() as connection:
            return _newest(connection, *conditions)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            said = str(error.orig).strip()
            raise LedgerUnreachable(
                f"expected the ledger {self} to answer, got: {said}; check that it is there and writable"
            ) from error

    @cached_property
    def _engine(self) -> sa.Engine:
        url = _parsed(self.url)
        engine = sa.create_engine(url, poolclass=NullPool, connect_args=_WAITS[url.get_backend_name()])
        _create(engine)
        return engine


def _create(engine: sa.Engine) -> None:
    """Makes the table and its guards, all or nothing, though many processes may do so at once."""
    with engine.begin() as connection:
        if sa.inspect(connection).has_table(_decisions.name):
            return
        connection.exec_driver_sql(_LOCKS[engine.dialect.name])
        connection.execute(CreateTable(_decisions, if_not_exists=True))
        for index in _decisions.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
        for statement in _GUARDS[engine.dialect.name]:
            connection.exec_driver_sql(statement)


def _parsed(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed and parsed.drivername == "sqlite" and Path(parsed.database or "").is_absolute():
        return parsed
    if parsed and parsed.drivername in {"postgresql", "postgresql+psycopg2"} and parsed.host:
        return parsed.set(drivername="postgresql+psycopg2")
    got = parsed.set(query={}) if parsed else "one that cannot be parsed"
    raise InvalidSettings(
        "expected a ledger URL such as sqlite:////absolute/path.db or "
        f"postgresql://user:password@host:5432/database, got {got}; correct FRAUD_ASSETS_LEDGER_URL"
    )


def _is_of(tenant: str) -> sa.ColumnElement[bool]:
    return _decisions.c.tenant == tenant_id(tenant)


def _newest(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> dict[str, Entry]:
    """The newest entry of each tenant among those that meet the conditions."""
    newest = sa.select(sa.func.max(_decisions.c.sequence)).where(*conditions).group_by(_decisions.c.tenant)
    query = sa.select(*_COLUMNS).where(_decisions.c.sequence.in_(newest))
    entries = [_entry(row) for row in connection.execute(query).mappings()]
    return {entry.tenant: entry for entry in entries}


def _identity(entry: Entry) -> tuple[datetime, str, int | None, str | None]:
    return entry.cycle_started_at, str(entry.verdict), entry.model_version, entry.dataset_digest


def _row(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "verdict": str(entry.verdict)}


def _entry(row: Mapping[Any, Any]) -> Entry:
    return Entry(**{**row, "reasons": tuple(row["reasons"])})
