"""What is written comes back, whole, to its own tenant only, and for as long as it is kept."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import get_args

import dataframely as dy
import polars as pl
import pytest
from dataframely.random import Generator
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from fraud_assets.domain.errors import InvalidTenantId, Refused, TableNotFound
from fraud_assets.domain.schemas import Profile, TrainingDataset
from fraud_assets.storage.tables import Kind, Tables
from fraud_assets_tests.world import TONIGHT

ROWS = 200_000
ENDLESS_WRITER = f"""
import sys, itertools, polars as pl
from fraud_assets.storage.tables import Tables
tables = Tables(sys.argv[1])
for version in itertools.count():
    print("writing", flush=True)
    frame = pl.DataFrame({{"observations": [version] * {ROWS}}})
    tables.write("acme", "profiles", frame, {{"n": str(version)}})
"""


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def counted(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"observations": values}, schema={"observations": pl.Int64})


def records(rows: int) -> pl.DataFrame:
    """Anything that a dataset may hold. The instants are given: few that are drawn are within bounds."""
    instants = [TONIGHT + timedelta(hours=hours) for hours in range(rows)]
    return TrainingDataset.sample(rows, overrides={"punch_in_at": instants}, generator=Generator(7))


def test_every_kind_comes_back_with_its_types_and_in_its_order(tables: Tables) -> None:
    samples: dict[Kind, tuple[type[dy.Schema], pl.DataFrame]] = {
        "profiles": (Profile, Profile.sample(200, generator=Generator(7))),
        "training_dataset": (TrainingDataset, records(200)),
    }
    assert set(samples) == set(get_args(Kind))
    for kind, (schema, frame) in samples.items():
        tables.write("acme", kind, frame, {})
        assert_frame_equal(tables.read("acme", kind), frame)
        assert schema.is_valid(tables.read("acme", kind))


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_may_be_empty_or_small(tables: Tables, rows: int) -> None:
    frame = records(rows)
    tables.write("acme", "training_dataset", frame, {})
    assert_frame_equal(tables.read("acme", "training_dataset"), frame)


def test_the_order_survives_maintenance_that_rearranges_the_files(tables: Tables, tmp_path: Path) -> None:
    frame = counted(*range(1000)).sample(fraction=1, shuffle=True, seed=7)
    tables.write("acme", "profiles", frame, {"said": "once"})
    DeltaTable(tmp_path / "acme" / "profiles").optimize.z_order(["observations"])
    assert_frame_equal(tables.read("acme", "profiles"), frame)
    assert tables.facts("acme", "profiles") == {"said": "once"}


@pytest.mark.parametrize("folder", ["with a space", "josé", "a=b & c"])
def test_a_root_of_any_name_keeps_its_tables(tmp_path: Path, folder: str) -> None:
    tables = Tables(tmp_path / folder)
    tables.write("acme", "profiles", counted(3), {})
    assert_frame_equal(tables.read("acme", "profiles"), counted(3))


def test_a_lazy_frame_is_written_as_its_rows(tables: Tables, tmp_path: Path) -> None:
    frame = records(300)
    frame.write_parquet(tmp_path / "rows.parquet", row_group_size=70)
    tables.write("acme", "training_dataset", pl.scan_parquet(tmp_path / "rows.parquet"), {"n": "300"})
    assert_frame_equal(tables.read("acme", "training_dataset"), frame)
    assert tables.facts("acme", "training_dataset") == {"n": "300"}


def test_a_lazy_frame_that_fails_half_way_leaves_the_table_as_it_was(tables: Tables) -> None:
    tables.write("acme", "profiles", counted(1), {})

    def fail(rows: pl.DataFrame) -> pl.DataFrame:
        raise ValueError("the disk is full")

    broken = counted(2).lazy().map_batches(fail, schema={"observations": pl.Int64})
    with pytest.raises(Exception, match="the disk is full"):
        tables.write("acme", "profiles", broken, {})
    assert_frame_equal(tables.read("acme", "profiles"), counted(1))
    assert tables.version("acme", "profiles") == 0


def test_a_scratch_folder_is_gone_at_the_end_whatever_happens(tables: Tables, tmp_path: Path) -> None:
    with suppress(RuntimeError), tables.scratch("acme") as folder:
        (folder / "rows.parquet").write_text("many")
        assert folder.parent == tmp_path / "acme" / "scratch"
        raise RuntimeError("killed half-way")
    assert list(folder.parent.iterdir()) == []


def test_two_runs_do_not_share_a_scratch_folder(tables: Tables) -> None:
    with tables.scratch("acme") as one, tables.scratch("acme") as other:
        assert one != other
        assert (one.exists(), list(other.iterdir())) == (True, [])


@pytest.mark.parametrize(("hours", "is_there"), [(23, True), (25, False)])
def test_what_a_killed_run_left_goes_after_a_day(
    tables: Tables, tmp_path: Path, hours: int, is_there: bool
) -> None:
    left = tmp_path / "acme" / "scratch" / "left"
    left.mkdir(parents=True)
    (left / "rows.parquet").write_text("many")
    then = time.time() - hours * 3600
    os.utime(left, (then, then))
    with tables.scratch("acme-2"):
        assert left.exists()
    with tables.scratch("acme"):
        assert left.exists() is is_there


def test_each_write_replaces_the_table_and_older_versions_stay_exact(tables: Tables) -> None:
    frames = [counted(3, 1), counted(), counted(2), counted(3, 1)]
    versions = [tables.write("acme", "profiles", frame, {}) for frame in frames]
    assert versions == [0, 1, 2, 3]
    assert tables.version("acme", "profiles") == 3
    assert_frame_equal(tables.read("acme", "profiles"), frames[-1])
    for version, frame in zip(versions, frames, strict=True):
        assert_frame_equal(tables.read("acme", "profiles", version), frame)


def test_columns_may_change_and_the_old_version_keeps_its_own(tables: Tables) -> None:
    old, new = counted(1), pl.DataFrame({"observations": ["many"], "comment": ["new"]})
    for frame in (old, new):
        tables.write("acme", "profiles", frame, {})
    assert_frame_equal(tables.read("acme", "profiles"), new)
    assert_frame_equal(tables.read("acme", "profiles", 0), old)


def test_facts_stay_with_their_version(tables: Tables) -> None:
    facts = [{"digest": "a" * 64, "as of": "é\n\"'{}"}, {}, {"version": "7", "operation": "mine"}]
    for number, said in enumerate(facts):
        tables.write("acme", "profiles", counted(number), said)
    assert [tables.facts("acme", "profiles", version) for version in range(3)] == facts
    assert tables.facts("acme", "profiles") == facts[-1]


def test_a_table_that_was_never_written_is_not_found(tables: Tables) -> None:
    tables.write("acme", "profiles", counted(1), {})
    assert tables.version("acme", "training_dataset") is None
    for ask in (tables.read, tables.facts):
        with pytest.raises(TableNotFound, match="expected training_dataset of tenant acme, found none"):
            ask("acme", "training_dataset")


@pytest.mark.parametrize("version", [-1, 1, 99])
def test_a_version_that_does_not_exist_is_not_found(tables: Tables, version: int) -> None:
    tables.write("acme", "profiles", counted(1), {})
    for ask in (tables.read, tables.facts):
        with pytest.raises(TableNotFound, match=f"expected version {version} of profiles of tenant acme"):
            ask("acme", "profiles", version)


def test_two_tenants_do_not_see_each_other(tables: Tables) -> None:
    tables.write("acme", "profiles", counted(1), {"whose": "acme"})
    assert tables.version("acme-2", "profiles") is None
    tables.write("acme-2", "profiles", counted(2), {"whose": "acme-2"})
    assert_frame_equal(tables.read("acme", "profiles"), counted(1))
    assert tables.facts("acme", "profiles") == {"whose": "acme"}


@pytest.mark.parametrize(
    "tenant", ["../acme", "..", ".", "", "/etc", "a/b", "a\\b", "acme\0", "ACME", "s3://x"]
)
def test_an_id_that_is_no_tenants_never_becomes_a_path(tmp_path: Path, tenant: str) -> None:
    tables = Tables(tmp_path / "root")
    for ask in (
        lambda: tables.write(tenant, "profiles", counted(1), {}),
        lambda: tables.read(tenant, "profiles"),
        lambda: tables.facts(tenant, "profiles"),
        lambda: tables.version(tenant, "profiles"),
        lambda: tables.prune(tenant, "profiles", []),
        lambda: tables.scratch(tenant).__enter__(),
    ):
        with pytest.raises(InvalidTenantId):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_never_becomes_a_path(tables: Tables) -> None:
    with pytest.raises(
        ValueError, match=r"expected a kind of table among profiles, training_dataset, got '\.\./x'"
    ):
        tables.version("acme", "../x")  # pyright: ignore[reportArgumentType]


def test_pruning_keeps_the_newest_and_the_named_versions(tables: Tables) -> None:
    for number in range(4):
        tables.write("acme", "profiles", counted(number), {"n": str(number)})
    assert tables.prune("acme", "profiles", [1], timedelta(0)) == 2
    assert_frame_equal(tables.read("acme", "profiles", 1), counted(1))
    assert_frame_equal(tables.read("acme", "profiles"), counted(3))
    for version in (0, 2):
        with pytest.raises(TableNotFound, match="that was not pruned"):
            tables.read("acme", "profiles", version)


def test_after_pruning_the_newest_version_is_still_the_last_write(tables: Tables) -> None:
    for number in range(2):
        tables.write("acme", "profiles", counted(number), {"n": str(number)})
    tables.prune("acme", "profiles", [], timedelta(0))
    assert (tables.version("acme", "profiles"), tables.facts("acme", "profiles")) == (1, {"n": "1"})
    version = tables.write("acme", "profiles", counted(5), {"n": "5"})
    assert tables.facts("acme", "profiles", version) == {"n": "5"}


def test_what_was_in_use_today_is_not_pruned(tables: Tables) -> None:
    for number in range(2):
        tables.write("acme", "profiles", counted(number), {})
    assert tables.prune("acme", "profiles", []) == 0
    assert_frame_equal(tables.read("acme", "profiles", 0), counted(0))


def test_a_version_to_keep_must_exist(tables: Tables) -> None:
    tables.write("acme", "profiles", counted(1), {})
    with pytest.raises(TableNotFound, match="expected version 7"):
        tables.prune("acme", "profiles", [7])


def test_who_reads_while_another_writes_sees_a_whole_log(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(2):
            writer.stdout.readline()
        seen = [int(tables.facts("acme", "profiles")["n"]) for _ in range(200)]
        writer.kill()
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


@pytest.mark.parametrize("delay_seconds", [0.0, 0.004, 0.015])
def test_a_writer_killed_in_mid_write_leaves_a_whole_version(tmp_path: Path, delay_seconds: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            writer.stdout.readline()
        time.sleep(delay_seconds)
        writer.kill()
    tables = Tables(tmp_path)
    found = tables.read("acme", "profiles")
    assert found.height == ROWS
    assert found["observations"].unique().to_list() == [int(tables.facts("acme", "profiles")["n"])]
    assert tables.write("acme", "profiles", counted(1), {}) == tables.version("acme", "profiles")


def test_an_erased_tenant_has_no_tables_and_starts_at_version_0(tables: Tables, tmp_path: Path) -> None:
    for tenant in ("acme", "acme-2"):
        for _ in range(2):
            tables.write(tenant, "profiles", counted(1), {})
    with tables.scratch("acme") as folder:
        (folder / "rows").touch()
        assert tables.erase("acme")
    assert [path.name for path in tmp_path.iterdir()] == ["acme-2"]
    assert not tables.erase("acme")
    assert tables.version("acme-2", "profiles") == 1
    assert tables.write("acme", "profiles", counted(1), {}) == 0


def test_what_lies_in_the_place_of_a_tenant_s_folder_is_erased_too(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "acme").touch()
    assert tables.erase("acme")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidTenantId):
        tables.erase("..")


def test_tables_that_cannot_be_deleted_say_so(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.write("acme", "profiles", counted(1), {})

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", denied)
    with pytest.raises(Refused, match=r"to delete .*acme, got: .*Permission denied; then try again"):
        tables.erase("acme")
