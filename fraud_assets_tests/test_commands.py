"""The commands about a tenant's model, as they are typed: what they print, and what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets import cli, commands, stewardship
from fraud_assets.stewardship import Moved, Rebuilt
from fraud_assets.storage.platform import Platform
from fraud_assets_tests.builders import NOON, entry, history, submission
from fraud_assets_tests.world import TONIGHT, World

WHY = ("--reason", "too many alarms")


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> World:
    """acme with v1 activated at noon, v2 a day later in its place, and v3 rejected."""
    made = World(tmp_path, instance, acme=history(as_read=True))
    for version, verdict in {1: "activate", 2: "activate", 3: "reject"}.items():
        digest = made.registry.register("acme", submission(f"model {version}".encode())).digest
        at = NOON.replace(day=version)
        facts = {"model_version": version, "model_digest": digest, "champion_version": version - 1 or None}
        made.platform.ledger.append(entry(decided_at=at, cycle_started_at=at, verdict=verdict, **facts))
    made.registry.set_champion("acme", 2, pr_auc=0.8)
    made.now = TONIGHT
    monkeypatch.setattr("fraud_assets.definitions.open_platform", lambda: made.platform)
    return made


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], str]]:
    """Runs a command: what it returns, the lines of its answer, and what it says beside."""

    def run(*arguments: str) -> tuple[int, list[str], str]:
        code = cli.main(arguments)
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err

    return run


Said = Callable[..., tuple[int, list[str], str]]


def test_history_has_a_line_for_each_decision_oldest_first(world: World, said: Said) -> None:
    code, lines, _ = said("history", "acme")
    assert code == 0
    assert lines[0].split() == ["decided", "verdict", "version", "before", "PR-AUC", "data", "why"]
    assert [line.split()[2:5] for line in lines[1:]] == [
        ["activate", "v1", "-"], ["activate", "v2", "v1"], ["reject", "v3", "v2"],
    ]  # fmt: skip
    assert all("1,234 events" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("at", "version"),
    [
        ("2026-03-01T12:00Z", 1),
        ("2026-03-02T11:59:59Z", 1),
        ("2026-03-02T13:00+01:00", 2),
        ("2026-09-01T00:00Z", 2),
    ],
)
def test_history_at_an_instant_is_what_was_active_then(
    world: World, said: Said, at: str, version: int
) -> None:
    code, [line], _ = said("history", "acme", "--at", at, "--json")
    told = json.loads(line)
    assert (code, told["tenant"], told["model_version"], told["is_activation"]) == (0, "acme", version, True)
    assert (told["decided_at"], told["reasons"]) == (
        f"2026-03-0{version}T12:00:00+00:00", ["PR-AUC 0.81 is at least 0.70"],
    )  # fmt: skip


def test_before_the_first_activation_nothing_was_active(world: World, said: Said) -> None:
    for more in ((), ("--json",)):
        code, lines, beside = said("history", "acme", "--at", "2026-03-01T11:59Z", *more)
        assert (code, lines) == (0, [])
        assert beside == "acme: no model was active at 2026-03-01T11:59:00+00:00.\n"


def test_a_tenant_without_decisions_is_said_to_have_none(world: World, said: Said) -> None:
    assert said("history", "beta") == (0, [], "beta: no decision is in the ledger.\n")


@pytest.mark.parametrize("at", ["2026-03-01T12:00", "noon"])
def test_an_instant_without_offset_is_one_clear_sentence(world: World, said: Said, at: str) -> None:
    code, lines, beside = said("history", "acme", "--at", at)
    assert (code, lines, beside.count("\n")) == (1, [], 1)
    assert beside.startswith("fraud-assets: expected an instant with its offset")


def test_hostile_reasons_never_reach_the_terminal(world: World, said: Said) -> None:
    stewardship.roll_back(world.platform, "acme", 1, stewardship.Word("\u202eAna", "bad \u2066 thing"))
    _, lines, _ = said("history", "acme")
    assert all(line.isprintable() for line in lines)
    assert "\\u202eAna" in lines[-1]


def test_a_roll_back_says_what_it_did_and_under_whose_name(
    world: World, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "operator")
    assert said("rollback", "acme", "1", *WHY) == (
        0, ["Rolled back from v2 to v1 by operator: too many alarms."], "",
    )  # fmt: skip
    assert said("rollback", "acme", "v2", "--by", "Ana", *WHY)[1] == [
        "Rolled back from v1 to v2 by Ana: too many alarms."
    ]
    assert world.registry.champion_version("acme") == 2


def test_a_login_that_is_not_known_has_to_be_given(
    world: World, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", unknown)
    code, lines, beside = said("rollback", "acme", "1", *WHY)
    assert (code, lines) == (1, [])
    assert "expected a name, got none" in beside


def test_an_override_and_an_adoption_say_what_they_did(world: World, said: Said) -> None:
    by = ("--by", "Ana", *WHY)
    assert said("activate", "acme", "3", *by)[1] == ["Override: v3 activated by Ana: too many alarms."]
    world.registry.aliases["acme", "champion"] = 1
    assert said("adopt", "acme", *by)[1] == [
        "Set by hand in the registry, v1 adopted by Ana: too many alarms."
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rollback", "acme", "3", "--by", "Ana", *WHY), "active before (v1, v2), got v3"),
        (("activate", "acme", "9", "--by", "Ana", *WHY), "decided on, got v9"),
        (("activate", "acme", "3", "--by", " ", *WHY), "expected a name, got none"),
        (("rollback", "../acme", "1", *WHY), "expected a tenant id"),
        (("rebuild", "acme", "9"), "no v9 of acme"),
    ],
)
def test_what_cannot_be_done_is_one_clear_sentence(
    world: World, said: Said, arguments: tuple[str, ...], words: str
) -> None:
    code, lines, beside = said(*arguments)
    assert (code, lines, beside.count("\n")) == (1, [], 1)
    assert beside.startswith("fraud-assets: ")
    assert words in beside


@pytest.mark.parametrize(("made", "code"), [("a" * 64, 0), ("b" * 64, 1)])
def test_a_rebuild_answers_by_its_code_as_well(
    world: World, said: Said, monkeypatch: pytest.MonkeyPatch, made: str, code: int
) -> None:
    def rebuilt(platform: Platform, tenant: str, version: int) -> Rebuilt:
        return Rebuilt(tenant, version, "a" * 64, made, ())

    monkeypatch.setattr(stewardship, "rebuild", rebuilt)
    found, [line], _ = said("rebuild", "acme", "2")
    assert found == code
    assert ("identical to the bit" in line) == (code == 0)


def test_every_field_of_a_decision_is_told_to_machines() -> None:
    told = commands._told(entry())
    assert set(told) == {*entry().__dataclass_fields__, "is_activation", "sentence"}
    assert json.loads(json.dumps(told))["decided_at"] == "2026-03-02T12:07:00+00:00"
    assert Moved(entry(), is_new=True).sentence == told["sentence"]
