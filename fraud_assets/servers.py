"""Starts the Dagster webserver and daemon and the MLflow server together on loopback, and stops them together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from fraud_assets.domain.errors import InvalidSettings

# Neither user interface has a login: they are for this machine alone.
HOST = "127.0.0.1"
WORKSPACE = Path(__file__).resolve().parent.parent / "workspace.yaml"


@dataclass(frozen=True)
class Server:
    """A user interface: what a person calls it, its port, and the command that serves it."""

    name: str
    port: int
    command: Sequence[str]


def dagster(port: int) -> Server:
    """The webserver, the daemon and one code server for both."""
    arguments = ["dev", "-w", str(WORKSPACE), "-h", HOST, "-p", str(port), "--log-level", "warning"]
    return Server("Dagster", port, [sys.executable, "-m", "dagster", *arguments])


def mlflow(port: int, home: Path) -> Server:
    """The tracking server over the embedded registry in `home`."""
    store = [
        "--backend-store-uri",
        f"sqlite:///{home}/mlflow.db",
        "--artifacts-destination",
        f"{home}/models",
    ]
    return Server(
        "MLflow",
        port,
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            HOST,
            "--port",
            str(port),
            "--workers",
            "1",
            *store,
        ],
    )


def run(servers: Iterable[Server], environment: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Serves until Ctrl-C or SIGTERM (returns 0), or until one of the servers stops by itself (returns 1).

    Raises InvalidSettings if a port is taken.
    """
    wanted = list(servers)
    for server in wanted:
        _require_free(server)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running: dict[Server, subprocess.Popen[bytes]] = {}
    try:
        for server in wanted:
            say(f"Starting {server.name}")
            # An own group each: Ctrl-C reaches this process alone, which then stops them with their children.
            running[server] = subprocess.Popen(server.command, env=dict(environment), start_new_session=True)  # noqa: S603
        return _watch(running, say)
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(running.values())


def _watch(running: Mapping[Server, subprocess.Popen[bytes]], say: Callable[[str], None]) -> int:
    waiting = list(running)
    while not (ended := [server.name for server, process in running.items() if process.poll() is not None]):
        for server in [server for server in waiting if _answers(server.port)]:
            waiting.remove(server)
            last = "" if waiting else "   (Ctrl-C stops all)"
            say(f"{server.name} is ready at http://{HOST}:{server.port}{last}")
        time.sleep(0.3)
    say(f"{', '.join(ended)} stopped by itself; stopping the others.")
    return 1


def _require_free(server: Server) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, server.port))
        except OSError as error:
            raise InvalidSettings(
                f"expected port {server.port} to be free for {server.name}: {error.strerror}; "
                f"stop what uses it, or choose another with --{server.name.lower()}-port"
            ) from error


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def _stop(processes: Iterable[subprocess.Popen[bytes]], patience_seconds: float = 20) -> None:
    """Asks each group to end, and ends by force what is left when patience is over."""
    pending = list(processes)
    for process in pending:
        _signal_group(process, signal.SIGINT)
    deadline = time.monotonic() + patience_seconds
    for process in pending:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
