"""How the commands write to a terminal: lines, tables, JSON and a question. Nothing is decided here."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fraud_assets.domain.text import printable


def say(line: str) -> None:
    """A line for people, beside the answer."""
    print(printable(line), file=sys.stderr, flush=True)


def ask(line: str) -> str:
    """What a person types after the line; nothing if nobody does."""
    print(printable(line), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def answer(line: str) -> None:
    """A line of the answer."""
    print(printable(line))


def objects(rows: Iterable[Mapping[str, Any]]) -> None:
    """The answer for machines, one JSON object a line."""
    for row in rows:
        print(json.dumps(row))


def table(lines: Sequence[Sequence[str]], left: Iterable[int] = (0,)) -> None:
    """The answer in columns as wide as need be, the first line their heads; the last column is free.

    Columns are flush right but for those in `left`.
    """
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    for line in lines:
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=False))
        )
        answer("  ".join([*cells, line[-1]]))
