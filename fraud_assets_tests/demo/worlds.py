"""Demo tenants, generated and cleaned once a test process. No tests here."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import polars as pl

from fraud_assets.compute import quality
from fraud_assets.demo import company
from fraud_assets.demo.tenants import TENANTS
from fraud_assets.domain.schemas import History

UNTIL = datetime(2026, 3, 2, 2, tzinfo=UTC)
BY_ID = {tenant.id: tenant for tenant in TENANTS}
SMALLER = {**BY_ID, "citadel-large": replace(BY_ID["citadel-large"], guards=90)}
CHEATED = [tenant.id for tenant in TENANTS if tenant.fraud_share]


@cache
def history(tenant: str) -> History:
    return company.generate(SMALLER[tenant], UNTIL, seed=7)


@cache
def cleaned(tenant: str) -> quality.Cleaned[History]:
    return quality.clean(history(tenant), tenant, UNTIL)


def events_with_verdict(tenant: str) -> pl.DataFrame:
    """The clean events, with the shift's start, and `typology` of those whose last verdict is fraud."""
    clean = cleaned(tenant).history
    last = clean.outcome.sort("known_at", "decided_at").unique("event_id", keep="last")
    frauds = last.filter(pl.col("verdict") == "fraud").select("event_id", "typology")
    starts = clean.shift.select("shift_id", "scheduled_start")
    return clean.attendance_event.join(starts, on="shift_id", how="left").join(
        frauds, on="event_id", how="left"
    )
