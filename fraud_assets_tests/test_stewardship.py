"""What a person may ask and do about the active model, and what the gate and the next night make of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets import cycle, stewardship
from fraud_assets.domain.errors import ModelDamaged, Refused, RegistryError, TableNotFound
from fraud_assets.stewardship import Word
from fraud_assets.storage.ledger import Entry
from fraud_assets_tests.builders import entry, history, submission
from fraud_assets_tests.world import TONIGHT, World, company

pytestmark = pytest.mark.usefixtures("undrawn")

DAY, WEEK = timedelta(days=1), timedelta(days=7)
ANA = Word("Ana", "too many alarms at the depot")


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """acme: v1 and v2 were activated a week apart, v3 was rejected today, v4 was never decided on."""
    made = World(tmp_path, instance, acme=history(as_read=True))
    verdicts = {1: "activate", 2: "activate", 3: "reject"}
    for version in (1, 2, 3, 4):
        candidate = made.registry.register("acme", submission(f"model {version}".encode()))
        at = TONIGHT + (version - 3) * WEEK
        facts = {"model_version": version, "model_digest": candidate.digest, "champion_version": version - 1}
        if version in verdicts:
            made.platform.ledger.append(
                entry(decided_at=at, cycle_started_at=at, verdict=verdicts[version], **facts)
            )
    made.registry.set_champion("acme", 2, pr_auc=0.8)
    made.now = TONIGHT + timedelta(hours=5)
    return made


@pytest.fixture
def trained(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """acme after two weekly cycles of its own, each with a model that was activated."""
    made = World(tmp_path, instance, acme=company("acme", records=300, until=TONIGHT))
    made.cycle()
    made.source.histories["acme"] = company("acme", records=300, until=TONIGHT + WEEK)
    made.cycle(TONIGHT + WEEK)
    return made


def active(world: World) -> tuple[int | None, int | None]:
    """The champion of the ledger and of the registry."""
    found = world.platform.ledger.champion("acme")
    return found and found.model_version, world.registry.champion_version("acme")


def newest(world: World) -> Entry:
    found = world.platform.ledger.latest("acme")
    assert found is not None
    return found


def test_a_roll_back_is_recorded_with_name_and_reason_and_moves_the_alias(world: World) -> None:
    moved = stewardship.roll_back(world.platform, "acme", 1, ANA, "run-7")
    assert active(world) == (1, 1)
    assert moved == stewardship.Moved(newest(world), is_new=True)
    assert moved.sentence == "Rolled back from v2 to v1 by Ana: too many alarms at the depot."
    found = moved.entry
    assert (found.verdict, found.decided_by, found.reasons) == ("roll back", "Ana", (ANA.reason,))
    assert (found.champion_version, found.dagster_run_id) == (2, "run-7")
    assert found.decided_at == world.now
    assert world.registry.version("acme", 1).tags["decided_by"] == "Ana"
    assert world.registry.version("acme", 2).tags["rolled_back"].endswith(moved.sentence)


def test_what_is_rolled_back_to_keeps_its_data_and_numbers(world: World) -> None:
    first = world.platform.ledger.history("acme")[0]
    found = stewardship.roll_back(world.platform, "acme", 1, ANA).entry
    kept = (
        "model_digest",
        "dataset_digest",
        "dataset_version",
        "records",
        "fraud",
        "pr_auc",
        "metrics",
        "as_of",
    )
    assert [getattr(found, name) for name in kept] == [getattr(first, name) for name in kept]


def test_the_age_of_a_model_that_was_rolled_back_to_counts_from_the_cycle_of_the_roll_back(
    world: World,
) -> None:
    stewardship.roll_back(world.platform, "acme", 1, ANA)
    champion = world.platform.champion("acme")
    assert champion is not None
    assert champion.cycle_started_at == TONIGHT
    assert not cycle.retrain_due(world.platform, "acme", TONIGHT + 6 * DAY, WEEK).is_due
    assert cycle.retrain_due(world.platform, "acme", TONIGHT + WEEK, WEEK).is_due


def test_rolling_back_to_what_is_active_says_so_and_writes_nothing(world: World) -> None:
    before = world.platform.ledger.history("acme")
    moved = stewardship.roll_back(world.platform, "acme", 2, ANA)
    assert moved.sentence.startswith("v2 is active already, nothing was written. Activated: ")
    assert world.platform.ledger.history("acme") == before


@pytest.mark.parametrize("version", [3, 4, 99])
def test_a_version_that_was_never_active_cannot_be_rolled_back_to(world: World, version: int) -> None:
    with pytest.raises(Refused, match=rf"active before \(v1, v2\), got v{version}; .*fraud-assets activate"):
        stewardship.roll_back(world.platform, "acme", version, ANA)
    assert active(world) == (2, 2)


@pytest.mark.parametrize("left", [None, b"", b"model", b"model 9"])
def test_a_damaged_version_is_refused_and_nothing_is_written(world: World, left: bytes | None) -> None:
    before = world.platform.ledger.history("acme")
    del world.registry.files["acme", 1]
    if left is not None:
        world.registry.files["acme", 1] = left
    for act in (stewardship.roll_back, stewardship.override):
        with pytest.raises(ModelDamaged, match="v1 of acme"):
            act(world.platform, "acme", 1, ANA)
    assert world.platform.ledger.history("acme") == before
    assert active(world) == (2, 2)


def test_a_model_that_was_rolled_back_from_though_its_version_was_deleted_gives_way(world: World) -> None:
    class Forgetful(type(world.registry)):
        def annotate(self, tenant: str, version: int, *given: object, **named: object) -> None:
            if version == 2:
                raise RegistryError("the model registry refused: no v2 of acme")

    world.with_platform(registry=Forgetful(**vars(world.registry)))
    stewardship.roll_back(world.platform, "acme", 1, ANA)
    assert world.platform.registry.champion_version("acme") == 1


def test_an_override_activates_what_was_rejected_and_is_shown_as_such(world: World) -> None:
    moved = stewardship.override(world.platform, "acme", 3, Word("Bo", "the depot moved."))
    assert active(world) == (3, 3)
    assert moved.sentence == "Override: v3 activated by Bo: the depot moved."
    noted = world.registry.version("acme", 3).tags
    assert (noted["verdict"], noted["decided_by"], noted["reason"]) == ("override", "Bo", moved.sentence)
    assert "Override" in world.registry.cards["acme", 3]


def test_what_was_never_decided_on_cannot_be_overridden(world: World) -> None:
    with pytest.raises(Refused, match="decided on, got v4"):
        stewardship.override(world.platform, "acme", 4, ANA)


@pytest.mark.parametrize(
    ("by", "reason"), [("", "why"), (" \n", "why"), ("Ana", ""), ("Ana", " . "), ("Ana", "\t")]
)
def test_a_name_and_a_reason_are_asked_for(by: str, reason: str) -> None:
    with pytest.raises(Refused, match="got none; say who decides and why"):
        Word(by, reason)


@pytest.mark.parametrize("text", ["a\x00b", "\x1b[31mred", "x" * 501, "\ud800"])
def test_a_reason_that_databases_and_terminals_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="expected a reason"):
        Word("Ana", text)


def test_a_reason_of_several_lines_becomes_one() -> None:
    assert Word(" Ana  B ", "first\nsecond\t third.") == Word("Ana B", "first second third")


def test_what_was_set_by_hand_is_adopted_with_a_reason(world: World) -> None:
    world.registry.aliases["acme", "champion"] = 3
    moved = stewardship.adopt(world.platform, "acme", ANA)
    assert active(world) == (3, 3)
    assert moved.sentence == "Set by hand in the registry, v3 adopted by Ana: too many alarms at the depot."
    assert newest(world).verdict == "adopt"


def test_what_the_ledger_has_already_needs_no_adoption(world: World) -> None:
    before = world.platform.ledger.history("acme")
    assert not stewardship.adopt(world.platform, "acme", ANA).is_new
    assert world.platform.ledger.history("acme") == before


@pytest.mark.parametrize("named", [None, 4])
def test_nothing_and_what_was_never_decided_on_is_not_adopted(world: World, named: int | None) -> None:
    world.registry.clear_champion("acme")
    if named:
        world.registry.aliases["acme", "champion"] = named
    with pytest.raises(Refused):
        stewardship.adopt(world.platform, "acme", ANA)


def test_history_tells_what_was_active_at_an_instant_and_why(world: World) -> None:
    platform = world.platform
    stewardship.roll_back(platform, "acme", 1, ANA)
    asked = [
        (TONIGHT - 3 * WEEK, []),
        (TONIGHT - 2 * WEEK, [1]),
        (TONIGHT - WEEK - timedelta(microseconds=1), [1]),
        (TONIGHT - WEEK, [2]),
        (TONIGHT, [2]),
        (world.now, [1]),
        (world.now + WEEK, [1]),
    ]
    for at, expected in asked:
        assert [each.model_version for each in stewardship.history(platform, "acme", at)] == expected, at
    assert [each.model_version for each in stewardship.history(platform, "acme")] == [1, 2, 3, 1]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2026-06-01T02:00:00Z", TONIGHT),
        ("2026-06-01T04:00+02:00", TONIGHT),
        ("2026-06-01 02:00:00.000000+00:00", TONIGHT),
    ],
)
def test_an_instant_is_read_with_its_offset(text: str, read: datetime) -> None:
    assert stewardship.instant(text) == read.astimezone(UTC)


@pytest.mark.parametrize("text", ["2026-06-01T02:00", "2026-06-01", "yesterday", "", "2026-13-01T00:00Z"])
def test_an_instant_without_offset_or_sense_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="expected an instant with its offset such as"):
        stewardship.instant(text)


def test_a_retrain_of_the_same_data_does_not_bring_back_what_was_rolled_back_from(trained: World) -> None:
    stewardship.roll_back(trained.platform, "acme", 1, ANA)
    decided = trained.cycle(TONIGHT + WEEK + timedelta(hours=2))
    assert decided.verdict == "reject"
    assert decided.sentence.startswith(
        "Rejected: it is the model that Ana rolled back from on 2026-06-08 02:00 UTC (too many alarms at the"
    )
    assert decided.model_version == 2
    assert active(trained) == (1, 1)


def test_a_damaged_file_does_not_bring_it_back_under_another_number_either(trained: World) -> None:
    stewardship.roll_back(trained.platform, "acme", 1, ANA)
    trained.registry.files["acme", 2] = b""
    assert trained.cycle(TONIGHT + WEEK + timedelta(hours=2)).verdict == "reject"
    assert len(trained.registry.versions["acme"]) == 3
    assert active(trained) == (1, 1)


def test_other_data_give_another_model_which_may_be_activated(trained: World) -> None:
    stewardship.roll_back(trained.platform, "acme", 1, ANA)
    trained.source.histories["acme"] = company("acme", records=310, until=TONIGHT + 2 * WEEK)
    found = trained.cycle(TONIGHT + 2 * WEEK)
    assert found.verdict == "activate", found.sentence
    assert active(trained) == (3, 3)


def test_an_override_brings_back_what_was_rolled_back_from_and_the_gate_leaves_it(trained: World) -> None:
    stewardship.roll_back(trained.platform, "acme", 1, ANA)
    trained.now += timedelta(hours=1)
    stewardship.override(trained.platform, "acme", 2, ANA)
    before = trained.platform.ledger.history("acme")
    again = trained.cycle(TONIGHT + WEEK + timedelta(hours=2))
    assert (again.verdict, again.model_version) == ("override", 2)
    assert trained.platform.ledger.history("acme") == before
    assert active(trained) == (2, 2)
    assert trained.registry.version("acme", 2).tags["verdict"] == "override"


def test_a_version_names_all_that_it_was_made_from(trained: World) -> None:
    found = trained.registry.version("acme", 2).tags
    facts = trained.platform.tables.facts("acme", "training_dataset", int(found["dataset_version"]))
    assert (found["dataset_digest"], found["as_of"]) == (facts["digest"], (TONIGHT + WEEK).isoformat())
    assert found["window_start"] == facts["window_start"]
    assert {"dataset_table", "training", "seed", "settings", "release", "python", "xgboost"} <= set(found)
    assert {"numpy", "polars", "model_digest", "features_digest", "dagster_run_id"} <= set(found)
    assert not any("/" in found[name] for name in found if name not in {"reason"})


@pytest.mark.parametrize("version", [1, 2])
def test_a_model_is_made_again_to_the_bit_though_settings_changed_since(trained: World, version: int) -> None:
    trained.with_platform(overrides={"default": {"seed": 99, "holdout_share": 0.4, "threads": 2}})
    found = stewardship.rebuild(trained.platform, "acme", version)
    assert found.is_identical
    assert found.differences == ()
    assert found.sentence == (
        f"v{version} of acme was made again, identical to the bit: SHA-256 {found.made}; "
        "code, libraries and data are the same."
    )


def tagged(world: World, version: int, **tags: str | None) -> None:
    """The version with other tags; None takes one away."""
    [*before] = world.registry.versions["acme"]
    changed = {**before[version - 1].tags, **tags}
    kept = {name: value for name, value in changed.items() if value is not None}
    before[version - 1] = replace(before[version - 1], tags=kept)
    world.registry.versions["acme"] = before


def test_a_model_of_another_seed_and_library_differs_and_that_is_said(trained: World) -> None:
    rules = trained.platform.settings("acme").model_copy(update={"seed": 8})
    tagged(trained, 2, settings=rules.model_dump_json(), xgboost="1.0.0")
    found = stewardship.rebuild(trained.platform, "acme", 2)
    assert not found.is_identical
    assert found.sentence.startswith(
        f"v2 of acme differs: SHA-256 {found.recorded} was recorded, {found.made}"
    )
    assert any(each.startswith("xgboost was 1.0.0, is ") for each in found.differences)
    assert any(each.startswith("training was ") for each in found.differences)


def test_what_the_ledger_says_of_the_bits_counts_and_not_what_an_altered_tag_says(trained: World) -> None:
    world_of = trained.registry.versions["acme"]
    world_of[1] = replace(world_of[1], digest="0" * 64)
    assert stewardship.rebuild(trained.platform, "acme", 2).is_identical


@pytest.mark.parametrize("gone", ["settings", "dataset_version"])
def test_a_version_of_an_older_release_cannot_be_made_again(trained: World, gone: str) -> None:
    tagged(trained, 1, **{gone: None})
    with pytest.raises(Refused, match=r"v1 .*older release"):
        stewardship.rebuild(trained.platform, "acme", 1)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"features_digest": "0" * 64}, Refused, "today's features.*rebuild it with its own release"),
        ({"settings": '{"of_tomorrow": 1}'}, ValueError, "of_tomorrow"),
        ({"dataset_version": "99"}, TableNotFound, "version 99 of training_dataset"),
    ],
)
def test_a_version_that_this_release_cannot_make_says_why(
    trained: World, change: dict[str, str | None], error: type[Exception], words: str
) -> None:
    tagged(trained, 1, **change)
    with pytest.raises(error, match=words):
        stewardship.rebuild(trained.platform, "acme", 1)


def test_a_version_that_is_not_there_cannot_be_made_again(trained: World) -> None:
    with pytest.raises(RegistryError, match="no v9 of acme"):
        stewardship.rebuild(trained.platform, "acme", 9)
