"""Ledger and alias, wherever a process dies between the two and whoever moves the alias: one champion."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_assets import cycle, mirror, stewardship
from fraud_assets.domain.errors import RegistryUnreachable
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.registry import Registry
from fraud_assets_tests.builders import entry
from fraud_assets_tests.world import QUICK, TONIGHT, World, company

pytestmark = pytest.mark.usefixtures("undrawn")

DAY, WEEK = timedelta(days=1), timedelta(days=7)
WRITES = ("register", "challenge", "append", "annotate", "set_champion")
ANA = stewardship.Word("Ana", "too many alarms")


class Death(BaseException):
    """The process is no more: nothing in it may catch this."""


@dataclass
class Fate:
    """The death comes at the write number `at`, counted from 0 over all stores, before it or right after."""

    at: int
    after: bool
    writes: int = 0

    def act(self, write: Callable[..., Any], *given: Any, **named: Any) -> Any:
        is_last, self.writes = self.writes == self.at, self.writes + 1
        if is_last and not self.after:
            raise Death
        made = write(*given, **named)
        if is_last:
            raise Death
        return made


class Mortal:
    """A store whose writes are counted by fate."""

    def __init__(self, store: object, fate: Fate) -> None:
        self._store, self._fate = store, fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return (lambda *given, **named: self._fate.act(found, *given, **named)) if name in WRITES else found


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """A tenant with a champion of a week ago and new data since."""
    made = World(tmp_path, instance, acme=company("acme", until=TONIGHT))
    made.with_platform(overrides=QUICK)
    assert made.cycle().sentence.startswith("Activated")
    made.source.histories["acme"] = company("acme", until=TONIGHT + WEEK)
    made.now = TONIGHT + WEEK
    return made


def doomed(world: World, at: int, *, after: bool, act: Callable[[], object]) -> None:
    """Runs `act` until the process dies, then opens the stores again."""
    whole = world.platform
    fate = Fate(at, after)
    world.with_platform(registry=Mortal(whole.registry, fate), ledger=Mortal(whole.ledger, fate))
    with pytest.raises(Death):
        act()
    world.platform = whole


def require_agreement(platform: Platform) -> None:
    """One champion, in the ledger as in the registry, with its file whole and the verdict on its version."""
    champion = platform.ledger.champion("acme")
    assert champion is not None
    assert champion.model_version is not None
    assert platform.registry.champion_version("acme") == champion.model_version
    assert platform.registry.damage("acme", champion.model_version, str(champion.model_digest)) is None
    noted = platform.registry.version("acme", champion.model_version).tags
    assert (noted["verdict"], noted["reason"]) == (champion.verdict, champion.sentence)


STEPS = [(0, False), (1, False), (2, False), (3, False), (3, True)]
"""Before each write, and after the last: right after one is before the next."""


@pytest.mark.parametrize(("at", "after"), STEPS)
def test_a_death_at_any_step_of_a_retrain_leaves_a_champion_and_the_same_cycle_finishes_it(
    world: World, at: int, after: bool
) -> None:
    doomed(world, at, after=after, act=lambda: world.cycle(TONIGHT + WEEK))
    between = world.platform.champion("acme")
    assert between is not None
    assert world.platform.registry.damage("acme", between.version, between.digest) is None
    world.cycle(TONIGHT + WEEK + timedelta(hours=3))
    require_agreement(world.platform)
    activated = [each.model_version for each in world.platform.ledger.history("acme") if each.is_activation]
    assert activated == [1, 2]
    assert len(world.registry.versions["acme"]) == 2


@pytest.mark.parametrize(("at", "after"), STEPS)
def test_a_death_at_any_step_of_a_retrain_is_made_up_for_by_the_next_night(
    world: World, at: int, after: bool
) -> None:
    doomed(world, at, after=after, act=lambda: world.cycle(TONIGHT + WEEK))
    world.now += DAY
    mirror.champion(world.platform, "acme")
    require_agreement(world.platform)
    is_due = cycle.retrain_due(world.platform, "acme", world.now, WEEK).is_due
    assert is_due == (
        world.platform.ledger.champion("acme") == world.platform.ledger.champion("acme", TONIGHT)
    )


@pytest.mark.parametrize(("at", "after"), STEPS)
def test_a_death_at_any_step_of_a_roll_back_is_made_up_for_by_asking_again_and_by_the_next_night(
    world: World, at: int, after: bool
) -> None:
    world.cycle(TONIGHT + WEEK)
    doomed(world, at, after=after, act=lambda: stewardship.roll_back(world.platform, "acme", 1, ANA))
    if at % 2:
        world.now += DAY
        mirror.champion(world.platform, "acme")
    else:
        stewardship.roll_back(world.platform, "acme", 1, ANA)
    champion = world.platform.ledger.champion("acme")
    assert champion is not None
    assert champion.model_version == 1
    require_agreement(world.platform)


def test_a_registry_that_is_away_leaves_the_champion_and_its_return_finishes_the_cycle(world: World) -> None:
    before = world.platform.champion("acme")
    world.registry.is_reachable = False
    for act in (
        lambda: world.cycle(TONIGHT + WEEK),
        lambda: stewardship.roll_back(world.platform, "acme", 1, ANA),
        lambda: stewardship.adopt(world.platform, "acme", ANA),
    ):
        with pytest.raises(RegistryUnreachable):
            act()
    assert world.platform.champion("acme") == before
    world.registry.is_reachable = True
    assert world.cycle(TONIGHT + WEEK).model_version == 2
    require_agreement(world.platform)


def test_an_alias_that_was_moved_by_hand_is_put_back_and_the_ledger_says_so(world: World) -> None:
    world.cycle(TONIGHT + WEEK)
    world.registry.aliases["acme", "champion"] = 1
    said = mirror.champion(world.platform, "acme", "run-9")
    assert said == "The alias named v1, the ledger v2: the alias was put right."
    require_agreement(world.platform)
    noticed = world.platform.ledger.latest("acme")
    assert noticed is not None
    assert noticed.sentence == "Put back: the alias named v1, the ledger v2."
    assert (noticed.model_version, noticed.dagster_run_id, noticed.is_activation) == (2, "run-9", False)


def test_an_alias_that_was_taken_away_by_hand_is_put_back(world: World) -> None:
    del world.registry.aliases["acme", "champion"]
    said = mirror.champion(world.platform, "acme")
    assert said == "The alias named no version, the ledger v1: the alias was put right."
    require_agreement(world.platform)


def test_an_alias_that_is_right_is_left_alone(world: World) -> None:
    before = world.platform.ledger.history("acme")
    world.with_platform(registry=Mortal(world.registry, Fate(0, after=False)))
    assert mirror.champion(world.platform, "acme") is None
    assert world.platform.ledger.history("acme") == before


def test_an_alias_without_an_activation_is_taken_away_because_no_gate_let_the_model_through(
    world: World,
) -> None:
    world.platform.ledger.append(entry("beta", verdict="reject"))
    world.registry.aliases["beta", "champion"] = 7
    said = mirror.champion(world.platform, "beta")
    assert said == "The alias named v7, the ledger no champion: the alias was taken away."
    assert world.registry.champion_version("beta") is None
    assert mirror.champion(world.platform, "beta") is None


def test_a_decision_stands_on_its_version_with_who_took_it_and_a_page_in_words(world: World) -> None:
    noted = world.platform.registry.version("acme", 1).tags
    assert noted["reason"].startswith("Activated: ")
    assert (noted["decided_by"], noted["compared_with"]) == ("the gate", "no champion")
    assert noted["rebuild"] == "fraud-assets rebuild acme 1"
    assert "**Decision.** Activated" in world.registry.cards["acme", 1]
    world.cycle(TONIGHT + WEEK)
    assert world.platform.registry.version("acme", 2).tags["compared_with"] == "v1"


@pytest.fixture
def real(tmp_path: Path, migrated: Path, instance: dg.DagsterInstance) -> Platform:
    """A platform over MLflow itself, with a candidate that is not decided on."""
    (tmp_path / "mlflow.db").write_bytes(migrated.read_bytes())
    made = World(tmp_path, instance, acme=company("acme"))
    made.with_platform(registry=Registry(f"sqlite:///{tmp_path}/mlflow.db"))
    made.now = TONIGHT
    cycle.refresh_profiles(made.platform, "acme")
    cycle.assemble_dataset(made.platform, "acme")
    cycle.train(made.platform, "acme", None)
    return made.platform


needs_mlflow = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

KILLED = """
import os, sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from fraud_assets import cycle
from fraud_assets.storage.platform import Platform
import mlflow

folder, step, now = sys.argv[1:]
real = getattr(mlflow.MlflowClient, step)

def die(self, *given, **named):
    real(self, *given, **named)
    os._exit(9)

setattr(mlflow.MlflowClient, step, die)
platform = Platform.from_environment({"FRAUD_ASSETS_HOME": folder})
cycle.decide(replace(platform, now=lambda: datetime.fromisoformat(now)), "acme", None)
"""


@needs_mlflow
@pytest.mark.journey
@pytest.mark.parametrize("step", ["log_stream", "set_registered_model_alias"])
def test_a_process_that_is_killed_between_ledger_and_alias_is_made_up_for(
    real: Platform, tmp_path: Path, step: str
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), step, TONIGHT.isoformat()]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == 9, killed.stderr
    assert real.ledger.champion("acme") is not None
    mirror.champion(real, "acme")
    require_agreement(real)
    cycle.decide(real, "acme", None)
    require_agreement(real)
    assert len(real.ledger.history("acme")) <= 2


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow further, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@needs_mlflow
def test_a_full_disk_stops_before_the_alias_and_the_next_cycle_finishes(real: Platform) -> None:
    # The ledger and the model are small enough, MLflow's database is not.
    with pytest.raises(RegistryUnreachable, match="its disk has room"), no_file_larger_than(500_000):
        cycle.decide(real, "acme", None)
    assert real.ledger.champion("acme") is not None
    assert real.registry.champion_version("acme") is None
    mirror.champion(real, "acme")
    require_agreement(real)
