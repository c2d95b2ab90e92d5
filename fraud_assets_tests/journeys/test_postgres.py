"""Source, ledger and Dagster on one PostgreSQL server, as in production."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from fraud_assets_tests.journeys import graphql
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.postgres import fresh_database

ACTIVE = {"alcazar-security": 30, "ember-watch": 8}
STORES = ("FRAUD_ASSETS_SOURCE_URL", "FRAUD_ASSETS_LEDGER_URL", "FRAUD_ASSETS_DAGSTER_URL")

COUNTED = "query Runs { runsOrError { ... on Runs { count } } }"


@pytest.fixture
def databases(postgres_server_url: str) -> Iterator[dict[str, str]]:
    """An empty database for each of STORES."""
    with ExitStack() as stack:
        yield {store: stack.enter_context(fresh_database(postgres_server_url)) for store in STORES}


def fetched(url: str, query: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


@pytest.mark.journey
def test_everything_that_is_shared_can_live_in_postgresql(
    installation: Installation, databases: dict[str, str]
) -> None:
    installation.variables |= databases
    installation.create_company(ACTIVE)
    _, said = installation.rows("demo")

    runs = fetched(
        databases["FRAUD_ASSETS_DAGSTER_URL"], "SELECT partition, status FROM runs ORDER BY partition"
    )
    assert runs == [(tenant, "SUCCESS") for tenant in ACTIVE], said
    decided = fetched(
        databases["FRAUD_ASSETS_LEDGER_URL"], "SELECT tenant FROM fraud_assets_decision ORDER BY tenant"
    )
    assert decided == [(tenant,) for tenant in ACTIVE]
    assert {path.name for path in installation.home.rglob("*.db")} == {"mlflow.db"}
    assert str(urlsplit(databases["FRAUD_ASSETS_SOURCE_URL"]).password) not in said

    _, dagster, _ = installation.start_ui()
    assert graphql.ask(dagster, COUNTED)["runsOrError"]["count"] == len(ACTIVE)
