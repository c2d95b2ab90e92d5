"""What a stage leaves behind when it is run again: nothing twice."""

import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fraud_assets import cycle, stored
from fraud_assets.compute import dataset
from fraud_assets.compute.activation import Candidate, Submission
from fraud_assets.compute.evaluation import PUBLISHED
from fraud_assets.compute.evidence import COMPARED
from fraud_assets.compute.slices import SLICES
from fraud_assets.domain.errors import DiskFull, RegistryError, TableNotFound
from fraud_assets.domain.schemas import FEATURES, History, Profile
from fraud_assets.storage.ledger import Entry, Ledger
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.tables import Tables
from fraud_assets_tests.builders import history, training_dataset
from fraud_assets_tests.fakes import FakeRegistry
from fraud_assets_tests.world import TONIGHT, World, company, with_events

pytestmark = pytest.mark.usefixtures("undrawn")
DAY = timedelta(days=1)
COMPANY = company("acme", records=200)


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    made = World(tmp_path, instance, acme=COMPANY)
    made.now = TONIGHT
    return made


def trained(world: World) -> Platform:
    """All stages but the last."""
    cycle.refresh_profiles(world.platform, "acme")
    cycle.assemble_dataset(world.platform, "acme")
    cycle.train(world.platform, "acme", None)
    return world.platform


def test_a_tenant_that_is_worked_on_in_parts_is_the_same_to_the_bit(world: World, tmp_path: Path) -> None:
    twice = COMPANY.attendance_event.filter(pl.col("event_id") == "e00007")
    elsewhere = twice.with_columns(guard_id=pl.lit("g2"))
    bad = with_events(COMPANY, pl.when(event_id="e00003").then(91.0).otherwise("latitude").alias("latitude"))
    events = pl.concat([bad.attendance_event, elsewhere])
    world.source.histories["acme"] = replace(bad, attendance_event=events)
    made: list[tuple[pl.DataFrame, cycle.DatasetMade]] = []
    for rows in (1000, 60, 7):
        parted = replace(world.platform, rows_in_memory=rows, tables=Tables(tmp_path / f"{rows}"))
        profiles = cycle.refresh_profiles(parted, "acme").made.profiles
        made.append((profiles, cycle.assemble_dataset(parted, "acme")))
    (whole_profiles, whole), *others = made
    assert whole.account.set_aside.rows() == [
        ("attendance_event", "conflicting_id", 2), ("attendance_event", "latitude|max", 1),
        ("outcome", "event_set_aside", 2),
    ]  # fmt: skip
    for profiles, made_so in others:
        assert_frame_equal(profiles, whole_profiles, check_exact=True)
        assert (made_so.digest, made_so.counts, made_so.maturity) == (
            whole.digest, whole.counts, whole.maturity
        )  # fmt: skip
        assert made_so.newest_punch_in == whole.newest_punch_in
        assert_frame_equal(made_so.features, whole.features)


def test_no_stage_leaves_its_scratch_behind(world: World) -> None:
    world.with_platform(rows_in_memory=7)
    trained(world)
    assert list(Path(world.platform.tables.root, "acme", "scratch").iterdir()) == []


def test_the_same_dataset_is_not_written_twice(world: World) -> None:
    platform = world.platform
    cycle.refresh_profiles(platform, "acme")
    first = cycle.assemble_dataset(platform, "acme")
    world.now += timedelta(hours=5)
    assert cycle.assemble_dataset(platform, "acme").table_version == first.table_version


def test_a_repeated_cycle_tells_the_change_since_the_cycle_before_again(world: World) -> None:
    platform = world.platform

    def features() -> pl.DataFrame:
        cycle.refresh_profiles(platform, "acme")
        return cycle.assemble_dataset(platform, "acme").features

    assert features()["change"].null_count() == features()["change"].null_count() == len(FEATURES)
    world.now += 60 * DAY
    later = features()
    assert later["change"].drop_nulls().abs().max() != 0
    assert_frame_equal(features(), later)


def test_another_cut_off_is_another_version_even_if_it_has_the_same_rows(world: World) -> None:
    platform = world.platform
    cycle.refresh_profiles(platform, "acme")
    first = cycle.assemble_dataset(platform, "acme")
    world.now += DAY
    second = cycle.assemble_dataset(platform, "acme")
    assert second.digest == first.digest
    assert second.table_version == first.table_version + 1
    for version, as_of in {None: TONIGHT + DAY, first.table_version: TONIGHT}.items():
        with stored.opened(platform, "acme", version) as found:
            assert found.as_of == as_of


def test_an_outcome_that_arrives_late_changes_the_dataset_of_the_next_cycle_only(world: World) -> None:
    platform = world.platform
    cycle.refresh_profiles(platform, "acme")
    before = cycle.assemble_dataset(platform, "acme").digest
    known = world.source.histories["acme"]
    late = known.outcome.head(1).with_columns(
        outcome_id=pl.lit("late"), verdict=pl.lit("legitimate"), known_at=TONIGHT + timedelta(hours=1)
    )
    world.source.histories["acme"] = replace(known, outcome=pl.concat([known.outcome, late]))
    world.now += timedelta(hours=5)
    assert cycle.assemble_dataset(platform, "acme").digest == before
    world.now = TONIGHT + DAY
    assert cycle.assemble_dataset(platform, "acme").digest != before


def test_a_dataset_needs_profiles_and_a_decision_needs_a_candidate(world: World) -> None:
    with pytest.raises(TableNotFound, match="materialize profiles"):
        cycle.assemble_dataset(world.platform, "acme")
    with pytest.raises(TableNotFound, match="materialize training_dataset first"):
        cycle.train(world.platform, "acme", None)
    with pytest.raises(RegistryError, match="materialize trained_model first"):
        cycle.decide(world.platform, "acme", None)


def test_profiles_of_other_rules_are_made_again_and_not_mixed(world: World) -> None:
    made = cycle.refresh_profiles(world.platform, "acme").made.profiles
    world.with_platform(overrides={"default": {"profile_days": 60}})
    again = cycle.refresh_profiles(world.platform, "acme").made.profiles
    assert max(again["observations"]) < max(made["observations"])


def ruined(known: History, *kinds: str) -> History:
    """The history with all rows of these tables bad in one way."""
    site, guard, event = known.site, known.guard, known.attendance_event
    return replace(
        known,
        site=site.with_columns(tz=pl.lit("Mars/Olympus")) if "site" in kinds else site,
        guard=guard.with_columns(is_enabled=pl.lit(None, pl.Boolean)) if "guard" in kinds else guard,
        attendance_event=event.with_columns(latitude=pl.lit(91.0)) if "event" in kinds else event,
    )


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (ruined(COMPANY, "site"), "all 200 attendance_event rows were set aside: unknown_site 200"),
        (ruined(COMPANY, "guard"), "all 200 attendance_event rows were set aside: unknown_guard 200"),
        (ruined(COMPANY, "event"), "all 200 attendance_event rows were set aside: latitude|max 200"),
        (
            ruined(COMPANY, "site", "guard", "event"),
            "all 200 attendance_event rows were set aside: latitude|max 200, unknown_guard 200",
        ),
        (history(as_read=True, site=[], guard=[]), "no attendance_event rows were read"),
    ],
    ids=["sites", "guards", "events", "all three", "no rows"],
)
def test_a_tenant_without_a_good_event_is_not_trained_and_told_why(
    world: World, known: History, words: str
) -> None:
    world.source.histories["acme"] = known
    for _ in range(2):
        assert cycle.refresh_profiles(world.platform, "acme").profiled == 0
        made = cycle.assemble_dataset(world.platform, "acme")
        assert (made.counts["records"], made.table_version) == (0, 0)
        found = cycle.train(world.platform, "acme", None)
        assert isinstance(found, Entry)
        assert found.sentence == f"Not trained: 0 usable records, 100 are needed; {words}."
    assert [each.verdict for each in world.platform.ledger.history("acme")] == [cycle.NOT_TRAINED]


def test_who_decides_where_nothing_was_trained_gets_why_and_no_older_candidate(world: World) -> None:
    few = company("acme", records=99, fraud=30, until=TONIGHT + 9 * DAY)
    world.source.histories["acme"] = few
    first = world.cycle(TONIGHT)
    assert first.verdict == cycle.NOT_TRAINED
    assert cycle.decide(world.platform, "acme", None) == first
    world.source.histories["acme"] = company("acme", until=TONIGHT + 9 * DAY)
    judged = world.cycle(TONIGHT + DAY)
    assert judged.model_version == 1
    assert cycle.decide(world.platform, "acme", None).model_version == 1
    world.source.histories["acme"] = few
    last = world.cycle(TONIGHT + 2 * DAY)
    assert cycle.decide(world.platform, "acme", None) == last
    assert last.cycle_started_at == TONIGHT + 2 * DAY
    assert world.platform.ledger.history("acme") == [first, judged, last]


def test_rows_set_aside_are_no_reason_where_there_are_enough_records(world: World) -> None:
    is_first = pl.int_range(pl.len()) < 5
    latitude = pl.when(is_first).then(91.0).otherwise("latitude")
    world.source.histories["acme"] = with_events(COMPANY, latitude.alias("latitude"))
    trained(world)
    with stored.opened(world.platform, "acme") as found:
        assert found.set_aside == "5 of 200 attendance_event rows were set aside: latitude|max 5"
        assert stored.shortage(found, world.platform.settings("acme")) == ()


def test_a_dataset_of_an_earlier_release_does_not_know_what_was_set_aside(world: World) -> None:
    facts = {"as_of": (TONIGHT - DAY).isoformat(), "digest": "d" * 64}
    world.platform.tables.write("acme", "training_dataset", training_dataset(99), facts)
    rules = world.platform.settings("acme")
    with stored.opened(world.platform, "acme", even_if_altered=True) as found:
        assert stored.shortage(found, rules) == ("99 usable records, 100 are needed",)


class Noting(FakeRegistry):
    """Keeps the last submission, with the last record trained on and the first held out.

    Its parts can be read as long as it is registered.
    """

    noted: Submission
    edges: tuple[datetime, datetime]

    def register(self, tenant: str, submission: Submission) -> Candidate:
        trained, held_out = (
            part.rows.select("punch_in_at").collect().to_series()
            for part in (submission.train, submission.holdout)
        )
        self.noted = submission
        self.edges = trained.sort()[-1], held_out.sort()[0]
        return super().register(tenant, submission)


def with_delay(world: World, days: str | None) -> None:
    """The dataset of the cycle again, as if its label delay had been measured as `days`."""
    tables = world.platform.tables
    said = tables.facts("acme", "training_dataset")
    facts = {name: said[name] for name in ("as_of", "digest")}
    told = facts if days is None else facts | {"label_delay_days": days}
    tables.write("acme", "training_dataset", tables.read("acme", "training_dataset"), told)


@pytest.mark.parametrize(("days", "gap"), [("12.0", 12), ("0.0", 0), (None, 30)])
def test_the_label_delay_of_the_dataset_lies_between_training_and_holdout(
    world: World, days: str | None, gap: int
) -> None:
    """A dataset of an earlier release, without a delay, has the tenant's `maturity_days`."""
    registry = Noting()
    world.with_platform(registry=registry)
    trained(world)
    with_delay(world, days)
    cycle.train(world.platform, "acme", None)
    latest, start = registry.edges
    # An event every 14.4 hours.
    assert gap * DAY <= start - latest < (gap + 0.61) * DAY


def test_another_label_delay_makes_another_model_of_the_same_records(world: World) -> None:
    trained(world)
    made = []
    for days in ("12.0", "13.0", "12.0"):
        with_delay(world, days)
        found = cycle.train(world.platform, "acme", None)
        assert isinstance(found, Candidate)
        made.append(found.version)
    assert made[0] == made[2] != made[1]


def test_a_label_delay_that_leaves_nothing_to_train_on_is_said(world: World) -> None:
    trained(world)
    with_delay(world, "97.0")
    found = cycle.train(world.platform, "acme", None)
    assert isinstance(found, Entry)
    assert found.sentence == (
        "Not trained: the training part has 0 frauds among 0 records, and needs both classes; "
        "the 97 days before the holdout, 160 records, are not trained on."
    )


def plant(world: World, *changes: pl.Expr) -> None:
    """A new version of the newest training dataset, changed by hand."""
    tables = world.platform.tables
    frame, facts = tables.read("acme", "training_dataset"), tables.facts("acme", "training_dataset")
    planted = frame.with_columns(*changes)
    digest = dataset.digest(planted.lazy())
    tables.write("acme", "training_dataset", planted, {**facts, "digest": digest})


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (
            pl.col("is_fraud").cast(pl.Float64).alias("travel_speed_kmh"),
            "travel_speed_kmh alone tells the outc",
        ),
        (pl.lit("e00001").alias("event_id"), "199 events are there more than once"),
        (
            pl.when(pl.col("event_id") >= "e00198")
            .then(TONIGHT)
            .otherwise("punch_in_at")
            .alias("punch_in_at"),
            "2 events are of the future",
        ),
    ],
    ids=["outcome in a feature", "the same event", "tomorrow's rows"],
)
def test_a_dataset_with_a_leak_is_not_trained_on_and_the_champion_stays(
    world: World, planted: pl.Expr, words: str
) -> None:
    platform = trained(world)
    cycle.decide(platform, "acme", None)
    champion = platform.champion("acme")
    plant(world, planted)
    found = cycle.train(platform, "acme", None)
    assert isinstance(found, Entry)
    assert found.sentence.startswith("Not trained: ")
    assert f"the dataset has a leak: {words}" in found.sentence
    assert platform.ledger.latest("acme") == found
    assert platform.champion("acme") == champion


def test_a_decision_keeps_its_numbers_with_their_intervals_in_the_ledger(world: World) -> None:
    first = cycle.decide(trained(world), "acme", None)
    assert set(first.metrics) == {*PUBLISHED, *(name for name in COMPARED if "rival" in name)}
    world.now += DAY
    assert set(cycle.decide(trained(world), "acme", None).metrics) == {*PUBLISHED, *COMPARED}
    assert first.metrics["pr_auc_low"] <= first.metrics["pr_auc"] <= first.metrics["pr_auc_high"]


def test_a_registered_candidate_has_its_pictures_and_its_slices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # The pictures are drawn.
    registry = Noting()
    world.with_platform(registry=registry)
    trained(world)
    submission = registry.noted
    assert {file for file in submission.files if file.endswith(".png")} == {
        *("precision_recall.png", "calibration.png", "threshold_cost.png"),
        *("score_histogram.png", "feature_importance.png"),
    }
    assert pl.read_csv(submission.files["slices.csv"]).columns == list(SLICES)


def test_a_site_named_like_a_formula_is_a_text_in_the_sheet_and_a_number_below_zero_stays_one() -> None:
    sheet = cycle._sheet(pl.DataFrame({"value": ["=1+1", None, "s1"], "low": [-0.5, None, 0.5]}))
    assert sheet.decode().splitlines() == ["value,low", "'=1+1,-0.5", ",", "s1,0.5"]


def test_a_model_that_is_trained_in_parts_is_decided_on_alike_to_the_bit(
    world: World, tmp_path: Path
) -> None:
    """All rows but a few lie on disk, for a while."""
    trained(world)
    in_memory = cycle.decide(world.platform, "acme", None)
    ledger = Ledger(f"sqlite:///{tmp_path}/another.db")
    world.with_platform(registry=FakeRegistry(), rows_in_memory=20, ledger=ledger)
    cycle.train(world.platform, "acme", None)
    in_parts = cycle.decide(world.platform, "acme", None)
    assert in_parts.model_digest == in_memory.model_digest
    assert (in_parts.verdict, in_parts.reasons) == (in_memory.verdict, in_memory.reasons)
    assert in_parts.metrics == in_memory.metrics
    assert list(Path(world.platform.tables.root, "acme", "scratch").iterdir()) == []


def test_too_little_disk_to_train_in_parts_is_said_before_anything_is_fitted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XGBoost would abort the process, and with it whoever else is worked on there."""
    trained(world)
    world.with_platform(registry=FakeRegistry(), rows_in_memory=20)
    whole, _, _ = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=whole, used=whole - 9, free=9))
    with pytest.raises(
        DiskFull, match=r"expected 0 MiB of free disk to train on \d+ records in parts, found 0; make"
    ):
        cycle.train(world.platform, "acme", None)
    assert world.platform.registry.challenger("acme") is None
    assert list(Path(world.platform.tables.root, "acme", "scratch").iterdir()) == []


def shares_of_events(world: World) -> tuple[float | None, float | None]:
    """Of all events: now, and in the cycle before."""
    cycle.refresh_profiles(world.platform, "acme")
    shares = cycle.rows_set_aside(world.platform, "acme").shares
    of_all_events = shares.filter(pl.col("table") == "attendance_event", pl.col("period") == "all rows")
    [(now, before)] = of_all_events.select("share", "share_before").rows()
    return now, before


def test_a_repeated_cycle_is_compared_with_the_same_cycle_before(world: World) -> None:
    assert [shares_of_events(world) for _ in range(2)] == [(0.0, None)] * 2
    world.source.histories["acme"] = ruined(COMPANY, "event")
    world.now += DAY
    assert [shares_of_events(world) for _ in range(3)] == [(1.0, 0.0)] * 3
    world.source.histories["acme"] = COMPANY
    assert shares_of_events(world) == (0.0, 0.0)
    world.now += DAY
    assert shares_of_events(world) == (0.0, 0.0)


def test_profiles_of_an_earlier_release_have_no_shares_to_compare_with(world: World) -> None:
    facts = {"as_of": (TONIGHT - DAY).isoformat(), "settings": "other"}
    world.platform.tables.write("acme", "profiles", Profile.create_empty(), facts)
    assert shares_of_events(world) == (0.0, None)


def test_going_back_to_an_earlier_model_within_a_cycle_leaves_ledger_and_alias_agreed(world: World) -> None:
    trained(world)
    cycle.decide(world.platform, "acme", None)
    # The same rows held out, so that the models tie; but another way of training, so that they are two.
    for share in (0.20001, 0.2):
        world.with_platform(overrides={"default": {"holdout_share": share}})
        cycle.train(world.platform, "acme", None)
        assert cycle.decide(world.platform, "acme", None).verdict == "activate"
        champion = world.platform.champion("acme")
        assert world.registry.champion_version("acme") == (champion and champion.version)
