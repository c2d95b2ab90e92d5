"""Starts Dagster's webserver and daemon and MLflow's server together on loopback, and stops them together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from fraud_assets.domain.errors import InvalidSettings

# Neither user interface has a login: they are for this machine alone.
HOST = "127.0.0.1"
WORKSPACE = Path(__file__).resolve().parent.parent / "workspace.yaml"


@dataclass(frozen=True)
class Server:
    """What a person calls it, the command that serves it, and its port; None: it answers nobody."""

    name: str
    command: tuple[str, ...]
    port: int | None = None


def dagster(port: int) -> list[Server]:
    """The webserver, and the daemon that runs schedules, sensors and queued runs."""
    workspace = ("-w", str(WORKSPACE))
    webserver = (
        _script("dagster-webserver"),
        *workspace,
        "-h",
        HOST,
        "-p",
        str(port),
        "--log-level",
        "warning",
    )
    daemon = (_script("dagster-daemon"), "run", *workspace, "--log-level", "warning")
    return [Server("Dagster", webserver, port), Server("Dagster daemon", daemon)]


def mlflow(port: int, home: Path) -> Server:
    """The tracking server over the embedded registry in `home`."""
    store = ("--backend-store-uri", f"sqlite:///{home}/mlflow.db")
    files = ("--artifacts-destination", f"{home}/models")
    bind = ("--host", HOST, "--port", str(port), "--workers", "1")
    return Server("MLflow", (_script("mlflow"), "server", *bind, *store, *files), port)


def _script(name: str) -> str:
    """The program of a dependency, from the environment that runs this."""
    return str(Path(sys.executable).parent / name)


def require_free(servers: Iterable[Server]) -> None:
    """Raises InvalidSettings if a port of `servers` is taken, also by another of them."""
    with ExitStack() as probes:
        for server in servers:
            if server.port is None:
                continue
            probe = probes.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, server.port))
                probe.listen()
            except OSError as error:
                raise InvalidSettings(
                    f"expected port {server.port} to be free for {server.name}: {error.strerror}; "
                    f"stop what uses it, or choose another with --{server.name.lower()}-port"
                ) from error


def run(
    servers: Iterable[Server], environment: Mapping[str, str], folder: Path, say: Callable[[str], None]
) -> int:
    """Serves until Ctrl-C or SIGTERM (returns 0), or until one of `servers` stops by itself (returns 1).

    They run in `folder`, and what they print goes to `logs` there, a file each.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    running: dict[Server, subprocess.Popen[bytes]] = {}
    try:
        for server in servers:
            say(f"Starting {server.name}")
            # An own group each: Ctrl-C reaches this process alone, which then stops them with their children.
            running[server] = _start(server, environment, folder)
        return _watch(running, say)
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(running.values())


def _start(server: Server, environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    log = folder / "logs" / f"{server.name.lower().replace(' ', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603
            server.command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _watch(running: Mapping[Server, subprocess.Popen[bytes]], say: Callable[[str], None]) -> int:
    waiting = {server.port: server.name for server in running if server.port}
    while not (ended := [server.name for server, process in running.items() if process.poll() is not None]):
        for port in [port for port in waiting if _answers(port)]:
            say(f"{waiting.pop(port)} is ready at http://{HOST}:{port}")
            if not waiting:
                say("Ctrl-C stops them.")
        time.sleep(0.3)
    say(f"{', '.join(ended)} stopped by itself, its log says why; stopping the others.")
    return 1


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _stop(processes: Iterable[subprocess.Popen[bytes]], patience_seconds: float = 20) -> None:
    """Asks each group to end, and ends by force what is left when patience is over."""
    pending = list(processes)
    for process in pending:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + patience_seconds
    for process in pending:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0, deadline - time.monotonic()))
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
