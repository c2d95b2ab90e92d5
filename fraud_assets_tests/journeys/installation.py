"""An installation in folders of its own, used as people use it: by commands. No tests here."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from secrets import randbelow
from typing import TypeVar
from unittest.mock import patch

import psutil
import pytest

from fraud_assets import cli
from fraud_assets.demo import database
from fraud_assets.demo.tenants import TENANTS
from fraud_assets.storage.platform import Platform
from fraud_assets_tests.journeys import account

Answer = TypeVar("Answer")

HOME = "its hömé"
"""A folder as people name it."""

# Nothing is searched for, and whatever is measured is activated, so that a decision does not hang on luck.
EASY = {
    "search_seconds": 0,
    "bootstrap_resamples": 100,
    "minimum_pr_auc": 0,
    "minimum_precision_at_target_recall": 0,
    "maximum_false_positive_rate": 1,
    "minimum_holdout_fraud": 1,
    "pr_auc_low_margin": 1,
    "maximum_luck": 1,
    "rival_confidence": 0,
    "slice_collapse_share": 0,
    "slice_maximum_loss": 1,
}


@dataclass
class Installation:
    """`home` is the installation's; the person's home folder, temporary and current folder stay empty.

    `variables` are environment variables on top. Everything lies in `folder`.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    _started: list[tuple[subprocess.Popen[bytes], Path]] = field(default_factory=list)
    _killed: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in (HOME, "person", "tmp", "here", "logs"):
            (self.folder / name).mkdir()

    @property
    def home(self) -> Path:
        return self.folder / HOME

    @property
    def environment(self) -> dict[str, str]:
        """What a person has set before the first command; nothing of the tests' own environment."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "person"),
            "TMPDIR": str(self.folder / "tmp"),
            "FRAUD_ASSETS_HOME": str(self.home),
            **self.variables,
        }

    @cached_property
    def platform(self) -> Platform:
        """The stores that the commands write."""
        return Platform.from_environment(self.environment)

    def create_company(self, guards: Mapping[str, int], url: str | None = None) -> None:
        """The demo's tenants: those in `guards` with that many guards, the others suspended and tiny.

        `url` is the source's under a role that may write, if the installation's own may not.
        """
        tenants = [
            replace(tenant, guards=guards[tenant.id], is_active=True)
            if tenant.id in guards
            else replace(tenant, guards=4, days=30, is_active=False)
            for tenant in TENANTS
        ]
        database.create(url or self.platform.source.url, datetime.now(UTC), tenants=tenants)

    def cycle_at(self, start: datetime, **more: object) -> None:
        """Sets when the daily cycle starts, at once and whole; `more` are settings as TOML has them."""
        values = {"cycle_at": f'"{start.astimezone(UTC):%H:%M:%S}"', **EASY, **more}
        unfinished = self.home / "settings.unfinished"
        unfinished.write_text("[default]\n" + "\n".join(f"{key} = {value}" for key, value in values.items()))
        unfinished.replace(self.home / "settings.toml")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        return subprocess.run(
            _command(arguments),
            env=self.environment,
            cwd=self.folder / "here",
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def rows(self, *arguments: str) -> tuple[list[dict[str, object]], str]:
        """What a command prints with --json, a row a tenant, and what it says on the way."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def start_ui(self) -> tuple[subprocess.Popen[bytes], int, int]:
        """Both user interfaces, ready, and their ports: Dagster's and MLflow's."""
        dagster, mlflow = free_port(), free_port()
        ports = ("--dagster-port", str(dagster), "--mlflow-port", str(mlflow))
        process = self.start(_command(("ui", *ports)), self.environment)
        ready = [
            f"{name} is ready at http://127.0.0.1:{port}"
            for name, port in {"Dagster": dagster, "MLflow": mlflow}.items()
        ]
        self.wait_for("both to be ready", lambda: all(line in self.said() for line in ready))
        return process, dagster, mlflow

    def start_servers(self) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
        """The servers of production, all of them well, and their ports by name."""
        ports = {name: free_port() for name in ("dagster", "mlflow", "code-server")}
        process = self.start(_command(("serve", *port_options(ports))), self.environment)
        self.wait_for("all servers to be ready", lambda: "Ctrl-C stops them." in self.said())
        return process, ports

    def serve(self, server: str, ports: Mapping[str, int]) -> subprocess.Popen[bytes]:
        """One server of production alone."""
        return self.start(_command(("serve", server, *port_options(ports))), self.environment)

    def dagster_environment(self) -> dict[str, str]:
        """The environment that `fraud-assets ui` makes for Dagster's processes; lays out Dagster's home."""
        with patch.dict(os.environ, self.environment, clear=True):
            return cli.environment()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        path = self.folder / "logs" / str(len(self._started))
        with path.open("wb") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder / "here",
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append((process, path))
        return process

    def kill(self, process: subprocess.Popen[bytes], *, with_children: bool = True) -> None:
        """Ends by force one that was started; that it is gone is no surprise from here on."""
        (os.killpg if with_children else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        self._killed.append(process)

    def said(self) -> str:
        """All output of the started processes."""
        return "".join(log.read_text(errors="replace") for _, log in self._started)

    def told(self) -> str:
        """All that helps to find out why a journey failed."""
        said = [account.of_process(process.args, log) for process, log in self._started]
        return "\n".join([account.of_runs(self.dagster_environment()), *said])

    def wait_for(self, what: str, question: Callable[[], Answer | None], seconds: float = 300) -> Answer:
        """The first answer that is true. Fails when it is late, or when a started process has ended."""
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            left = [process for process, _ in self._started if process not in self._killed]
            ended = [process.args for process in left if process.poll() not in {None, 0}]
            if ended or time.monotonic() > deadline:
                why = f"ended: {ended}" if ended else f"waited {seconds:g} s"
                pytest.fail(f"expected {what}; {why}\n{self.told()}")
            time.sleep(0.2)
        return answer

    def processes(self) -> list[psutil.Process]:
        """All that runs in this installation, whoever its parent is."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def listening(self) -> set[tuple[str, int]]:
        """Where its processes listen: address and port."""
        connections = [found for each in self.processes() for found in each.net_connections("inet")]
        return {
            (found.laddr.ip, found.laddr.port) for found in connections if found.status == psutil.CONN_LISTEN
        }

    def _owns(self, process: psutil.Process) -> bool:
        # A process that is gone or of another user is none of ours.
        with suppress(psutil.Error):
            return process.environ().get("FRAUD_ASSETS_HOME") == str(self.home)
        return False

    def strays(self) -> Iterator[Path]:
        """What was written outside the installation's home."""
        for name in ("person", "tmp", "here"):
            yield from (self.folder / name).rglob("*")

    def stop(self) -> None:
        """Ends by force whatever still runs."""
        while running := self.processes():
            for process in running:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(running, timeout=5)
        for process, _ in self._started:
            process.wait()


def free_port() -> int:
    """A port that no outgoing connection is given by chance: those lie above."""
    while True:
        port = 20_000 + randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def port_options(ports: Mapping[str, int]) -> list[str]:
    """As the commands take them."""
    return [f"--{name}-port={port}" for name, port in ports.items()]


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "fraud_assets.cli", *arguments]
