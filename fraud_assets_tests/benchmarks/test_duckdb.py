from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import polars as pl
import pytest
from hypothesis import example, given, settings

from benchmarks import duckdb_sql, duckdb_streams, tenant
from fraud_assets.domain.schemas import FEATURES, History
from fraud_assets_tests import builders
from fraud_assets_tests.benchmarks.told import edges, small_tenants, with_bursts, wrong
from fraud_assets_tests.compute.oracle import Row

MONDAY = tenant.SNAPSHOTS[10]
"""Midnight UTC, when a snapshot is made."""
both = pytest.mark.parametrize("peer", [duckdb_sql, duckdb_streams])
NOWHERE: Row = {"latitude": None, "longitude": None}


def in_any_order(history: History) -> History:
    events = history.attendance_event.sample(fraction=1, shuffle=True, seed=1)
    return replace(history, attendance_event=events)


@both
def test_a_generated_tenant_in_any_order_has_the_features_of_the_slow_definition(
    peer: ModuleType, tmp_path: Path
) -> None:
    history = in_any_order(with_bursts(9_100))
    tenant.write(history, tmp_path)
    assert wrong(peer.rows(tmp_path), history, every_guard=9, every_event=4) == []


@settings(max_examples=25, deadline=None)
@given(small_tenants)
@example(edges())
def test_ties_window_edges_and_late_knowledge_are_as_in_the_slow_definition(history: History) -> None:
    with TemporaryDirectory() as temporary:
        tenant.write(history, Path(temporary))
        assert wrong(duckdb_sql.rows(Path(temporary)), history) == []
        assert wrong(duckdb_streams.rows(Path(temporary)), history) == []


def two_weekdays() -> list[Row]:
    """Thirty events before MONDAY on two weekdays only, and one at its very instant."""
    past = [MONDAY - timedelta(days=number // 15 + 3, minutes=number) for number in range(30)]
    return [{"event_id": f"e{number}", "punch_in_at": at} for number, at in enumerate([*past, MONDAY])]


def at_the_edges_of_windows() -> list[Row]:
    """Before one event: another a month earlier that was late, a position of longer than a quarter ago,
    and another guard's event on the device that becomes known only now."""
    now = MONDAY + timedelta(hours=12)
    return [
        {"event_id": "old", "punch_in_at": now - timedelta(days=91)},
        {"event_id": "late", "punch_in_at": now - timedelta(days=30), "shift_id": "h1", **NOWHERE},
        {"event_id": "seen", "punch_in_at": now - timedelta(hours=3), "guard_id": "g2"},
        {"event_id": "unseen", "punch_in_at": now - timedelta(hours=1), "guard_id": "g2", "known_at": now},
        {"event_id": "now", "punch_in_at": now},
    ]


@both
@pytest.mark.parametrize("events", [two_weekdays(), at_the_edges_of_windows()])
def test_an_instant_at_an_edge_counts_as_in_the_slow_definition(
    peer: ModuleType, events: list[Row], tmp_path: Path
) -> None:
    started = MONDAY - timedelta(days=30)
    shift: Row = {"scheduled_start": started, "scheduled_end": MONDAY, "published_at": started}
    guards: list[Row] = [{"guard_id": "g1"}, {"guard_id": "g2"}]
    history = builders.history(guard=guards, shift=[shift], attendance_event=events)
    tenant.write(history, tmp_path)
    assert wrong(peer.rows(tmp_path), history) == []


@both
def test_the_totals_are_those_of_the_rows(peer: ModuleType, tmp_path: Path) -> None:
    tenant.write(tenant.generate(9_100), tmp_path)
    rows, totals = peer.rows(tmp_path), peer.run(tmp_path)
    assert totals.keys() == set(FEATURES)
    numbers = rows.with_columns(pl.col("entry_source").to_physical()).select(
        pl.col(FEATURES).cast(pl.Float64)
    )
    for name, (known, total) in totals.items():
        assert known == numbers[name].count()
        assert total == pytest.approx(numbers[name].sum(), rel=1e-12)
