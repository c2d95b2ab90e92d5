"""The ledger's table on either engine, its guards, and how a table of an earlier release gets new columns.

Nothing is read or written here but the table's own shape.
"""

from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable


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


DECISIONS: Final = sa.Table(
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
    # Not in the tables of the first release: from here on a column may not be `nullable=False`.
    sa.Column("decided_by", sa.Text),
    sa.Column("champion_version", sa.BigInteger),
    sa.Column("window_start", _Instant),
    sa.Column("as_of", _Instant),
    sqlite_autoincrement=True,
)

COLUMNS: Final = [column for column in DECISIONS.columns if column.name != "sequence"]
LOCKS: Final = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(20260302)"}
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


def prepare(engine: sa.Engine) -> None:
    """Makes the table and its guards, or the columns that it lacks; all or nothing.

    Many processes may do so at once. Entries keep what they say; columns that are new are null in them.
    """
    with engine.begin() as connection:
        if not _missing(connection):
            return
        connection.exec_driver_sql(LOCKS[engine.dialect.name])
        connection.execute(CreateTable(DECISIONS, if_not_exists=True))
        # Asked again: another process may have been quicker to the lock.
        for column in _missing(connection):
            added = CreateColumn(column).compile(dialect=engine.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {DECISIONS.name} ADD COLUMN {added}")
        for index in DECISIONS.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
        for statement in _GUARDS[engine.dialect.name]:
            connection.exec_driver_sql(statement)


def _missing(connection: sa.Connection) -> list[sa.Column[object]]:
    inspected = sa.inspect(connection)
    found = inspected.has_table(DECISIONS.name) and inspected.get_columns(DECISIONS.name)
    names = {column["name"] for column in found or []}
    return [column for column in DECISIONS.columns if column.name not in names]
