"""A fleet for `benchmarks.night`: tenants in a PostgreSQL source, each with a champion, in an installation.

Every fiftieth tenant is large, the others are small. A seventh of the champions is a week old tonight.
Tenants of one size share one trained model, each under its own name: to train them all would take longer
than the night.
"""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, cast

import psycopg2

from fraud_assets import cycle, mirror
from fraud_assets.compute.activation import Submission, Verdict
from fraud_assets.demo import database
from fraud_assets.demo.tenants import TENANTS, DemoTenant
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.registry import Registry

GUARDS: Final = (12, 12, 12, 12, 16, 16, 16, 24, 24, 40)
"""Of the small tenants, by turns; about 180 events a guard."""

LARGE: Final = 300
STORES: Final = ("source", "ledger", "dagster", "mlflow")


@dataclass(frozen=True)
class Installation:
    """A home folder, and one database a store on the PostgreSQL server at `server` (without a database)."""

    name: str
    home: Path
    server: str
    source: str
    tracking: str = ""

    def url(self, store: str) -> str:
        """The URL of its database; the source's is shared by all."""
        return f"{self.server}/{self.source if store == 'source' else f'{self.name}_{store}'}"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are started with."""
        return {
            **os.environ,
            "FRAUD_ASSETS_HOME": str(self.home),
            "FRAUD_ASSETS_SOURCE_URL": self.url("source"),
            "FRAUD_ASSETS_LEDGER_URL": self.url("ledger"),
            "FRAUD_ASSETS_DAGSTER_URL": self.url("dagster"),
            "MLFLOW_TRACKING_URI": self.tracking,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    @property
    def platform(self) -> Platform:
        """Its stores."""
        return Platform.from_environment(self.environment)

    def cycle_at(self, start: datetime) -> None:
        """When every tenant's daily cycle starts."""
        unfinished = self.home / "settings.unfinished"
        unfinished.write_text(f'[default]\ncycle_at = "{start.astimezone(UTC):%H:%M:%S}"\n')
        unfinished.replace(self.home / "settings.toml")

    def copied(self, name: str) -> "Installation":
        """The same under another name; nobody may be connected to its databases."""
        made = replace(self, name=name, home=self.home.with_name(name))
        shutil.copytree(self.home, made.home)
        for store in STORES[1:]:
            administer(self.server, f"CREATE DATABASE {name}_{store} TEMPLATE {self.name}_{store}")
        return made


def administer(server: str, statement: str) -> None:
    """A statement of the server's superuser."""
    with closing(psycopg2.connect(f"{server}/postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def asked(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows that the database at `url` answers with."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def tenants(count: int) -> list[DemoTenant]:
    """Of the sizes of a fleet."""
    sizes = [LARGE if number % 50 == 49 else GUARDS[number % len(GUARDS)] for number in range(count)]
    alike = TENANTS[0]
    return [
        replace(alike, id=f"tenant-{number:04}", name=f"Tenant {number}", guards=guards)
        for number, guards in enumerate(sizes)
    ]


def enrol(installation: Installation, count: int, now: datetime) -> None:
    """`count` tenants without any rows in the source, with champions 1 to 7 days old in the ledger."""
    with closing(psycopg2.connect(installation.url("source"))) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE tenant AS SELECT 'tenant-' || number AS tenant_id, 'Tenant' AS name, "
            "true AS is_active, 'UTC' AS tz, 'ES' AS country FROM generate_series(1, %s) AS number",
            (count,),
        )
        connection.commit()
    ledger = installation.platform.ledger
    for number in range(1, count + 1):
        ledger.append(_activation(f"tenant-{number}", now - timedelta(days=1 + number % 7)))


def _activation(tenant: str, at: datetime) -> Entry:
    return Entry(
        tenant=tenant,
        decided_at=at,
        cycle_started_at=at,
        verdict=Verdict.ACTIVATE,
        reasons=("it stands for a model that passed",),
        records=1000,
        fraud=50,
        model_version=1,
        model_digest="0" * 64,
    )


def fill(installation: Installation, fleet: Sequence[DemoTenant], now: datetime) -> None:
    """The source's rows up to `now`, last night's profiles, and each tenant's champion, 1 to 7 days old."""
    database.create(installation.platform.source.url, now, tenants=fleet)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for _ in pool.map(_settle, *zip(*[(installation, each, fleet, now) for each in fleet], strict=True)):
            pass


def _settle(
    installation: Installation, tenant: DemoTenant, fleet: Sequence[DemoTenant], now: datetime
) -> None:
    platform = replace(installation.platform, now=lambda: now - timedelta(days=1))
    cycle.refresh_profiles(platform, tenant.id)
    age = timedelta(days=1 + fleet.index(tenant) % 7)
    alike = next(each.id for each in fleet if each.guards == tenant.guards)
    submission = _trained(installation, alike, now)
    made = platform.registry.register(tenant.id, submission)
    entry = replace(
        _activation(tenant.id, now - age),
        model_version=made.version,
        model_digest=made.digest,
        pr_auc=submission.metrics.pr_auc,
    )
    platform.ledger.append(entry)
    mirror.show(platform, entry)


class _Keeps:
    """A registry that keeps what it is given, and finds nothing."""

    given: Submission

    def find(self, *_: object) -> None:
        return None

    def register(self, _: str, submission: Submission) -> None:
        self.given = submission


@cache
def _trained(installation: Installation, tenant: str, now: datetime) -> Submission:
    """The model of `tenant` as of `now`, trained once a process."""
    folder = installation.home.with_name("trained") / str(os.getpid())
    keeps = _Keeps()
    stores = {**installation.environment, "FRAUD_ASSETS_HOME": str(folder)}
    platform = replace(Platform.from_environment(stores), registry=cast("Registry", keeps), now=lambda: now)
    cycle.refresh_profiles(platform, tenant)
    cycle.assemble_dataset(platform, tenant)
    cycle.train(platform, tenant, None)
    return keeps.given
