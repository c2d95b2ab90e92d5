"""The installation of a journey; its processes and folders are gone when the journey ends."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fraud_assets_tests.journeys.installation import Installation


@pytest.fixture
def installation() -> Iterator[Installation]:
    # Not `tmp_path`: Dagster's sockets lie below, and the path of a socket may have 107 characters at most.
    with TemporaryDirectory(prefix="journey-", ignore_cleanup_errors=True) as folder:
        made = Installation(Path(folder).resolve())
        try:
            yield made
        finally:
            made.stop()
