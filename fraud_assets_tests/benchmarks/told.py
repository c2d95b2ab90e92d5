"""What the oracle tells of tenants as `benchmarks.tenant` writes them, beside what a peer found. No tests."""

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st

from benchmarks import tenant
from fraud_assets.domain.schemas import History
from fraud_assets_tests import builders
from fraud_assets_tests.builders import NOON
from fraud_assets_tests.compute.oracle import Oracle, Row, tenants

PROFILE_DAYS = 90
MINIMUM_OBSERVATIONS = 10
SUFFICIENT_OBSERVATIONS = 30
_COARSE = ("travel_speed_kmh", "time_since_last_event", "seconds_since_other_guard_on_device")


def _in_order(history: History) -> History:
    events = history.attendance_event.sort("guard_id", "punch_in_at", "event_id")
    return replace(history, attendance_event=events)


def _has_everything(history: History) -> bool:
    events = history.attendance_event
    return history.shift.height > 0 and all(events[name].count() > 0 for name in ("device_id", "latitude"))


small_tenants: st.SearchStrategy[History] = tenants.map(_in_order).filter(_has_everything)
"""With ties, window edges, late knowledge and missing values; too small for a sufficient profile."""


def edges() -> History:
    """Ties with different positions, an event known only at the next one's instant, events at an edge."""
    elsewhere = {"latitude": 40.5}
    past: list[Row] = [
        {"event_id": "quarter", "punch_in_at": NOON - timedelta(days=90)},
        {"event_id": "month", "punch_in_at": NOON - timedelta(days=30), "face_verified": False},
        {"event_id": "other", "punch_in_at": NOON - timedelta(days=30), "guard_id": "g2"},
        {"event_id": "tie-1", "punch_in_at": NOON - timedelta(days=1), "shift_id": "h1"},
        {"event_id": "tie-2", "punch_in_at": NOON - timedelta(days=1), **elsewhere},
        {"event_id": "unknown", "punch_in_at": NOON - timedelta(hours=2), "known_at": NOON},
        {"event_id": "now-1"},
        {"event_id": "now-2", **elsewhere},
    ]
    guards: list[Row] = [{"guard_id": "g1"}, {"guard_id": "g2"}]
    return _in_order(builders.history(guard=guards, shift=[{}], attendance_event=past))


def with_bursts(events: int) -> History:
    """A generated tenant in which every other guard works for five days, then not for longer than a profile
    looks back: only an old profile is left."""
    history, guard, at = tenant.generate(events), pl.col("guard_id"), pl.col("punch_in_at")
    hurried = guard.is_in(history.guard["guard_id"].gather_every(2).implode())
    packed = pl.lit(tenant.START + timedelta(days=30)) + (at - tenant.START) / 40
    moved = pl.when(hurried & (at < tenant.START + timedelta(days=165))).then(packed).otherwise(at)
    return _in_order(
        replace(
            history,
            attendance_event=history.attendance_event.with_columns(
                punch_in_at=moved, known_at=pl.col("known_at") - at + moved
            ),
        )
    )


def wrong(found: pl.DataFrame, history: History, every_guard: int = 1, every_event: int = 1) -> list[Row]:
    """Each feature of an event that differs, as event, feature, found and told. `found`: a peer's rows.

    The oracle is slow: it tells of each `every_event`-th event of each `every_guard`-th guard.
    """
    oracle = Oracle(history)
    rows = {row["event_id"]: row for row in found.to_dicts()}
    differences: list[Row] = []
    for guard in history.guard["guard_id"].sort().to_list()[::every_guard]:
        profiles = _profiles(oracle, guard)
        for event in [event for event in oracle.events if event["guard_id"] == guard][::every_event]:
            row = rows[event["event_id"]]
            told = oracle.features(event, profiles)
            assert row.keys() == {"event_id", *told}
            differences += [
                {"event": event["event_id"], "feature": name, "found": row[name], "told": value}
                for name, value in told.items()
                if not _agree(name, row[name], value)
            ]
    return differences


def _profiles(oracle: Oracle, guard: str) -> list[Row]:
    made = (oracle.profile(guard, at, PROFILE_DAYS, SUFFICIENT_OBSERVATIONS) for at in tenant.SNAPSHOTS)
    return [profile for profile in made if profile and profile["observations"] >= MINIMUM_OBSERVATIONS]


def _agree(name: str, found: Any, told: Any) -> bool:
    if isinstance(told, float) and found is not None:
        return math.isclose(found, told, rel_tol=1e-9, abs_tol=1e-6 if name in _COARSE else 1e-9)
    return found == told
