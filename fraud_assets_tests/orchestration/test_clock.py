"""The clock is set back an hour: no night runs twice, none is lost, nothing fails."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets_tests.world import QUICK, TONIGHT, World, company

pytestmark = pytest.mark.usefixtures("undrawn")

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    return World(tmp_path, instance, acme=company("acme", records=200))


def require_each_stage(asked: object) -> None:
    assert asked == {"acme": list(CYCLE_STAGES)}


def test_a_clock_that_is_set_back_behind_the_start_of_the_cycle_runs_it_once(world: World) -> None:
    require_each_stage(world.tick(TONIGHT + 10 * MINUTE))
    asked = [world.tick(TONIGHT + minutes * MINUTE) for minutes in (-50, -20, 0, 1, 30)]
    assert asked == [{}] * 5


def test_a_machine_that_was_off_while_its_clock_was_back_runs_the_cycle_once(world: World) -> None:
    require_each_stage(world.tick(TONIGHT + 10 * MINUTE))
    assert [world.tick(TONIGHT - 50 * MINUTE), world.tick(TONIGHT + 30 * MINUTE)] == [{}, {}]
    require_each_stage(world.tick(TONIGHT + 24 * HOUR))


def test_a_clock_that_was_years_ahead_does_not_stop_the_nights(world: World) -> None:
    world.tick(TONIGHT + 9000 * HOUR)
    for hours in (-2, -1):
        world.tick(TONIGHT + hours * HOUR)
    require_each_stage(world.tick(TONIGHT))
    assert world.tick(TONIGHT + HOUR) == {}


def test_a_clock_that_is_set_back_between_two_ticks_of_the_day_asks_for_nothing(world: World) -> None:
    world.tick(TONIGHT)
    assert [world.tick(TONIGHT + 8 * HOUR), world.tick(TONIGHT + 7 * HOUR)] == [{}, {}]
    require_each_stage(world.tick(TONIGHT + 24 * HOUR))


def test_a_cycle_that_is_repeated_by_a_clock_set_back_decides_nothing_twice(world: World) -> None:
    world.with_platform(overrides=QUICK)
    first = world.cycle(TONIGHT + 24 * HOUR + 10 * MINUTE)
    # Now it is before the start of that cycle again: the stages are those of the night before.
    world.cycle(TONIGHT + 23 * HOUR + 10 * MINUTE)
    again = world.cycle(TONIGHT + 24 * HOUR + 20 * MINUTE)
    decided = [each.cycle_started_at for each in world.platform.ledger.history("acme")]
    assert decided == [TONIGHT + 24 * HOUR, TONIGHT]
    champion = world.platform.ledger.champion("acme")
    assert champion is not None
    assert world.registry.champion_version("acme") == champion.model_version
    assert again.model_digest == first.model_digest
    assert len(world.registry.versions["acme"]) <= 2
