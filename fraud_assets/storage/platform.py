"""One installation: its stores, its rules and its clock.

Where each store lies is decided here, from the environment and at the moment of opening.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import polars as pl

from fraud_assets.compute import activation, profiles, quality
from fraud_assets.compute.account import Account, merged
from fraud_assets.compute.observations import in_time
from fraud_assets.domain import settings
from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.domain.schemas import (
    SOURCE_TABLES,
    History,
    LazyHistory,
    SourceTable,
    source_columns,
    tenant_id,
)
from fraud_assets.storage.ledger import Entry, Ledger
from fraud_assets.storage.registry import Registry
from fraud_assets.storage.source import Source
from fraud_assets.storage.spool import Spool
from fraud_assets.storage.tables import Tables

DEFAULT_HOME = ".fraud_assets"


def utc_now() -> datetime:
    """The wall clock. The only one; everything else is handed the instant."""
    return datetime.now(UTC)


def home(environment: Mapping[str, str]) -> Path:
    """Where everything is kept: FRAUD_ASSETS_HOME, or `.fraud_assets` in the current folder.

    Raises InvalidSettings for a folder whose name means something else in a database's URL.
    """
    folder = Path(environment.get("FRAUD_ASSETS_HOME") or DEFAULT_HOME).resolve()
    if not str(folder).isprintable() or set("%?#") & set(str(folder)):
        raise InvalidSettings(
            f"expected a home folder without %, ?, # and control characters, got {str(folder)!r}; "
            "set FRAUD_ASSETS_HOME to another"
        )
    return folder


@dataclass(frozen=True)
class Platform:
    """The stores of one installation.

    `overrides` are the settings that differ from the defaults, as `domain.settings.for_tenant` reads them.
    """

    source: Source
    tables: Tables
    registry: Registry
    ledger: Ledger
    overrides: Mapping[str, Any] = field(default_factory=dict)
    now: Callable[[], datetime] = utc_now
    retry_wait_seconds: float = 10.0
    """Between two tries of a stage whose server did not answer."""
    rows_in_memory: int = 250_000
    """Of a tenant's events, and of its shifts: more are worked on in parts of about so many, on disk."""
    registry_pages: str = "http://127.0.0.1:5000"
    """Where people see the registry, for links to it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Opens nothing yet. Every URL defaults to a file under the home folder.

        FRAUD_ASSETS_SOURCE_URL, FRAUD_ASSETS_LEDGER_URL and MLFLOW_TRACKING_URI name servers instead. If
        FRAUD_ASSETS_MLFLOW_URL is set, the registry is asked through the MLflow server that is started on it.
        Raises InvalidSettings if `settings.toml` in the home folder cannot be read.
        """
        root = home(environment)
        root.mkdir(parents=True, exist_ok=True)
        tracking_uri = environment.get("MLFLOW_TRACKING_URI")
        if environment.get("FRAUD_ASSETS_MLFLOW_URL"):
            tracking_uri = tracking_uri or cls.registry_pages
        file_url = f"sqlite:///{root}"
        return cls(
            source=Source(environment.get("FRAUD_ASSETS_SOURCE_URL") or f"{file_url}/source.db"),
            tables=Tables(root / "tables"),
            registry=Registry(
                tracking_uri or f"{file_url}/mlflow.db", None if tracking_uri else str(root / "models")
            ),
            ledger=Ledger(environment.get("FRAUD_ASSETS_LEDGER_URL") or f"{file_url}/ledger.db"),
            overrides=_read_overrides(root / "settings.toml"),
            registry_pages=environment.get("FRAUD_ASSETS_MLFLOW_PAGES") or tracking_uri or cls.registry_pages,
        )

    def settings(self, tenant: str) -> settings.Settings:
        """The tenant's rules. Raises InvalidSettings."""
        return settings.for_tenant(self.overrides, tenant_id(tenant))

    def cycle_start(self, tenant: str) -> datetime:
        """The start of the tenant's current cycle; the cut-off of everything that the cycle reads."""
        return self.settings(tenant).latest_cycle_start(self.now())

    def history(self, tenant: str, as_of: datetime, folder: Path) -> quality.Cleaned[LazyHistory]:
        """The tenant's clean history as known at `as_of`, as far back as dataset and profiles need.

        It is read and cleaned in parts, and laid out by guard. Events and shifts lie in `folder`, where there
        are more than `rows_in_memory`, and can be read as long as that is there.
        """
        rules = self.settings(tenant)
        since = as_of - timedelta(days=rules.dataset_days + rules.profile_days) - profiles.WEEK
        parts = self.source.parts(tenant, since, as_of, self.rows_in_memory, folder / "read")
        conflicting = quality.conflicting(parts, as_of)
        cleaned = (quality.clean(part.collect(), tenant, as_of, conflicting) for part in parts)
        return _spooled(cleaned, folder / "clean", self.rows_in_memory)

    def champion(self, tenant: str) -> activation.Champion | None:
        """What the ledger says is active."""
        entry = self.ledger.champion(tenant)
        return entry and champion_of(entry)


def _spooled(
    parts: Iterable[quality.Cleaned[History]], folder: Path, in_memory: int
) -> quality.Cleaned[LazyHistory]:
    """The whole of clean `parts`, which come in the order of their guards."""

    def spool(table: SourceTable) -> Spool:
        return Spool(folder / table, source_columns(SOURCE_TABLES[table]).to_frame(), in_memory)

    events, shifts = spool("attendance_event"), spool("shift")
    small: list[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, Account]] = []
    for part in parts:
        rows = part.history
        events.add(in_time(rows.attendance_event))
        shifts.add(rows.shift.sort("guard_id"))
        small.append((rows.site, rows.guard, rows.outcome, part.account))
    sites, guards, outcomes, accounts = zip(*small, strict=True)
    history = LazyHistory(sites[0], guards[0], shifts.scan(), events.scan(), pl.concat(outcomes))
    return quality.Cleaned(history, merged(accounts))


def champion_of(entry: Entry) -> activation.Champion:
    """The champion that a ledger entry of an activation made."""
    if entry.model_version is None or entry.model_digest is None:
        raise ValueError(f"expected an activation with a model version and digest, got {entry}")
    return activation.Champion(
        tenant=entry.tenant,
        version=entry.model_version,
        digest=entry.model_digest,
        cycle_started_at=entry.cycle_started_at,
        activated_at=entry.decided_at,
        pr_auc=entry.pr_auc,
    )


def _read_overrides(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"expected a readable TOML file at {path}: {error}") from error
