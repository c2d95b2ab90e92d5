"""The demo company under the role that reads it: it sees one tenant at a time, and can change nothing."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from secrets import token_hex

import psycopg2
import pytest
from polars.testing import assert_frame_equal
from psycopg2.extensions import connection as Connection  # noqa: N812

from fraud_assets.demo.database import create
from fraud_assets.domain.schemas import SOURCE_TABLES
from fraud_assets.storage.source import Source
from fraud_assets_tests import builders
from fraud_assets_tests.demo.test_database import EMBER, LONG_AGO
from fraud_assets_tests.demo.worlds import BY_ID, UNTIL
from fraud_assets_tests.postgres import fresh_database, run_script, under

GARRISON = BY_ID["garrison-paused"]
SCRIPT = Path(__file__).parents[2] / "deploy" / "postgres" / "reader.sql"
TABLES = sorted(SOURCE_TABLES)


@pytest.fixture(scope="module")
def owner(postgres_server_url: str) -> Iterator[str]:
    """The URL of the demo company, under the role that wrote it."""
    with fresh_database(postgres_server_url) as url:
        create(url, UNTIL, tenants=[EMBER, GARRISON])
        yield url


@pytest.fixture(scope="module")
def reader(owner: str) -> str:
    """The same under the role that can only read; twice, because the script may be run again."""
    for password in (token_hex(8), token_hex(8)):
        run_script(owner, SCRIPT, FRAUD_ASSETS_READER_PASSWORD=password)
    return under("fraud_assets_reader", password, owner)


@pytest.fixture
def connection(reader: str) -> Iterator[Connection]:
    """The reader's, in a transaction that it opened for writing as far as it is up to the reader."""
    with closing(psycopg2.connect(reader)) as made:
        made.set_session(readonly=False)
        yield made


def counted(connection: Connection, table: str, where: str = "true") -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table} WHERE {where}")
        found = cursor.fetchone()
    assert found is not None
    return int(found[0])


def name_tenant(connection: Connection, tenant: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('fraud_assets.tenant', %s, true)", [tenant])


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO outcome (tenant_id, outcome_id) VALUES ('ember-watch', 'forged')",
        "UPDATE outcome SET verdict = 'legitimate'",
        "DELETE FROM attendance_event",
        "TRUNCATE attendance_event",
        "UPDATE tenant SET is_active = false",
        "DROP TABLE site",
        "ALTER TABLE site DISABLE ROW LEVEL SECURITY",
        "DROP POLICY one_tenant ON site",
        "CREATE TABLE mine (id integer)",
        "CREATE ROLE another",
        "SET ROLE postgres",
    ],
)
def test_the_reader_cannot_write_even_if_it_asks_for_a_transaction_that_may(
    connection: Connection, statement: str
) -> None:
    name_tenant(connection, EMBER.id)
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement)


def test_the_reader_writes_nothing_by_mistake(reader: str) -> None:
    with closing(psycopg2.connect(reader)) as made, made.cursor() as cursor:
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            cursor.execute("CREATE TABLE mine (id integer)")
        made.rollback()
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("10min",)


@pytest.mark.parametrize("table", TABLES)
def test_without_a_tenant_the_reader_sees_no_rows(connection: Connection, table: str) -> None:
    assert counted(connection, table) == 0
    name_tenant(connection, "")
    assert counted(connection, table) == 0


@pytest.mark.parametrize("table", TABLES)
def test_in_the_transaction_of_one_tenant_another_has_no_rows(connection: Connection, table: str) -> None:
    for tenant, other in [(EMBER.id, GARRISON.id), (GARRISON.id, EMBER.id)]:
        name_tenant(connection, tenant)
        assert counted(connection, table) > 0
        assert counted(connection, table, f"tenant_id = '{other}'") == 0


def test_the_tenant_is_forgotten_when_the_transaction_ends(connection: Connection) -> None:
    name_tenant(connection, EMBER.id)
    assert counted(connection, "guard") > 0
    connection.commit()
    assert counted(connection, "guard") == 0


def test_the_platform_reads_as_the_reader_what_it_reads_as_the_owner(reader: str, owner: str) -> None:
    assert Source(reader).tenants().valid["tenant_id"].to_list() == [EMBER.id, GARRISON.id]
    for tenant in (EMBER.id, GARRISON.id):
        seen = builders.read(Source(reader), tenant, LONG_AGO, UNTIL)
        whole = builders.read(Source(owner), tenant, LONG_AGO, UNTIL)
        for table in TABLES:
            key = SOURCE_TABLES[table].primary_key()
            assert_frame_equal(getattr(seen, table).sort(key), getattr(whole, table).sort(key))


@pytest.mark.parametrize("table", ["attendance_event", "shift", "outcome"])
def test_a_policy_does_not_change_how_rows_are_found(connection: Connection, owner: str, table: str) -> None:
    """A policy is checked once a query, not once a row, and an index is used as without it."""
    query = (
        f"EXPLAIN (COSTS OFF) SELECT * FROM {table} WHERE tenant_id = current_setting('fraud_assets.tenant')"
    )
    plans: list[list[str]] = []
    with closing(psycopg2.connect(owner)) as whole:
        for each in (whole, connection):
            name_tenant(each, EMBER.id)
            with each.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute(query)
                plans.append([line.strip(" ->") for (line,) in cursor.fetchall()])
    without, with_policy = plans
    assert any("Index" in line for line in without)
    assert with_policy[:1] == ["Result"]
    assert with_policy[1].startswith("One-Time Filter: ")
    assert with_policy[2:] == without
