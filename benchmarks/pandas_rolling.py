"""The features as a pandas user writes them: groupby-rolling, merges, groupby. Nothing here is shared with the platform.

A window rolls over all rows; what was not known yet is then taken out again, by pairs of such a row and an
event whose window it lies in. What needs the guards of a place one by one comes from arrivals and departures.

Rows are expected as `tenant.write` leaves them, by guard, punch-in and event id. A family of features is a
frame with the events' row numbers as its index; events of which it knows nothing may be missing.
"""

from itertools import count
from pathlib import Path
from typing import Any, Final

import holidays
import numpy as np
import pandas as pd
import polars as pl

from benchmarks import tenant
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES, EventFeatures

Frame = Any
"""A pandas frame; without stubs its columns have no type that a checker can follow."""
Column = Any
"""A column of such a frame."""

_MINIMUM_OBSERVATIONS: Final = 10
_SUFFICIENT_OBSERVATIONS: Final = 30
_HOURS_PER_RADIAN: Final = 12 / np.pi
_EARTH_RADIUS_METERS: Final = 6_371_000
_SECOND: Final = pd.Timedelta(seconds=1)
_DAY: Final = pd.Timedelta(days=1)
_LATE_AFTER: Final = pd.Timedelta(minutes=15)
_IDS: Final = ["guard_id", "site_id", "device_id"]
_FLAGS: Final = ["is_mock_location", "face_verified"]
_NUMBERS: Final = ["face_distance", "face_attempts"]
_AXES: Final = ["latitude", "longitude"]


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """Per feature the number of known values and their sum; booleans and entry_source as numbers."""
    events = _read(folder)
    families = (family(events) for family in _FAMILIES)
    columns = (column for family in families for column in family.items())
    return {name: (int(column.count()), float(column.sum())) for name, column in columns}


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES in the types of EventFeatures, one row for each event."""
    events = _read(folder)
    found = pd.concat([family(events) for family in _FAMILIES], axis=1).sort_index()
    numbers = pl.DataFrame({name: found[name].to_numpy(float) for name in FEATURES}, nan_to_null=True)
    source = pl.col("entry_source").replace_strict(dict(enumerate(ENTRY_SOURCES)))
    schema = EventFeatures.create_empty().schema
    typed = numbers.with_columns(source).cast({name: schema[name] for name in FEATURES})
    return pl.read_parquet(folder / "attendance_event.parquet", columns=["event_id"]).hstack(typed)


# Reading


def _read(folder: Path) -> Frame:
    """One row per event, in the order of the file.

    guard, site, device (-1: not known), guard_site and entry_source are numbers; at is the punch-in; local
    is its local time, weekday (Monday = 0) and hour (0 to 24, with its fraction) are of it; country and
    site_latitude, site_longitude are the site's, scheduled_start and published_at the shift's.
    Raises ValueError if the events are not sorted by guard and punch-in.
    """
    columns = [*_IDS, *_FLAGS, *_NUMBERS, *_AXES, "shift_id", "entry_source", "punch_in_at", "known_at"]
    events: Frame = pd.read_parquet(folder / "attendance_event.parquet", columns=columns)
    events = events.rename(columns={"punch_in_at": "at"}).astype(dict.fromkeys(_FLAGS, float))
    shifts = pd.read_parquet(folder / "shift.parquet", columns=["shift_id", "scheduled_start", "published_at"])
    sites = pd.read_parquet(folder / "site.parquet", columns=["site_id", "tz", "country", *_AXES])
    sites = sites.rename(columns={axis: f"site_{axis}" for axis in _AXES})
    events = events.join(shifts.set_index("shift_id"), on="shift_id")
    events = events.join(sites.set_index("site_id"), on="site_id")
    for name in ("at", "known_at", "scheduled_start", "published_at"):
        events[name] = events[name].dt.tz_localize(None)
    for name in ("guard", "site", "device"):
        events[name] = events[f"{name}_id"].factorize(sort=True)[0]
    in_order: Column = (events["guard"].diff() > 0) | (events["at"].diff() >= pd.Timedelta(0))
    if not in_order.iloc[1:].all():
        raise ValueError("expected events sorted by guard_id and punch_in_at; write them with tenant.write")
    events["guard_site"] = _pair(events, "guard", "site")
    events["entry_source"] = pd.Categorical(events["entry_source"], ENTRY_SOURCES).codes
    events["face_confidence"] = (1 - events["face_distance"] / 0.4).clip(lower=0)
    for zone, here in events.groupby("tz")["at"]:
        events.loc[here.index, "local"] = here.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
    events["weekday"] = events["local"].dt.day_of_week
    events["hour"] = (events["local"] - events["local"].dt.normalize()) / pd.Timedelta(hours=1)
    return events.drop(columns=[*_IDS, "shift_id", "tz", "face_distance"])


def _pair(events: Frame, one: str, other: str) -> Column:
    """A number for each pair of values of two columns of numbers."""
    return events[one] * (events[other].max() + 1) + events[other]


# What an event sees


def _window(events: Frame, by: str, days: int) -> Any:
    """The earlier rows of the same `by` within `days`, known or not. Results are in the order of `events`,
    which are sorted by `by` and at."""
    return events.groupby(by).rolling(days * _DAY, on="at", closed="left", min_periods=1)


def _hidden(events: Frame, by: str, days: int, known: str = "known_at") -> Frame:
    """Pairs of an event, `row`, and a `past` one in its window that was not `known` yet."""
    past = events[[by, "at"]].assign(past=events.index)
    past["until"] = np.minimum(events[known], events["at"] + days * _DAY)
    late = past[past["until"] >= past.groupby(by)["at"].shift(-1)]
    pairs = late.merge(events[[by, "at"]].assign(row=events.index), on=by, suffixes=("", "_row"))
    return pairs.loc[(pairs["at_row"] > pairs["at"]) & (pairs["at_row"] <= pairs["until"]), ["row", "past"]]


def _sums(events: Frame, window: Any, hidden: Frame, values: list[str]) -> Frame:
    """What an event sees of `values`, summed: all in its `window` but what is `hidden`."""
    total = window[values].sum().fillna(0).set_axis(events.index)
    unknown = hidden.join(events[values], on="past").groupby("row")[values].sum()
    return total.sub(unknown, fill_value=0)


def _newest(events: Frame, by: str, days: int, *, of_others: bool = False) -> Column:
    """For each event the row of the newest one of the same `by` within `days` that it sees; -1 for none.

    `events` is sorted by `by` and at. All step back one row at a time until they see something.
    """
    group, at, known, guard = (events[name].to_numpy() for name in (by, "at", "known_at", "guard"))
    found, asking = pd.Series(-1, events.index), np.arange(len(events))
    for back in count(1):
        asking = asking[asking >= back]
        past = asking - back
        near = (group[past] == group[asking]) & (at[past] >= at[asking] - days * _DAY)
        asking, past = asking[near], past[near]
        if not asking.size:
            break
        seen = (at[past] < at[asking]) & (known[past] < at[asking])
        if of_others:
            seen &= guard[past] != guard[asking]
        found.iloc[asking[seen]] = events.index[past[seen]]
        asking = asking[~seen]
    return found


def _guards_seen(events: Frame, place: str) -> Frame:
    """What each event sees at its `place` (site or device) in 30 days.

    guards, the number of different ones; times, the number of events; squares, the sum over the guards of
    their numbers of events squared.
    """
    come = events[["at", "known_at"]].max(axis=1)
    gone = events["at"] + 30 * _DAY
    pair = events[[place]].assign(pair=_pair(events, place, "guard"))[come < gone]
    moves = pd.concat([pair.assign(at=come, step=1), pair.assign(at=gone, step=-1)]).sort_values("at")
    times = moves.groupby("pair")["step"].cumsum()
    moves["guards"] = ((moves["step"] > 0) & (times == 1)).astype(int) - ((moves["step"] < 0) & (times == 0))
    moves["squares"] = 2 * moves["step"] * times - 1
    moves["times"] = moves["step"]
    totals = ["guards", "times", "squares"]
    moves[totals] = moves.groupby(place)[totals].cumsum()
    asked = events[[place, "at"]].assign(row=events.index).sort_values("at")
    seen = pd.merge_asof(asked, moves[[place, "at", *totals]], on="at", by=place, allow_exact_matches=False)
    return seen.set_index("row")[totals].fillna(0).sort_index()


# The families of features


def _own(events: Frame) -> Frame:
    early = (events["scheduled_start"] - events["at"]) / pd.Timedelta(minutes=1)
    middle = events[["site_latitude", "site_longitude"]].set_axis(_AXES, axis=1)
    return pd.DataFrame(
        {
            "hour_of_day": events["hour"] // 1,
            "day_of_week": events["weekday"],
            "is_weekend": events["weekday"] >= 5,
            "is_holiday": _is_holiday(events),
            "gps_drift_meters": _meters(events, middle).clip(upper=10_000),
            "face_recognition_confidence": events["face_confidence"],
            "minutes_early": early.where(events["published_at"] < events["at"]),
            **{name: events[name] for name in ("is_mock_location", "entry_source", "face_attempts")},
        }
    )


def _is_holiday(events: Frame) -> Column:
    """1, 0 or NaN (no calendar)."""
    found = pd.Series(np.nan, events.index)
    supported = holidays.list_supported_countries()
    for country, local in events.groupby("country")["local"]:
        if country in supported:
            years = local.dt.year.unique()
            calendar = holidays.country_holidays(country, years=years, expand=False)
            holiday = local.dt.normalize().isin(pd.to_datetime(list(calendar)))
            found.loc[local.index] = holiday.astype(float)
    return found


def _of_guard(events: Frame) -> Frame:
    events = events.assign(
        one=1, weekend=(events["weekday"] >= 5).astype(int), mismatch=(events["face_verified"] == 0).astype(int)
    )
    quarter, month = (
        _sums(events, _window(events, "guard", days), _hidden(events, "guard", days), values)
        for days, values in ((90, ["one", "weekend"]), (30, ["mismatch"]))
    )
    newest = events["at"].reindex(_newest(events, "guard", 90)).set_axis(events.index)
    return pd.DataFrame(
        {
            "weekend_work_frequency": quarter["weekend"] / quarter["one"],
            "biometric_mismatch_count_30d": month["mismatch"],
            "time_since_last_event": ((events["at"] - newest) / _SECOND).fillna(86_400).clip(upper=86_400),
            "travel_speed_kmh": _travel_speed(events),
        }
    )


def _travel_speed(events: Frame) -> Column:
    fixes = events.loc[events["latitude"].notna(), [*_AXES, "guard", "at", "known_at"]]
    there = fixes.reindex(_newest(fixes, "guard", 90)).set_axis(fixes.index)
    return _meters(fixes, there) / ((fixes["at"] - there["at"]) / _SECOND) * 3.6


def _at_site(events: Frame) -> Frame:
    late = events["at"] - events["scheduled_start"] > _LATE_AFTER
    events = events.assign(
        one=1,
        late=late.astype(int),
        rostered=events["scheduled_start"].notna().astype(int),
        known_with_shift=events[["known_at", "published_at"]].max(axis=1),
    )
    events = events.sort_values("guard_site", kind="stable").reset_index(names="row")
    window, hidden = _window(events, "guard_site", 30), _hidden(events, "guard_site", 30)
    own = _sums(events, window, hidden, ["one"])["one"]
    unpublished = _hidden(events, "guard_site", 30, "known_with_shift")
    lateness = _sums(events, window, unpublished, ["late", "rostered"])
    seen = _guards_seen(events, "site")
    # (own - times / guards) / spread, in whole numbers for as long as possible.
    spread = np.sqrt(seen["guards"] * seen["squares"] - seen["times"] ** 2)
    zscore = (own * seen["guards"] - seen["times"]) / spread.where(spread > 0)
    return pd.DataFrame(
        {
            "location_consistency_score": _location_consistency(events, window, hidden),
            "late_arrival_rate": lateness["late"] / lateness["rostered"],
            "check_in_frequency_zscore": zscore.clip(-3, 3),
        }
    ).set_index(events["row"])


def _location_consistency(events: Frame, window: Any, hidden: Frame) -> Column:
    """The spreads of windows in which positions are hidden are taken anew, from the others one by one."""
    spread = window[_AXES].std(ddof=0).set_axis(events.index)
    number = window["latitude"].count().set_axis(events.index)
    fixes = events.loc[events["latitude"].notna(), ["guard_site", "at", "known_at", *_AXES]]
    anew = hidden.loc[hidden["past"].isin(fixes.index), "row"].unique()
    asked = events.loc[anew, ["guard_site", "at"]].assign(row=anew)
    pairs = asked.merge(fixes, on="guard_site", suffixes=("", "_past"))
    seen = (pairs["at_past"] < pairs["at"]) & (pairs["known_at"] < pairs["at"])
    by_row = pairs[seen & (pairs["at_past"] >= pairs["at"] - 30 * _DAY)].groupby("row")
    spread.loc[anew] = by_row[_AXES].std(ddof=0).reindex(anew)
    number.loc[anew] = by_row.size().reindex(anew)
    return (1 - spread.mean(axis=1) / 0.01).clip(0, 1).where(number >= 5)


def _on_device(events: Frame) -> Frame:
    """Only the events with a device."""
    events = events.loc[events["device"] >= 0, ["guard", "device", "at", "known_at"]]
    events = events.sort_values(["device", "at"]).reset_index(names="row")
    shared = events[events.groupby("device")["guard"].transform("nunique") > 1]
    other = shared["at"].reindex(_newest(shared, "device", 30, of_others=True)).set_axis(shared.index)
    return pd.DataFrame(
        {
            "device_guards_30d": _guards_seen(events, "device")["guards"],
            "seconds_since_other_guard_on_device": (shared["at"] - other) / _SECOND,
        }
    ).set_index(events["row"])


# Profiles


def _against_profile(events: Frame) -> Frame:
    """Only the events whose latest profile is sufficient."""
    angle = events["hour"] / _HOURS_PER_RADIAN
    events = events.assign(hour_of_day=events["hour"].astype(int), across=np.cos(angle), up=np.sin(angle))
    profiles = pd.concat([_profiles(events, pd.Timestamp(at).tz_localize(None)) for at in tenant.SNAPSHOTS])
    own = events[["guard", "at", "hour", "hour_of_day", "weekday", "site", "face_confidence"]]
    own = own.assign(row=events.index).sort_values("at")
    held = pd.merge_asof(own, profiles, left_on="at", right_on="snapshot_at", by="guard").set_index("row")
    held = held[held["observations"] >= _SUFFICIENT_OBSERVATIONS]
    face = held["face_confidence"] - held["face_mean"]
    return pd.DataFrame(
        {
            "profile_hour_is_unusual": _is_unusual(held, "hour_of_day"),
            "profile_weekday_is_unusual": _is_unusual(held, "weekday"),
            "profile_site_is_unusual": _is_unusual(held, "site"),
            "profile_hour_deviation": _hours_apart(held["hour"], held["hour_mean"])
            / held["hour_spread"].clip(lower=0.25),
            "profile_face_deviation": face / held["face_spread"].clip(lower=0.01),
            "profile_observations": held["observations"],
            "profile_consistency_score": held["consistency_score"],
        }
    )


def _profiles(events: Frame, at: pd.Timestamp) -> Frame:
    """The profiles of a snapshot, by guard; usual_hour_of_day_0 to _2 and so on are the usual values."""
    seen = (events["at"] >= at - 90 * _DAY) & (events["at"] < at) & (events["known_at"] < at)
    events = events[seen]
    by_guard = events.groupby("guard")
    mean = by_guard[["across", "up", "face_confidence"]].mean()
    resultant = np.hypot(mean["across"], mean["up"]).clip(upper=1)
    directed = resultant.where(resultant >= 1e-9)
    observations, most = by_guard.size(), events.groupby(["guard", "site"]).size().groupby("guard").max()
    profiles = pd.DataFrame(
        {
            "snapshot_at": at,
            "observations": observations,
            "hour_mean": np.arctan2(mean["up"], mean["across"]).where(directed.notna()) * _HOURS_PER_RADIAN,
            "hour_spread": np.sqrt(-2 * np.log(directed)) * _HOURS_PER_RADIAN,
            "face_mean": mean["face_confidence"],
            "face_spread": by_guard["face_confidence"].std(ddof=0),
            "consistency_score": (resultant + most / observations) / 2,
        }
    )
    profiles = profiles[observations >= _MINIMUM_OBSERVATIONS]
    return profiles.join([_usual(events, name) for name in ("hour_of_day", "weekday", "site")]).reset_index()


def _usual(events: Frame, name: str) -> Frame:
    """By guard the three most frequent values of `name`; of equally frequent ones the smallest first."""
    times = events.groupby(["guard", name]).size()
    top = times.sort_values(ascending=False, kind="stable").groupby("guard").head(3).reset_index()
    top["place"] = top.groupby("guard").cumcount()
    return top.pivot(index="guard", columns="place", values=name).add_prefix(f"usual_{name}_")


def _is_unusual(held: Frame, name: str) -> Column:
    usual = [column for column in held.columns if column.startswith(f"usual_{name}_")]
    return ~held[usual].eq(held[name], axis=0).any(axis=1)


def _hours_apart(hour: Column, other: Column) -> Column:
    return 12 - (12 - (hour - other).abs() % 24).abs()


_FAMILIES: Final = (_own, _of_guard, _at_site, _on_device, _against_profile)


def _meters(here: Frame, there: Frame) -> Column:
    """Great-circle distance between the positions of each row."""
    latitude, longitude, other_latitude, other_longitude = (
        np.radians(place[axis]) for place in (here, there) for axis in _AXES
    )
    chord = (
        np.sin((other_latitude - latitude) / 2) ** 2
        + np.cos(latitude) * np.cos(other_latitude) * np.sin((other_longitude - longitude) / 2) ** 2
    )
    return 2 * _EARTH_RADIUS_METERS * np.arcsin(np.sqrt(chord.clip(upper=1)))
