"""Off-boarding a tenant: everything that the platform keeps of it is erased, and one line says so.

The source is not ours: what it keeps stays. Whoever dies on the way asks again, and what is gone already is
passed over. The ledger's line comes last, when the rest is done.
"""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from fraud_assets.domain.errors import Refused
from fraud_assets.domain.schemas import tenant_id
from fraud_assets.orchestration import traces
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.stewardship import Word
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.platform import Platform


@dataclass(frozen=True)
class Offboarded:
    """What was erased now; the ledger's line, None if nothing was left to erase; what others have to do."""

    tenant: str
    runs: int
    versions: int
    line: Entry | None
    remains: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What was done, in words."""
        if self.line is None:
            return f"Nothing is kept of {self.tenant}: nothing was written."
        decisions, told = self.line.metrics["decisions"], self.line.sentence
        return (
            f"{self.tenant} was erased: all tables, {self.runs:,} runs, {self.versions:,} models and "
            f"{decisions:,.0f} decisions. One line is left in the ledger. {told}"
        )


def require_possible(platform: Platform, instance: dg.DagsterInstance, tenant: str) -> None:
    """Raises Refused for a tenant that is active in the source, or for which Dagster is at work."""
    if tenant_id(tenant) in platform.source.active_tenants():
        raise Refused(
            f"expected {tenant} to be suspended in the source, or gone from it, got an active tenant, which "
            "would be on-boarded again within a minute; set its is_active to false there first"
        )
    traces.require_idle(instance, tenant)


def offboard(
    platform: Platform, instance: dg.DagsterInstance, tenant: str, word: Word, log_folder: Path
) -> Offboarded:
    """Erases the tenant; idempotent. `log_folder` is where the servers write. Raises Refused."""
    require_possible(platform, instance, tenant)
    had_partition = instance.has_dynamic_partition(str(tenants.name), tenant)
    instance.delete_dynamic_partition(str(tenants.name), tenant)
    # Who was about to start a run has done so by now; without its partition nobody can.
    traces.require_idle(instance, tenant)
    runs = traces.erase(instance, tenant, log_folder)
    had_tables = platform.tables.erase(tenant)
    models = platform.registry.erase(tenant)
    had_more = bool(had_partition or runs or had_tables or models.versions or models.runs)
    line = platform.ledger.erase(tenant, platform.now(), word.by, word.reason, is_noted=had_more)
    remains = [models.remains] if models.remains else []
    if tenant in platform.overrides.get("tenants", {}):
        remains.append(f"settings.toml still has the section [tenants.{tenant}]: take it out by hand.")
    return Offboarded(tenant, runs, models.versions, line, tuple(remains))
