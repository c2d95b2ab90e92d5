"""A tenant's whole chain in a process of its own, which may be killed. No tests here."""

import gc
import os
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

TENANT = "acme"
STAGES = ("profiles", "alias", "dataset", "train", "decide")
DONE = "done"


def run(home: str, now: str, first: str, told: Connection) -> None:
    """The cycle of `now` from the stage `first`, told stage by stage.

    It imports what a run does, so that it stands in for one.
    """
    gc.freeze()
    from dataclasses import replace

    from fraud_assets import cycle, mirror
    from fraud_assets.storage.platform import Platform
    from fraud_assets_tests.fakes import draw_nothing

    draw_nothing(setattr)
    platform = replace(
        Platform.from_environment({"FRAUD_ASSETS_HOME": home}), now=lambda: datetime.fromisoformat(now)
    )
    acts = {
        "profiles": lambda: cycle.refresh_profiles(platform, TENANT),
        "alias": lambda: mirror.champion(platform, TENANT),
        "dataset": lambda: cycle.assemble_dataset(platform, TENANT),
        "train": lambda: cycle.train(platform, TENANT, None),
        "decide": lambda: cycle.decide(platform, TENANT, None),
    }
    for stage in STAGES[STAGES.index(first) :]:
        told.send(stage)
        acts[stage]()
    told.send(DONE)
    # Nothing of this process has to be tidied up.
    os._exit(0)


def lay_out(home: Path, **more: float) -> None:
    """Settings under which each night trains quickly, and whatever is measured is activated."""
    from fraud_assets_tests.journeys.installation import EASY

    lines = [f"{name} = {value}" for name, value in {**EASY, **more}.items()]
    Path(home, "settings.toml").write_text("\n".join(["[default]", *lines]))
