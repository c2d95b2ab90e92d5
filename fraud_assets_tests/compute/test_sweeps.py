import math
from collections import Counter
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fraud_assets.compute import features, profiles, sweeps
from fraud_assets.domain.schemas import History
from fraud_assets.domain.settings import Settings
from fraud_assets_tests.compute.oracle import DST_NIGHT, tenants

RULES = Settings(profile_minimum_observations=1, profile_sufficient_observations=3)
PASSES = (sweeps.grouped, sweeps.at_places, sweeps.of_guards, sweeps.at_own_site)
PASSES += (sweeps.newest, sweeps.means, sweeps.spreads, sweeps.most_frequent)
offsets = st.sampled_from([0.0, 40.4, -179.999999, 1e9])
steps = st.sampled_from([0.0, 1e-9, 1e-6, 0.5, -1e-6, 300.0])
adversarial = st.builds(
    lambda offset, chosen: [offset + step for step in chosen],
    offsets,
    st.lists(steps, min_size=1, max_size=400),
)


@pytest.fixture
def nothing_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass has met any rows in this process."""
    monkeypatch.setattr(sweeps, "_met", Counter())


def described(history: History) -> tuple[pl.DataFrame, pl.DataFrame]:
    made = profiles.build(history, [DST_NIGHT], ["g1", "g2", "g3"], RULES).profiles
    return made, features.compute(history.attendance_event, history, made)


@settings(max_examples=25)
@given(tenants)
def test_compiled_and_plain_passes_give_the_same_bits(history: History) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "COMPILE_FROM", 10**9)
        as_python = described(history)
        patch.setattr(sweeps, "COMPILE_FROM", 0)
        for plainly, compiled in zip(as_python, described(history), strict=True):
            assert_frame_equal(plainly, compiled, check_exact=True)


@pytest.mark.usefixtures("nothing_met")
def test_few_rows_are_passed_over_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "_compiled", lambda kernel: pytest.fail(f"{kernel} was compiled"))
    parted, starts = sweeps.call(sweeps.grouped, np.array([1, 0, -1, 1]), 2)
    assert (parted.tolist(), starts.tolist()) == ([1, 0, 3], [0, 1, 3])


@pytest.mark.usefixtures("nothing_met")
def test_many_small_calls_are_compiled_as_a_large_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[object] = []
    monkeypatch.setattr(sweeps, "COMPILE_FROM", 5)
    monkeypatch.setattr(sweeps, "_compiled", lambda kernel: met.append(kernel) or kernel)
    for _ in range(3):
        sweeps.call(sweeps.grouped, np.array([0, 0]), 1)
    assert met == [sweeps.grouped]


def test_no_pass_calls_anything_of_this_package() -> None:
    """Numba compiles a pass alone: what it calls must be a builtin, NumPy or math."""
    ours = {each.__name__ for each in (*PASSES, sweeps.call)}
    for each in PASSES:
        assert not ours & set(each.__code__.co_names)


def one_window(values: list[float]) -> tuple[int, float, float]:
    """Number, mean and spread for one query that sees all `values`."""
    value, parts = np.array(values), np.array([0, len(values)])
    first, end = np.zeros(len(values), np.int64), np.ones(len(values), np.int64)
    number, mean = sweeps.means(value, first, end, parts, 1)
    return number[0], mean[0], sweeps.spreads(value, mean, first, end, parts, 1)[0]


def exact_spread(values: list[float]) -> float:
    """The population standard deviation in fractions, rounded once."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    # Scaled up before the root, so that the integer root has digits to spare.
    scale = 10**60
    return math.isqrt(int(variance * scale * scale)) / scale


@settings(max_examples=60)
@given(adversarial)
def test_a_spread_loses_nothing_to_cancellation(values: list[float]) -> None:
    number, mean, spread = one_window(values)
    assert number == len(values)
    assert mean == pytest.approx(float(sum(map(Fraction, values)) / len(values)), rel=1e-12, abs=1e-300)
    assert spread == pytest.approx(exact_spread(values), rel=1e-12, abs=1e-300)


@settings(max_examples=30)
@given(adversarial, adversarial)
def test_the_spread_of_positions_loses_nothing_to_cancellation(north: list[float], east: list[float]) -> None:
    size = min(len(north), len(east))
    zeros, flags = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    latitude, longitude = np.array(north[:size]), np.array(east[:size])
    parts, query, one = np.array([0, size]), np.array([1]), np.array([0])
    *_, positions, spread = sweeps.at_own_site(
        zeros, zeros, parts, zeros, latitude, longitude, zeros, flags, query, one, np.array([0, 1]), 1, 10
    )
    assert positions.tolist() == [size]
    expected = (exact_spread(north[:size]) + exact_spread(east[:size])) / 2
    assert spread[0] == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_equal_values_have_no_spread_at_all() -> None:
    assert one_window([0.1] * 999)[2] == 0.0


def test_values_that_are_not_known_are_not_counted() -> None:
    assert one_window([math.nan, 2.0, math.nan, 4.0]) == (2, 3.0, 1.0)
    number, mean, spread = one_window([math.nan])
    assert number == 0
    assert math.isnan(mean)
    assert math.isnan(spread)


def test_an_event_counts_in_the_snapshots_that_see_it() -> None:
    """Two guards of three snapshots each."""
    value, parts = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 3, 4])
    first, end = np.array([0, 1, 2, 1]), np.array([2, 3, 2, 3])
    number, mean = sweeps.means(value, first, end, parts, 3)
    assert number.tolist() == [1, 2, 1, 0, 1, 1]
    assert pl.Series(mean, nan_to_null=True).to_list() == [1.0, 1.5, 2.0, None, 8.0, 8.0]


def test_the_most_frequent_come_first_and_ties_the_smallest() -> None:
    code = np.array([5, 2, 2, 7, 5, 1, 9])
    first, end = np.zeros(7, np.int64), np.array([1, 1, 1, 1, 1, 1, 0])
    top, times, different = sweeps.most_frequent(code, first, end, np.array([0, 7]), 1, 10)
    assert top.tolist() == [[2, 5, 1]]
    assert times.tolist() == [[2, 2, 1]]
    assert different.tolist() == [4]


def ranked(codes: list[int]) -> list[tuple[int, int]]:
    """The three most frequent with their numbers, in plain Python."""
    return sorted(Counter(codes).items(), key=lambda pair: (-pair[1], pair[0]))[:3]


@settings(max_examples=50)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 4)), max_size=12)))
def test_each_guards_snapshots_rank_what_they_see(guards: list[list[tuple[int, int, int]]]) -> None:
    rows = [row for events in guards for row in events]
    code, first, end = (np.array([row[column] for row in rows], np.int64) for column in range(3))
    parts = np.cumsum([0, *map(len, guards)])
    top, times, different = sweeps.most_frequent(code, first, end, parts, 4, 6)
    for query, (found, number) in enumerate(zip(top.tolist(), times.tolist(), strict=True)):
        guard, snapshot = divmod(query, 4)
        seen = [one for one, start, stop in guards[guard] if start <= snapshot < stop]
        assert [pair for pair in zip(found, number, strict=True) if pair[0] >= 0] == ranked(seen)
        assert different[query] == len(set(seen))


@pytest.mark.usefixtures("nothing_met")
def test_a_null_is_what_no_pass_takes_for_a_value() -> None:
    def told(flag: list[bool], number: list[float], code: list[int], at: list[int]) -> list[object]:
        return [flag, math.isnan(number[0]), code, at]

    instant = pl.Series([None], dtype=pl.Datetime("us", "UTC"))
    found = sweeps.call(
        told,
        pl.Series([None], dtype=pl.Boolean),
        pl.Series([None], dtype=pl.Float64),
        pl.Series([None], dtype=pl.UInt32),
        instant,
    )
    year_2100 = 4_102_444_800_000_000
    assert found == [[False], True, [-1], [year_2100]]
