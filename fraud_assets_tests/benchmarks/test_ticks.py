import yaml

from benchmarks import measured, night, ticks
from fraud_assets import definitions, servers


def test_a_tick_with_the_history_of_a_night_asks_for_a_run_of_every_tenant() -> None:
    """It ends with SystemExit otherwise."""
    assert ticks.of_many(3) > 0


def test_what_is_measured_is_the_installation_but_for_the_platform_that_runs_open() -> None:
    theirs, ours = definitions.defs, measured.defs
    different = [
        name for name in type(theirs).__annotations__ if getattr(ours, name) != getattr(theirs, name)
    ]
    assert different == ["resources"]


def test_the_daemon_that_is_measured_loads_its_code_as_the_installation_does() -> None:
    [place] = yaml.safe_load(night.WORKSPACE.read_text())["load_from"]
    [theirs] = yaml.safe_load(servers.WORKSPACE.read_text())["load_from"]
    assert place["python_module"].pop("module_name") == measured.__name__
    assert theirs["python_module"].pop("module_name") == definitions.__name__
    assert place == theirs
