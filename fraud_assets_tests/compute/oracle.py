"""A slow telling of the feature and profile definitions in plain loops, and small tenants to compare on.

Written from the definitions, not from the code: no frames inside, other formulas where there are any.
"""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from statistics import fmean, pstdev
from typing import Any
from zoneinfo import ZoneInfo

import holidays
from hypothesis import strategies as st

from fraud_assets.domain.schemas import History
from fraud_assets_tests import builders

Row = dict[str, Any]

DST_NIGHT = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
"""Half an hour before Madrid's clocks go forward."""


class Oracle:
    """One tenant's history as dict rows."""

    def __init__(self, history: History) -> None:
        self.sites = {row["site_id"]: row for row in history.site.to_dicts()}
        self.shifts = {row["shift_id"]: row for row in history.shift.to_dicts()}
        self.events = history.attendance_event.to_dicts()

    def features(self, event: Row, profiles: list[Row]) -> Row:
        local = self.local(event)
        site = self.sites[event["site_id"]]
        month = self.seen(event["punch_in_at"], 30)
        return {
            "hour_of_day": local.hour,
            "day_of_week": local.weekday(),
            "is_weekend": local.weekday() >= 5,
            "is_holiday": is_holiday(site["country"], local),
            "gps_drift_meters": self.drift(event),
            "face_recognition_confidence": confidence(event),
            "is_mock_location": event["is_mock_location"],
            "entry_source": event["entry_source"],
            "face_attempts": event["face_attempts"],
            "minutes_early": self.minutes_early(event),
            "check_in_frequency_zscore": zscore(event, month),
            **self.guard_features(event, month),
            **device_features(event, month),
            **self.profile_features(event, profiles),
        }

    def seen(self, at: datetime, days: int) -> list[Row]:
        """What may be seen from `at`, oldest first."""
        oldest = at - timedelta(hours=24 * days)
        rows = [e for e in self.events if oldest <= e["punch_in_at"] < at and e["known_at"] < at]
        return sorted(rows, key=lambda e: (e["punch_in_at"], e["event_id"]))

    def guard_features(self, event: Row, month: list[Row]) -> Row:
        at = event["punch_in_at"]
        quarter = [e for e in self.seen(at, 90) if e["guard_id"] == event["guard_id"]]
        own_month = [e for e in month if e["guard_id"] == event["guard_id"]]
        here = [e for e in own_month if e["site_id"] == event["site_id"]]
        gap = (at - quarter[-1]["punch_in_at"]).total_seconds() if quarter else math.inf
        return {
            "location_consistency_score": location_consistency(here),
            "late_arrival_rate": share(self.lateness(here, at)),
            "weekend_work_frequency": share([self.local(e).weekday() >= 5 for e in quarter]),
            "biometric_mismatch_count_30d": sum(e["face_verified"] is False for e in own_month),
            "time_since_last_event": min(gap, 86_400),
            "travel_speed_kmh": travel_speed(event, quarter),
        }

    def profile_features(self, event: Row, profiles: list[Row]) -> Row:
        names = ("hour_is_unusual", "weekday_is_unusual", "site_is_unusual", "hour_deviation")
        names += ("face_deviation", "observations", "consistency_score")
        own = [p for p in profiles if p["guard_id"] == event["guard_id"]]
        own = [p for p in own if p["snapshot_at"] <= event["punch_in_at"]]
        profile = max(own, key=lambda p: p["snapshot_at"], default=None)
        if profile is None or not profile["is_sufficient"]:
            return {f"profile_{name}": None for name in names}
        local, face = self.local(event), confidence(event)
        hour_off = face_off = None
        if profile["hour_mean"] is not None:
            hour_off = hours_apart(hour(local), profile["hour_mean"]) / max(profile["hour_spread"], 0.25)
        if face is not None and profile["face_confidence_mean"] is not None:
            spread = max(profile["face_confidence_spread"], 0.01)
            face_off = (face - profile["face_confidence_mean"]) / spread
        return {
            "profile_hour_is_unusual": local.hour not in profile["usual_hours"],
            "profile_weekday_is_unusual": local.weekday() not in profile["usual_weekdays"],
            "profile_site_is_unusual": event["site_id"] not in profile["usual_sites"],
            "profile_hour_deviation": hour_off,
            "profile_face_deviation": face_off,
            "profile_observations": profile["observations"],
            "profile_consistency_score": profile["consistency_score"],
        }

    def profile(self, guard: str, at: datetime, days: int, sufficient: int) -> Row | None:
        seen = [e for e in self.seen(at, days) if e["guard_id"] == guard]
        if not seen:
            return None
        local = [self.local(e) for e in seen]
        hours, hour_shares = most_frequent([moment.hour for moment in local])
        weekdays, weekday_shares = most_frequent([moment.weekday() for moment in local])
        sites, site_shares = most_frequent([e["site_id"] for e in seen])
        resultant, mean, spread = circular([hour(moment) for moment in local])
        faces = known([confidence(e) for e in seen])
        late = share(self.lateness(seen, at))
        return {
            "tenant_id": seen[0]["tenant_id"],
            "guard_id": guard,
            "snapshot_at": at,
            "observations": len(seen),
            "is_sufficient": len(seen) >= sufficient,
            "usual_hours": hours,
            "usual_hour_shares": hour_shares,
            "usual_weekdays": weekdays,
            "usual_weekday_shares": weekday_shares,
            "usual_sites": sites,
            "usual_site_shares": site_shares,
            "site_variety": len({e["site_id"] for e in seen}),
            "hour_mean": mean,
            "hour_spread": spread,
            "consistency_score": (resultant + site_shares[0]) / 2,
            "punctuality": None if late is None else 1 - late,
            "face_confidence_mean": mean_of(faces),
            "face_confidence_spread": pstdev(faces) if faces else None,
            "gps_drift_mean_meters": mean_of(known([self.drift(e) for e in seen])),
            "accuracy_mean_meters": mean_of(known([e["accuracy_m"] for e in seen])),
            "night_shift_share": share([moment.hour in (20, 21, 22, 23, *range(7)) for moment in local]),
            "events_per_week": len(seen) * 7 / days,
        }

    def local(self, event: Row) -> datetime:
        return event["punch_in_at"].astimezone(ZoneInfo(self.sites[event["site_id"]]["tz"]))

    def drift(self, event: Row) -> float | None:
        meters = distance(event, self.sites[event["site_id"]])
        return None if meters is None else min(meters, 10_000)

    def lateness(self, events: list[Row], at: datetime) -> list[bool]:
        shifts = [(e, self.shifts[e["shift_id"]]) for e in events if e["shift_id"] in self.shifts]
        published = [(e, shift) for e, shift in shifts if shift["published_at"] < at]
        return [(e["punch_in_at"] - s["scheduled_start"]).total_seconds() > 900 for e, s in published]

    def minutes_early(self, event: Row) -> float | None:
        shift = self.shifts.get(event["shift_id"])
        if shift is None or shift["published_at"] >= event["punch_in_at"]:
            return None
        return (shift["scheduled_start"] - event["punch_in_at"]).total_seconds() / 60


def is_holiday(country: str | None, local: datetime) -> bool | None:
    if country is None or country not in holidays.list_supported_countries():
        return None
    return local.date() in holidays.country_holidays(country, years=local.year, expand=False)


def confidence(event: Row) -> float | None:
    return None if event["face_distance"] is None else max(0.0, 1 - event["face_distance"] / 0.4)


def location_consistency(here: list[Row]) -> float | None:
    fixes = [(e["latitude"], e["longitude"]) for e in here if e["latitude"] is not None]
    if len(fixes) < 5:
        return None
    spread = fmean(pstdev(axis) for axis in zip(*fixes, strict=True))
    return min(max(1 - spread / 0.01, 0), 1)


def zscore(event: Row, month: list[Row]) -> float | None:
    counts = Counter(e["guard_id"] for e in month if e["site_id"] == event["site_id"])
    if len(set(counts.values())) < 2:
        return None
    score = (counts[event["guard_id"]] - fmean(counts.values())) / pstdev(counts.values())
    return min(max(score, -3), 3)


def device_features(event: Row, month: list[Row]) -> Row:
    if event["device_id"] is None:
        return {"device_guards_30d": None, "seconds_since_other_guard_on_device": None}
    users = [e for e in month if e["device_id"] == event["device_id"]]
    others = [e["punch_in_at"] for e in users if e["guard_id"] != event["guard_id"]]
    since = (event["punch_in_at"] - max(others)).total_seconds() if others else None
    guards = {e["guard_id"] for e in users}
    return {"device_guards_30d": len(guards), "seconds_since_other_guard_on_device": since}


def travel_speed(event: Row, before: list[Row]) -> float | None:
    fixes = [e for e in before if e["latitude"] is not None]
    meters = distance(event, fixes[-1]) if fixes else None
    if meters is None:
        return None
    hours = (event["punch_in_at"] - fixes[-1]["punch_in_at"]).total_seconds() / 3600
    return meters / 1000 / hours


def distance(here: Row, there: Row) -> float | None:
    """The angle between two unit vectors, by their cross and dot products."""
    if here["latitude"] is None or there["latitude"] is None:
        return None
    (a, b, c), (x, y, z) = unit_vector(here), unit_vector(there)
    cross = math.hypot(b * z - c * y, c * x - a * z, a * y - b * x)
    return 6_371_000 * math.atan2(cross, a * x + b * y + c * z)


def unit_vector(place: Row) -> tuple[float, float, float]:
    up, east = math.radians(place["latitude"]), math.radians(place["longitude"])
    return math.cos(up) * math.cos(east), math.cos(up) * math.sin(east), math.sin(up)


def hour(local: datetime) -> float:
    return local.hour + local.minute / 60 + (local.second + local.microsecond / 1e6) / 3600


def hours_apart(one: float, other: float) -> float:
    return min(abs(one - other + turn) for turn in (-24, 0, 24))


def circular(hours: list[float]) -> tuple[float, float | None, float | None]:
    """Mean resultant length, mean and spread in hours."""
    turns = [complex(math.cos(h * math.pi / 12), math.sin(h * math.pi / 12)) for h in hours]
    total = complex(math.fsum(t.real for t in turns), math.fsum(t.imag for t in turns)) / len(turns)
    resultant = min(abs(total), 1.0)
    if resultant < 1e-9:
        return resultant, None, None
    mean = math.atan2(total.imag, total.real) * 12 / math.pi
    return resultant, mean, math.sqrt(-2 * math.log(resultant)) * 12 / math.pi


def most_frequent(values: list[Any]) -> tuple[list[Any], list[float]]:
    ranked = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:3]
    return [value for value, _ in ranked], [count / len(values) for _, count in ranked]


def known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def mean_of(values: list[float]) -> float | None:
    return fmean(values) if values else None


def share(flags: list[bool]) -> float | None:
    return fmean(flags) if flags else None


def same(got: Any, expected: Any) -> bool:
    """Equal, or equal within rounding for floats and lists of them."""
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, float) and got is not None:
        return math.isclose(got, expected, rel_tol=1e-7, abs_tol=1e-5)
    return got == expected


SITES: list[Row] = [
    {"site_id": "s1", "tz": "Europe/Madrid", "country": "ES"},
    {"site_id": "s2", "tz": "America/New_York", "country": "US", "latitude": 40.7, "longitude": -74.0},
    {"site_id": "s3", "tz": "Asia/Kathmandu", "country": "ZZ", "latitude": None, "longitude": None},
]

_instants = st.builds(
    lambda days, hours, minutes: DST_NIGHT - timedelta(days=days, hours=hours, minutes=minutes),
    days=st.sampled_from([0, 1, 2, 7, 20, 21, 29, 30, 31, 60, 88, 89, 90, 91]),
    hours=st.sampled_from([0, 0, 0, 1, 12, 17, 23]),
    minutes=st.sampled_from([0, 0, 0, 15, 16]),
)
_fixes = st.sampled_from([(None, None), (40.4, -3.7), (40.4, -3.7), (40.401, -3.702), (40.71, -74.01)])
_events = st.fixed_dictionaries(
    {
        "guard_id": st.sampled_from(["g1", "g1", "g2", "g3"]),
        "site_id": st.sampled_from(["s1", "s1", "s1", "s2", "s3"]),
        "punch_in_at": _instants,
        "known_after": st.sampled_from([timedelta(minutes=-3), timedelta(0), timedelta(days=1)]),
        "fix": _fixes,
        "accuracy_m": st.sampled_from([None, 5.0, 12.5]),
        "device_id": st.sampled_from([None, "d1", "d1", "d2"]),
        "is_mock_location": st.sampled_from([None, False, True]),
        "face_verified": st.sampled_from([None, False, True]),
        "face_distance": st.sampled_from([None, 0.0, 0.1, 0.35, 0.4, 0.9]),
        "face_attempts": st.sampled_from([None, 1, 4]),
        "entry_source": st.sampled_from(["mobile", "kiosk", "supervisor", "import"]),
        "minutes_late": st.sampled_from([None, -30, 0, 15, 16]),
        "published_before": st.sampled_from([timedelta(days=7), timedelta(0), timedelta(days=-2)]),
    }
)


def _tenant(drawn: list[Row]) -> History:
    events: list[Row] = []
    shifts: list[Row] = []
    for number, row in enumerate(drawn):
        late, published, known_after = (
            row.pop(key) for key in ("minutes_late", "published_before", "known_after")
        )
        latitude, longitude = row.pop("fix")
        at = row["punch_in_at"]
        places: Row = {"latitude": latitude, "longitude": longitude, "known_at": at + known_after}
        shift = None if late is None else f"h{number}"
        events.append({**row, **places, "event_id": f"e{number}", "shift_id": shift})
        if late is not None:
            start = at - timedelta(minutes=late)
            times: Row = {"scheduled_start": start, "scheduled_end": start + timedelta(hours=8)}
            known: Row = {"guard_id": row["guard_id"], "published_at": at - published}
            shifts.append({**times, **known, "shift_id": shift})
    return builders.history(
        site=SITES,
        guard=[{"guard_id": guard} for guard in ("g1", "g2", "g3")],
        shift=shifts,
        attendance_event=events,
    )


tenants = st.lists(_events, max_size=30).map(_tenant)
"""Small tenants with ties, window edges, late knowledge, missing values and a night of clock change."""
