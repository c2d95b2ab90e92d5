"""A whole platform for tests: a source in memory, real tables and ledger, a clock that is set by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import dagster as dg
import numpy as np
import polars as pl

from fraud_assets import cycle, mirror
from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets.definitions import build_definitions
from fraud_assets.domain.schemas import History, LazyHistory, Tenant
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.storage.ledger import Entry, Ledger
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.registry import Registry
from fraud_assets.storage.source import Source, Tenants
from fraud_assets.storage.tables import Tables
from fraud_assets_tests.builders import history, in_parts
from fraud_assets_tests.fakes import FakeRegistry

TONIGHT = datetime(2026, 6, 1, 2, tzinfo=UTC)
"""The start of a cycle."""
QUICK = {"default": {"search_seconds": 0, "bootstrap_resamples": 100}}
"""Settings under which a night trains quickly, where the model is not the point."""


@dataclass
class FakeSource:
    """The source's two questions, answered from memory; a tenant in `failing` raises instead."""

    histories: dict[str, History] = field(default_factory=dict)
    suspended: set[str] = field(default_factory=set)
    failing: dict[str, Exception] = field(default_factory=dict)
    url: str = "memory"

    def tenants(self) -> Tenants:
        rows = [
            {
                "tenant_id": name,
                "name": name,
                "is_active": name not in self.suspended,
                "tz": "UTC",
                "country": "ES",
            }
            for name in sorted(self.histories)
        ]
        return Tenants(pl.DataFrame(rows, schema=Tenant.create_empty().schema), pl.DataFrame())

    def active_tenants(self) -> list[str]:
        return self.tenants().active

    def parts(
        self, tenant: str, since: datetime, until: datetime, size: int, folder: Path
    ) -> list[LazyHistory]:
        if tenant in self.failing:
            raise self.failing[tenant]
        return in_parts(self.histories[tenant], since, until, size)


def company(
    tenant: str,
    *,
    records: int = 400,
    fraud: int = 60,
    guards: int = 8,
    tell: float = 1.0,
    until: datetime = TONIGHT,
) -> History:
    """A tenant of `records` mature, labelled events, `fraud` of them fraud, spread over 120 days.

    With probability `tell` a fraud shows in a face distance between those of the legitimate, which are good
    or bad: no rule and no straight line finds it, and no feature alone. At 0 nothing tells fraud from the
    rest. Everything was reviewed ten days later.
    """
    random = np.random.default_rng(7)
    last = until - timedelta(days=31)
    is_fraud = np.zeros(records, dtype=bool)
    is_fraud[np.linspace(0, records - 1, fraud).astype(int) if fraud else []] = True
    shows = is_fraud & (random.random(records) < tell)
    punches = [last - timedelta(days=120) * (1 - position / records) for position in range(records)]
    events = [
        {
            "tenant_id": tenant,
            "event_id": f"e{position:05d}",
            "guard_id": f"g{position % guards}",
            "punch_in_at": punch,
            "face_distance": _face_distance(bool(shows[position]), random),
        }
        for position, punch in enumerate(punches)
    ]
    outcomes = [
        {
            "tenant_id": tenant,
            "outcome_id": f"o{position:05d}",
            "event_id": f"e{position:05d}",
            "verdict": "fraud" if is_fraud[position] else "legitimate",
            "decided_at": punch + timedelta(days=9),
            "known_at": punch + timedelta(days=10),
        }
        for position, punch in enumerate(punches)
    ]
    return history(
        as_read=True,
        site=[{"tenant_id": tenant}],
        guard=[{"tenant_id": tenant, "guard_id": f"g{number}"} for number in range(guards)],
        attendance_event=events,
        outcome=outcomes,
    )


def _face_distance(shows: bool, random: np.random.Generator) -> float:
    if shows:
        return float(random.uniform(0.18, 0.22))
    return float(random.uniform(0.02, 0.12) if random.random() < 0.5 else random.uniform(0.28, 0.38))


def with_events(known: History, *changes: pl.Expr) -> History:
    """The history with changed attendance events."""
    return replace(known, attendance_event=known.attendance_event.with_columns(*changes))


def with_verdicts(known: History, verdict: pl.Expr) -> History:
    """The history with other outcomes."""
    return replace(known, outcome=known.outcome.with_columns(verdict=verdict))


class World:
    """A platform, a Dagster instance, and nights that come when they are called."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, **histories: History) -> None:
        self.now = TONIGHT
        self.source = FakeSource(dict(histories))
        self.registry = FakeRegistry()
        self.instance = instance
        self.platform = Platform(
            source=cast("Source", self.source),
            tables=Tables(folder / "tables"),
            registry=cast("Registry", self.registry),
            ledger=Ledger(f"sqlite:///{folder}/ledger.db"),
            now=lambda: self.now,
            retry_wait_seconds=0.0,
        )
        self.cursor: Any = None
        self.tick(TONIGHT - timedelta(minutes=1))

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions(lambda: self.platform)

    def with_platform(self, **changes: Any) -> None:
        self.platform = replace(self.platform, **changes)

    def tick(self, at: datetime) -> Mapping[str, list[str]]:
        """What the nightly automation asks for at `at`: tenant -> assets, in order of the chain."""
        self.now = at
        self.instance.add_dynamic_partitions(str(tenants.name), self.source.active_tenants())
        result = dg.evaluate_automation_conditions(
            self.definitions,
            self.instance,
            asset_selection=dg.AssetSelection.assets(*CYCLE_STAGES),
            evaluation_time=at,
            cursor=self.cursor,
        )
        self.cursor = result.cursor
        asked: dict[str, list[str]] = {}
        for stage in CYCLE_STAGES:
            for tenant in sorted(map(str, result.get_requested_partitions(dg.AssetKey(stage)))):
                asked.setdefault(tenant, []).append(stage)
        return asked

    def run(self, tenant: str, stages: list[str] | None = None) -> dg.ExecuteInProcessResult:
        """One run of the tenant's job, as the daemon would launch it."""
        job = self.definitions.resolve_job_def("tenant_cycle")
        return job.execute_in_process(
            partition_key=tenant,
            instance=self.instance,
            asset_selection=[dg.AssetKey(stage) for stage in stages] if stages else None,
            raise_on_error=False,
        )

    def night(self, at: datetime = TONIGHT) -> dict[str, dg.ExecuteInProcessResult]:
        """The tick at `at` and the runs that it asks for."""
        return {tenant: self.run(tenant, stages) for tenant, stages in self.tick(at).items()}

    def cycle(self, at: datetime = TONIGHT, tenant: str = "acme") -> Entry:
        """What the run of a cycle with a retrain does, without Dagster: the decision."""
        self.now = at
        cycle.refresh_profiles(self.platform, tenant)
        mirror.champion(self.platform, tenant)
        cycle.assemble_dataset(self.platform, tenant)
        made = cycle.train(self.platform, tenant, None)
        return made if isinstance(made, Entry) else cycle.decide(self.platform, tenant, None)

    def materialized(self, asset: str) -> set[str]:
        return set(self.instance.get_materialized_partitions(dg.AssetKey(asset)))

    def decision(self, tenant: str) -> str:
        """The last decision as the tenant's page of `active_model` shows it."""
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey("active_model"), asset_partitions=[tenant])
        [newest] = self.instance.fetch_observations(wanted, limit=1).records
        observation = newest.asset_observation
        return str(observation.metadata["decision"].value) if observation else ""
