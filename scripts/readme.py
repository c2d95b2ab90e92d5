"""Prints the named command blocks of README.md, so that CI runs what the reader types.

A block is fenced with "```bash NAME". Usage: python3 scripts/readme.py NAME [NAME ...]
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(text: str) -> dict[str, str]:
    """The command blocks of `text` by name."""
    return dict(re.findall(r"^```bash (\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


def main(names: list[str]) -> int:
    """Prints the blocks; 1 if a name has none."""
    found = blocks(README.read_text(encoding="utf-8"))
    missing = [name for name in names if name not in found]
    if missing or not names:
        sys.stderr.write(f"expected names of {sorted(found)}, got {names}\n")
        return 1
    sys.stdout.write("".join(found[name] for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
