from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings

from benchmarks import per_event, tenant
from fraud_assets.domain.schemas import History
from fraud_assets_tests.benchmarks.told import edges, small_tenants, with_bursts, wrong


def of_every_sixth_guard(history: History) -> History:
    """Few enough events for a loop over them, at all the sites."""
    guard = history.guard.gather_every(6)
    return replace(
        history, guard=guard, attendance_event=history.attendance_event.join(guard, on="guard_id", how="semi")
    )


def test_a_generated_tenant_has_the_features_of_the_slow_definition(tmp_path: Path) -> None:
    history = of_every_sixth_guard(with_bursts(9_100))
    tenant.write(history, tmp_path)
    assert wrong(per_event.rows(tmp_path), history, every_guard=2, every_event=4) == []


@settings(max_examples=25, deadline=None)
@given(small_tenants)
@example(edges())
def test_ties_window_edges_and_late_knowledge_are_as_in_the_slow_definition(history: History) -> None:
    with TemporaryDirectory() as temporary:
        tenant.write(history, Path(temporary))
        assert wrong(per_event.rows(Path(temporary)), history) == []


def test_a_sample_is_of_whole_guards(tmp_path: Path) -> None:
    history = tenant.generate(600)
    tenant.write(history, tmp_path)
    per_event.prepare(tmp_path, tmp_path / "tenant.db")
    sizes = history.attendance_event["guard_id"].value_counts()["count"].to_list()
    done, seconds = per_event.run(tmp_path / "tenant.db", sample=1)
    assert done in sizes
    assert seconds > 0


def test_a_sample_larger_than_the_tenant_is_all_of_it(tmp_path: Path) -> None:
    tenant.write(tenant.generate(600), tmp_path)
    per_event.prepare(tmp_path, tmp_path / "tenant.db")
    done, _ = per_event.run(tmp_path / "tenant.db", sample=5_000)
    assert done == 600
