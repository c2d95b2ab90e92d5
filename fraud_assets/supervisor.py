"""Starts servers, each when those it waits for are well, and stops all of them together."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.servers import HOST, Server, is_well

Running = dict[Server, subprocess.Popen[bytes]]


def require_free(servers: Iterable[Server], bind: str = HOST) -> None:
    """Raises InvalidSettings if a port of `servers` is taken, also by another of them."""
    with ExitStack() as probes:
        for server in servers:
            if server.port is None:
                continue
            probe = probes.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((bind, server.port))
                probe.listen()
            except OSError as error:
                raise InvalidSettings(
                    f"expected port {server.port} to be free for {server.name}: {error.strerror}; "
                    f"stop what uses it, or choose another with --{server.word}-port"
                ) from error


def run(
    servers: Iterable[Server], environment: Mapping[str, str], folder: Path, say: Callable[[str], None]
) -> int:
    """Serves until Ctrl-C or SIGTERM (returns 0), or until one of `servers` stops by itself (returns 1).

    They run in `folder`, and what they print goes to `logs` there, a file each.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    running: Running = {}
    try:
        return _serve(list(servers), environment, folder, say, running)
    except KeyboardInterrupt:
        return 0
    finally:
        stop(running.values())


def _serve(
    waiting: list[Server],
    environment: Mapping[str, str],
    folder: Path,
    say: Callable[[str], None],
    running: Running,
) -> int:
    """Until one has ended. `running` tells the caller whom to stop, whatever happens here."""
    names, well = {server.name for server in waiting}, set[str]()
    while not (ended := [server.name for server, process in running.items() if process.poll() is not None]):
        for server in [server for server in waiting if names & set(server.after) <= well]:
            say(f"Starting {server.name}")
            # An own group each: Ctrl-C reaches this process alone, which then stops them with their children.
            running[server] = start(server, environment, folder)
            waiting.remove(server)
            if not server.is_checked:
                well.add(server.name)
        for server in [server for server in running if server.name not in well]:
            if is_well(server, environment):
                well.add(server.name)
                say(f"{server.name} is ready{_place(server)}")
                if len(well) == len(running) + len(waiting):
                    say("Ctrl-C stops them.")
        time.sleep(0.3)
    say(f"{', '.join(ended)} stopped by itself, its log says why; stopping the others.")
    return 1


def _place(server: Server) -> str:
    if server.port is None:
        return ""
    return f" at {'' if server.check else 'http://'}{HOST}:{server.port}"


def start(server: Server, environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """In a group of its own, in `folder`; what it prints goes to `logs` there."""
    log = folder / "logs" / f"{server.word}.log"
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


def stop(processes: Iterable[subprocess.Popen[bytes]], patience_seconds: float = 20) -> None:
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
