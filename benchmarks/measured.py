"""The installation's code location as a night is measured: each run tells what its CPU went into.

A run's start-up is all that its process spent until the platform was opened, just before the first step.
"""

import json
import os
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final

from dagster_shared.record import copy

from benchmarks.meter import Meter, watch
from fraud_assets import definitions
from fraud_assets.orchestration.resources import platform_resource
from fraud_assets.storage.platform import Platform

FOLDER: Final = "FRAUD_ASSETS_BENCHMARK"
"""The environment variable that names the folder where runs tell."""


def open_platform() -> Platform:
    """As a run opens it. Sensors and conditions open another one, in the code server."""
    meter = Meter("start-up")
    meter.turn_to("steps, checks and events")
    # A forked process ends without `atexit`.
    Finalize(None, _tell, (meter,), exitpriority=0)
    return watch(meter, definitions.open_platform())


def _tell(meter: Meter) -> None:
    """A line a run; short enough to be written at once."""
    with Path(os.environ[FOLDER], "runs.jsonl").open("a") as file:
        file.write(json.dumps(meter.spent) + "\n")


def told(folder: Path) -> list[dict[str, float]]:
    """What each run up to now spent, by name."""
    return [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]


defs = copy(definitions.defs, resources={"platform": platform_resource(open_platform)})
