"""The commands about a tenant's active model: `history`, `rollback`, `activate`, `adopt` and `rebuild`.

What they do is in `stewardship`; here they are read from a command line and answered.
"""

import argparse
import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fraud_assets import terminal

if TYPE_CHECKING:
    from fraud_assets.stewardship import Moved
    from fraud_assets.storage.ledger import Entry

Command = Callable[[argparse.Namespace], int]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands of this module, beside the others."""
    sub = _command(
        commands, "history", history, "print which model was active for a tenant, why, on which data"
    )
    sub.add_argument(
        "--at", metavar="INSTANT", help="the one that was active then, such as 2026-06-01T02:00Z"
    )
    sub.add_argument("--json", action="store_true", help="one JSON object a decision instead of the table")

    sub = _command(commands, "rollback", roll_back, "make an earlier version of a tenant the champion again")
    sub.add_argument("version", type=_version)
    _add_word(sub, by_is_required=False)

    sub = _command(commands, "activate", activate, "override a verdict: make a rejected version the champion")
    sub.add_argument("version", type=_version)
    _add_word(sub, by_is_required=True)

    sub = _command(commands, "adopt", adopt, "keep the champion that somebody set by hand in MLflow")
    _add_word(sub, by_is_required=True)

    sub = _command(
        commands, "rebuild", rebuild, "make a version again from its stored dataset, and compare the bits"
    )
    sub.add_argument("version", type=_version)


def _command(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    sub.add_argument("tenant")
    sub.set_defaults(command=command)
    return sub


def _add_word(sub: argparse.ArgumentParser, *, by_is_required: bool) -> None:
    sub.add_argument("--reason", required=True, help="why, in a sentence; it is kept for ever")
    whose = "who decides" if by_is_required else "who decides; you, if it is left out"
    sub.add_argument("--by", metavar="NAME", required=by_is_required, help=whose)


def _version(text: str) -> int:
    number = text.removeprefix("v")
    if number.isdecimal() and number.isascii() and 0 < int(number) < 2**31:
        return int(number)
    raise argparse.ArgumentTypeError(f"expected a version such as 3, got {text!r}")


def history(given: argparse.Namespace) -> int:
    """What the ledger says, and the ledger alone."""
    from fraud_assets import stewardship
    from fraud_assets.definitions import open_platform

    at = stewardship.instant(given.at) if given.at else None
    found = stewardship.history(open_platform(), given.tenant, at)
    if given.json:
        terminal.objects(_told(entry) for entry in found)
    elif found:
        terminal.table([_HEAD, *map(_cells, found)], left=(0, 1, 5))
    if not found:
        when = f"no model was active at {at.isoformat()}" if at else "no decision is in the ledger"
        terminal.say(f"{given.tenant}: {when}.")
    return 0


def roll_back(given: argparse.Namespace) -> int:
    """Recorded under the name of who is logged in, unless another is given."""
    from fraud_assets import stewardship
    from fraud_assets.definitions import open_platform

    word = stewardship.Word(given.by or _login(), given.reason)
    return _moved(stewardship.roll_back(open_platform(), given.tenant, given.version, word))


def activate(given: argparse.Namespace) -> int:
    """An override of the gate."""
    from fraud_assets import stewardship
    from fraud_assets.definitions import open_platform

    word = stewardship.Word(given.by, given.reason)
    return _moved(stewardship.override(open_platform(), given.tenant, given.version, word))


def adopt(given: argparse.Namespace) -> int:
    """The version that the alias names becomes the ledger's."""
    from fraud_assets import stewardship
    from fraud_assets.definitions import open_platform

    word = stewardship.Word(given.by, given.reason)
    return _moved(stewardship.adopt(open_platform(), given.tenant, word))


def rebuild(given: argparse.Namespace) -> int:
    """0 if the model is the same to the bit, else 1."""
    from fraud_assets import stewardship
    from fraud_assets.definitions import open_platform

    found = stewardship.rebuild(open_platform(), given.tenant, given.version)
    terminal.answer(found.sentence)
    return 0 if found.is_identical else 1


def _moved(moved: "Moved") -> int:
    terminal.answer(moved.sentence)
    return 0


def _login() -> str:
    """Empty if the machine does not know: then the name has to be given."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""


_HEAD = ("decided", "verdict", "version", "before", "PR-AUC", "data", "why")


def _cells(entry: "Entry") -> Sequence[str]:
    return (
        f"{entry.decided_at:%Y-%m-%d %H:%M}",
        entry.verdict,
        _named(entry.model_version),
        _named(entry.champion_version),
        f"{entry.pr_auc:.3f}" if entry.pr_auc is not None else "-",
        " ".join(_data(entry)) or "-",
        entry.sentence,
    )


def _named(version: int | None) -> str:
    return f"v{version}" if version is not None else "-"


def _data(entry: "Entry") -> Iterator[str]:
    if entry.window_start and entry.as_of:
        yield f"{entry.window_start:%Y-%m-%d} to {entry.as_of:%Y-%m-%d},"
    yield f"{entry.records:,} events,"
    if entry.dataset_version is not None:
        yield f"table version {entry.dataset_version}"


def _told(entry: "Entry") -> dict[str, Any]:
    """Every field of the decision, instants as ISO 8601 in UTC."""
    from dataclasses import asdict

    row = asdict(entry) | {"is_activation": entry.is_activation, "sentence": entry.sentence}
    return {
        name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
