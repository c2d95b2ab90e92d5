import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import features, ours, tenant
from fraud_assets.domain.schemas import FEATURES
from fraud_assets_tests.benchmarks import told

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tenant")
    tenant.write(tenant.generate(1_000), made)
    return made


def test_ours_comes_to_the_numbers_of_the_slow_definition(folder: Path) -> None:
    assert not told.wrong(ours.rows(folder), tenant.generate(1_000))


def test_the_totals_are_those_of_the_rows(folder: Path) -> None:
    rows, totals = ours.rows(folder), ours.run(folder)
    assert set(totals) == set(FEATURES)
    speeds = rows["travel_speed_kmh"].drop_nulls()
    assert totals["travel_speed_kmh"] == (speeds.len(), pytest.approx(speeds.sum()))
    assert totals["is_weekend"] == (rows.height, float(rows["is_weekend"].sum()))


def test_a_tenant_is_the_same_for_the_same_seed() -> None:
    one, same, other = tenant.generate(500), tenant.generate(500), tenant.generate(500, seed=8)
    assert one.attendance_event.equals(same.attendance_event)
    assert not one.attendance_event.equals(other.attendance_event)


def test_the_exponent_is_one_where_twice_the_events_take_twice_the_seconds() -> None:
    assert features.exponent([(100, 1.0), (200, 2.0), (400, 4.0)]) == pytest.approx(1)
    assert features.exponent([(100, 1.0), (1_000, 100.0)]) == pytest.approx(2)
    assert features.exponent([(100, 1.0)]) is None


def test_a_contender_with_other_numbers_is_no_contender() -> None:
    features._must_agree("theirs", {"a": [3, 1.0]}, {"a": [3, 1.0 + 1e-12]})
    with pytest.raises(SystemExit, match="theirs"):
        features._must_agree("theirs", {"a": [3, 1.0]}, {"a": [2, 1.0]})
    with pytest.raises(SystemExit, match="theirs"):
        features._must_agree("theirs", {"a": [3, 1.0]}, {"a": [3, 1.01]})


@pytest.mark.journey
def test_the_command_measures_every_contender_and_writes_its_figures(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.features", "--events", "2e4", "--json", str(written)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    figures = json.loads(written.read_text())
    expected = {
        "ratio_duckdb",
        "ratio_duckdb_streams",
        "ratio_pandas",
        "ratio_pandas_threads",
        "ratio_per_event",
        "peak_mib",
        "events_per_s",
        "floor_s",
    }
    assert expected <= set(figures)
    assert all(figures[name] > 0 for name in expected)
    # Of sizes this small it says more about what else the machine does than about the code.
    assert math.isfinite(figures["exponent"])
