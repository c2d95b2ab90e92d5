"""kill -9 at random instants of a chain: it leaves what is whole, and a retry or the next night heals it."""

import multiprocessing
import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from fraud_assets import stored
from fraud_assets.orchestration.launcher import PRELOADED
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.platform import Platform
from fraud_assets_tests import company_database
from fraud_assets_tests.journeys import chain
from fraud_assets_tests.journeys.chain import DONE, STAGES, TENANT
from fraud_assets_tests.world import TONIGHT, company

DAY = timedelta(days=1)
KILLS = 25
SEEDS = (1, 2, 3, 4)
"""Each a test of its own: 100 kills in all."""
BETWEEN = 8
"""After so many kills a night is left alone."""
RETRIED = 5
"""After so many kills the chain is made again in the same night from where it died, as Dagster retries."""

_processes = multiprocessing.get_context("forkserver")


@dataclass
class Home:
    """An installation of one tenant with new records every night, and how long its stages take."""

    folder: Path
    night: int = 0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return TONIGHT + self.night * DAY

    @property
    def platform(self) -> Platform:
        opened = Platform.from_environment({"FRAUD_ASSETS_HOME": str(self.folder)})
        return replace(opened, now=lambda: self.now)

    def start(self, first: str = STAGES[0]) -> tuple[ForkServerProcess, Connection]:
        """This night's chain."""
        here, there = _processes.Pipe()
        asked = (str(self.folder), self.now.isoformat(), first, there)
        process = _processes.Process(target=chain.run, args=asked)
        process.start()
        there.close()
        return process, here

    def left_alone(self) -> None:
        """A night in which nobody kills; its stages are timed."""
        self.night += 1
        process, told = self.start()
        stage, since = "", time.monotonic()
        while stage != DONE:
            stage, before, then = told.recv(), stage, since
            since = time.monotonic()
            self.stages |= {before: since - then} if before else {}
        process.join()
        assert process.exitcode == 0

    def killed(self, chance: random.Random) -> str | None:
        """The stage in which the night was killed, at an instant of the whole chain; None: it was over."""
        [stage] = chance.choices(STAGES, [self.stages[each] for each in STAGES])
        delay = chance.random() * self.stages[stage]
        self.night += 1
        process, told = self.start()
        while told.recv() != stage:
            pass
        time.sleep(delay)
        process.kill()
        process.join()
        said = [stage]
        with suppress(EOFError):
            while True:
                said.append(told.recv())
        return None if said[-1] == DONE else said[-1]

    def retried(self, stage: str) -> None:
        process, _ = self.start(stage)
        process.join()
        assert process.exitcode == 0


@pytest.fixture
def home(tmp_path: Path, migrated: Path) -> Home:
    _processes.set_forkserver_preload(list(PRELOADED))
    known = company(TENANT, records=300, fraud=45, until=TONIGHT + 60 * DAY)
    company_database.write(f"sqlite:///{tmp_path}/source.db", **{TENANT: known})
    chain.lay_out(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(migrated.read_bytes())
    made = Home(tmp_path)
    made.left_alone()
    return made


def require_whole(home: Home) -> Entry:
    """What has to hold at every instant; returns the champion."""
    platform = home.platform
    for kind in ("profiles", "training_dataset"):
        assert platform.tables.read(TENANT, kind).height > 0
    with stored.opened(platform, TENANT) as found:
        assert found.whole.records > 0
    known = platform.ledger.history(TENANT)
    decided = [(each.cycle_started_at, each.verdict) for each in known]
    assert len(set(decided)) == len(decided), "a decision was recorded twice"
    champion = platform.ledger.champion(TENANT)
    assert champion is not None
    assert platform.registry.load(TENANT, champion.model_version or 0, champion.model_digest or "")
    named = platform.registry.champion_version(TENANT)
    served = [each for each in known if each.is_activation and each.model_version == named]
    assert len(served) == 1, "the alias names what was not activated, or was activated twice"
    assert platform.registry.damage(TENANT, named or 0, served[0].model_digest or "") is None
    return champion


def require_healed(home: Home) -> None:
    """What has to hold once a night was left alone."""
    champion, platform = require_whole(home), home.platform
    assert platform.registry.champion_version(TENANT) == champion.model_version
    decided = platform.ledger.latest(TENANT)
    assert decided is not None
    assert decided.cycle_started_at == home.now
    assert platform.registry.version(TENANT, decided.model_version or 0).tags["verdict"] == decided.verdict
    versions = [each.model_version for each in platform.ledger.history(TENANT) if each.is_activation]
    assert len(set(versions)) == len(versions)


def scratch(home: Home) -> list[Path]:
    return list((home.folder / "tables" / TENANT / "scratch").iterdir())


def runs(home: Home) -> Counter[str]:
    """MLflow's runs by status."""
    with closing(sqlite3.connect(home.folder / "mlflow.db")) as connection:
        return Counter(status for (status,) in connection.execute("SELECT status FROM runs"))


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_chain_that_is_killed_at_any_instant_leaves_what_is_whole_and_a_retry_or_the_next_night_heals(
    home: Home, seed: int
) -> None:
    chance, hit = random.Random(seed), Counter[str]()  # noqa: S311
    while hit.total() < KILLS:
        stage = home.killed(chance)
        require_whole(home)
        if stage is None:
            require_healed(home)
            continue
        hit[stage] += 1
        if hit.total() % RETRIED == 0:
            home.retried(stage)
            require_healed(home)
        if hit.total() % BETWEEN == 0:
            home.left_alone()
            require_healed(home)
    assert len(hit) > len(STAGES) // 2, hit
    # A run that was killed stays as it was, at most one a kill; the next night makes its own.
    assert runs(home)["RUNNING"] <= KILLS
    assert len(scratch(home)) <= KILLS
    for folder in scratch(home):
        os.utime(folder, (0, 0))
    home.left_alone()
    require_healed(home)
    assert scratch(home) == []
