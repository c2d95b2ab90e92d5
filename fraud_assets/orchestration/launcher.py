"""Starts each run in a process of its own that is warm at birth: forked from one that holds the libraries.

Importing Dagster, MLflow and XGBoost costs more than a small tenant's whole night. What is forked does what
`dagster api execute_run` does, the command behind all of Dagster's launchers.
"""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Self

import dagster as dg
import psutil
import yaml
from dagster._core.instance import InstanceRef
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from fraud_assets.orchestration import inherited

WORKER_TAG = ".dagster/fraud_assets_worker"
"""On a run, hidden on pages by its prefix: the machine, process id and time of birth of what executes it."""

PRELOADED = (
    *("dagster._cli.api", "dagster._core.instance.factory", "dagster._core.execution.plan.active"),
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection",
    *("dagster._core.executor.in_process", "dagster._core.workspace.autodiscovery"),
    *("dagster._core.storage.local_compute_log_manager", "dagster._core.storage.sqlite_storage"),
    *("dagster._utils.test.definitions", "dagster_postgres", "upath.implementations.local"),
    *("sqlalchemy.dialects.sqlite", "psycopg2.extras", "mlflow.artifacts"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking.request_header.registry"),
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.PngImagePlugin"),
    *("xgboost", "sklearn.linear_model", "sklearn.metrics", "sklearn.compose", "sklearn.impute"),
    *("scipy.sparse", "numba", "holidays.countries"),
    *("adbc_driver_postgresql.dbapi", "adbc_driver_sqlite.dbapi", "deltalake.fs", "dataframely"),
    "fraud_assets.definitions",
    *("fraud_assets.orchestration.inherited", "fraud_assets.orchestration.instance"),
)
"""Imported once, in this order. None may start the threads of polars, which no fork takes along."""

PATIENCE_SECONDS = 20.0
"""Between an interrupt and the end by force."""

HEED_SECONDS = 10.0
"""How often a run looks whether it is to end."""

_ENDED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)

_processes = multiprocessing.get_context("forkserver")


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """A process a run on the daemon's machine, without the seconds that a new interpreter takes to import.

    Set in `dagster.yaml`. A run that outlives the daemon is known again by the next one. The next run uses
    new code of ours; new libraries are used once the daemon is started again.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None):
        self._inst_data = inst_data
        self._keeps_connections = False
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        return cls(inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        if context.job_code_origin is None:
            raise dg.DagsterInvariantViolationError(f"expected run {run.run_id} to say where its code is")
        if not self._keeps_connections:
            _keep_connections(self._instance)
            self._keeps_connections = True
        _processes.set_forkserver_preload(list(PRELOADED))
        here, there = _processes.Pipe()
        instance = _with_tables(self._instance.get_ref())
        process = _processes.Process(target=_execute, args=(there, run.run_id, instance))
        process.start()
        there.close()
        # It waits for the word, so that no run is under way that nobody could find again.
        self._instance.add_run_tags(run.run_id, {WORKER_TAG: _named(psutil.Process(process.pid))})
        here.send(run.run_id)

    def terminate(self, run_id: str) -> bool:
        """Interrupts the run, which then reports that it was canceled; by force if it does not hear.

        A run on another machine sees within seconds that it is to end.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if not _is_here(run):
            return WORKER_TAG in run.tags
        worker = _worker(run)
        if worker is None:
            return False
        worker.send_signal(signal.SIGINT)
        # Who waits in a library for a server that hangs does not hear it.
        by_force = threading.Timer(PATIENCE_SECONDS, _end, [worker])
        by_force.daemon = True
        by_force.start()
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """A run of another machine's daemon is left to that: what cannot be seen from here is not ended.

        Nor is one that has not started: the sensor that asks for those (`monitoring.py`) may be in a
        container beside the daemon's, of the same name and with other processes.
        """
        is_starting = run.status is dg.DagsterRunStatus.STARTING
        if is_starting or not _is_here(run) or _worker(run) is not None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        why = "its process is gone: it was killed, or ended by an error of a library"
        return CheckRunHealthResult(WorkerStatus.FAILED, why)


def _end(worker: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        worker.kill()


def _named(process: psutil.Process) -> str:
    return f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"


def _is_here(run: dg.DagsterRun) -> bool:
    return run.tags.get(WORKER_TAG, "").startswith(f"{socket.gethostname()} ")


def _worker(run: dg.DagsterRun) -> psutil.Process | None:
    """The process of the run, if it still runs on this machine; ids of processes are used again."""
    name = run.tags.get(WORKER_TAG)
    with suppress(psutil.NoSuchProcess, ValueError, IndexError):
        process = psutil.Process(int((name or "").split(" ")[1]))
        if _named(process) == name and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _keep_connections(instance: dg.DagsterInstance) -> None:
    """Dagster's default is a new connection a query, which costs PostgreSQL more than most of the answers.

    They are renewed after seconds, so that a server that was away is soon forgiven. SQLite knows none.
    """
    instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=5, max_overflow=20)


def _with_tables(instance: InstanceRef) -> InstanceRef:
    """As a run opens it: PostgreSQL's tables are there, and to look for them takes six connections."""
    storage = instance.storage_data
    if storage is None or storage.module_name != "dagster_postgres":
        return instance
    config = yaml.safe_dump({**storage.config_dict, "should_autocreate_tables": False})
    return instance._replace(storage_data=storage._replace(config_yaml=config))


def _execute(word: Connection, run_id: str, instance: InstanceRef) -> None:
    """In the new process: waits for the word; without one its launcher is gone, and so is the run."""
    try:
        word.recv()
    except EOFError:
        os._exit(1)
    # What was inherited is not looked through again: to collect garbage in it would copy all of its memory.
    gc.freeze()
    inherited.renew()
    from dagster._cli.api import _execute_run_command_body
    from dagster._utils.interrupts import capture_interrupts

    with capture_interrupts(), dg.DagsterInstance.from_ref(instance) as opened:
        _keep_connections(opened)
        threading.Thread(target=_heed, args=(opened, run_id), daemon=True).start()
        sys.exit(_execute_run_command_body(run_id, opened, _ignore, set_exit_code_on_failure=True))


def _heed(instance: dg.DagsterInstance, run_id: str) -> None:
    """Interrupts this very process once its run is to end: who says so may be on another machine."""
    while True:
        time.sleep(HEED_SECONDS)
        run = instance.get_run_by_id(run_id)
        if run is None or run.status in _ENDED:
            os.kill(os.getpid(), signal.SIGINT)
            return


def _ignore(_: dg.DagsterEvent) -> None:
    """The run's events are in Dagster's storage already."""
