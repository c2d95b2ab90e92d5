"""The commands about an installation as a whole: `offboard`, `backup` and `restore`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fraud_assets import terminal
from fraud_assets.domain.errors import Refused
from fraud_assets.serving import Environment, home

# Each store that may be elsewhere, in the order in which they have to be copied.
_STORES = {
    "FRAUD_ASSETS_DAGSTER_URL": "Dagster's runs and events",
    "FRAUD_ASSETS_LEDGER_URL": "the ledger",
    "MLFLOW_TRACKING_URI": "the model registry",
    "FRAUD_ASSETS_MLFLOW_URL": "the model registry's database",
}


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", environment: Environment) -> None:
    """The commands of this module, beside the others; `environment` says where Dagster and MLflow are."""
    sub = _command(commands, "offboard", offboard, "erase everything that is kept of a suspended tenant")
    sub.add_argument("tenant")
    sub.add_argument("--by", metavar="NAME", required=True, help="who decides")
    sub.add_argument("--reason", required=True, help="why, in a sentence without personal data; it is kept")
    sub.add_argument("--yes", action="store_true", help="do not ask to type the tenant's id again")
    sub.set_defaults(environment=environment)
    sub = _command(commands, "backup", back_up, "copy the home folder, whole, while everything goes on")
    sub.add_argument("folder", type=_folder, help="where to; it must not be there yet")
    sub = _command(commands, "restore", restore, "make the home folder from a copy that backup made")
    sub.add_argument("folder", type=_folder, help="the copy")


def _command(commands: Any, name: str, command: Callable[..., int], text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    sub.set_defaults(command=command)
    return sub


def _folder(text: str) -> Path:
    return Path(text).resolve()


def offboard(given: argparse.Namespace) -> int:
    """Asked for twice, because nothing brings it back but a copy made before."""
    os.environ.update(given.environment())
    import dagster as dg

    from fraud_assets.definitions import open_platform
    from fraud_assets.orchestration import offboarding
    from fraud_assets.stewardship import Word

    word, platform = Word(given.by, given.reason), open_platform()
    with dg.DagsterInstance.get() as instance:
        offboarding.require_possible(platform, instance, given.tenant)
        if not given.yes:
            _require_again(given.tenant)
        done = offboarding.offboard(platform, instance, given.tenant, word, home() / "logs")
    terminal.answer(done.sentence)
    for line in done.remains:
        terminal.say(line)
    return 0


def _require_again(tenant: str) -> None:
    typed = terminal.ask(f"Everything that is kept of {tenant} will be erased. Type its id again:")
    if typed != tenant:
        raise Refused(f"expected {tenant} to be typed again, got {typed!r:.80}: nothing was erased")


def back_up(given: argparse.Namespace) -> int:
    """What lies elsewhere is named, because it is not in the copy."""
    from fraud_assets.storage import backup

    backup.back_up(home(), given.folder)
    terminal.answer(f"{home()} was copied to {given.folder}.")
    for variable, store in _STORES.items():
        url = os.environ.get(variable)
        if url and not url.startswith(f"sqlite:///{home()}/"):
            terminal.say(f"Not in it: {store}, which lies where {variable} says; copy it with its own tools.")
    return 0


def restore(given: argparse.Namespace) -> int:
    """Into FRAUD_ASSETS_HOME, which need not be the folder that was copied."""
    from fraud_assets.storage import backup

    backup.restore(given.folder, home())
    terminal.answer(f"{home()} was made from {given.folder}.")
    return 0
