"""The features as a pandas user makes them who wants them fast. Nothing here is shared with the platform.

There is no `groupby.rolling`: every window also asks what was known, and rolling over all rows, even before
late rows are taken out again, costs several times what this does. What a window holds is what had arrived
less what had left: rows in order of arrival and of departure, a running sum of each, and `searchsorted`.

Rows are expected as `tenant.write` leaves them, by guard, punch-in and event id. Instants are microseconds
since the first punch-in; guards, sites and devices are numbers. A family of features is a frame with the
events' row numbers as its index; events of which it knows nothing may be missing.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import holidays
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import tenant
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES, EventFeatures

Array = np.ndarray[Any, Any]
Frame = Any
"""A pandas frame; without stubs its columns have no type that a checker can follow."""
Column = Any
"""A column of such a frame."""

_THREADS: Final = 2
_SECOND: Final = 1_000_000
_HOUR: Final = 3_600 * _SECOND
_DAY: Final = 24 * _HOUR
_LATE_AFTER: Final = 15 * 60 * _SECOND
_MINIMUM_OBSERVATIONS: Final = 10
_SUFFICIENT_OBSERVATIONS: Final = 30
_HOURS_PER_RADIAN: Final = 12 / np.pi
_EARTH_RADIUS_METERS: Final = 6_371_000
_IDS: Final = ["guard_id", "site_id", "device_id", "entry_source"]
_FLAGS: Final = ["is_mock_location", "face_verified"]
_NUMBERS: Final = ["latitude", "longitude", "face_distance", "face_attempts"]


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """Per feature the number of known values and their sum; booleans and entry_source as numbers."""
    history = _read(folder)
    with ThreadPoolExecutor(_THREADS) as pool:
        totals = list(pool.map(lambda family: _totals(family(history)), _FAMILIES))
    return {name: total for part in totals for name, total in part.items()}


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES in the types of EventFeatures, one row for each event."""
    history = _read(folder)
    found = pd.concat([family(history) for family in _FAMILIES], axis=1).sort_index()
    numbers = pl.DataFrame({name: found[name].to_numpy(float) for name in FEATURES}, nan_to_null=True)
    source = pl.col("entry_source").replace_strict(dict(enumerate(ENTRY_SOURCES)))
    schema = EventFeatures.create_empty().schema
    typed = numbers.with_columns(source).cast({name: schema[name] for name in FEATURES})
    return pl.read_parquet(folder / "attendance_event.parquet", columns=["event_id"]).hstack(typed)


def _totals(family: Frame) -> dict[str, tuple[int, float]]:
    return {str(name): (int(column.count()), float(column.sum())) for name, column in family.items()}


@dataclass(frozen=True)
class _History:
    """What all families start from.

    `events`: a row for each, with guard, site and device (-1: not known); at, and seen: when it had both
    happened and become known; day (since 1970), weekday (Monday = 0) and hour (0 to 24, fractional) of local
    time; scheduled and published of its shift, NaN without; and the event's own values, NaN where not known.
    `sites`: latitude, longitude, country by number. `snapshots`: instants. `span`: above any instant.
    """

    events: Frame
    sites: Frame
    snapshots: Array
    span: int

    @property
    def guards(self) -> int:
        return int(self.events["guard"].max()) + 1

    def key(self, group: Column, at: Column) -> Array:
        """One number to sort by group and in it by instant. Raises OverflowError beyond 64 bits."""
        groups = np.asarray(group)
        if (int(groups.max(initial=-1)) + 1) * self.span > np.iinfo(np.int64).max:
            raise OverflowError(f"expected fewer groups than {groups.max()}; split the tenant")
        return groups * self.span + np.asarray(at)


# Reading


def _read(folder: Path) -> _History:
    """Raises ValueError if the events are not sorted by guard and punch-in."""
    source = pd.read_parquet(
        folder / "attendance_event.parquet",
        columns=[*_IDS, *_FLAGS, *_NUMBERS, "shift_id", "punch_in_at", "known_at"],
        dtype_backend="pyarrow",
        read_dictionary=_IDS,
    )
    first = int(source["punch_in_at"].astype("int64").to_numpy().min())
    events = _observed(source, first)
    in_order: Column = (events["guard"].diff() > 0) | (events["at"].diff() >= 0)
    if not in_order.iloc[1:].all():
        raise ValueError("expected events sorted by guard_id and punch_in_at; write them with tenant.write")
    events["site"], ids = source["site_id"].factorize(sort=True)
    sites = pd.read_parquet(folder / "site.parquet").set_index("site_id").loc[ids.astype(str)]
    local = _local(events["at"] + first, sites["tz"].to_numpy()[events["site"]])
    events["day"], events["hour"] = local // _DAY, local % _DAY / _HOUR
    events["weekday"] = (events["day"] + 3) % 7
    shifts = pd.read_parquet(folder / "shift.parquet", dtype_backend="pyarrow")
    place = _place(source["shift_id"], pa.array(shifts["shift_id"]))
    for name, column in {"scheduled": "scheduled_start", "published": "published_at"}.items():
        instant = shifts[column].astype("int64").to_numpy() - first
        events[name] = np.where(place < 0, np.nan, instant[place])
    snapshots = np.array([int(at.timestamp()) * _SECOND - first for at in tenant.SNAPSHOTS])
    return _History(events, sites, snapshots, span=int(events["at"].max()) + 2)


def _observed(source: Frame, first: int) -> Frame:
    """Events by themselves. What no event can see any more is `seen` just after the last one."""
    at = source["punch_in_at"].astype("int64").to_numpy() - first
    known = source["known_at"].astype("int64").to_numpy() - first
    entry_source, names = source["entry_source"].factorize()
    numbers = {name: source[name].to_numpy(float, na_value=np.nan) for name in (*_FLAGS, *_NUMBERS)}
    return pd.DataFrame(
        {
            "guard": source["guard_id"].factorize()[0],
            "device": source["device_id"].factorize()[0],
            "entry_source": np.array([ENTRY_SOURCES.index(name) for name in names])[entry_source],
            "at": at,
            "seen": np.minimum(np.maximum(at, known), at.max() + 1),
            "face_confidence": (1 - numbers["face_distance"] / 0.4).clip(min=0),
            **numbers,
        }
    )


def _place(values: Column, known: pa.Array) -> Array:
    """The place of each of `values` in `known`, -1 for none."""
    found = pc.call_function("index_in", [pa.array(values)], pc.SetLookupOptions(known))
    return found.fill_null(-1).to_numpy()


def _local(instants: Column, zones: Array) -> Array:
    """Microseconds of local time in `zones` for `instants` of UTC; both since 1970."""
    local = np.empty(instants.size, np.int64)
    for zone, here in instants.groupby(zones).indices.items():
        utc = pd.DatetimeIndex(instants.to_numpy()[here].view("datetime64[us]"), tz="UTC")
        local[here] = utc.tz_convert(zone).tz_localize(None).asi8
    return local


def _is_holiday(country: Column, site: Array, day: Array) -> Array:
    """1, 0 or NaN (no calendar) for each local `day` since 1970 at the `site` of that number."""
    first = int(day.min())
    dates = pd.to_datetime(np.arange(first, int(day.max()) + 1), unit="D")
    calendar = np.full((country.size, dates.size), np.nan)
    for name in set(country.dropna()) & set(holidays.list_supported_countries()):
        years = (holidays.country_holidays(name, years=year, expand=False) for year in set(dates.year))
        found = pd.DatetimeIndex([date for year in years for date in year])
        calendar[country == name] = dates.isin(found)
    return calendar[site, day - first]


# What an event sees


def _in_window(history: _History, events: Frame, past: Frame, group: str, days: int) -> list[Array]:
    """For each of `events` the sums, one array a column, of what it sees of its group in `days`.

    `past`: the column `group`, at, seen, then those to sum. What is seen is what had arrived less what had
    left, both strictly before the event.
    """
    gone = np.minimum(past["at"] + days * _DAY, history.span - 1)
    lasting = past["seen"] < gone
    past, gone = past[lasting], gone[lasting]
    if past.empty:
        return list(np.zeros((past.shape[1] - 3, len(events))))
    values = past.drop(columns=[group, "at", "seen"])
    arrived = _before(history, events, group, past[group], past["seen"], values)
    left = _before(history, events, group, past[group], gone, values)
    return list((arrived - left).T)


def _before(history: _History, events: Frame, name: str, group: Column, at: Column, values: Frame) -> Array:
    """For each of `events` the sums of `values` of its group with an instant `at` strictly before its own."""
    keys = history.key(group, at)
    order = np.argsort(keys, kind="stable")
    running = values.iloc[order].groupby(group.iloc[order], sort=False).cumsum().to_numpy()
    last = np.searchsorted(keys[order], history.key(events[name], events["at"])) - 1
    same = (last >= 0) & (group.to_numpy()[order][last] == events[name].to_numpy())
    return np.where(same[:, None], running[last], 0)


def _newest_seen(history: _History, past: Frame) -> Array:
    """For each event the row of its guard's newest event in `past` that it sees; -1 for none."""
    events = history.events
    if past.empty:
        return np.full(len(events), -1)
    keys = history.key(past["guard"], past["seen"])
    order = np.argsort(keys, kind="stable")
    # Rows are sorted by guard, punch-in and id: the highest row so far is the newest, or another guard's.
    newest = np.maximum.accumulate(past.index.to_numpy()[order])
    last = np.searchsorted(keys[order], history.key(events["guard"], events["at"])) - 1
    row = np.where(last >= 0, newest[last], -1)
    guard = events["guard"].to_numpy()
    return np.where((row >= 0) & (guard[row] == guard), row, -1)


def _guards_seen(history: _History, events: Frame, place: str) -> Frame:
    """What each event sees at its `place` (site or device) in 30 days.

    guards, the number of different ones; times, the number of events; squares, the sum over the guards of
    their numbers of events squared; own, the number of events of the event's own guard.
    """
    pair = (events[place] * history.guards + events["guard"]).factorize()[0]
    gone = np.minimum(events["at"] + 30 * _DAY, history.span - 1)
    known = np.flatnonzero(events["seen"] < gone)
    row = np.append(known, known)
    instant = np.append(events["seen"].to_numpy()[known], gone.to_numpy()[known])
    keys = history.key(pair[row], instant)
    order = np.argsort(keys, kind="stable")
    step = np.where(order < known.size, 1, -1)
    # What came is gone by the end of a pair, so that one running sum serves all pairs; likewise places below.
    times = step.cumsum()
    own = np.append(0, times)[np.searchsorted(keys[order], history.key(pair, events["at"]))]
    changes = {
        "guards": np.where(step > 0, times == 1, -1 * (times == 0)),
        "times": step,
        "squares": 2 * step * times - 1,
    }
    keys = history.key(events[place].to_numpy()[row[order]], instant[order])
    order = np.argsort(keys)
    last = _found(keys[order], history.key(events[place], events["at"]))
    seen = {name: np.append(0, change[order].cumsum())[last] for name, change in changes.items()}
    return pd.DataFrame({"own": own, **seen}, index=events.index)


def _found(keys: Array, asked: Array) -> Array:
    """`searchsorted` of keys in no order: several times as fast when they are sorted first."""
    order = np.argsort(asked)
    found = np.empty_like(order)
    found[order] = np.searchsorted(keys, asked[order])
    return found


# The families of features


def _own(history: _History) -> Frame:
    events, sites = history.events, history.sites
    site = events["site"].to_numpy()
    centre = (sites[axis].to_numpy()[site] for axis in ("latitude", "longitude"))
    early = (events["scheduled"] - events["at"]) / (60 * _SECOND)
    return pd.DataFrame(
        {
            "hour_of_day": events["hour"] // 1,
            "day_of_week": events["weekday"],
            "is_weekend": events["weekday"] >= 5,
            "is_holiday": _is_holiday(sites["country"], site, events["day"].to_numpy()),
            "gps_drift_meters": _meters(events["latitude"], events["longitude"], *centre).clip(upper=10_000),
            "face_recognition_confidence": events["face_confidence"],
            "minutes_early": early.where(events["published"] < events["at"]),
            **{name: events[name] for name in ("is_mock_location", "entry_source", "face_attempts")},
        }
    )


def _of_guard(history: _History) -> Frame:
    events, keys = history.events, history.events[["guard", "at", "seen"]]
    weekend = (events["weekday"] >= 5).astype(int)
    mismatch = (events["face_verified"] == 0).astype(int)
    times, weekends = _in_window(history, keys, keys.assign(one=1, weekend=weekend), "guard", 90)
    (mismatches,) = _in_window(history, keys, keys.assign(mismatch=mismatch), "guard", 30)
    at, last = keys["at"].to_numpy(), _newest_seen(history, keys)
    return pd.DataFrame(
        {
            "weekend_work_frequency": weekends / np.where(times > 0, times, np.nan),
            "biometric_mismatch_count_30d": mismatches,
            "time_since_last_event": np.where(last < 0, _DAY, (at - at[last]).clip(max=_DAY)) / _SECOND,
            "travel_speed_kmh": _travel_speed(history),
        }
    )


def _travel_speed(history: _History) -> Column:
    fixes = history.events[["latitude", "longitude", "at"]]
    last = _newest_seen(history, history.events[history.events["latitude"].notna()])
    there = fixes.reindex(last).set_axis(fixes.index)
    gap = fixes["at"] - there["at"]
    meters = _meters(fixes["latitude"], fixes["longitude"], there["latitude"], there["longitude"])
    return (meters / gap * (3.6 * _SECOND)).where(gap <= 90 * _DAY)


def _among_guards(history: _History) -> Frame:
    seen = _guards_seen(history, history.events[["guard", "site", "at", "seen"]], "site")
    # (own - times / guards) / spread, in whole numbers for as long as possible.
    spread = np.sqrt(seen["guards"] * seen["squares"] - seen["times"] ** 2)
    zscore = (seen["own"] * seen["guards"] - seen["times"]) / spread.where(spread > 0)
    return pd.DataFrame({"check_in_frequency_zscore": zscore.clip(-3, 3)})


def _at_site(history: _History) -> Frame:
    pair = (history.events["guard"] * len(history.sites) + history.events["site"]).factorize()[0]
    events = history.events.assign(pair=pair)
    return pd.DataFrame(
        {
            "location_consistency_score": _location_consistency(history, events),
            "late_arrival_rate": _late_arrival_rate(history, events),
        }
    )


def _location_consistency(history: _History, events: Frame) -> Array:
    """Positions are taken from the middle of those at the site: squares of small numbers lose no digits."""
    fixes = events.loc[events["latitude"].notna(), ["pair", "at", "seen", "site", "latitude", "longitude"]]
    apart = fixes[["latitude", "longitude"]]
    apart = apart - apart.groupby(fixes["site"]).transform("mean")
    past = fixes[["pair", "at", "seen"]].assign(one=1, **apart, **(apart**2).add_prefix("squared_"))
    times, *sums = _in_window(history, events, past, "pair", 30)
    times = np.where(times < 5, np.nan, times)
    latitude, longitude, latitude_squared, longitude_squared = (total / times for total in sums)
    variances = (latitude_squared - latitude**2, longitude_squared - longitude**2)
    spread = sum(np.sqrt(variance.clip(min=0)) for variance in variances) / 2
    return np.clip(1 - spread / 0.01, 0, 1)


def _late_arrival_rate(history: _History, events: Frame) -> Array:
    """An event counts from when its shift is published, too."""
    rostered = events[events["scheduled"].notna()]
    past = rostered[["pair", "at"]].assign(
        seen=np.maximum(rostered["seen"], rostered["published"]).clip(upper=history.span - 1).astype(int),
        one=1,
        late=(rostered["at"] - rostered["scheduled"] > _LATE_AFTER).astype(int),
    )
    times, late = _in_window(history, events, past, "pair", 30)
    return late / np.where(times > 0, times, np.nan)


def _on_device(history: _History) -> Frame:
    """Only the events with a device."""
    events = history.events.loc[history.events["device"] >= 0, ["guard", "device", "at", "seen"]]
    gap = events["at"] - _other_guard_seen(history, events)
    return pd.DataFrame(
        {
            "device_guards_30d": _guards_seen(history, events, "device")["guards"],
            "seconds_since_other_guard_on_device": (gap / _SECOND).where(gap <= 30 * _DAY),
        }
    )


def _other_guard_seen(history: _History, events: Frame) -> Array:
    """For each event the newest punch-in of another guard on its device that it sees; NaN for none.

    Per device two punch-ins are carried along: the newest, and the newest of any guard but that one's.
    """
    keys = history.key(events["device"], events["seen"])
    order = np.argsort(keys, kind="stable")
    device, guard, at = (events[name].to_numpy()[order] for name in ("device", "guard", "at"))
    newest = pd.Series(at).groupby(device).cummax().to_numpy()
    starts = np.append(True, device[1:] != device[:-1])
    before = np.where(starts, -1, np.append(-1, newest[:-1]))
    leader = guard[np.maximum.accumulate(np.where(at > before, np.arange(at.size), 0))]
    turns = starts | np.append(True, leader[1:] != leader[:-1])
    candidate = np.where(turns, before, np.where(guard != leader, at, -1))
    second = pd.Series(candidate).groupby(turns.cumsum()).cummax().to_numpy()
    last = np.searchsorted(keys[order], history.key(events["device"], events["at"])) - 1
    found = np.where(leader[last] == events["guard"], second[last], newest[last])
    known = (last >= 0) & (device[last] == events["device"]) & (found >= 0)
    return np.where(known, found, np.nan)


# Profiles: tables with a line for each guard (or each value of a guard) and a column for each snapshot


class _Tally:
    """Counts events into the snapshots whose 90 days hold them: in at the first, out after the last."""

    def __init__(self, history: _History) -> None:
        snapshots, events = history.snapshots, history.events
        come = np.searchsorted(snapshots, events["seen"], side="right")
        gone = np.searchsorted(snapshots - 90 * _DAY, events["at"], side="right")
        self._held = come < gone
        self._come, self._gone = come[self._held], gone[self._held]
        self._width = snapshots.size + 1

    def table(self, group: Array, weights: Array | None = None) -> Array:
        """Per group and snapshot the number of events, or the sum of their `weights`."""
        size, start = (int(group.max()) + 1) * self._width, group[self._held] * self._width
        held = None if weights is None else weights[self._held]
        change = np.bincount(start + self._come, held, size) - np.bincount(start + self._gone, held, size)
        return change.reshape(-1, self._width).cumsum(axis=1)[:, :-1]


def _against_profile(history: _History) -> Frame:
    """Only the events whose profile is sufficient."""
    tally, guard = _Tally(history), history.events["guard"].to_numpy()
    observations = tally.table(guard)
    snapshot = _latest_profile(history, observations)
    sufficient = (snapshot >= 0) & (observations[guard, snapshot] >= _SUFFICIENT_OBSERVATIONS)
    events, profile = history.events[sufficient], (guard[sufficient], snapshot[sufficient])
    mean, spread, resultant = (field[profile] for field in _hours(history, tally, observations))
    face_mean, face_spread = (field[profile] for field in _faces(history, tally))
    unusual, most = {}, np.zeros_like(observations)
    for name in ("hour", "weekday", "site"):
        number, usual, most = _usual(tally, guard, history.events[name].to_numpy().astype(int))
        unusual[f"profile_{name}_is_unusual"] = ~usual[number[sufficient], snapshot[sufficient]]
    site_share = most[profile] / observations[profile]
    return pd.DataFrame(
        {
            **unusual,
            "profile_hour_deviation": _hours_apart(events["hour"], mean) / spread.clip(min=0.25),
            "profile_face_deviation": (events["face_confidence"] - face_mean) / face_spread.clip(min=0.01),
            "profile_observations": observations[profile],
            "profile_consistency_score": (resultant + site_share) / 2,
        },
        index=events.index,
    )


def _latest_profile(history: _History, observations: Array) -> Array:
    """For each event the snapshot of its guard's latest profile, -1 for none."""
    snapshots = np.arange(history.snapshots.size)
    profiled = np.where(observations >= _MINIMUM_OBSERVATIONS, snapshots, -1)
    latest = np.maximum.accumulate(profiled, axis=1)
    before = np.searchsorted(history.snapshots, history.events["at"], side="right") - 1
    return np.where(before >= 0, latest[history.events["guard"], before], -1)


def _hours(history: _History, tally: _Tally, observations: Array) -> tuple[Array, Array, Array]:
    """Circular mean (-12 to 12) and spread of the hours, NaN if they cancel out; mean resultant length."""
    guard, angle = history.events["guard"].to_numpy(), history.events["hour"].to_numpy() / _HOURS_PER_RADIAN
    across, up = tally.table(guard, np.cos(angle)), tally.table(guard, np.sin(angle))
    resultant = (np.hypot(across, up) / np.maximum(observations, 1)).clip(max=1)
    directed = np.where(resultant < 1e-9, np.nan, resultant)
    mean = np.where(resultant < 1e-9, np.nan, np.arctan2(up, across) * _HOURS_PER_RADIAN)
    return mean, np.sqrt(-2 * np.log(directed)) * _HOURS_PER_RADIAN, resultant


def _hours_apart(hour: Column, other: Array) -> Column:
    return 12 - (12 - (hour - other).abs() % 24).abs()


def _faces(history: _History, tally: _Tally) -> tuple[Array, Array]:
    """Mean and spread of the face confidence, NaN where none is known."""
    guard, face = history.events["guard"].to_numpy(), history.events["face_confidence"].to_numpy()
    known, face = ~np.isnan(face), np.nan_to_num(face)
    times = tally.table(guard, known).round()
    times = np.where(times > 0, times, np.nan)
    mean, squared = tally.table(guard, face) / times, tally.table(guard, face * face) / times
    return mean, np.sqrt((squared - mean * mean).clip(min=0))


def _usual(tally: _Tally, guard: Array, value: Array) -> tuple[Array, Array, Array]:
    """The number of each event's pair of guard and `value`; per pair whether it is among the guard's three
    most frequent (ties: smallest value first); per guard how often the most frequent one was seen."""
    base = int(value.max()) + 1
    number, pairs = pd.factorize(guard * base + value, sort=True)
    times = pd.DataFrame(tally.table(number))
    by_guard: Any = times.groupby(pairs // base)
    usual = (by_guard.rank(method="first", ascending=False) <= 3) & (times > 0)
    return number, usual.to_numpy(), by_guard.max().to_numpy()


_FAMILIES: Final = (_among_guards, _at_site, _against_profile, _on_device, _of_guard, _own)


def _meters(latitude: Column, longitude: Column, other_latitude: Any, other_longitude: Any) -> Column:
    """Great-circle distance between positions in degrees."""
    here, there = np.radians(latitude), np.radians(other_latitude)
    across = np.radians(other_longitude - longitude)
    chord = np.sin((there - here) / 2) ** 2 + np.cos(here) * np.cos(there) * np.sin(across / 2) ** 2
    return 2 * _EARTH_RADIUS_METERS * np.arcsin(np.sqrt(chord.clip(upper=1)))
