"""Nodes of a Ray cluster on this machine, each with a loopback address of its own. No tests here."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import psutil

HEAD, WORKERS = "127.0.0.1", ("127.0.0.2", "127.0.0.3")
ADDRESS = f"http://{HEAD}:8265"
_MARK = "FRAUD_ASSETS_TESTS_NODE"


def variables() -> dict[str, str]:
    """Who does not know the token is not served; and Ray does not package the folder it is started in."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token_hex(32),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }


@dataclass(frozen=True)
class Node:
    """One that runs one thing at a time, and is known by its address."""

    address: str
    log: Path

    def is_ready(self) -> bool:
        return "Ray runtime started." in self.log.read_text(errors="replace")

    def processes(self) -> set[psutil.Process]:
        """All that runs on it: Ray's own, and the runs that Ray started."""
        marked = {process for process in psutil.process_iter() if self._owns(process)}
        # A process that gives itself a title, as Ray's do, overwrites the mark.
        return marked.union(*map(_descendants, marked))

    def executes(self, run_id: str) -> bool:
        return any(run_id in part for process in self.processes() for part in _command(process))

    def kill(self) -> None:
        """As a machine dies: all at once and without a word."""
        while running := self.processes():
            for process in running:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(running, timeout=5)

    def _owns(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.environ().get(_MARK) == self.address
        return False


@contextmanager
def node(address: str, environment: Mapping[str, str], folder: Path) -> Iterator[Node]:
    """Joins the cluster of the head, which has to be started first."""
    programs = Path(sys.executable).parent
    started = Node(address, folder / f"{address}.log")
    if address == HEAD:
        options = ["--head", "--port=6379", "--dashboard-host=127.0.0.1", "--disable-usage-stats"]
    else:
        options = [f"--address={HEAD}:6379"]
    options += [f"--node-ip-address={address}", "--num-cpus=1", "--object-store-memory=80000000"]
    options += [f"--temp-dir={folder / address}", "--block"]
    with started.log.open("wb") as log:
        process = subprocess.Popen(
            [f"{programs}/ray", "start", *options],
            # Ray starts runs by the command `dagster`: `uv run` puts it on the path.
            env={**environment, "PATH": f"{programs}:{environment['PATH']}", _MARK: address},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        started.kill()
        process.wait()


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []
