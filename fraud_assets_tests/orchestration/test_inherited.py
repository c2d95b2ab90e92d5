"""A process that was forked from one that read our code long ago."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fraud_assets

READ = """
from fraud_assets.domain import errors
from fraud_assets.orchestration import inherited
assert errors.__file__.startswith(CHECKOUT)
"""
CHANGE = 'with open(errors.__file__, "a") as file: file.write("\\nADDED = 1\\n")'
REMOVE = "import os; os.remove(errors.__file__)"
NEW = "import fraud_assets.orchestration.partitions"
ASK = """
inherited.renew()
from fraud_assets.domain import errors as again
print(again is errors, hasattr(again, "ADDED"))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    here = Path(fraud_assets.__file__).parent
    shutil.copytree(here, tmp_path / here.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def said(checkout: Path, *steps: str) -> str:
    program = "\n".join([f"CHECKOUT = {str(checkout)!r}", READ, *steps, ASK])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("step", ["", NEW], ids=["nothing new", "a module that nobody had read before"])
def test_code_that_did_not_change_is_not_read_again(checkout: Path, step: str) -> None:
    assert said(checkout, step) == "True False\n"


def test_code_that_changed_is_read_again(checkout: Path) -> None:
    assert said(checkout, CHANGE) == "False True\n"


def test_code_that_is_gone_is_missed_as_it_would_be_in_a_new_process(checkout: Path) -> None:
    assert "ImportError: cannot import name 'errors'" in said(checkout, REMOVE)
