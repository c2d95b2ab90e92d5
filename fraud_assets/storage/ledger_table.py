"""The ledger's table on either engine, its guards, and how a table of an earlier release gets new columns.

Nothing is read or written here but the table's own shape.
"""

from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

ERASE: Final = "erase"
"""The verdict of the one line that is left of a tenant; the database deletes the others as it is written."""


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
_NAME: Final = DECISIONS.name
_REFUSED: Final = "the ledger is append-only"
# A tenant's entries go all at once, by the insert of the line that says who erased them, and in no other way:
# there is never an entry with such a line behind it. The lines themselves stay.
_MAY_GO: Final = f"""OLD.verdict <> '{ERASE}' AND EXISTS (SELECT 1 FROM {_NAME}
        WHERE tenant = OLD.tenant AND verdict = '{ERASE}' AND sequence > OLD.sequence)"""  # noqa: S608
_ERASED: Final = f"DELETE FROM {_NAME} WHERE tenant = NEW.tenant AND verdict <> '{ERASE}'"  # noqa: S608
_GUARDS: Final = {
    "sqlite": (
        f"DROP TRIGGER IF EXISTS {_NAME}_delete",
        f"""CREATE TRIGGER IF NOT EXISTS {_NAME}_update BEFORE UPDATE ON {_NAME}
        BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END""",
        f"""CREATE TRIGGER {_NAME}_delete BEFORE DELETE ON {_NAME} WHEN NOT ({_MAY_GO})
        BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END""",
        # SQLite's REPLACE deletes a row without a DELETE: the insert is what has to be stopped.
        f"""CREATE TRIGGER IF NOT EXISTS {_NAME}_insert BEFORE INSERT ON {_NAME}
        WHEN EXISTS (SELECT 1 FROM {_NAME} WHERE sequence = NEW.sequence)
        BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END""",  # noqa: S608
        f"""CREATE TRIGGER IF NOT EXISTS {_NAME}_erase AFTER INSERT ON {_NAME} WHEN NEW.verdict = '{ERASE}'
        BEGIN {_ERASED}; END""",
    ),
    "postgresql": (
        f"""CREATE OR REPLACE FUNCTION fraud_assets_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
        IF TG_OP = 'DELETE' THEN
            IF {_MAY_GO} THEN RETURN OLD; END IF;
        END IF;
        RAISE EXCEPTION '{_REFUSED}';
        END $$""",
        # With a number far ahead, entries that are still to come would count as erased.
        f"""CREATE OR REPLACE FUNCTION fraud_assets_erase() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
        IF NEW.sequence <> currval(pg_get_serial_sequence('{_NAME}', 'sequence')) THEN
            RAISE EXCEPTION '{_REFUSED}';
        END IF;
        {_ERASED}; RETURN NULL;
        END $$""",
        f"""CREATE OR REPLACE TRIGGER {_NAME}_append_only BEFORE UPDATE OR TRUNCATE ON {_NAME}
        FOR EACH STATEMENT EXECUTE FUNCTION fraud_assets_append_only()""",
        f"""CREATE OR REPLACE TRIGGER {_NAME}_delete BEFORE DELETE ON {_NAME}
        FOR EACH ROW EXECUTE FUNCTION fraud_assets_append_only()""",
        f"""CREATE OR REPLACE TRIGGER {_NAME}_erase AFTER INSERT ON {_NAME}
        FOR EACH ROW WHEN (NEW.verdict = '{ERASE}') EXECUTE FUNCTION fraud_assets_erase()""",
    ),
}
_GUARD: Final = {
    "sqlite": f"SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = '{_NAME}_erase'",  # noqa: S608
    "postgresql": f"SELECT 1 FROM pg_trigger WHERE tgname = '{_NAME}_erase' "  # noqa: S608
    f"AND tgrelid = to_regclass('{_NAME}')",
}


def prepare(engine: sa.Engine) -> None:
    """Makes the table and its guards, or the columns that it lacks; all or nothing.

    Many processes may do so at once. Entries keep what they say; columns that are new are null in them.
    """
    with engine.begin() as connection:
        if not _missing(connection) and _is_guarded(connection):
            return
        connection.exec_driver_sql(LOCKS[engine.dialect.name])
        connection.execute(CreateTable(DECISIONS, if_not_exists=True))
        # Asked again: another process may have been quicker to the lock.
        for column in _missing(connection):
            added = CreateColumn(column).compile(dialect=engine.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {DECISIONS.name} ADD COLUMN {added}")
        for index in DECISIONS.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
        if not _is_guarded(connection):
            for statement in _GUARDS[engine.dialect.name]:
                connection.exec_driver_sql(statement)


def _is_guarded(connection: sa.Connection) -> bool:
    """Whether the guards are those of this release."""
    return connection.exec_driver_sql(_GUARD[connection.dialect.name]).first() is not None


def _missing(connection: sa.Connection) -> list[sa.Column[object]]:
    inspected = sa.inspect(connection)
    found = inspected.has_table(DECISIONS.name) and inspected.get_columns(DECISIONS.name)
    names = {column["name"] for column in found or []}
    return [column for column in DECISIONS.columns if column.name not in names]
