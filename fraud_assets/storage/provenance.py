"""Which code and which libraries run here, so that a model can name what made it. Decides nothing.

Git is asked where the package lies in a checkout; where there is none, or no git, the release counts.
"""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent.parent
LIBRARIES: Final = ("xgboost", "numpy", "polars", "scikit-learn")
"""What the bits of a model, or its numbers, may hang on."""


def of_code(package: Path = PACKAGE) -> dict[str, str]:
    """The release, the commit if it is known, and the versions of Python and LIBRARIES, by name."""
    found = commit(package)
    return {
        "release": metadata.version("fraud-assets"),
        **({"git_commit": found} if found else {}),
        "python": platform.python_version(),
        **{library: metadata.version(library) for library in LIBRARIES},
    }


def commit(package: Path) -> str | None:
    """The commit of the checkout that `package` is the top folder's package of, 40 hex digits.

    `-dirty` is added if anything in `package` differs from it. None: no checkout, or git does not answer.
    """
    checkout = package.parent
    # Not a folder further up: a package that was installed into somebody's checkout is none of its code.
    if not (checkout / ".git").exists():
        return None
    head = _git(checkout, "rev-parse", "--verify", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--", package.name)
    if not head or changes is None:
        return None
    return f"{head}-dirty" if changes else head


def _git(checkout: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    # A hook's environment would point git at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = [git, "--no-optional-locks", "-C", str(checkout), *arguments]
    try:
        ran = subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None
