"""Log files of servers that go on writing to them: how what they say of one tenant is taken out."""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

_SUFFIXES = {".log", ".out", ".err"}
# A record starts with its date; lines without one, such as those of a stack, belong to the record before.
_RECORD = re.compile(rb"^(?=\d{4}-\d\d-\d\d )", re.MULTILINE)


# Where an id may start: not within another; but behind an escaped character, and in a model's name.
_STARTS = r"(?:(?<![A-Za-z0-9-])|(?<=%2[0-9A-F])|(?<=\\[nrt])|(?<=attendance-fraud-))"


def mention(words: Iterable[str]) -> re.Pattern[bytes]:
    """Finds any of the ids as a whole: `acme` in `attendance-fraud-acme`, not in `acme-2`."""
    either = "|".join(re.escape(word) for word in words)
    return re.compile(rf"{_STARTS}(?:{either})(?![A-Za-z0-9-])".encode())


def blank(folder: Path, mentions: re.Pattern[bytes]) -> None:
    """Overwrites by blanks each record of the log files below `folder` that mentions one of the words.

    In place and at equal length, so that who appends meanwhile loses nothing.
    """
    for path in folder.rglob("*"):
        if path.suffix in _SUFFIXES and path.is_file() and mentions.search(content := path.read_bytes()):
            with path.open("r+b") as file:
                for position, record in _records(content):
                    if mentions.search(record):
                        file.seek(position)
                        file.write(re.sub(rb"[^\n]", b" ", record))


def _records(content: bytes) -> Iterable[tuple[int, bytes]]:
    starts = [0, *(found.start() for found in _RECORD.finditer(content)), len(content)]
    return ((start, content[start:end]) for start, end in pairwise(starts))
