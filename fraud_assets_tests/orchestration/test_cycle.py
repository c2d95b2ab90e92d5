"""What a night must show, row by row, through Dagster and with the clock set by hand."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from fraud_assets import stewardship
from fraud_assets.compute.activation import Candidate, Submission
from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets.domain.errors import RegistryError, SourceUnreachable
from fraud_assets.domain.schemas import FEATURES, History
from fraud_assets_tests.builders import history
from fraud_assets_tests.fakes import FakeRegistry
from fraud_assets_tests.world import QUICK, TONIGHT, World, company, with_events, with_verdicts

pytestmark = pytest.mark.usefixtures("undrawn")

WEEK = timedelta(days=7)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
BAD_EVENTS = "attendance_event rows were set aside"
NO_JUMP = "no source table's share of rows set aside rose by more than 5 percentage points"
DATASET_KEYS = {
    *("tenant", "digest", "table_version", "window_start", "as_of", "newest_punch_in"),
    *("events", "records", "fraud", "legitimate", "unreviewed", "immature", "inconclusive", "conflicting"),
    *("mature", "reviewed", "mature_until", "outcome_days_median", "outcome_days_90th_percentile"),
    *("base_rate", "features", "rows_read", "rows_set_aside_by_rule"),
    *("label_delay_days", "label_delay_is_measured"),
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    made = World(tmp_path, instance, acme=company("acme"))
    made.with_platform(overrides=QUICK)
    return made


def failures(result: dg.ExecuteInProcessResult) -> list[str]:
    return [event.step_key or "" for event in result.filter_events(lambda event: event.is_step_failure)]


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


class FullRegistry(FakeRegistry):
    """Reads as before, and registers nothing."""

    def register(self, tenant: str, submission: Submission) -> Candidate:
        raise RegistryError("the model registry refused: no space left on device")


def kept(world: World) -> dict[str, object]:
    """All that a cycle leaves behind for acme."""
    tables, ledger = world.platform.tables, world.platform.ledger
    return {
        "dataset": tables.facts("acme", "training_dataset"),
        "dataset version": tables.version("acme", "training_dataset"),
        "profiles": tables.read("acme", "profiles").to_dicts(),
        "decisions": ledger.history("acme"),
        "files": dict(world.registry.files),
        "aliases": dict(world.registry.aliases),
    }


def test_every_active_tenant_is_processed_and_a_suspended_one_is_not(world: World) -> None:
    world.source.histories |= {"beta": company("beta"), "gone": company("gone")}
    world.source.suspended = {"gone"}
    results = world.night()
    assert set(results) == {"acme", "beta"}
    assert all(result.success for result in results.values())
    assert world.materialized("active_model") == {"acme", "beta"}


def test_a_tenant_that_is_suspended_later_keeps_its_history_and_is_not_run(world: World) -> None:
    world.night()
    world.source.suspended = {"acme"}
    assert world.tick(TONIGHT + timedelta(days=1)) == {}
    assert world.materialized("active_model") == {"acme"}


@pytest.mark.parametrize("error", [RuntimeError("boom"), RegistryError("refused"), MemoryError("no more")])
def test_a_tenant_that_raises_leaves_the_others_finished(world: World, error: Exception) -> None:
    world.source.histories |= {"beta": company("beta")}
    world.source.failing = {"acme": error}
    results = world.night()
    assert not results["acme"].success
    assert results["beta"].success
    assert world.materialized("active_model") == {"beta"}


def test_every_guard_with_history_has_a_profile(world: World) -> None:
    world.night()
    profiles = world.platform.tables.read("acme", "profiles")
    at_start = profiles.filter(profiles["snapshot_at"] == TONIGHT)
    assert sorted(at_start["guard_id"]) == [f"g{number}" for number in range(8)]


def test_a_guard_with_corrupt_rows_is_named_and_the_rest_are_profiled(world: World) -> None:
    is_of_g3 = pl.col("guard_id") == "g3"
    latitude = pl.when(is_of_g3).then(91.0).otherwise("latitude").alias("latitude")
    world.source.histories["acme"] = with_events(company("acme"), latitude)
    result = world.night()["acme"]
    [made] = result.asset_materializations_for_node("behavioural_profiles")
    failed = made.metadata["failed"]
    assert isinstance(failed, dg.TableMetadataValue)
    assert [record.data["guard_id"] for record in failed.records] == ["g3"]
    assert made.metadata["guards_profiled"].value == 7


def test_a_champion_just_under_seven_days_old_is_not_retrained_and_one_of_seven_days_is(world: World) -> None:
    world.night()
    assert world.tick(TONIGHT + WEEK - timedelta(days=1)) == {"acme": ["behavioural_profiles"]}
    assert world.tick(TONIGHT + WEEK) == {"acme": list(CYCLE_STAGES)}


def test_the_age_counts_from_the_start_of_the_cycle_and_not_from_the_activation(world: World) -> None:
    asked = world.tick(TONIGHT)
    world.now = TONIGHT + timedelta(hours=5)
    world.run("acme", asked["acme"])
    assert world.tick(TONIGHT + WEEK)["acme"] == list(CYCLE_STAGES)


def test_a_tick_between_two_cycles_asks_for_nothing(world: World) -> None:
    world.night()
    assert world.tick(TONIGHT + MINUTE) == {}
    assert world.tick(TONIGHT + timedelta(hours=23)) == {}


def test_a_tenant_without_a_champion_is_retrained_every_night(world: World) -> None:
    assert world.tick(TONIGHT)["acme"] == list(CYCLE_STAGES)
    assert world.tick(TONIGHT + timedelta(days=1))["acme"] == list(CYCLE_STAGES)


def test_a_night_that_was_slept_through_is_caught_up_once(world: World) -> None:
    assert world.tick(TONIGHT + timedelta(hours=9)) == {"acme": list(CYCLE_STAGES)}
    assert world.tick(TONIGHT + timedelta(hours=9, minutes=1)) == {}


def test_of_several_nights_that_were_slept_through_one_is_caught_up(world: World) -> None:
    assert world.tick(TONIGHT + timedelta(days=5, hours=9)) == {"acme": list(CYCLE_STAGES)}
    assert world.tick(TONIGHT + timedelta(days=5, hours=10)) == {}
    assert world.tick(TONIGHT + timedelta(days=6)) == {"acme": list(CYCLE_STAGES)}


@pytest.mark.parametrize("damage", [None, b"", b"truncated"])
def test_a_damaged_champion_counts_as_none_and_is_never_served(world: World, damage: bytes | None) -> None:
    world.night()
    champion = world.platform.champion("acme")
    assert champion is not None
    if damage is None:
        del world.registry.files["acme", champion.version]
    else:
        world.registry.files["acme", champion.version] = damage
    next_night = TONIGHT + timedelta(days=1)
    assert world.night(next_night)["acme"].success
    [retrain] = world.night(next_night + timedelta(minutes=1)).values()
    assert retrain.success
    healed = world.platform.champion("acme")
    assert healed is not None
    assert healed.version != champion.version
    assert world.registry.damage("acme", healed.version, healed.digest) is None


def test_99_records_are_skipped_with_a_warning_that_says_so(world: World) -> None:
    world.source.histories["acme"] = company("acme", records=99, fraud=30)
    result = world.night()["acme"]
    assert result.success
    check = checks(result)["enough_records"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "99 usable records, 100 are needed"
    assert world.materialized("trained_model") == world.materialized("active_model") == set()
    assert world.decision("acme") == "Not trained: 99 usable records, 100 are needed."
    assert world.materialized("behavioural_profiles") == {"acme"}


def test_100_records_are_trained(world: World) -> None:
    world.source.histories["acme"] = company("acme", records=100, fraud=40)
    assert checks(world.night()["acme"])["enough_records"].passed
    assert world.materialized("trained_model") == {"acme"}


def test_the_gate_cannot_be_walked_round_by_materializing_the_model_alone(world: World) -> None:
    world.source.histories["acme"] = company("acme", records=99, fraud=30)
    world.night()
    assert world.run("acme", ["trained_model"]).success
    assert world.materialized("trained_model") == set()


def test_a_run_that_died_once_nothing_was_trained_is_made_again_from_there(world: World) -> None:
    world.source.histories["acme"] = company("acme", records=99, fraud=30)
    world.night()
    told = world.decision("acme")
    # What Dagster's retry asks for, where it did not come to note that `active_model` is passed over.
    assert world.run("acme", ["active_model"]).success
    assert world.decision("acme") == told
    assert len(world.platform.ledger.history("acme")) == 1


def test_too_few_records_do_not_touch_the_champion_and_the_next_day_tries_again(world: World) -> None:
    world.night()
    before = world.platform.champion("acme")
    world.source.histories["acme"] = company("acme", records=99, fraud=30, until=TONIGHT + WEEK)
    assert world.night(TONIGHT + WEEK)["acme"].success
    assert world.platform.champion("acme") == before
    assert world.tick(TONIGHT + WEEK + timedelta(days=1))["acme"] == list(CYCLE_STAGES)


@pytest.mark.parametrize("fraud", [0, 300])
def test_records_of_one_class_are_skipped_with_a_warning_and_never_a_made_up_score(
    world: World, fraud: int
) -> None:
    world.source.histories["acme"] = company("acme", records=300, fraud=fraud)
    result = world.night()["acme"]
    assert result.success
    assert "one class only" in (checks(result)["enough_records"].description or "")
    assert world.registry.versions.get("acme", []) == []


def test_a_holdout_without_fraud_is_skipped_with_a_warning(world: World) -> None:
    is_late = pl.col("outcome_id") >= "o00200"
    verdict = pl.when(is_late).then(pl.lit("legitimate")).otherwise("verdict")
    world.source.histories["acme"] = with_verdicts(company("acme", records=300, fraud=60), verdict)
    result = world.night()["acme"]
    assert result.success
    assert not checks(result)["enough_records"].passed
    assert world.materialized("trained_model") == set()


@pytest.mark.parametrize("empty", [False, True])
def test_a_tenant_without_a_good_event_gets_a_decision_and_a_green_run(world: World, empty: bool) -> None:
    bad = with_events(company("acme"), pl.lit(91.0).alias("latitude"))
    known = history(as_read=True, site=[], guard=[]) if empty else bad
    world.source.histories |= {"acme": known, "beta": company("beta")}
    results = world.night()
    assert results["acme"].success
    [made] = results["acme"].asset_materializations_for_node("behavioural_profiles")
    assert made.metadata["guards_profiled"].value == 0
    told = "no attendance_event rows were read" if empty else f"all 400 {BAD_EVENTS}: latitude|max 400"
    reason = f"0 usable records, 100 are needed; {told}"
    assert world.decision("acme") == f"Not trained: {reason}."
    assert checks(results["acme"])["enough_records"].description == reason
    assert world.materialized("trained_model") == world.materialized("active_model") == {"beta"}


def poisoned(known: History, guards: int) -> History:
    """The events of that many of the eight guards are at latitude 91."""
    is_bad = pl.col("guard_id").is_in([f"g{number}" for number in range(guards)])
    return with_events(known, pl.when(is_bad).then(91.0).otherwise("latitude").alias("latitude"))


def soundness(result: dg.ExecuteInProcessResult) -> tuple[bool, str | None, dict[str, object]]:
    """Whether the source's rows were sound, the words, and the metadata."""
    found = checks(result)["source_rows_are_sound"]
    assert found.severity is dg.AssetCheckSeverity.WARN
    return found.passed, found.description, {name: value.value for name, value in found.metadata.items()}


def rows(table: object) -> list[dict[str, object]]:
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def test_a_poisoned_night_is_noticed_once_and_for_its_tenant_alone(world: World) -> None:
    world.source.histories["beta"] = company("beta")
    for result in world.night().values():
        passed, said, _ = soundness(result)
        assert (passed, said) == (True, NO_JUMP)
    world.source.histories["acme"] = poisoned(company("acme"), guards=2)
    second = world.night(TONIGHT + DAY)
    passed, said, shown = soundness(second["acme"])
    assert second["acme"].success
    assert not passed
    risen = "25.0% of all rows set aside, 0.0% before, most often under"
    assert said == f"attendance_event: {risen} latitude|max; outcome: {risen} event_set_aside"
    assert list(shown) == ["tenant", "rows_set_aside_by_rule", "shares_set_aside", "set_aside_jump"]
    assert (shown["tenant"], shown["set_aside_jump"]) == ("acme", 0.05)
    assert rows(shown["rows_set_aside_by_rule"]) == [
        {"table": "attendance_event", "rule": "latitude|max", "rows": 100},
        {"table": "outcome", "rule": "event_set_aside", "rows": 100},
    ]
    assert {
        "table": "attendance_event", "period": "all rows", "rows": 400, "share": 0.25,
        "rule": "latitude|max", "share_before": 0.0, "share_before_rise": 0.0,
    } in rows(shown["shares_set_aside"])  # fmt: skip
    assert soundness(second["beta"])[0]
    assert soundness(world.night(TONIGHT + 2 * DAY)["acme"])[:2] == (True, NO_JUMP)


def test_a_poisoned_night_that_is_run_again_gives_the_same_answer(world: World) -> None:
    world.night()
    world.source.histories["acme"] = poisoned(company("acme"), guards=1)
    first = soundness(world.night(TONIGHT + DAY)["acme"])
    world.now += timedelta(hours=5)
    assert not first[0]
    assert soundness(world.run("acme", ["behavioural_profiles"])) == first
    assert soundness(world.run("acme")) == first


def delivered(bad_nights: int, until: datetime) -> History:
    """Three or four events a day up to `until`; those learned in the last nights are at latitude 91."""
    known = company("acme", until=until + 31 * DAY)
    is_bad = pl.col("known_at") > until - bad_nights * DAY
    return with_events(known, pl.when(is_bad).then(91.0).otherwise("latitude").alias("latitude"))


def test_a_bad_last_night_is_noticed_once_though_it_is_little_of_all_rows(world: World) -> None:
    told = []
    for night, bad_nights in enumerate([0, 1, 2, 3]):
        world.source.histories["acme"] = delivered(bad_nights, TONIGHT + night * DAY)
        told.append(soundness(world.night(TONIGHT + night * DAY)["acme"])[:2])
        assert soundness(world.run("acme", ["behavioural_profiles"]))[:2] == told[-1]
    said = "attendance_event: 13.0% of the last 7 days set aside, 0.0% before, most often under latitude|max"
    assert told == [(True, NO_JUMP), (False, said), (True, NO_JUMP), (True, NO_JUMP)]


def test_the_first_night_is_compared_with_nothing_set_aside(world: World) -> None:
    world.source.histories["acme"] = poisoned(company("acme"), guards=1)
    passed, said, _ = soundness(world.night()["acme"])
    assert not passed
    assert (said or "").startswith("attendance_event: 12.5% of all rows set aside, not known before")


def test_a_tenants_own_jump_counts(world: World) -> None:
    world.source.histories["acme"] = poisoned(company("acme"), guards=1)
    world.with_platform(overrides={"tenants": {"acme": {"set_aside_jump": 0.125}}})
    assert soundness(world.night()["acme"])[:2] == (True, NO_JUMP.replace("5 per", "12.5 per"))


def test_the_answer_to_soundness_is_stored_for_the_tenant_alone(world: World) -> None:
    world.night()
    key = dg.AssetCheckKey(dg.AssetKey("behavioural_profiles"), "source_rows_are_sound")
    stored = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
    assert [(record.partition, record.status.value) for record in stored] == [("acme", "SUCCEEDED")]


def dataset_metadata(world: World, known: History) -> dict[str, object]:
    """As the night after `known` was the source shows it."""
    world.source.histories["acme"] = known
    [made] = world.night()["acme"].asset_materializations_for_node("training_dataset")
    return {name: value.value for name, value in made.metadata.items()}


def test_the_dataset_shows_how_mature_its_labels_are(world: World) -> None:
    known = company("acme")
    # Events come 0.3 days apart, the newest 31.3 days ago: two days later three of them are immature.
    shifted = pl.when(pl.col("event_id") >= "e00390").then(pl.col("punch_in_at") + 2 * DAY)
    late = with_events(
        known,
        shifted.otherwise("punch_in_at").alias("punch_in_at"),
        pl.col("known_at") + 2 * DAY,
    )
    unreviewed = replace(late, outcome=late.outcome.filter(pl.col("outcome_id") >= "o00040"))
    shown = dataset_metadata(world, unreviewed)
    assert {name: shown[name] for name in ("events", "mature", "immature", "reviewed", "unreviewed")} == {
        "events": 400, "mature": 397, "immature": 3, "reviewed": 357, "unreviewed": 40,
    }  # fmt: skip
    assert shown["outcome_days_median"] == shown["outcome_days_90th_percentile"] == pytest.approx(10)
    assert shown["mature_until"] == (TONIGHT - 30 * DAY).timestamp()


@pytest.mark.parametrize("records", [0, 400])
def test_the_dataset_shows_the_same_keys_and_null_for_what_is_not_known(world: World, records: int) -> None:
    known = company("acme", records=records, fraud=min(records, 60))
    shown = dataset_metadata(world, replace(known, outcome=known.outcome.clear()))
    assert set(shown) == DATASET_KEYS
    assert (shown["outcome_days_median"], shown["outcome_days_90th_percentile"]) == (None, None)
    assert (shown["mature"], shown["reviewed"], shown["unreviewed"]) == (records, 0, records)
    assert shown["base_rate"] == (0 if records else None)
    assert (shown["label_delay_days"], shown["label_delay_is_measured"]) == (30, False)
    features = rows(shown["features"])
    assert [list(row) for row in features] == [["feature", "null_share", "mean", "spread", "change"]] * len(
        FEATURES
    )


def test_the_dataset_shows_its_base_rate_and_its_rows_by_rule(world: World) -> None:
    shown = dataset_metadata(world, poisoned(company("acme"), guards=1))
    assert shown["base_rate"] == pytest.approx(int(str(shown["fraud"])) / 350)
    assert rows(shown["rows_set_aside_by_rule"])[0] == {
        "table": "attendance_event", "rule": "latitude|max", "rows": 50,
    }  # fmt: skip


def test_a_source_that_does_not_answer_writes_nothing_and_is_retried(world: World) -> None:
    world.source.failing = {"acme": SourceUnreachable("expected an answer of the source, got none")}
    result = world.night()["acme"]
    assert not result.success
    assert failures(result) == ["behavioural_profiles"]
    assert len(result.filter_events(lambda event: event.is_step_up_for_retry)) == 2
    assert world.platform.tables.version("acme", "profiles") is None


def test_a_training_that_raises_leaves_champion_and_profiles_and_registers_nothing(world: World) -> None:
    world.night()
    champion, versions = world.platform.champion("acme"), list(world.registry.versions["acme"])
    world.source.histories["acme"] = company("acme", until=TONIGHT + WEEK)
    world.with_platform(registry=FullRegistry(**vars(world.registry)))
    result = world.night(TONIGHT + WEEK)["acme"]
    assert failures(result) == ["trained_model"]
    assert world.platform.champion("acme") == champion
    assert world.registry.versions.get("acme", []) == versions
    assert world.registry.champion_version("acme") == (champion and champion.version)
    assert "2026-06-08" in world.platform.tables.facts("acme", "profiles")["as_of"]


def test_a_candidate_that_misses_a_threshold_is_rejected_with_reasons(world: World) -> None:
    world.source.histories["acme"] = company("acme", tell=0.0)
    assert world.night()["acme"].success
    assert world.decision("acme").startswith("Rejected: PR-AUC 0.")
    assert world.materialized("trained_model") == {"acme"}
    assert world.materialized("active_model") == set()
    assert world.registry.champion_version("acme") is None


def test_a_candidate_that_is_worse_than_the_champion_is_rejected(world: World) -> None:
    world.source.histories["acme"] = company("acme", records=600, fraud=90, tell=1.0)
    world.night()
    champion = world.platform.champion("acme")
    later = company("acme", records=600, fraud=90, until=TONIGHT + WEEK)
    # The holdout is as before, but what leads to it teaches the opposite.
    is_past = pl.col("outcome_id") < "o00470"
    opposite = pl.when(pl.col("verdict") == "fraud").then(pl.lit("legitimate")).otherwise(pl.lit("fraud"))
    verdict = pl.when(is_past).then(opposite).otherwise("verdict")
    world.source.histories["acme"] = with_verdicts(later, verdict)
    assert world.night(TONIGHT + WEEK)["acme"].success
    assert world.decision("acme").startswith("Rejected: ")
    assert "the champion's" in world.decision("acme")
    assert world.platform.champion("acme") == champion
    assert world.registry.champion_version("acme") == (champion and champion.version)


def test_the_whole_cycle_twice_does_nothing_twice(world: World) -> None:
    asked = world.tick(TONIGHT)["acme"]
    world.run("acme", asked)
    before = kept(world)
    world.now = TONIGHT + timedelta(hours=3)
    assert world.run("acme", asked).success
    assert kept(world) == before


def profiles_metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    [made] = result.asset_materializations_for_node("behavioural_profiles")
    return {name: value.value for name, value in made.metadata.items()}


def test_an_alias_that_was_moved_by_hand_is_put_right_and_that_is_shown(world: World) -> None:
    shown = profiles_metadata(world.night()["acme"])
    right = "The alias names the ledger's champion."
    assert (shown["active"], shown["alias"]) == ("No model is active.", right)
    del world.registry.aliases["acme", "champion"]
    shown = profiles_metadata(world.night(TONIGHT + DAY)["acme"])
    assert shown["alias"] == "The alias named no version, the ledger v1: the alias was put right."
    champion = world.platform.champion("acme")
    assert world.registry.champion_version("acme") == (champion and champion.version) == 1
    assert profiles_metadata(world.night(TONIGHT + 2 * DAY)["acme"])["alias"] == right


def test_an_override_stays_over_the_nights_and_is_shown_as_such(world: World) -> None:
    world.source.histories["acme"] = company("acme", tell=0.0)
    world.night()
    assert world.platform.champion("acme") is None
    word = stewardship.Word("Ana", "the reviewers know more")
    stewardship.override(world.platform, "acme", 1, word)
    assert world.tick(TONIGHT + DAY) == {"acme": ["behavioural_profiles"]}
    shown = profiles_metadata(world.run("acme", ["behavioural_profiles"]))
    assert shown["active"] == "Override: v1 activated by Ana: the reviewers know more."
    world.now = TONIGHT + timedelta(hours=9)
    assert world.run("acme").success
    assert world.decision("acme") == shown["active"]
    assert world.registry.champion_version("acme") == 1


def test_broken_settings_of_one_tenant_are_that_tenants_error(world: World) -> None:
    world.source.histories["beta"] = company("beta")
    world.with_platform(overrides={"tenants": {"acme": {"minimum_pr_auc": 7}}})
    results = world.night()
    assert not results["acme"].success
    assert results["beta"].success
    [event] = results["acme"].filter_events(lambda event: event.is_step_failure)
    assert "minimum_pr_auc" in str(event.step_failure_data.error)


def test_a_tenants_own_hour_and_zone_are_kept(world: World) -> None:
    world.with_platform(
        overrides={"tenants": {"acme": {"cycle_at": "03:30", "cycle_timezone": "Asia/Kolkata"}}}
    )
    start = TONIGHT + DAY - timedelta(hours=4)
    assert world.tick(start - MINUTE) == {}
    assert list(world.tick(start)) == ["acme"]
    assert world.tick(TONIGHT + DAY) == {}
