"""Labels as they were known, a dataset that is the same on every run, and when it is too small."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import product
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fraud_assets.compute import dataset
from fraud_assets.compute.observations import IN_TIME
from fraud_assets.domain.schemas import FEATURES, Profile, TrainingDataset
from fraud_assets.domain.settings import for_tenant
from fraud_assets_tests.builders import NOON, history, table

AS_OF = NOON + timedelta(days=200)
DEFAULTS = for_tenant({}, "acme")
NO_PROFILES = Profile.create_empty()
Rows = list[dict[str, Any]]


def days_before(days: float) -> datetime:
    return AS_OF - timedelta(days=days)


def outcome(verdict: str, known: float, decided: float | None = None, event: str = "e1") -> dict[str, Any]:
    """A verdict on `event`, known and decided these many days before the cut-off."""
    decided_at = days_before(known if decided is None else decided)
    return {"event_id": event, "verdict": verdict, "known_at": days_before(known), "decided_at": decided_at}


def numbered(outcomes: Rows) -> Rows:
    return [{"outcome_id": f"o{n}"} | row for n, row in enumerate(outcomes)]


def labels(events: Rows, outcomes: Rows) -> dict[str, tuple[str, bool | None]]:
    verdicts = dataset.last_verdicts(table("outcome", numbered(outcomes)), AS_OF)
    rows = dataset.label(table("attendance_event", events).lazy(), verdicts, AS_OF, DEFAULTS).collect()
    return {event: (status, is_fraud) for event, status, is_fraud in rows.iter_rows()}


def label(*outcomes: dict[str, Any], age: float = 60) -> tuple[str, bool | None]:
    return labels([{"punch_in_at": days_before(age)}], list(outcomes))["e1"]


def assemble(events: Rows, outcomes: Rows) -> dataset.TrainingSet:
    guards = [{}, {"guard_id": "g2"}]
    clean = history(guard=guards, attendance_event=events, outcome=numbered(outcomes))
    return dataset.assemble(clean, NO_PROFILES, AS_OF, DEFAULTS)


def rows_of(made: dataset.TrainingSet) -> pl.DataFrame:
    return made.frame.collect()


# What an outcome makes of a mature event


@pytest.mark.parametrize(
    ("verdict", "is_fraud"), [("fraud", True), ("legitimate", False), ("inconclusive", None)]
)
def test_a_verdict_is_the_label(verdict: str, is_fraud: bool | None) -> None:
    assert label(outcome(verdict, 50)) == (verdict, is_fraud)


def test_mature_and_unreviewed_counts_as_legitimate() -> None:
    assert label() == ("unreviewed", False)


@pytest.mark.parametrize(
    ("age", "status"), [(30, "fraud"), (30 - 1e-6, "immature"), (29, "immature"), (31, "fraud")]
)
def test_an_immature_event_has_no_label_even_if_reviewed(age: float, status: str) -> None:
    assert label(outcome("fraud", 1), age=age)[0] == status


def test_the_outcome_known_last_counts() -> None:
    assert label(outcome("fraud", 40), outcome("legitimate", 20)) == ("legitimate", False)


def test_known_last_beats_decided_last() -> None:
    assert label(outcome("fraud", 20, decided=45), outcome("legitimate", 21, decided=22))[0] == "fraud"


def test_of_outcomes_known_together_the_one_decided_last_counts() -> None:
    assert label(outcome("fraud", 20, decided=30), outcome("legitimate", 20, decided=25))[0] == "legitimate"


def test_the_very_last_outcomes_that_disagree_give_no_label() -> None:
    assert label(outcome("fraud", 20), outcome("legitimate", 20)) == ("conflicting", None)


def test_the_very_last_outcomes_that_agree_give_their_label() -> None:
    assert label(outcome("fraud", 20), outcome("fraud", 20)) == ("fraud", True)


def test_an_old_disagreement_is_settled_by_a_later_outcome() -> None:
    disagreement = [outcome("fraud", 20), outcome("legitimate", 20)]
    assert label(*disagreement, outcome("fraud", 19)) == ("fraud", True)


def test_a_later_inconclusive_outcome_takes_the_label_away() -> None:
    assert label(outcome("fraud", 20), outcome("inconclusive", 19)) == ("inconclusive", None)


def test_an_outcome_known_after_the_cut_off_is_not_there_yet() -> None:
    assert label(outcome("fraud", -1e-6)) == ("unreviewed", False)
    assert label(outcome("fraud", 0)) == ("fraud", True)


def test_an_outcome_of_another_event_changes_nothing() -> None:
    assert label(outcome("fraud", 20, event="e2")) == ("unreviewed", False)


def test_no_events_have_no_labels() -> None:
    assert labels([], [outcome("fraud", 20)]) == {}


# Labels and counts against plain Python

_DAYS = st.sampled_from([-1, 0, 5, 20, 29, 30, 31, 60, 179, 180, 181])
_VERDICTS = st.sampled_from(["fraud", "legitimate", "inconclusive"])
_EVENTS = st.lists(_DAYS, min_size=1, max_size=6).map(
    lambda ages: [{"event_id": f"e{n}", "punch_in_at": days_before(age)} for n, age in enumerate(ages)]
)
_OUTCOMES = st.lists(
    st.builds(outcome, _VERDICTS, _DAYS, _DAYS, st.integers(0, 5).map(lambda n: f"e{n}")), max_size=12
)


def status_in_plain_python(event: dict[str, Any], outcomes: Rows) -> str:
    if event["punch_in_at"] + timedelta(days=30) > AS_OF:
        return "immature"
    known = [o for o in outcomes if o["event_id"] == event["event_id"] and o["known_at"] <= AS_OF]
    if not known:
        return "unreviewed"
    newest = max((o["known_at"], o["decided_at"]) for o in known)
    verdicts = {o["verdict"] for o in known if (o["known_at"], o["decided_at"]) == newest}
    return verdicts.pop() if len(verdicts) == 1 else "conflicting"


@given(_EVENTS, _OUTCOMES)
@hypothesis_settings(max_examples=100)
def test_labels_are_those_of_plain_python(events: Rows, outcomes: Rows) -> None:
    expected = {event["event_id"]: status_in_plain_python(event, outcomes) for event in events}
    assert {event: status for event, (status, _) in labels(events, outcomes).items()} == expected


@given(_EVENTS, _OUTCOMES)
@hypothesis_settings(max_examples=25)
def test_every_event_of_the_window_is_counted_once(events: Rows, outcomes: Rows) -> None:
    assembled = assemble(events, outcomes)
    window = [event for event in events if days_before(180) <= event["punch_in_at"] < AS_OF]
    known = [event for event in window if event["punch_in_at"] + timedelta(minutes=1) <= AS_OF]
    statuses = Counter(status_in_plain_python(event, outcomes) for event in known)
    fraud, legitimate = statuses["fraud"], statuses["legitimate"] + statuses["unreviewed"]
    left_out = {name: statuses[name] for name in ("immature", "inconclusive", "conflicting", "unreviewed")}
    records = {"records": fraud + legitimate, "fraud": fraud, "legitimate": legitimate}
    assert assembled.counts == {"events": len(known), **records, **left_out}
    assert rows_of(assembled).height == fraud + legitimate
    assert rows_of(assembled)["is_fraud"].sum() == fraud


# The assembled dataset

_SOME_EVENTS: Rows = [
    {"event_id": f"e{n}", "punch_in_at": days_before(age), "guard_id": guard}
    for n, (age, guard) in enumerate(product((40, 55, 55.5, 70, 90), ("g1", "g2")))
]
_SOME_OUTCOMES: Rows = [
    outcome("fraud", 20, event="e1"),
    outcome("legitimate", 10, event="e2"),
    outcome("inconclusive", 10, event="e3"),
]


def test_the_dataset_obeys_its_schema_and_is_in_the_order_of_guards_and_time() -> None:
    frame = rows_of(assemble(_SOME_EVENTS, _SOME_OUTCOMES))
    assert frame.height == 9
    assert TrainingDataset.is_valid(frame)
    assert frame.equals(frame.sort(IN_TIME))


@pytest.mark.parametrize(("age", "events"), [(180, 1), (180 + 1e-6, 0), (0, 0), (-1, 0), (1, 1)])
def test_the_window_is_closed_at_its_start_and_open_at_the_cut_off(age: float, events: int) -> None:
    punched_in = days_before(age)
    assembled = assemble([{"punch_in_at": punched_in, "known_at": min(punched_in, AS_OF)}], [])
    assert assembled.counts["events"] == events
    assert (assembled.window_start, assembled.as_of) == (days_before(180), AS_OF)


def test_no_events_give_an_empty_dataset_of_the_right_types() -> None:
    assembled = assemble([], [])
    assert rows_of(assembled).schema == TrainingDataset.create_empty().schema
    assert set(assembled.counts.values()) == {0}


def test_history_before_the_window_still_counts_in_the_features() -> None:
    before = {"event_id": "e0", "punch_in_at": days_before(180) - timedelta(hours=2)}
    frame = rows_of(assemble([before, {"punch_in_at": days_before(180)}], []))
    assert frame.select("event_id", "time_since_last_event").rows() == [("e1", 7200.0)]


def test_what_is_known_later_changes_nothing() -> None:
    later_event = {"event_id": "late", "punch_in_at": days_before(60), "known_at": AS_OF + timedelta(days=1)}
    later_outcomes = [outcome("fraud", -1, event=f"e{n}") for n in range(10)]
    then = assemble(_SOME_EVENTS, _SOME_OUTCOMES)
    now = assemble([*_SOME_EVENTS, later_event], _SOME_OUTCOMES + later_outcomes)
    assert (now.digest, now.counts) == (then.digest, then.counts)


@given(st.permutations(_SOME_EVENTS), st.permutations(_SOME_OUTCOMES))
@hypothesis_settings(max_examples=15)
def test_the_order_of_the_rows_changes_nothing(events: Rows, outcomes: Rows) -> None:
    assert assemble(events, outcomes).digest == assemble(_SOME_EVENTS, _SOME_OUTCOMES).digest


def test_where_the_rows_are_kept_is_for_the_caller_to_say() -> None:
    kept: list[pl.DataFrame] = []

    def keep(frames: Iterable[pl.DataFrame]) -> pl.LazyFrame:
        kept.extend(frames)
        return pl.concat(kept).lazy()

    clean = history(attendance_event=[{"punch_in_at": days_before(60)}])
    made = dataset.assemble(clean, NO_PROFILES, AS_OF, DEFAULTS, keep)
    assert [frame.height for frame in kept] == [0, 1]
    assert made.digest == dataset.assemble(clean, NO_PROFILES, AS_OF, DEFAULTS).digest


# The maturity of the labels


def maturity(events: Rows, outcomes: Rows) -> dataset.Maturity:
    clean = history(attendance_event=events, outcome=numbered(outcomes))
    return dataset.maturity(dataset.assemble(clean, NO_PROFILES, AS_OF, DEFAULTS), clean, DEFAULTS)


@given(_EVENTS, _OUTCOMES)
@hypothesis_settings(max_examples=25)
def test_maturity_counts_the_mature_events_and_the_days_of_their_outcomes(
    events: Rows, outcomes: Rows
) -> None:
    found = maturity(events, outcomes)
    punched = {e["event_id"]: e["punch_in_at"] for e in events}
    mature = {name for name, at in punched.items() if days_before(180) <= at <= days_before(30)}
    known = [o for o in outcomes if o["event_id"] in mature and o["known_at"] <= AS_OF]
    days = sorted((o["known_at"] - punched[o["event_id"]]) / timedelta(days=1) for o in known)
    assert (found.mature, found.reviewed) == (len(mature), len({o["event_id"] for o in known}))
    assert found.median_days == (pytest.approx(median(days)) if days else None)
    expected = np.percentile(days, 90) if days else None
    assert found.percentile_90_days == (pytest.approx(expected) if days else None)


@given(_EVENTS, _OUTCOMES)
@hypothesis_settings(max_examples=25)
def test_maturity_agrees_with_the_counts_of_the_dataset(events: Rows, outcomes: Rows) -> None:
    found, counts = maturity(events, outcomes), assemble(events, outcomes).counts
    assert found.mature == counts["events"] - counts["immature"]
    assert found.reviewed == found.mature - counts["unreviewed"]


@pytest.mark.parametrize(("age", "mature"), [(30, 1), (30 - 1e-6, 0)])
def test_an_event_is_mature_if_it_was_punched_in_by_the_instant_that_is_told(age: float, mature: int) -> None:
    found = maturity([{"punch_in_at": days_before(age)}], [])
    assert (found.mature_until, found.mature) == (days_before(30), mature)


def test_the_quick_outcomes_of_immature_events_do_not_count() -> None:
    events = [{"punch_in_at": days_before(60)}, {"event_id": "e2", "punch_in_at": days_before(20)}]
    found = maturity(events, [outcome("fraud", 36), outcome("fraud", 19, event="e2")])
    assert (found.reviewed, found.median_days, found.percentile_90_days) == (1, 24, 24)


# The digest


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return rows_of(assemble(_SOME_EVENTS, _SOME_OUTCOMES))


def test_the_digest_is_of_the_frame_and_the_same_on_every_run(frame: pl.DataFrame) -> None:
    again = assemble(_SOME_EVENTS, _SOME_OUTCOMES)
    assert again.digest == dataset.digest(frame.lazy())
    assert len(again.digest) == 64


def test_the_digest_does_not_depend_on_how_the_values_are_stored(frame: pl.DataFrame) -> None:
    halves = pl.concat([frame[:5], frame[5:]], rechunk=False)
    stored = halves.with_columns(pl.col("entry_source").cast(pl.String))
    assert stored.n_chunks() == 2
    assert dataset.digest(stored.lazy()) == dataset.digest(frame.lazy())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("is_fraud", True),
        ("gps_drift_meters", 1e-300),
        ("gps_drift_meters", None),
        ("punch_in_at", days_before(90) + timedelta(microseconds=1)),
        ("entry_source", "kiosk"),
    ],
)
def test_one_other_value_changes_the_digest(frame: pl.DataFrame, column: str, value: Any) -> None:
    is_first = pl.int_range(pl.len()) == 0
    other = pl.lit(value, frame.schema[column])
    changed = frame.with_columns(pl.when(is_first).then(other).otherwise(column).alias(column))
    assert dataset.digest(changed.lazy()) != dataset.digest(frame.lazy())


def test_rows_that_swap_their_labels_change_the_digest(frame: pl.DataFrame) -> None:
    assert dataset.digest(frame.lazy().with_columns(pl.col("is_fraud").reverse())) != dataset.digest(
        frame.lazy()
    )


# Too few records


@pytest.mark.parametrize(
    ("records", "fraud", "reason"),
    [
        (100, 10, None),
        (100, 90, None),
        (99, 20, "99 usable records, 100 are needed"),
        (0, 0, "0 usable records, 100 are needed"),
        (240, 3, "3 confirmed fraud records, 10 are needed"),
        (240, 231, "9 legitimate records, 10 are needed"),
        (240, 0, "records of one class only: 0 fraud, 240 legitimate; 10 of each are needed"),
        (240, 240, "records of one class only: 240 fraud, 0 legitimate; 10 of each are needed"),
    ],
)
def test_a_shortage_says_what_there_is_and_what_is_needed(
    records: int, fraud: int, reason: str | None
) -> None:
    assert dataset.shortage(records, fraud, DEFAULTS) == reason


@given(st.integers(0, 400), st.integers(0, 400))
def test_there_is_no_shortage_just_when_every_minimum_is_met(fraud: int, legitimate: int) -> None:
    enough = fraud + legitimate >= 100 and fraud >= 10 and legitimate >= 10
    assert (dataset.shortage(fraud + legitimate, fraud, DEFAULTS) is None) is enough


def test_the_needed_numbers_are_the_tenants() -> None:
    small = for_tenant({"default": {"minimum_records": 20, "minimum_per_class": 2}}, "acme")
    assert dataset.shortage(20, 2, small) is None
    assert dataset.shortage(19, 2, small) == "19 usable records, 20 are needed"


# The features in numbers

KNOWN = st.one_of(st.none(), st.integers(0, 9))


def with_attempts(values: list[int | None]) -> pl.LazyFrame:
    """A dataset of one row a value of `face_attempts`; every other column is null or false."""
    attempts = pl.Series("face_attempts", values, pl.Int64)
    return TrainingDataset.create_empty().clear(len(values)).with_columns(attempts).lazy()


def moments(values: list[int | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    return (fmean(known), pstdev(known)) if known else (None, None)


@given(st.lists(KNOWN, min_size=1, max_size=8), st.lists(KNOWN, min_size=1, max_size=8))
def test_a_summary_counts_nulls_and_measures_the_change_in_spreads(
    values: list[int | None], before: list[int | None]
):
    found = dataset.summary(
        dataset.moments(with_attempts(values)), dataset.moments(with_attempts(before))
    ).row(by_predicate=pl.col("feature") == "face_attempts", named=True)
    (mean, spread), (mean_before, spread_before) = moments(values), moments(before)
    assert found["null_share"] == pytest.approx(values.count(None) / len(values))
    assert (found["mean"], found["spread"]) == pytest.approx((mean, spread))
    if mean is None or mean_before is None or not spread_before:
        assert found["change"] is None
    else:
        assert found["change"] == pytest.approx((mean - mean_before) / spread_before)


def test_a_summary_has_every_feature_in_order_also_of_no_rows():
    for frame in (with_attempts([]), with_attempts([1, None])):
        assert dataset.summary(dataset.moments(frame))["feature"].to_list() == list(FEATURES)


def test_a_feature_that_the_last_release_did_not_have_has_no_change():
    now = dataset.moments(with_attempts([1, 2]))
    found = dataset.summary(now, now.filter(pl.col("feature") != "face_attempts"))
    assert found.filter(pl.col("feature") == "face_attempts")["change"].to_list() == [None]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9), st.integers(1, 4))
def test_moments_do_not_depend_on_where_the_rows_are_cut(values: list[float], rows: int) -> None:
    speeds = pl.Series("travel_speed_kmh", values, pl.Float64)
    frame = TrainingDataset.create_empty().clear(len(values)).with_columns(speeds).lazy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_ROWS_AT_ONCE", rows)
        cut = dataset.moments(frame).filter(pl.col("feature") == "travel_speed_kmh")
    assert cut["mean"][0] == pytest.approx(fmean(values), abs=1e-6)
    assert cut["spread"][0] == pytest.approx(pstdev(values), abs=1e-5)
