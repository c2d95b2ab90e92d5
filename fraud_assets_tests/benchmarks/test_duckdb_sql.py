from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import example, given, settings

from benchmarks import duckdb_sql, tenant
from fraud_assets.domain.schemas import FEATURES, History
from fraud_assets_tests.benchmarks.told import edges, small_tenants, with_bursts, wrong


def in_any_order(history: History) -> History:
    events = history.attendance_event.sample(fraction=1, shuffle=True, seed=1)
    return replace(history, attendance_event=events)


def test_a_generated_tenant_in_any_order_has_the_features_of_the_slow_definition(tmp_path: Path) -> None:
    history = in_any_order(with_bursts(9_100))
    tenant.write(history, tmp_path)
    assert wrong(duckdb_sql.rows(tmp_path), history, every_guard=9, every_event=4) == []


@settings(max_examples=25, deadline=None)
@given(small_tenants)
@example(edges())
def test_ties_window_edges_and_late_knowledge_are_as_in_the_slow_definition(history: History) -> None:
    with TemporaryDirectory() as temporary:
        tenant.write(history, Path(temporary))
        assert wrong(duckdb_sql.rows(Path(temporary)), history) == []


def test_the_totals_are_those_of_the_rows(tmp_path: Path) -> None:
    tenant.write(tenant.generate(9_100), tmp_path)
    rows, totals = duckdb_sql.rows(tmp_path), duckdb_sql.run(tmp_path)
    assert totals.keys() == set(FEATURES)
    numbers = rows.with_columns(pl.col("entry_source").to_physical()).select(
        pl.col(FEATURES).cast(pl.Float64)
    )
    for name, (known, total) in totals.items():
        assert known == numbers[name].count()
        assert total == pytest.approx(numbers[name].sum(), rel=1e-12)
