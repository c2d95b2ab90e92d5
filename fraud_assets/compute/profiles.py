"""What is usual for a guard: pure functions from a clean history to weekly profile snapshots.

No features of events, no choice of active guards, no disk, no clock. A guard that cannot be profiled is
named with a reason, and costs the others nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import nextafter, pi
from typing import Final

import polars as pl

from fraud_assets.compute.features import in_order, late, observe, visible
from fraud_assets.domain.schemas import History, Profile
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
_KEY: Final = ("tenant_id", "guard_id", "at")

Batch = Callable[[History, Sequence[str], Sequence[datetime], Settings], pl.DataFrame]


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


def profile(
    history: History, guards: Sequence[str], snapshots: Sequence[datetime], settings: Settings
) -> pl.DataFrame:
    """Profile rows of `guards` at `snapshots`, from one observation on, in no order; one batch of `build`.

    A snapshot sees the events of `profile_days` that happened and were known strictly before it, and the
    shifts published before it.
    """
    moments = pl.DataFrame({"at": snapshots}, schema={"at": pl.Datetime("us", "UTC")})
    queries = pl.DataFrame({"guard_id": guards}, schema={"guard_id": pl.String}).join(moments, how="cross")
    events = history.attendance_event.join(queries, on="guard_id", how="semi")
    window = timedelta(hours=24 * settings.profile_days)
    seen = visible(queries, observe(events, history), "guard_id", window).with_columns(
        hour=pl.col("local_at").dt.hour().cast(pl.Int64),
        weekday=pl.col("local_at").dt.weekday().cast(pl.Int64) - 1,
    )
    summary = seen.group_by(_KEY).agg(*_circular_hour(), *_summary(7 / settings.profile_days))
    for value, usual in {"hour": "usual_hour", "weekday": "usual_weekday", "site_id": "usual_site"}.items():
        summary = summary.join(_most_frequent(seen, value, usual), on=_KEY)
    return Profile.cast(
        summary.with_columns(
            snapshot_at="at",
            is_sufficient=pl.col("observations") >= settings.profile_sufficient_observations,
            consistency_score=(pl.col("resultant") + pl.col("usual_site_shares").list.first()) / 2,
        )
    )


def build(
    history: History,
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
    sound = [guard for guard in guards if guard not in corrupt]
    frames: list[pl.DataFrame] = [Profile.create_empty()]
    for start in range(0, len(sound), settings.profile_batch_size):
        some = sound[start : start + settings.profile_batch_size]
        frames += _profile_or_name(lambda these: batch(history, these, snapshots, settings), some, failed)
    observed = pl.concat(frames).sort("guard_id", "snapshot_at")
    tried = [guard for guard in sound if guard not in failed]
    skipped = [(guard, FAILED, reason) for guard, reason in failed.items()]
    skipped += _too_few(observed.filter(pl.col("snapshot_at") == max(snapshots)), tried, settings)
    return Profiles(
        profiles=observed.filter(pl.col("observations") >= settings.profile_minimum_observations),
        skipped=pl.DataFrame(skipped, schema=SKIPPED_SCHEMA, orient="row").sort("guard_id"),
    )


def refresh(
    stored: pl.DataFrame, history: History, as_of: datetime, settings: Settings, corrupt: Mapping[str, str]
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


def _profile_or_name(
    attempt: Callable[[Sequence[str]], pl.DataFrame], guards: Sequence[str], failed: dict[str, str]
) -> list[pl.DataFrame]:
    """The frames of all `guards` that can be profiled; the others are added to `failed`."""
    try:
        return [attempt(guards)]
    except (pl.exceptions.PolarsError, ArithmeticError, ValueError) as error:
        if len(guards) == 1:
            failed[guards[0]] = f"profiling raised {error!r:.200}"
            return []
    return [frame for guard in guards for frame in _profile_or_name(attempt, [guard], failed)]


def _too_few(newest: pl.DataFrame, guards: Sequence[str], settings: Settings) -> list[tuple[str, str, str]]:
    """Rows of `skipped` for those of `guards` with too few observations in `newest`."""
    counts: dict[str, int] = dict(newest.select("guard_id", "observations").iter_rows())
    window, needed = settings.profile_days, settings.profile_minimum_observations
    return [
        (guard, TOO_FEW, f"{counts.get(guard, 0)} observations in {window} days, {needed} are needed")
        for guard in guards
        if counts.get(guard, 0) < needed
    ]


def _summary(per_week: float) -> list[pl.Expr]:
    face = in_order(pl.col("face_recognition_confidence"))
    at_night = (pl.col("hour") >= 20) | (pl.col("hour") < 7)
    return [
        pl.len().alias("observations"),
        pl.col("site_id").n_unique().alias("site_variety"),
        (~late()).filter(pl.col("published_at") < pl.col("at")).mean().alias("punctuality"),
        face.mean().alias("face_confidence_mean"),
        face.std(ddof=0).alias("face_confidence_spread"),
        in_order(pl.col("gps_drift_meters")).mean().alias("gps_drift_mean_meters"),
        in_order(pl.col("accuracy_m")).mean().alias("accuracy_mean_meters"),
        at_night.mean().alias("night_shift_share"),
        (pl.len() * per_week).alias("events_per_week"),
    ]


def _circular_hour() -> list[pl.Expr]:
    """Mean direction, circular standard deviation sqrt(-2 ln R), and R itself, the mean resultant length.

    Source: Mardia and Jupp, Directional Statistics, 2.2 and 2.3. Hours that cancel out have no mean.
    """
    angle = pl.col("local_hour") * _RADIANS_PER_HOUR
    across, up = in_order(angle.cos()).mean(), in_order(angle.sin()).mean()
    resultant = (across * across + up * up).sqrt().clip(upper_bound=1)
    has_direction = pl.when(resultant > _NO_DIRECTION)
    turned = pl.arctan2(up, across) * _HOURS_PER_RADIAN
    mean = pl.when(turned < 0).then((turned + 24).clip(upper_bound=nextafter(24, 0))).otherwise(turned)
    return [
        has_direction.then(mean).alias("hour_mean"),
        has_direction.then((-2 * resultant.log()).sqrt() * _HOURS_PER_RADIAN).alias("hour_spread"),
        resultant.alias("resultant"),
    ]


def _most_frequent(seen: pl.DataFrame, value: str, name: str) -> pl.DataFrame:
    """Per guard and snapshot the three most frequent of `value`, ties smallest first, and their shares."""
    shares = pl.col("times") / pl.col("times").sum()
    return (
        seen.group_by(*_KEY, value)
        .agg(times=pl.len())
        .sort("times", value, descending=[True, False])
        .group_by(_KEY)
        .agg(pl.col(value).head(3).alias(f"{name}s"), shares.head(3).alias(f"{name}_shares"))
    )
