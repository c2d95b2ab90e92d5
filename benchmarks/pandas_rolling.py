"""The features as a pandas user writes them: groupby-rolling, merges, groupby. Nothing of the platform's own.

A window rolls over all rows; what was not known yet is then taken out again, by pairs of an event and a row
that is hidden from it. A family of features is a frame with the events' row numbers as its index; events of
which it knows nothing may be missing. Rows are expected as `tenant.write` leaves them, by guard, punch-in and
event id.

pandas keeps to one thread, and so does `run`, unless it is given two: then the families run two at a time, as
far as Python lets them, so that the second core is not held against pandas.
"""

from concurrent.futures import ThreadPoolExecutor
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

_SUFFICIENT_OBSERVATIONS: Final = 30
_MINIMUM_OBSERVATIONS: Final = 10
_HOURS_PER_RADIAN: Final = 12 / np.pi
_EARTH_RADIUS_METERS: Final = 6_371_000
_SECOND: Final = pd.Timedelta(seconds=1)
_DAY: Final = pd.Timedelta(days=1)
_IDS: Final = ["guard_id", "site_id", "device_id"]
_FLAGS: Final = ["is_mock_location", "face_verified"]
_AXES: Final = ["latitude", "longitude"]


def run(folder: Path, threads: int = 1) -> dict[str, tuple[int, float]]:
    """Per feature the number of known values and their sum; booleans and entry_source as numbers."""
    events = _read(folder)
    with ThreadPoolExecutor(threads) as pool:
        totals = list(pool.map(lambda family: _totals(family(events)), _FAMILIES))
    return {name: total for part in totals for name, total in part.items()}


def rows(folder: Path) -> pl.DataFrame:
    """event_id and FEATURES in the types of EventFeatures, one row for each event."""
    events = _read(folder)
    found = pd.concat([family(events) for family in _FAMILIES], axis=1).sort_index()
    numbers = pl.DataFrame({name: found[name].to_numpy(float) for name in FEATURES}, nan_to_null=True)
    source = pl.col("entry_source").replace_strict(dict(enumerate(ENTRY_SOURCES)))
    schema = EventFeatures.create_empty().schema
    typed = numbers.with_columns(source).cast({name: schema[name] for name in FEATURES})
    return pl.read_parquet(folder / "attendance_event.parquet", columns=["event_id"]).hstack(typed)


def _totals(family: Frame) -> dict[str, tuple[int, float]]:
    return {str(name): (int(column.count()), float(column.sum())) for name, column in family.items()}


def _read(folder: Path) -> Frame:
    """Events as numbers: guard, site, device (-1: not known), guard_site and entry_source.

    at is the punch-in; weekday (Monday = 0) and hour (0 to 24, with its fraction) are of local; country and
    site_latitude, site_longitude are the site's, scheduled_start and published_at the shift's.
    Raises ValueError if the events are not sorted by guard and punch-in.
    """
    columns = [*_IDS, *_FLAGS, *_AXES, "shift_id", "face_distance", "face_attempts", "entry_source"]
    events: Frame = pd.read_parquet(
        folder / "attendance_event.parquet", columns=[*columns, "punch_in_at", "known_at"]
    ).rename(columns={"punch_in_at": "at"})
    shifts = pd.read_parquet(
        folder / "shift.parquet", columns=["shift_id", "scheduled_start", "published_at"]
    )
    sites = pd.read_parquet(folder / "site.parquet", columns=["site_id", "tz", "country", *_AXES])
    sites = sites.set_index("site_id").rename(columns={axis: f"site_{axis}" for axis in _AXES})
    events = events.join(shifts.set_index("shift_id"), on="shift_id").join(sites, on="site_id")
    for name in _IDS:
        events[name.removesuffix("_id")] = events[name].factorize(sort=True)[0]
    # Instants stay UTC: without a zone they are plain numbers to NumPy.
    for name in ("at", "known_at", "scheduled_start", "published_at"):
        events[name] = events[name].dt.tz_localize(None)
    in_order: Column = (events["guard"].diff() > 0) | (events["at"].diff() >= pd.Timedelta(0))
    if not in_order.iloc[1:].all():
        raise ValueError("expected events sorted by guard_id and punch_in_at; write them with tenant.write")
    for zone, at in events.groupby("tz")["at"]:
        events.loc[at.index, "local"] = at.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
    events["weekday"] = events["local"].dt.day_of_week
    events["hour"] = (events["local"] - events["local"].dt.normalize()) / pd.Timedelta(hours=1)
    events["guard_site"] = events.groupby(["guard", "site"]).ngroup()
    events["entry_source"] = pd.Categorical(events["entry_source"], ENTRY_SOURCES).codes
    events["face_confidence"] = (1 - events["face_distance"] / 0.4).clip(lower=0)
    return events.drop(columns=[*_IDS, "shift_id", "tz"]).astype(dict.fromkeys(_FLAGS, float))


# What an event sees. Events are sorted by `by` and at, and numbered from 0.


def _window(events: Frame, by: str, days: int, at_least: int = 1) -> Any:
    """The earlier rows of the same `by` within `days`, known or not. Results are in the order of `events`,
    and NaN for fewer than `at_least` values."""
    return events.groupby(by).rolling(days * _DAY, on="at", closed="left", min_periods=at_least)


def _sums(events: Frame, by: str, days: int, values: list[str]) -> Frame:
    """Over `_window`, of each of `values`."""
    return _window(events, by, days)[values].sum().fillna(0).set_axis(events.index)


def _hidden(events: Frame, by: str, days: int, known: str = "known_at") -> Frame:
    """Pairs of an event, `row`, and a `past` one in its window that was not `known` yet."""
    past = events[[by, "at"]].assign(past=events.index)
    until = np.minimum(events[known], events["at"] + days * _DAY)
    late = past.assign(until=until)[until >= past.groupby(by)["at"].shift(-1)].sort_values("until")
    ends = past.rename(columns={"past": "last", "at": "last_at"}).sort_values("last_at", kind="stable")
    late = pd.merge_asof(late, ends, left_on="until", right_on="last_at", by=by)
    # A late row is hidden from those that follow it, up to the last one before it became known.
    pairs = late.loc[np.repeat(late.index, late["last"] - late["past"]), ["past", "at"]]
    pairs["row"] = pairs["past"] + pairs.groupby("past").cumcount() + 1
    return pairs.loc[events["at"].to_numpy()[pairs["row"]] > pairs["at"], ["row", "past"]]


def _without(sums: Frame, events: Frame, hidden: Frame) -> Frame:
    """`sums` less the same columns of what is `hidden`."""
    unknown = hidden.join(events[sums.columns], on="past").drop(columns="past").groupby("row").sum()
    return sums.sub(unknown, fill_value=0)


def _newest_seen(events: Frame, by: str, days: int, *, of_others: bool = False) -> Frame:
    """For each event the newest one of the same `by` within `days` that it sees, else NaN.

    All step back one row at a time until they see something.
    """
    group, at, known, guard = (events[name].to_numpy() for name in (by, "at", "known_at", "guard"))
    newest, asking = np.full(len(events), -1), np.arange(len(events))
    for back in count(1):
        asking = asking[asking >= back]
        near = (group[asking - back] == group[asking]) & (at[asking - back] >= at[asking] - days * _DAY)
        asking = asking[near]
        if not asking.size:
            break
        past = asking - back
        seen = (at[past] < at[asking]) & (known[past] < at[asking])
        if of_others:
            seen &= guard[past] != guard[asking]
        newest[asking[seen]] = past[seen]
        asking = asking[~seen]
    return events[["at", *events.columns.intersection(_AXES)]].reindex(newest).set_axis(events.index)


def _guards_seen(events: Frame, place: str) -> Frame:
    """What each event sees at its `place` (site or device) in 30 days: guards, the number of different ones;
    times, the number of events; squares, the sum over the guards of their numbers of events squared."""
    come, gone = np.maximum(events["at"], events["known_at"]), events["at"] + 30 * _DAY
    known = events[[place, "guard"]][come < gone]
    moves = pd.concat([known.assign(at=come, step=1), known.assign(at=gone, step=-1)]).sort_values("at")
    step, times = moves["step"], moves.groupby([place, "guard"])["step"].cumsum()
    # A guard comes with the first of their events and goes with the last; n² - (n - 1)² = 2n - 1.
    changes = pd.DataFrame(
        {"guards": step.where(times == (step > 0), 0), "times": step, "squares": 2 * step * times - 1}
    )
    totals = changes.groupby(moves[place]).cumsum().assign(**moves[[place, "at"]])
    asked = events[[place, "at"]].rename_axis("row").reset_index().sort_values("at")
    seen = pd.merge_asof(asked, totals, on="at", by=place, allow_exact_matches=False)
    return seen.set_index("row")[changes.columns].fillna(0).sort_index()


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
            years = local.dt.year.unique().tolist()
            calendar = pd.to_datetime(list(holidays.country_holidays(country, years=years, expand=False)))
            found.loc[local.index] = local.dt.normalize().isin(calendar).astype(float)
    return found


def _of_guard(events: Frame) -> Frame:
    weekend, mismatch = events["weekday"] >= 5, events["face_verified"] == 0
    events = events.assign(one=1, weekend=weekend.astype(int), mismatch=mismatch.astype(int))
    quarter, month = (
        _without(_sums(events, "guard", days, values), events, _hidden(events, "guard", days))
        for days, values in ((90, ["one", "weekend"]), (30, ["mismatch"]))
    )
    since = (events["at"] - _newest_seen(events, "guard", 90)["at"]) / _SECOND
    fixes = events.loc[events["latitude"].notna(), ["guard", "at", "known_at", *_AXES]].reset_index(
        names="row"
    )
    there = _newest_seen(fixes, "guard", 90)
    speed = _meters(fixes, there) / ((fixes["at"] - there["at"]) / _SECOND) * 3.6
    return pd.DataFrame(
        {
            "weekend_work_frequency": quarter["weekend"] / quarter["one"],
            "biometric_mismatch_count_30d": month["mismatch"],
            "time_since_last_event": since.fillna(86_400).clip(upper=86_400),
            "travel_speed_kmh": speed.set_axis(fixes["row"]),
        }
    )


def _at_site(events: Frame) -> Frame:
    late = events["at"] - events["scheduled_start"] > pd.Timedelta(minutes=15)
    rostered = events["scheduled_start"].notna()
    known_at = events[["known_at", "published_at"]].max(axis=1)
    events = events[["guard", "site", "guard_site", "at", "known_at", *_AXES]].assign(
        one=1, late=late.astype(int), rostered=rostered.astype(int), shift_known_at=known_at
    )
    events = events.sort_values("guard_site", kind="stable").reset_index(names="row")
    sums = _sums(events, "guard_site", 30, ["one", "late", "rostered"])
    hidden = _hidden(events, "guard_site", 30)
    own = _without(sums[["one"]], events, hidden)["one"]
    shifts_hidden = _hidden(events, "guard_site", 30, "shift_known_at")
    lateness = _without(sums[["late", "rostered"]], events, shifts_hidden)
    seen = _guards_seen(events, "site")
    # (own - times / guards) / spread, in whole numbers for as long as possible.
    spread = np.sqrt(seen["guards"] * seen["squares"] - seen["times"] ** 2)
    zscore = (own * seen["guards"] - seen["times"]) / spread.where(spread > 0)
    return pd.DataFrame(
        {
            "location_consistency_score": _location_consistency(events, hidden),
            "late_arrival_rate": lateness["late"] / lateness["rostered"],
            "check_in_frequency_zscore": zscore.clip(-3, 3),
        }
    ).set_axis(events["row"])


def _location_consistency(events: Frame, hidden: Frame) -> Column:
    """The spreads of windows with a hidden position are taken anew, from the positions seen."""
    # About their middle at the site: the rolling spread of numbers near 50 is 1e-9 off, of these 1e-11.
    apart = events[_AXES] - events.groupby("site")[_AXES].transform("mean")
    events = events[["guard_site", "at", "known_at"]].join(apart)
    spread = _window(events, "guard_site", 30, at_least=5)[_AXES].std(ddof=0).set_axis(events.index)
    fixes = events.loc[events["latitude"].notna(), ["guard_site", "at", "known_at", *_AXES]]
    anew = hidden.loc[hidden["past"].isin(fixes.index), "row"].unique()
    asked = events.loc[anew, ["guard_site", "at"]].assign(row=anew)
    pairs = asked.merge(fixes, on="guard_site", suffixes=("", "_past"))
    seen = (pairs["at_past"] < pairs["at"]) & (pairs["known_at"] < pairs["at"])
    by_row = pairs[seen & (pairs["at_past"] >= pairs["at"] - 30 * _DAY)].groupby("row")
    spread.loc[anew] = by_row[_AXES].std(ddof=0).where(by_row.size() >= 5).reindex(anew)
    return (1 - spread.mean(axis=1) / 0.01).clip(0, 1)


def _on_device(events: Frame) -> Frame:
    """Only the events with a device."""
    events = events.loc[events["device"] >= 0, ["guard", "device", "at", "known_at"]]
    events = events.sort_values(["device", "at"]).reset_index(names="row")
    guards = events.groupby("device")["guard"].transform("nunique")
    shared = events[guards > 1].reset_index(names="number")
    other = _newest_seen(shared, "device", 30, of_others=True)["at"]
    return pd.DataFrame(
        {
            "device_guards_30d": _guards_seen(events, "device")["guards"],
            "seconds_since_other_guard_on_device": ((shared["at"] - other) / _SECOND).set_axis(
                shared["number"]
            ),
        }
    ).set_axis(events["row"])


def _against_profile(events: Frame) -> Frame:
    """Only the events whose latest profile is sufficient."""
    events = events[["guard", "site", "at", "known_at", "hour", "weekday", "face_confidence"]]
    angle = events["hour"] / _HOURS_PER_RADIAN
    events = events.assign(hour_of_day=events["hour"].astype(int), across=np.cos(angle), up=np.sin(angle))
    snapshots = pd.DatetimeIndex(tenant.SNAPSHOTS).tz_localize(None)
    profiles = pd.concat([_profiles(events, at) for at in snapshots])
    own = events.rename_axis("row").reset_index().sort_values("at")
    held: Frame = pd.merge_asof(own, profiles, left_on="at", right_on="snapshot_at", by="guard").set_index(
        "row"
    )
    held = held[held["observations"] >= _SUFFICIENT_OBSERVATIONS]
    hours_apart = 12 - (12 - (held["hour"] - held["hour_mean"]).abs() % 24).abs()
    face_apart = held["face_confidence"] - held["face_mean"]
    return pd.DataFrame(
        {
            "profile_hour_is_unusual": _is_unusual(held, "hour_of_day"),
            "profile_weekday_is_unusual": _is_unusual(held, "weekday"),
            "profile_site_is_unusual": _is_unusual(held, "site"),
            "profile_hour_deviation": hours_apart / held["hour_spread"].clip(lower=0.25),
            "profile_face_deviation": face_apart / held["face_spread"].clip(lower=0.01),
            "profile_observations": held["observations"],
            "profile_consistency_score": held["consistency_score"],
        }
    )


def _profiles(events: Frame, at: pd.Timestamp) -> Frame:
    """The profiles of a snapshot, one row a guard, with the usual values as `_usual` names them."""
    events = events[(events["at"] >= at - 90 * _DAY) & (events["at"] < at) & (events["known_at"] < at)]
    by_guard = events.groupby("guard")
    observations, mean = by_guard.size(), by_guard[["across", "up", "face_confidence"]].mean()
    most_at_a_site = events.groupby(["guard", "site"]).size().groupby("guard").max()
    resultant = np.hypot(mean["across"], mean["up"]).clip(upper=1)
    directed = resultant.where(resultant >= 1e-9)
    profiles = pd.DataFrame(
        {
            "snapshot_at": at,
            "observations": observations,
            "hour_mean": np.arctan2(mean["up"], mean["across"]).where(directed.notna()) * _HOURS_PER_RADIAN,
            "hour_spread": np.sqrt(-2 * np.log(directed)) * _HOURS_PER_RADIAN,
            "face_mean": mean["face_confidence"],
            "face_spread": by_guard["face_confidence"].std(ddof=0),
            "consistency_score": (resultant + most_at_a_site / observations) / 2,
        }
    )
    usual = [_usual(events, name) for name in ("hour_of_day", "weekday", "site")]
    return profiles[observations >= _MINIMUM_OBSERVATIONS].join(usual).reset_index()


def _usual(events: Frame, name: str) -> Frame:
    """By guard the three most frequent values of `name`; of equally frequent ones the smallest first."""
    times = events.groupby(["guard", name]).size().sort_values(ascending=False, kind="stable")
    usual = times.groupby("guard").head(3).reset_index()
    usual["place"] = usual.groupby("guard").cumcount()
    return usual.pivot(index="guard", columns="place", values=name).add_prefix(f"usual_{name}_")


def _is_unusual(held: Frame, name: str) -> Column:
    return ~held.filter(like=f"usual_{name}_").eq(held[name], axis=0).any(axis=1)


def _meters(here: Frame, there: Frame) -> Column:
    """Great-circle distance between the positions in each row."""
    up, right, other_up, other_right = (np.radians(place[axis]) for place in (here, there) for axis in _AXES)
    chord = np.sin((other_up - up) / 2) ** 2
    chord += np.cos(up) * np.cos(other_up) * np.sin((other_right - right) / 2) ** 2
    return 2 * _EARTH_RADIUS_METERS * np.arcsin(np.sqrt(chord.clip(upper=1)))


_FAMILIES: Final = (_at_site, _against_profile, _of_guard, _on_device, _own)
"""The slowest first, so that the threads end together."""
