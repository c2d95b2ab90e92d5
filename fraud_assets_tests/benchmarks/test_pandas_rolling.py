from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import example, given, settings

from benchmarks import pandas_rolling, tenant
from fraud_assets.domain.schemas import FEATURES, History
from fraud_assets_tests.benchmarks.told import edges, small_tenants, with_bursts, wrong


def test_a_generated_tenant_has_the_features_of_the_slow_definition(tmp_path: Path) -> None:
    history = with_bursts(9_100)
    tenant.write(history, tmp_path)
    assert wrong(pandas_rolling.rows(tmp_path), history, every_guard=9, every_event=4) == []


@settings(max_examples=15, deadline=None)
@given(small_tenants)
@example(edges())
def test_ties_window_edges_and_late_knowledge_are_as_in_the_slow_definition(history: History) -> None:
    with TemporaryDirectory() as temporary:
        tenant.write(history, Path(temporary))
        assert wrong(pandas_rolling.rows(Path(temporary)), history) == []


def test_the_totals_are_those_of_the_rows(tmp_path: Path) -> None:
    tenant.write(tenant.generate(9_100), tmp_path)
    rows, totals = pandas_rolling.rows(tmp_path), pandas_rolling.run(tmp_path)
    assert totals.keys() == set(FEATURES)
    numbers = rows.with_columns(pl.col("entry_source").to_physical()).select(
        pl.col(FEATURES).cast(pl.Float64)
    )
    for name, (known, total) in totals.items():
        assert known == numbers[name].count()
        assert total == pytest.approx(numbers[name].sum(), rel=1e-12)


def test_events_out_of_order_are_refused(tmp_path: Path) -> None:
    history = tenant.generate(300)
    reverse = history.attendance_event.sort("guard_id", "punch_in_at", descending=True)
    tenant.write(replace(history, attendance_event=reverse), tmp_path)
    with pytest.raises(ValueError, match="expected events sorted by guard_id"):
        pandas_rolling.rows(tmp_path)
