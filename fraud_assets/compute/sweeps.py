"""The passes over events in time that the features and profiles are counted in. Arrays in, arrays out.

Plain Python over NumPy arrays, in the subset that Numba compiles: `call` compiles a pass where the rows
are many and runs it as it stands where they are few, with the same bits. No frames, no units: instants
are integers (microseconds) and ids are codes from 0 on, -1 where there is none.

What a query at the instant `at` may see stands here once: events with at - window <= happened < at that
were known before `at`. An event arrives when it is both past and known, at its `visible` instant, and leaves
`window` after it happened. Numbers are counted on arrival and departure, in integers, which are exact. Means
and spreads are not: they are taken anew over the rows of the window, in two passes, in the order of time, so
nothing cancels out and the same window gives the same bits.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from math import isnan, nan, sqrt
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fraud_assets.domain.schemas import LATEST

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Values = Integers | Floats

COMPILE_FROM: Final = 100_000
"""Rows from which compiling pays: a pass takes half a second to compile, once on a machine."""

_met: Final[Counter[Callable[..., Any]]] = Counter()

NEVER: Final = np.iinfo(np.int64).min
"""The instant of what did not happen."""


def call(kernel: Callable[..., Any], *arguments: pl.Series | NDArray[Any] | timedelta | int) -> Any:
    """`kernel` over columns and arrays, compiled once any has met many rows in this process: the others will.

    A null is False, NaN, -1, or for an instant LATEST: what is not published is not seen.
    """
    arrays = [_array(argument) for argument in arguments]
    _met[kernel] += max(len(each) for each in arrays if isinstance(each, np.ndarray))
    if max(list(_met.values())) >= COMPILE_FROM:  # a copy, as other threads add to it
        return _compiled(kernel)(*arrays)
    return kernel(*(each.tolist() if isinstance(each, np.ndarray) else each for each in arrays))


def frame(columns: Mapping[str, NDArray[Any]]) -> pl.DataFrame:
    """What passes returned, as columns; NaN is null."""
    return pl.DataFrame([pl.Series(name, values, nan_to_null=True) for name, values in columns.items()])


def columns(rows: pl.DataFrame) -> dict[str, NDArray[Any]]:
    """Columns as `call` takes them; once for many calls."""
    return {column.name: _of_column(column) for column in rows}


def count(codes: pl.Series | NDArray[Any]) -> int:
    """How many codes there are, from 0 to the greatest one."""
    return int((codes.to_numpy() if isinstance(codes, pl.Series) else codes).max(initial=-1)) + 1


def _array(value: pl.Series | NDArray[Any] | timedelta | int) -> NDArray[Any] | int:
    """Read-only, as Numba compiles anew for what may be written to."""
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, int):
        return value
    array = _of_column(value) if isinstance(value, pl.Series) else value.view()
    array.flags.writeable = False
    return array


def _of_column(column: pl.Series) -> NDArray[Any]:
    if column.dtype == pl.Boolean:
        return (column.fill_null(False) if column.null_count() else column).to_numpy()
    if column.dtype == pl.Float64:
        return (column.fill_null(nan) if column.null_count() else column).to_numpy()
    if column.null_count():
        column = column.fill_null(LATEST if column.dtype == pl.Datetime else -1)
    array = column.to_numpy()
    return array.view(np.int64) if column.dtype == pl.Datetime else array


@cache
def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    try:
        return numba.njit(kernel, cache=True, nogil=True)
    except RuntimeError:  # no folder to keep the compiled code in
        return numba.njit(kernel, nogil=True)


def grouped(codes: Integers, groups: int) -> tuple[Integers, Integers]:
    """The positions in `codes` parted by code; each part in their order.

    Returns the positions and, of each code, where its part starts, with the end at last. Positions
    with a code below 0 are left out.
    """
    starts = np.zeros(groups + 1, np.int64)
    for code in codes:
        if code >= 0:
            starts[code + 1] += 1
    starts = np.cumsum(starts)
    free = starts[:-1].copy()
    parted = np.empty(starts[-1], np.int64)
    for position in range(len(codes)):
        code = codes[position]
        if code >= 0:
            parted[free[code]] = position
            free[code] += 1
    return parted, starts


def at_places(
    happened: Integers,
    visible: Integers,
    guard: Integers,
    is_asked: Flags,
    parted: Integers,
    starts: Integers,
    guards: int,
    window: int,
) -> tuple[Integers, Floats, Integers]:
    """What the guard of each event that is asked for sees of all guards at its place (a site or a device).

    `parted`: the events by place.

    Returns by event: the guards seen, how many population spreads the own guard's number of events is above
    their mean (NaN without a spread), and the newest instant of another guard (NEVER without one).
    """
    seen, above = np.zeros(len(happened), np.int64), np.full(len(happened), nan)
    other_at = np.full(len(happened), NEVER, np.int64)
    count = np.zeros(guards, np.int64)
    for place in range(len(starts) - 1):
        here = np.asarray(parted[starts[place] : starts[place + 1]])
        at, known = np.empty(len(here), np.int64), np.empty(len(here), np.int64)
        for event in range(len(here)):
            at[event] = happened[here[event]]
        in_time = np.argsort(at, kind="mergesort")
        at, here = at[in_time], here[in_time]
        for event in range(len(here)):
            known[event] = visible[here[event]]
        arriving = np.argsort(known, kind="mergesort")
        arrival = departure = 0
        number = total = square = 0
        newest_guard, newest, newest_of_others = -1, NEVER, NEVER
        for query in range(len(here)):
            row, now = here[query], at[query]
            if not is_asked[row]:
                continue
            while arrival < len(here) and known[arriving[arrival]] < now:
                event = arriving[arrival]
                arrival += 1
                instant, who = at[event], guard[here[event]]
                if known[event] >= instant + window:
                    continue
                square += 2 * count[who] + 1
                number += count[who] == 0
                total += 1
                count[who] += 1
                if who == newest_guard:
                    newest = max(newest, instant)
                elif instant > newest:
                    newest_of_others = newest
                    newest_guard, newest = who, instant
                else:
                    newest_of_others = max(newest_of_others, instant)
            while departure < len(here) and at[departure] < now - window:
                if known[departure] < at[departure] + window:
                    who = guard[here[departure]]
                    count[who] -= 1
                    square -= 2 * count[who] + 1
                    number -= count[who] == 0
                    total -= 1
                departure += 1
            who = guard[row]
            seen[row] = number
            # The mean and the spread, each times `number`: exact in whole numbers.
            spread = number * square - total * total
            if spread > 0:
                above[row] = (count[who] * number - total) / sqrt(spread)
            other = newest if who != newest_guard else newest_of_others
            if other >= now - window:
                other_at[row] = other
        for event in here:
            count[guard[event]] = 0
    return seen, above, other_at


def of_guards(
    happened: Integers,
    visible: Integers,
    starts: Integers,
    has_position: Flags,
    is_weekend: Flags,
    is_mismatch: Flags,
    at: Integers,
    asking_starts: Integers,
    short: int,
    long: int,
) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """What each query sees of its own guard in the windows `short` and `long`.

    Events and queries are parted by guard and in the order of time.

    Returns by query: the events of the long window, those at weekends, the mismatches of the short one, the
    newest instant (NEVER without one), and the newest event with a position (-1 without one).
    """
    events, weekends = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    mismatches = np.zeros(len(at), np.int64)
    newest, fix = np.full(len(at), NEVER, np.int64), np.full(len(at), -1, np.int64)
    for one in range(len(starts) - 1):
        first, end = starts[one], starts[one + 1]
        arriving = first + np.argsort(np.asarray(visible[first:end]), kind="mergesort")
        arrival, left_short, left_long = 0, first, first
        number = at_weekend = mismatch = 0
        latest, latest_fix = NEVER, -1
        for query in range(asking_starts[one], asking_starts[one + 1]):
            now = at[query]
            while arrival < len(arriving) and visible[arriving[arrival]] < now:
                event = arriving[arrival]
                arrival += 1
                if visible[event] < happened[event] + long:
                    number += 1
                    at_weekend += is_weekend[event]
                if visible[event] < happened[event] + short:
                    mismatch += is_mismatch[event]
                latest = max(latest, happened[event])
                if has_position[event]:
                    latest_fix = max(latest_fix, event)
            while left_long < end and happened[left_long] < now - long:
                if visible[left_long] < happened[left_long] + long:
                    number -= 1
                    at_weekend -= is_weekend[left_long]
                left_long += 1
            while left_short < end and happened[left_short] < now - short:
                if visible[left_short] < happened[left_short] + short:
                    mismatch -= is_mismatch[left_short]
                left_short += 1
            events[query], weekends[query], mismatches[query] = number, at_weekend, mismatch
            if latest >= now - long:
                newest[query] = latest
            if latest_fix >= 0 and happened[latest_fix] >= now - long:
                fix[query] = latest_fix
    return events, weekends, mismatches, newest, fix


def at_own_site(
    happened: Integers,
    visible: Integers,
    starts: Integers,
    site: Integers,
    latitude: Floats,
    longitude: Floats,
    published: Integers,
    is_late: Flags,
    at: Integers,
    own_site: Integers,
    asking_starts: Integers,
    sites: int,
    window: int,
) -> tuple[Integers, Integers, Integers, Floats]:
    """What each query sees of its own guard at its own site.

    Events and queries are parted by guard and in the order of time. A position that is not known is NaN; a
    shift counts for who asks after it was `published`, and without one that is never.

    Returns by query: the events with a shift, the late ones, the positions, and the mean of the population
    spreads of latitude and longitude, two passes each (NaN without a position).
    """
    rostered, late = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    positions, spread = np.zeros(len(at), np.int64), np.full(len(at), np.nan)
    before, newest = np.full(len(happened), -1, np.int64), np.full(sites, -1, np.int64)
    here = np.empty(len(happened), np.int64)
    for one in range(len(starts) - 1):
        past = starts[one]
        for query in range(asking_starts[one], asking_starts[one + 1]):
            now = at[query]
            while past < starts[one + 1] and happened[past] < now:
                before[past], newest[site[past]] = newest[site[past]], past
                past += 1
            event, known, north, east = newest[own_site[query]], 0, 0.0, 0.0
            while event >= starts[one] and happened[event] >= now - window:
                if visible[event] < now:
                    if published[event] < now:
                        rostered[query] += 1
                        late[query] += is_late[event]
                    if not isnan(latitude[event]):
                        here[known] = event
                        known += 1
                        north += latitude[event]
                        east += longitude[event]
                event = before[event]
            if known == 0:
                continue
            north, east = north / known, east / known
            rest_north = rest_east = square_north = square_east = 0.0
            for event in here[:known]:
                off_north, off_east = latitude[event] - north, longitude[event] - east
                rest_north += off_north
                rest_east += off_east
                square_north += off_north * off_north
                square_east += off_east * off_east
            positions[query] = known
            square_north -= rest_north * rest_north / known
            square_east -= rest_east * rest_east / known
            spread[query] = (sqrt(max(square_north, 0.0) / known) + sqrt(max(square_east, 0.0) / known)) / 2
    return rostered, late, positions, spread


def newest(at: Integers, starts: Integers, made_at: Integers, made_starts: Integers) -> Integers:
    """The newest of what was made for each query's guard at or before `at`, -1 without one.

    Queries and what was made are parted by guard and in the order of time.
    """
    found = np.full(len(at), -1, np.int64)
    for one in range(len(starts) - 1):
        made = made_starts[one]
        for query in range(starts[one], starts[one + 1]):
            while made < made_starts[one + 1] and made_at[made] <= at[query]:
                made += 1
            if made > made_starts[one]:
                found[query] = made - 1
    return found


def means(
    value: Floats, first: Integers, end: Integers, starts: Integers, snapshots: int
) -> tuple[Integers, Floats]:
    """The number and mean of the known values that each guard's snapshots see (NaN: not known; no mean).

    Events are parted by guard; an event is seen by the snapshots `first` to `end`. Returns by query: each
    guard's snapshots, one guard after the other.
    """
    queries = (len(starts) - 1) * snapshots
    number, mean = np.zeros(queries, np.int64), np.zeros(queries)
    for one in range(len(starts) - 1):
        of_guard = one * snapshots
        for event in range(starts[one], starts[one + 1]):
            known = value[event]
            if not isnan(known):
                for query in range(of_guard + first[event], of_guard + end[event]):
                    number[query] += 1
                    mean[query] += known
    for query in range(queries):
        mean[query] = mean[query] / number[query] if number[query] > 0 else nan
    return number, mean


def spreads(
    value: Floats, mean: Floats, first: Integers, end: Integers, starts: Integers, snapshots: int
) -> Floats:
    """The population standard deviation of the values of `means`, by query; NaN where there is no mean.

    Chan, Golub and LeVeque (1983), eq. 1.7: a second pass over the distances from the mean, from which is
    taken off what rounding left in it.
    """
    known, rest, square = np.zeros(len(mean), np.int64), np.zeros(len(mean)), np.zeros(len(mean))
    for one in range(len(starts) - 1):
        of_guard = one * snapshots
        for event in range(starts[one], starts[one + 1]):
            if not isnan(value[event]):
                for query in range(of_guard + first[event], of_guard + end[event]):
                    off = value[event] - mean[query]
                    known[query] += 1
                    rest[query] += off
                    square[query] += off * off
    spread = np.full(len(mean), nan)
    for query in range(len(mean)):
        if known[query] > 0:
            left = square[query] - rest[query] * rest[query] / known[query]
            spread[query] = sqrt(max(left, 0.0) / known[query])
    return spread


def most_frequent(
    code: Integers, first: Integers, end: Integers, starts: Integers, snapshots: int, codes: int
) -> tuple[Integers, Integers, Integers]:
    """The three codes most frequent among the events of `means`, most frequent first, ties smallest first.

    Returns (queries, 3) codes (-1 where there are fewer), their numbers, and how many different codes each
    query sees.
    """
    queries = (len(starts) - 1) * snapshots
    top, times = np.full((queries, 3), -1, np.int64), np.zeros((queries, 3), np.int64)
    different = np.zeros(queries, np.int64)
    own, place = np.empty(codes, np.int64), np.full(codes, -1, np.int64)
    for one in range(len(starts) - 1):
        kinds = 0
        for event in range(starts[one], starts[one + 1]):
            if place[code[event]] < 0:
                place[code[event]] = 0
                own[kinds] = code[event]
                kinds += 1
        own[:kinds].sort()
        for kind in range(kinds):
            place[own[kind]] = kind
        # First how much each count differs from the one before: two steps an event, however long it is seen.
        count = np.zeros((kinds, snapshots + 1), np.int64)
        for event in range(starts[one], starts[one + 1]):
            if first[event] < end[event]:
                count[place[code[event]], first[event]] += 1
                count[place[code[event]], end[event]] -= 1
        for kind in range(kinds):
            place[own[kind]] = -1
            for snapshot in range(snapshots):
                number, query = count[kind, snapshot], one * snapshots + snapshot
                count[kind, snapshot + 1] += number
                different[query] += number > 0
                rank = 3
                while rank > 0 and number > times[query, rank - 1]:
                    rank -= 1
                    if rank < 2:
                        top[query, rank + 1], times[query, rank + 1] = top[query, rank], times[query, rank]
                if rank < 3:
                    top[query, rank], times[query, rank] = own[kind], number
    return top, times, different
