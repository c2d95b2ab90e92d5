"""Files altered by a byte, or cut: the same numbers or a clear error, never silently others."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fraud_assets import cycle, stored
from fraud_assets.domain.errors import TableDamaged
from fraud_assets_tests.world import QUICK, TONIGHT, World, company

pytestmark = pytest.mark.usefixtures("undrawn")

FOOTER = 4000
"""Bytes at the end of which Parquet's description takes most."""
PLACES = {
    "head": lambda size, at: at % 8,
    "body": lambda size, at: 8 + at % (size - FOOTER - 8),
    "footer": lambda size, at: size - FOOTER + at % (FOOTER - 8),
    "last bytes": lambda size, at: size - 1 - at % 8,
}
any_place = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
at_any_offset = given(at=st.integers(0, 2**31), bits=st.integers(1, 255))


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    made = World(tmp_path, instance, acme=company("acme", records=200))
    made.with_platform(overrides=QUICK)
    made.now = TONIGHT
    cycle.refresh_profiles(made.platform, "acme")
    cycle.assemble_dataset(made.platform, "acme")
    return made


def newest(world: World, kind: str) -> Path:
    files = Path(world.platform.tables.root, "acme", kind).glob("*.parquet")
    return max(files, key=lambda path: path.stat().st_mtime_ns)


def altered(content: bytes, at: int, bits: int) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


@pytest.mark.parametrize("place", PLACES)
def test_altered_bytes_of_profiles_give_the_same_dataset_or_are_said(world: World, place: str) -> None:
    path, tables = newest(world, "profiles"), world.platform.tables
    whole, written = path.read_bytes(), tables.facts("acme", "training_dataset")["digest"]

    @settings(any_place, max_examples=10)
    @at_any_offset
    def require(at: int, bits: int) -> None:
        path.write_bytes(altered(whole, PLACES[place](len(whole), at), bits))
        with suppress(TableDamaged):
            cycle.assemble_dataset(world.platform, "acme")
            assert tables.facts("acme", "training_dataset")["digest"] == written

    require()


@pytest.mark.parametrize("place", PLACES)
def test_an_altered_byte_of_a_dataset_changes_nothing_or_is_said(world: World, place: str) -> None:
    path, tables = newest(world, "training_dataset"), world.platform.tables
    whole, written = path.read_bytes(), tables.read("acme", "training_dataset")

    @any_place
    @at_any_offset
    def require(at: int, bits: int) -> None:
        path.write_bytes(altered(whole, PLACES[place](len(whole), at), bits))
        with suppress(TableDamaged), stored.opened(world.platform, "acme") as found:
            assert_frame_equal(found.whole.rows.collect(), written, check_exact=True)

    require()


@pytest.mark.parametrize("left", [0, 3, 4000, -1])
def test_a_dataset_that_is_cut_is_not_trained_on_and_is_written_again(world: World, left: int) -> None:
    path = newest(world, "training_dataset")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(TableDamaged, match="materialize"):
        cycle.train(world.platform, "acme", None)
    assert world.platform.registry.challenger("acme") is None
    cycle.assemble_dataset(world.platform, "acme")
    cycle.train(world.platform, "acme", None)
    assert world.platform.registry.challenger("acme") is not None


def commit(world: World, action: str) -> Path:
    """The newest commit of the dataset with a line of this kind, after a second write."""
    tables = world.platform.tables
    if tables.version("acme", "training_dataset") == 0:
        exchange(world, "training_dataset", lambda rows: rows)
    commits = Path(tables.root, "acme", "training_dataset", "_delta_log").glob("*.json")
    return max(path for path in commits if f'{{"{action}"' in path.read_text())


@pytest.mark.parametrize("action", ["commitInfo", "protocol", "metaData", "remove", "add"])
def test_an_altered_byte_of_a_log_changes_nothing_or_is_said(world: World, action: str) -> None:
    path, tables = commit(world, action), world.platform.tables
    whole, written = path.read_bytes(), tables.read("acme", "training_dataset")
    facts = tables.facts("acme", "training_dataset")
    start = whole.index(f'{{"{action}"'.encode())
    end = (whole + b"\n").index(b"\n", start)

    @any_place
    @at_any_offset
    def require(at: int, bits: int) -> None:
        path.write_bytes(altered(whole, start + at % (end - start), bits))
        with suppress(TableDamaged):
            with stored.opened(world.platform, "acme") as found:
                assert_frame_equal(found.whole.rows.collect(), written, check_exact=True)
                assert found.version == 1
            assert tables.facts("acme", "training_dataset") == facts

    require()


@pytest.mark.parametrize("left", [0, 1, 500, -1])
def test_a_log_that_is_cut_stops_its_tenant_until_the_folder_is_moved_away(world: World, left: int) -> None:
    path = commit(world, "add")
    path.write_bytes(path.read_bytes()[:left])
    for act in (lambda: cycle.train(world.platform, "acme", None), world.cycle):
        with pytest.raises(TableDamaged, match=r"restore .*/acme/training_dataset .* or move it away and"):
            act()
    path.parent.parent.rename(path.parent.parent.with_name("away"))
    assert world.cycle().sentence.startswith("Activated")


@pytest.mark.parametrize("asset", ["profiles", "training_dataset"])
def test_facts_that_were_altered_are_not_used_and_the_next_cycle_makes_them_again(
    world: World, asset: Any
) -> None:
    path = Path(world.platform.tables.root, "acme", asset, "_delta_log", f"{0:020}.json")
    path.write_text(path.read_text().replace("2026-06-01T", "2026-05-01T"))
    with pytest.raises(TableDamaged, match="altered; materialize it again"):
        world.platform.tables.facts("acme", asset)
    assert world.cycle().sentence.startswith("Activated")


ELSEWHERE = {
    "relative": "../../beta/training_dataset/{name}",
    "escaped": "..%2F..%2Fbeta%2Ftraining_dataset%2F{name}",
    "absolute": "{root}/beta/training_dataset/{name}",
    "address": "file://{root}/beta/training_dataset/{name}",
    "of the system": "file:///etc/passwd",
    "of a server": "s3://bucket/beta.parquet",
    "no name of a file": "{name}\0",
}


@pytest.mark.parametrize("form", ELSEWHERE)
def test_a_log_that_names_a_file_of_another_tenant_reads_and_deletes_nothing_of_it(
    world: World, form: str
) -> None:
    tables, path = world.platform.tables, commit(world, "add")
    whole, folder = path.read_text(), Path(tables.root, "beta", "training_dataset")
    tables.write("beta", "training_dataset", tables.read("acme", "training_dataset").head(5), {})
    [theirs] = folder.glob("*.parquet")

    def name_theirs(action: str) -> None:
        lines = [json.loads(line) for line in whole.splitlines()]
        [found] = [line[action] for line in lines if action in line]
        found["path"] = ELSEWHERE[form].format(root=tables.root, name=theirs.name)
        path.write_text("\n".join(map(json.dumps, lines)))

    name_theirs("add")
    with pytest.raises(TableDamaged, match="lies outside of the table's folder; materialize it again"):
        tables.read("acme", "training_dataset")
    for action in ("add", "remove"):
        name_theirs(action)
        tables.prune("acme", "training_dataset", keep=(), unused_for=timedelta(0))
    assert tables.read("beta", "training_dataset").height == 5


def exchange(world: World, kind: Any, change: Callable[[Any], Any]) -> None:
    """Other rows under the facts of the version: what an altered file that can still be read holds."""
    tables = world.platform.tables
    tables.write("acme", kind, change(tables.read("acme", kind)), tables.facts("acme", kind))


def test_a_dataset_that_was_altered_is_neither_trained_nor_decided_on(world: World) -> None:
    exchange(world, "training_dataset", lambda rows: rows.with_columns(is_fraud=~rows["is_fraud"]))
    with pytest.raises(TableDamaged, match=r"expected version 1 of .* \(altered\); materialize training_dat"):
        cycle.train(world.platform, "acme", None)
    cycle.assemble_dataset(world.platform, "acme")
    cycle.train(world.platform, "acme", None)
    for path in Path(world.platform.tables.root, "acme", "training_dataset").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TableDamaged):
        cycle.decide(world.platform, "acme", None)
    assert world.platform.ledger.history("acme") == []


def test_profiles_that_were_altered_are_not_used_and_the_next_night_makes_them_again(world: World) -> None:
    exchange(world, "profiles", lambda rows: rows.with_columns(observations=rows["observations"] + 1))
    with pytest.raises(TableDamaged, match="materialize behavioural_profiles"):
        cycle.assemble_dataset(world.platform, "acme")
    world.now += timedelta(days=1)
    cycle.refresh_profiles(world.platform, "acme")
    cycle.assemble_dataset(world.platform, "acme")
