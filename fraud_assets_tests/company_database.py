"""Companies as a real database, SQLite or PostgreSQL, for tests that read them from there."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import polars as pl
from adbc_driver_manager import dbapi
from adbc_driver_postgresql import dbapi as postgresql
from adbc_driver_sqlite import dbapi as sqlite

from fraud_assets.demo import database
from fraud_assets.domain.schemas import SOURCE_TABLES, History


def write(url: str, **companies: History) -> None:
    """The source's tables with all rows of `companies`, by tenant."""
    tables = {
        name: pl.concat(getattr(each, name) for each in companies.values()).drop("unreadable")
        for name in SOURCE_TABLES
    }
    ids = list(companies)
    tables["tenant"] = pl.DataFrame({"tenant_id": ids, "name": ids}).with_columns(
        is_active=pl.lit(value=True), tz=pl.lit("UTC"), country=pl.lit("ES")
    )
    _ingest(url, tables, "create")


def add_tenants(url: str, *rows: dict[str, object]) -> None:
    """More of them, in the columns of the table `tenant`."""
    columns = ("tenant_id", "name", "is_active", "tz", "country")
    _ingest(url, {"tenant": pl.DataFrame(rows).select(columns)}, "append")


def _ingest(url: str, tables: Mapping[str, pl.DataFrame], mode: Literal["create", "append"]) -> None:
    with closing(_opened(url)) as connection, connection.cursor() as cursor:
        for name, rows in tables.items():
            stored = database._as_text(rows) if url.startswith("sqlite:") else rows
            cursor.adbc_ingest(name, stored.to_arrow(), mode=mode)
        connection.commit()


def _opened(url: str) -> dbapi.Connection:
    if url.startswith("sqlite:///"):
        return sqlite.connect(f"file:{quote(str(Path(url.removeprefix('sqlite:///'))))}")
    return postgresql.connect(url)
