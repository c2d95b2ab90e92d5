"""A run that dies at the end of any of its steps: Dagster's retry leaves what the run would have left."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from fraud_assets.compute.activation import Verdict
from fraud_assets.cycle import NOT_TRAINED
from fraud_assets.orchestration.launcher import PRELOADED, WORKER_TAG
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.storage.platform import Platform
from fraud_assets_tests import company_database
from fraud_assets_tests.fakes import draw_nothing
from fraud_assets_tests.journeys import chain
from fraud_assets_tests.journeys.chain import TENANT
from fraud_assets_tests.orchestration.test_instance import instance_in, monitor
from fraud_assets_tests.orchestration.test_launcher import long_gone
from fraud_assets_tests.world import TONIGHT, company, with_verdicts

NIGHTS = (TONIGHT, TONIGHT + timedelta(days=1))
ENDS = (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_SKIPPED)
DIED = 9

_processes = multiprocessing.get_context("forkserver")


def opened() -> Platform:
    platform = Platform.from_environment({"FRAUD_ASSETS_HOME": os.environ["FRAUD_ASSETS_HOME"]})
    return replace(platform, now=lambda: datetime.fromisoformat(os.environ["NIGHT"]))


def tenant_cycle() -> dg.JobDefinition:
    from fraud_assets.definitions import build_definitions

    return build_definitions(opened).resolve_job_def("tenant_cycle")


def execute(home: str, night: str, deadly: int | None, parent: str | None) -> None:
    """A run in a process of its own, which dies at the end of the step that `deadly` counts to."""
    os.environ |= {"FRAUD_ASSETS_HOME": home, "NIGHT": night}
    draw_nothing(setattr)
    with dagster_of(home) as instance:
        real, ends = instance.event_log_storage.store_event, []

        def store(event: dg.EventLogEntry) -> None:
            real(event)
            if event.is_dagster_event and event.get_dagster_event().event_type in ENDS:
                ends.append(event)
                if len(ends) == deadly:
                    os._exit(DIED)

        instance.event_log_storage.store_event = store
        again = dg.ReexecutionOptions.from_failure(parent, instance) if parent else None
        tags = {WORKER_TAG: long_gone(), "dagster/partition": TENANT}
        job = dg.reconstructable(tenant_cycle)
        with dg.execute_job(job, instance, tags=tags, reexecution_options=again) as result:
            os._exit(0 if result.success else 1)


def dagster_of(home: str | Path) -> dg.DagsterInstance:
    return instance_in(Path(home) / "dagster")


@dataclass(frozen=True)
class Home:
    """An installation of one tenant."""

    folder: Path

    def run(self, night: datetime, deadly: int | None = None, parent: str | None = None) -> int | None:
        """How the run's process ended."""
        told = (str(self.folder), night.isoformat(), deadly, parent)
        process = _processes.Process(target=execute, args=told)
        process.start()
        process.join()
        return process.exitcode

    def close(self) -> dg.DagsterRun:
        """What Dagster's monitoring makes of the run that died."""
        with dagster_of(self.folder) as instance:
            monitor(instance)
            [closed] = instance.get_runs(limit=1)
        return closed

    @property
    def platform(self) -> Platform:
        return Platform.from_environment({"FRAUD_ASSETS_HOME": str(self.folder)})

    def decided(self) -> list[tuple[datetime, str, int | None, str | None]]:
        return [
            (entry.cycle_started_at, entry.verdict, entry.model_version, entry.dataset_digest)
            for entry in self.platform.ledger.history(TENANT)
        ]

    def known(self) -> object:
        """What was decided, and what is served."""
        return self.decided(), self.platform.registry.champion_version(TENANT)


@pytest.fixture(params=[Verdict.ACTIVATE, Verdict.REJECT, NOT_TRAINED])
def home(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> Home:
    """One whose nights end so; the first is over."""
    _processes.set_forkserver_preload(list(PRELOADED))
    folder = tmp_path / "home"
    (folder / "dagster").mkdir(parents=True)
    records, fraud = (99, 30) if request.param == NOT_TRAINED else (300, 45)
    known = company(TENANT, records=records, fraud=fraud, until=NIGHTS[-1])
    if request.param == Verdict.REJECT:
        # Fraud that nothing tells of.
        known = with_verdicts(known, pl.col("verdict").shuffle(seed=1))
    company_database.write(f"sqlite:///{folder}/source.db", **{TENANT: known})
    chain.lay_out(folder, **{"minimum_pr_auc": 1} if request.param == Verdict.REJECT else {})
    shutil.copy(migrated, folder / "mlflow.db")
    with dagster_of(folder) as instance:
        instance.add_dynamic_partitions(str(tenants.name), [TENANT])
    made = Home(folder)
    assert made.run(NIGHTS[0]) == 0
    assert [verdict for _, verdict, *_ in made.decided()] == [request.param]
    return made


def copies(home: Home) -> Iterator[Home]:
    for number in count():
        folder = home.folder.with_name(str(number))
        shutil.copytree(home.folder, folder)
        yield Home(folder)
        shutil.rmtree(folder)


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_a_run_that_dies_at_the_end_of_any_step_is_made_good_by_its_retry(home: Home) -> None:
    made = copies(home)
    whole = next(made)
    assert whole.run(NIGHTS[1]) == 0
    expected, ends = whole.known(), []
    for deadly, again in enumerate(made, start=1):
        if again.run(NIGHTS[1], deadly) != DIED:
            break
        closed = again.close()
        ends.append(closed.status)
        if closed.status is dg.DagsterRunStatus.FAILURE:
            assert again.run(NIGHTS[1], parent=closed.run_id) == 0, deadly
        assert again.known() == expected, deadly
    assert ends == [dg.DagsterRunStatus.FAILURE] * (len(ends) - 1) + [dg.DagsterRunStatus.SUCCESS]
    assert len(ends) > 6, ends
