"""A tenant's whole chain in a process of its own, which may be killed. No tests here."""

import gc
import os
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

TENANT = "acme"
STAGES = ("profiles", "alias", "dataset", "train", "decide")
DONE = "done"


def run(home: str, now: str, told: Connection) -> None:
    """The cycle of `now`, told stage by stage. It imports what a run does, so that it stands in for one."""
    gc.freeze()
    from dataclasses import replace

    from fraud_assets import cycle, mirror
    from fraud_assets.storage.platform import Platform
    from fraud_assets_tests.fakes import draw_nothing

    draw_nothing(setattr)
    platform = replace(
        Platform.from_environment({"FRAUD_ASSETS_HOME": home}), now=lambda: datetime.fromisoformat(now)
    )
    acts = (cycle.refresh_profiles, mirror.champion, cycle.assemble_dataset)
    for stage, act in zip(STAGES[:3], acts, strict=True):
        told.send(stage)
        act(platform, TENANT)
    for stage, act in zip(STAGES[3:], (cycle.train, cycle.decide), strict=True):
        told.send(stage)
        act(platform, TENANT, None)
    told.send(DONE)
    # Nothing of this process has to be tidied up.
    os._exit(0)


def lay_out(home: Path) -> None:
    """Settings under which each night trains quickly, and whatever is measured is activated."""
    from fraud_assets_tests.journeys.installation import EASY

    lines = [f"{name} = {value}" for name, value in EASY.items()]
    Path(home, "settings.toml").write_text("\n".join(["[default]", *lines]))
