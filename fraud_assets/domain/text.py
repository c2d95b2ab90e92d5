"""How a stranger's text is shown: an id, a name, a reason, a driver's words. No Markdown."""

from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
LONGEST: Final = 300
"""Characters of one value, such as an id."""


def shown(text: str, longest: int = LONGEST) -> str:
    """`text` on one line of at most `longest` characters, with nothing in it that a terminal or a page obeys.

    Line breaks, escape sequences and marks that turn the direction of writing are written as Python does.
    """
    line = printable(text[:longest])
    return line if len(text) <= longest and len(line) <= longest else f"{line[: longest - 3]}..."


def printable(text: str) -> str:
    """As `shown`, at any length."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def cell(text: str) -> str:
    """`text` as a spreadsheet shows it, which would run it as a formula if it begins like one."""
    return f"'{text}" if text.startswith(_FORMULA) else text
