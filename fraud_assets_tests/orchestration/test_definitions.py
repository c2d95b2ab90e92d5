"""The front door: all that Dagster loads, and all that loading it must not do."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from fraud_assets.cli import PROJECT
from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets.definitions import build_definitions, defs
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.queue import LONG
from fraud_assets.storage.platform import Platform

KINDS = {
    "operational_database": {"sql"},
    "behavioural_profiles": {"polars", "deltalake"},
    "training_dataset": {"polars", "deltalake"},
    "trained_model": {"xgboost", "mlflow"},
    "active_model": {"mlflow"},
}
EDGES = {
    "operational_database": set(),
    "behavioural_profiles": {"operational_database"},
    "training_dataset": {"operational_database", "behavioural_profiles"},
    "trained_model": {"training_dataset"},
    "active_model": {"trained_model"},
}
SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
ON_IMPORT = """
import sys
opened = []
def watch(event, given):
    writes = event == "open" and set(given[1] or "r") & set("wax+")
    if writes or event in ("os.mkdir", "socket.connect", "sqlite3.connect"):
        opened.append((event, given))
sys.addaudithook(watch)
import fraud_assets.definitions
print(sorted({"mlflow", "xgboost", "sklearn", "matplotlib"} & set(sys.modules)), opened)
"""


def unopened() -> Platform:
    raise AssertionError("expected nobody to open the platform")


def test_the_definitions_can_be_loaded() -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_graph_is_the_source_and_the_four_stages() -> None:
    assert set(SPECS) == {"operational_database", *CYCLE_STAGES}
    found = {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in SPECS.items()}
    assert found == EDGES


def test_building_definitions_opens_nothing() -> None:
    dg.Definitions.validate_loadable(build_definitions(unopened))


@pytest.mark.parametrize("name", KINDS)
def test_each_asset_says_what_it_is(name: str) -> None:
    spec = SPECS[name]
    assert len(spec.description or "") > 100
    assert spec.kinds == KINDS[name]
    assert spec.group_name == ("source" if name == "operational_database" else "attendance_fraud")


@pytest.mark.parametrize("stage", CYCLE_STAGES)
def test_every_stage_is_partitioned_by_tenant(stage: str) -> None:
    assert SPECS[stage].partitions_def == tenants


def test_each_check_says_what_it_is_and_is_of_a_tenant() -> None:
    checks = {spec.name: spec for each in defs.asset_checks or [] for spec in each.check_specs}
    assert set(checks) == {
        "source_rows_are_sound",
        "enough_records",
        "dataset_has_no_leak",
        "champion_is_fresh",
    }
    assert all(spec.description and spec.partitions_def == tenants for spec in checks.values())
    assert not any(spec.blocking for spec in checks.values())


def test_jobs_and_sensors_say_what_they_do() -> None:
    repository = defs.get_repository_def()
    job = repository.get_job("tenant_cycle")
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    assert set(sensors) == {"lost_runs", "nightly_cycle", "tenant_directory"}
    assert all(found.description for found in (job, repository.get_job("roll_back_model"), *sensors.values()))
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(CYCLE_STAGES)


def test_importing_the_definitions_opens_nothing_and_loads_nothing_heavy(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-B", "-c", ON_IMPORT],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
        check=False,
    )
    assert (ran.stdout, ran.returncode) == ("[] []\n", 0), ran.stderr
    assert list(tmp_path.iterdir()) == []


def configured(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROJECT / name).read_text())


def test_the_instance_on_postgresql_differs_in_its_storage_alone() -> None:
    embedded, served = configured("dagster.yaml"), configured("deploy/postgres/dagster.yaml")
    assert set(served.pop("storage")) == {"postgres"}
    assert served == embedded


def test_the_instance_on_ray_differs_in_its_launcher_and_in_how_many_runs_it_waits_for_how_long() -> None:
    served, spread = configured("deploy/postgres/dagster.yaml"), configured("deploy/ray/dagster.yaml")
    for instance, launcher in ((served, "WarmRunLauncher"), (spread, "RayRunLauncher")):
        assert instance.pop("run_launcher")["class"] == launcher
        runs = instance["concurrency"]["runs"]
        assert runs["tag_concurrency_limits"].pop() == {
            "key": LONG,
            "limit": runs.pop("max_concurrent_runs") // 2,
        }
        del instance["run_monitoring"]["start_timeout_seconds"]
    assert spread == served


def test_no_password_goes_through_ray() -> None:
    given = configured("deploy/ray/dagster.yaml")["run_launcher"]["config"]["ray"]["env_vars"]
    assert not [name for name in given if name.endswith(("_URL", "_URI", "PASSWORD", "TOKEN"))]
