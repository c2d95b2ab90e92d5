"""Few rows wait in memory, many in files; they come back whole and in their order."""

from pathlib import Path

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fraud_assets.storage.spool import Spool

EMPTY = pl.DataFrame(schema={"number": pl.Int64, "kind": pl.Enum(["odd", "even"])})
ADDED = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.lists(st.integers(0, 9), max_size=4)), max_size=8)


def rows(*numbers: int) -> pl.DataFrame:
    kinds = ["odd" if number % 2 else "even" for number in numbers]
    return pl.DataFrame({"number": numbers, "kind": kinds}, schema=EMPTY.schema)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(added=ADDED, in_memory=st.integers(0, 12))
def test_the_rows_of_each_name_come_back_in_their_order(
    tmp_path: Path, added: list[tuple[str, list[int]]], in_memory: int
) -> None:
    spool = Spool(tmp_path / f"{len(list(tmp_path.iterdir()))}", EMPTY, in_memory)
    for name, numbers in added:
        spool.add(rows(*numbers), name)
    for name in ("a", "b"):
        expected = rows(*(number for one, numbers in added if one == name for number in numbers))
        assert_frame_equal(spool.scan(name).collect(), expected)
        assert_frame_equal(spool.scan(name).slice(1, 2).collect(), expected.slice(1, 2))


def test_few_rows_never_touch_the_disk_and_many_do(tmp_path: Path) -> None:
    for in_memory, files in ((6, 0), (5, 1), (1, 3)):
        folder = tmp_path / f"{in_memory}"
        kept = Spool(folder, EMPTY, in_memory).keep(rows(n, n) for n in range(3))
        assert kept.collect().height == 6
        assert len(list(folder.glob("*"))) == files


def test_what_is_added_after_a_scan_is_in_the_next_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path, EMPTY, in_memory=0)
    spool.add(rows(1))
    first = spool.scan()
    spool.add(rows(2))
    assert first.collect()["number"].to_list() == [1]
    assert spool.scan().collect()["number"].to_list() == [1, 2]
