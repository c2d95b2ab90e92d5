import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute import observations

names = st.sampled_from(["", "a", "A", "aa", "b", "é", "\uffff", "\U0001f600"])


def in_order(guards: list[str]) -> pl.DataFrame:
    """Rows of these guards, sorted, in chunks."""
    frame = pl.DataFrame({"guard_id": sorted(guards)}, schema={"guard_id": pl.String}).with_row_index("row")
    return pl.concat([frame[:3], frame[3:]], rechunk=False)


@given(st.lists(names, min_size=1), st.data())
def test_the_rows_of_some_guards_are_read_without_the_others(guards: list[str], data: st.DataObject) -> None:
    rows = in_order(guards)
    wanted = pl.Series(sorted(data.draw(st.sets(names, min_size=1))))
    found = observations.by_guard(rows.lazy()).of(wanted).collect()
    assert found["row"].to_list() == rows.filter(pl.col("guard_id").is_in(wanted.implode()))["row"].to_list()


@given(st.lists(names, min_size=1), st.integers(1, 5))
def test_batches_hold_every_guard_once_in_order_and_about_as_many_rows_as_asked(
    guards: list[str], size: int
) -> None:
    parted = observations.by_guard(in_order(guards).lazy())
    batches = observations.guard_batches(parted, size)
    assert [guard for batch in batches for guard in batch] == sorted(set(guards))
    largest = max(guards.count(guard) for guard in guards)
    assert all(parted.of(batch).collect().height < size + largest for batch in batches)


def test_only_guards_with_an_event_that_is_asked_for_are_in_a_batch() -> None:
    parted = observations.by_guard(in_order(["a", "b", "b", "c"]).lazy())
    [batch] = observations.guard_batches(parted, 10, pl.col("row").is_in([0, 3]))
    assert batch.to_list() == ["a", "c"]
    assert parted.of(batch).collect()["row"].to_list() == [0, 3]


def test_rows_that_are_not_sorted_by_guard_are_refused() -> None:
    rows = pl.LazyFrame({"guard_id": ["a", "b", "a"]})
    with pytest.raises(ValueError, match="expected rows sorted by guard_id"):
        observations.by_guard(rows)


def test_no_rows_have_no_batches() -> None:
    parted = observations.by_guard(in_order([]).lazy())
    assert observations.guard_batches(parted) == []
    assert parted.of(pl.Series(["a"])).collect().height == 0
