"""What is usual for a guard: pure functions from a clean history to weekly profile snapshots.

No features of events, no choice of active guards, no disk, no clock. A guard that cannot be profiled is
named with a reason, and costs the others nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import nextafter, pi
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow  # pyright: ignore[reportMissingTypeStubs]

from fraud_assets.compute import sweeps
from fraud_assets.compute.observations import (
    EVERY_EVENT,
    IN_TIME,
    guard_batches,
    in_parallel,
    laid_out,
    past,
    starts,
)
from fraud_assets.domain.schemas import LATEST, AnyHistory, Profile
from fraud_assets.domain.settings import Settings

WEEK: Final = timedelta(hours=7 * 24)
FIRST_SNAPSHOT: Final = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday; the weekly grid is counted from it, so that two cycles agree on the snapshots they share."""

FAILED: Final = "failed"
TOO_FEW: Final = "too few"
SKIPPED_SCHEMA: Final = pl.Schema({"guard_id": pl.String, "kind": pl.String, "reason": pl.String})

_NO_DIRECTION: Final = 1e-9
_RADIANS_PER_HOUR: Final = 2 * pi / 24
_HOURS_PER_RADIAN: Final = 24 / (2 * pi)

_READ: Final = (
    "tenant_id",
    *IN_TIME,
    "site_id",
    "shift_id",
    "known_at",
    "latitude",
    "longitude",
    "accuracy_m",
    "face_distance",
)
_VALUES: Final = {
    "is_night": (pl.col("hour_of_day") >= 20) | (pl.col("hour_of_day") < 7),
    "is_punctual": ~pl.col("is_late"),
    "across": (pl.col("local_hour") * _RADIANS_PER_HOUR).cos(),
    "up": (pl.col("local_hour") * _RADIANS_PER_HOUR).sin(),
    "face": pl.col("face_recognition_confidence"),
    "drift": pl.col("gps_drift_meters"),
    "accuracy": pl.col("accuracy_m"),
}
"""What an observation adds to the means of a profile."""
_USUAL: Final = {"hour": "hour_of_day", "weekday": "day_of_week", "site": "site"}
"""The columns of which a profile holds the most frequent values."""

Columns = Mapping[str, sweeps.Values]


@dataclass(frozen=True)
class Seen:
    """What the `snapshots` of each of `guards` look at. A query is one snapshot of one guard.

    `columns` are what `_measured` gives of the guards' events, one guard after the other; `starts`: where the
    events of each start, with the end at last.
    """

    guards: Sequence[str]
    columns: Columns
    starts: sweeps.Integers
    snapshots: int

    def of(self, first: int, end: int) -> "Seen":
        """The guards from the place `first` on and before `end`."""
        bounds = self.starts[first : end + 1]
        columns = {name: values[bounds[0] : bounds[-1]] for name, values in self.columns.items()}
        return Seen(self.guards[first:end], columns, bounds - bounds[0], self.snapshots)

    def means(self, value: str, first: str = "first") -> tuple[sweeps.Integers, sweeps.Floats]:
        """By query the number and mean of the known values; NaN without one."""
        return sweeps.call(sweeps.means, self.columns[value], *self._by(first))

    def spreads(self, value: str, mean: sweeps.Floats) -> sweeps.Floats:
        """By query the population standard deviation of the values with this `mean`."""
        return sweeps.call(sweeps.spreads, self.columns[value], mean, *self._by("first"))

    def most_frequent(self, code: str) -> tuple[sweeps.Integers, sweeps.Integers, sweeps.Integers]:
        """By query the three most frequent codes, how often they are there, and how many there are."""
        codes = sweeps.count(self.columns[code])
        return sweeps.call(sweeps.most_frequent, self.columns[code], *self._by("first"), codes)

    def _by(self, first: str) -> tuple[sweeps.Values, sweeps.Values, sweeps.Integers, int]:
        return self.columns[first], self.columns["end"], self.starts, self.snapshots


Batch = Callable[[Seen], Columns]


@dataclass(frozen=True)
class Profiles:
    """`profiles`: Profile rows, sorted by (guard_id, snapshot_at), from the minimum of observations on.

    `skipped`: guard_id, kind, reason, sorted by guard_id: the guards without a profile at the newest
    snapshot. Kind is FAILED (corrupt, or profiling it raised: no profile at any snapshot) or TOO_FEW.
    """

    profiles: pl.DataFrame
    skipped: pl.DataFrame


def snapshot_instants(as_of: datetime, settings: Settings) -> list[datetime]:
    """The weekly Mondays 00:00 UTC before `as_of`, oldest first, then `as_of` itself.

    They begin at or before the dataset's window, so that its first events have a profile: the history
    behind them must reach back `dataset_days` + `profile_days` and a week.
    """
    window_start = as_of - timedelta(hours=24 * settings.dataset_days)
    first = FIRST_SNAPSHOT + (window_start - FIRST_SNAPSHOT) // WEEK * WEEK
    weeks = -((first - as_of) // WEEK)
    return [*(first + week * WEEK for week in range(weeks)), as_of]


def profile(seen: Seen) -> Columns:
    """By query what the guards were seen to do before the snapshot: one batch of guards."""
    return _means(seen) | _most_frequent(seen)


def build(
    history: AnyHistory,
    snapshots: Sequence[datetime],
    guards: Sequence[str],
    settings: Settings,
    corrupt: Mapping[str, str] = {},
    *,
    batch: Batch = profile,
) -> Profiles:
    """Profiles of `guards` at `snapshots` (one at least), in batches of `profile_batch_size`.

    `corrupt` gives the guards that are skipped unseen, with the reason. Where `batch` raises, its guards
    are tried one by one: whoever still raises is named, the others are profiled.
    """
    failed = {guard: corrupt[guard] for guard in guards if guard in corrupt}
    sound = pl.Series([guard for guard in guards if guard not in corrupt], dtype=pl.String)
    laid, is_sound = laid_out(history), pl.col("guard_id").is_in(sound.implode())
    parts = batches(
        laid.attendance_event, laid.shift, laid.site, snapshots, settings, failed, is_sound, batch=batch
    )
    found = pl.concat([Profile.create_empty(), *parts]).sort("guard_id", "snapshot_at")
    tried = [guard for guard in sound if guard not in failed]
    skipped = [(guard, FAILED, reason) for guard, reason in failed.items()]
    skipped += _too_few(found.filter(pl.col("snapshot_at") == max(snapshots)), tried, settings)
    return Profiles(
        profiles=found.filter(pl.col("observations") >= settings.profile_minimum_observations),
        skipped=pl.DataFrame(skipped, schema=SKIPPED_SCHEMA, orient="row").sort("guard_id"),
    )


def batches(
    events: pl.LazyFrame,
    shifts: pl.LazyFrame,
    sites: pl.DataFrame,
    snapshots: Sequence[datetime],
    settings: Settings,
    failed: dict[str, str],
    is_asked: pl.Expr = EVERY_EVENT,
    *,
    batch: Batch = profile,
) -> Iterator[pl.DataFrame]:
    """Profile rows of the guards of the `events` that are asked for, from one observation on, part by part:
    read, then profiled.

    Events and shifts are sorted by guard_id; raises ValueError if they are not. The guards that cannot be
    profiled are added to `failed`, with the reason.
    """
    attended = past(events.select(_READ), shifts, sites)

    def profiled(guards: pl.Series) -> pl.DataFrame:
        return of_observed(guards, attended.observed(guards), sites, snapshots, settings, failed, batch=batch)

    return in_parallel(profiled, guard_batches(attended.events, is_asked=is_asked))


def of_observed(
    guards: pl.Series,
    observed: pl.DataFrame,
    sites: pl.DataFrame,
    snapshots: Sequence[datetime],
    settings: Settings,
    failed: dict[str, str],
    *,
    batch: Batch = profile,
) -> pl.DataFrame:
    """Profile rows of `guards`, which are sorted, from one observation on, by (guard_id, snapshot_at).

    `observed`: their events, observed and in time. The guards are profiled in batches of
    `profile_batch_size`; those that cannot be are added to `failed`, with the reason.
    """
    moments = pl.Series("snapshot_at", sorted(snapshots), dtype=pl.Datetime("us", "UTC"))
    measured = _measured(observed, moments, timedelta(hours=24 * settings.profile_days))
    bounds, size = starts(observed, guards), settings.profile_batch_size
    seen = Seen(guards.to_list(), sweeps.columns(measured), bounds, moments.len())
    parts: list[tuple[Sequence[str], Columns]] = []
    for first in range(0, guards.len(), size):
        parts += _profile_or_name(batch, seen.of(first, min(first + size, guards.len())), failed)
    if not parts:
        return Profile.create_empty()
    tenant = pl.lit(observed["tenant_id"].first(), pl.String)
    found = _joined(parts, moments).filter(pl.col("observations") > 0).with_columns(tenant_id=tenant)
    return _completed(found, sites, settings)


def _joined(parts: Sequence[tuple[Sequence[str], Columns]], moments: pl.Series) -> pl.DataFrame:
    """What was found of all guards, with guard_id and snapshot_at: a row a query."""
    guards = pl.Series("guard_id", [guard for some, _ in parts for guard in some], dtype=pl.String)
    queries = [
        guards.gather(np.repeat(np.arange(guards.len()), moments.len())),
        moments.gather(np.tile(np.arange(moments.len()), guards.len())),
    ]
    columns = {name: np.concatenate([found[name] for _, found in parts]) for name in parts[0][1]}
    return pl.DataFrame(queries).hstack(sweeps.frame(columns))


def made(
    sites: pl.DataFrame, snapshots: Sequence[datetime], settings: Settings
) -> Callable[[pl.Series, pl.DataFrame], pl.DataFrame]:
    """The profiles for `features.batches` made on the way, from the events that it has observed anyway."""

    def known(guards: pl.Series, observed: pl.DataFrame) -> pl.DataFrame:
        found = of_observed(guards, observed, sites, snapshots, settings, {})
        return found.filter(pl.col("observations") >= settings.profile_minimum_observations)

    return known


def refresh(
    stored: pl.DataFrame, history: AnyHistory, as_of: datetime, settings: Settings, corrupt: Mapping[str, str]
) -> Profiles:
    """`stored` Profile rows brought up to `as_of`: of active guards then, of all guards on the weekly grid.

    A stored snapshot is not made again: it may use only what was known at its instant, and that does
    not change. Snapshots that no dataset looks back to any more are left out.
    """
    *weekly, now = snapshot_instants(as_of, settings)
    kept = stored.filter(pl.col("snapshot_at").is_between(weekly[0], now, closed="left"))
    missing = sorted(set(weekly) - set(kept["snapshot_at"]))
    everyone = history.guard["guard_id"].sort().to_list()
    active = history.guard.filter("is_enabled", "is_verified")["guard_id"].to_list()
    frames = [kept]
    if missing:
        frames.append(build(history, missing, everyone, settings, corrupt).profiles)
    # A guard whose own row is set aside is not among the active; it is named all the same.
    newest = build(history, [now], sorted({*active, *corrupt}), settings, corrupt)
    profiles = pl.concat([*frames, newest.profiles]).sort("guard_id", "snapshot_at")
    return Profiles(profiles, newest.skipped)


def fingerprint(settings: Settings) -> str:
    """The rules that a stored snapshot depends on; snapshots of another fingerprint are not kept."""
    rules = ("profile_days", "profile_minimum_observations", "profile_sufficient_observations")
    return settings.model_dump_json(include=set(rules))


def _measured(observed: pl.DataFrame, moments: pl.Series, window: timedelta) -> pl.DataFrame:
    """What profiles are made of, by event, and which snapshots see it: from `first` on and before `end`.

    A snapshot sees the events of `window` that happened and were known strictly before it; their shifts,
    which it needs for is_punctual, from `first_with_shift` on: they were published before it.
    """
    with_shift = pl.max_horizontal("visible", pl.col("published_at").fill_null(LATEST))
    bounds = {
        "first": pl.col("visible"),
        "first_with_shift": with_shift,
        "end": pl.col("punch_in_at") + window,
    }
    return observed.select(
        *_USUAL.values(),
        **{name: value.cast(pl.Float64) for name, value in _VALUES.items()},
        **{
            name: pl.lit(moments).search_sorted(instant, "right").cast(pl.Int64)
            for name, instant in bounds.items()
        },
    )


def _profile_or_name(batch: Batch, seen: Seen, failed: dict[str, str]) -> list[tuple[Sequence[str], Columns]]:
    """What `batch` says of the guards that can be profiled; the others are added to `failed`."""
    try:
        return [(seen.guards, batch(seen))]
    except (pl.exceptions.ComputeError, ArithmeticError, ValueError) as error:
        if len(seen.guards) == 1:
            failed[seen.guards[0]] = f"profiling raised {error!r:.200}"
            return []
    alone = [seen.of(place, place + 1) for place in range(len(seen.guards))]
    return [part for one in alone for part in _profile_or_name(batch, one, failed)]


def _too_few(newest: pl.DataFrame, guards: Sequence[str], settings: Settings) -> list[tuple[str, str, str]]:
    """Rows of `skipped` for those of `guards` with too few observations in `newest`."""
    counts: dict[str, int] = dict(newest.select("guard_id", "observations").iter_rows())
    window, needed = settings.profile_days, settings.profile_minimum_observations
    return [
        (guard, TOO_FEW, f"{counts.get(guard, 0)} observations in {window} days, {needed} are needed")
        for guard in guards
        if counts.get(guard, 0) < needed
    ]


def _means(seen: Seen) -> dict[str, sweeps.Values]:
    observations, night_share = seen.means("is_night")
    face_mean = seen.means("face")[1]
    return {
        "observations": observations,
        "night_shift_share": night_share,
        "punctuality": seen.means("is_punctual", "first_with_shift")[1],
        "face_confidence_mean": face_mean,
        "face_confidence_spread": seen.spreads("face", face_mean),
        "gps_drift_mean_meters": seen.means("drift")[1],
        "accuracy_mean_meters": seen.means("accuracy")[1],
        "across": seen.means("across")[1],
        "up": seen.means("up")[1],
    }


def _most_frequent(seen: Seen) -> dict[str, sweeps.Values]:
    """By query NAME_top and NAME_times, three numbers each, and NAME_variety; NAME is one of _USUAL."""
    columns: dict[str, sweeps.Values] = {}
    for name, code in _USUAL.items():
        top, times, different = seen.most_frequent(code)
        columns |= {f"{name}_top": top, f"{name}_times": times, f"{name}_variety": different}
    return columns


def _completed(found: pl.DataFrame, sites: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The Profile rows of what `profile` found."""
    values = dict.fromkeys(_USUAL, pl.int_range(24, eager=True)) | {"site": sites["site_id"].sort()}
    usual = [column for name in _USUAL for column in _usual(found, name, values[name])]
    sufficient = settings.profile_sufficient_observations
    return Profile.cast(
        found.with_columns(
            *usual,
            *_circular_hour(),
            is_sufficient=pl.col("observations") >= sufficient,
            events_per_week=pl.col("observations") * (7 / settings.profile_days),
        ).with_columns(consistency_score=(pl.col("resultant") + pl.col("usual_site_shares").list.first()) / 2)
    )


def _usual(found: pl.DataFrame, name: str, values: pl.Series) -> list[pl.Series]:
    """The most frequent of `values` in lists, most frequent first, and their shares."""
    top, times = found[f"{name}_top"].to_numpy(), found[f"{name}_times"].to_numpy()
    is_there = top >= 0
    lengths = is_there.sum(axis=1)
    shares = times[is_there] / np.repeat(found["observations"].to_numpy(), lengths)
    return [
        _lists(values.gather(top[is_there]), lengths).alias(f"usual_{name}s"),
        _lists(pl.Series(shares), lengths).alias(f"usual_{name}_shares"),
    ]


def _lists(values: pl.Series, lengths: sweeps.Integers) -> pl.Series:
    """`values` in lists of these lengths."""
    offsets = pl.Series(np.concatenate(([0], np.cumsum(lengths))))  # pyarrow would import pandas for an array
    arrow: Any = pyarrow  # has no types
    return pl.Series(arrow.LargeListArray.from_arrays(offsets.to_arrow(), values.to_arrow()))


def _circular_hour() -> list[pl.Expr]:
    """Mean direction, circular standard deviation sqrt(-2 ln R), and R itself, the mean resultant length.

    Source: Mardia and Jupp, Directional Statistics, 2.2 and 2.3. Hours that cancel out have no mean.
    """
    across, up = pl.col("across"), pl.col("up")
    resultant = (across * across + up * up).sqrt().clip(upper_bound=1)
    has_direction = pl.when(resultant > _NO_DIRECTION)
    turned = pl.arctan2(up, across) * _HOURS_PER_RADIAN
    mean = pl.when(turned < 0).then((turned + 24).clip(upper_bound=nextafter(24, 0))).otherwise(turned)
    return [
        has_direction.then(mean).alias("hour_mean"),
        has_direction.then((-2 * resultant.log()).sqrt() * _HOURS_PER_RADIAN).alias("hour_spread"),
        resultant.alias("resultant"),
    ]
