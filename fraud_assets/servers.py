"""The servers of an installation: the command of each, whom it waits for, and how to know that it is well.

`fraud-assets serve` and the services of `deploy/compose.yaml` both start what is said here.
"""

import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

# No user interface has a login: they are for this machine alone.
HOST = "127.0.0.1"
PROJECT = Path(__file__).resolve().parent.parent
WORKSPACE = PROJECT / "workspace.yaml"
"""Webserver and daemon each load the code by themselves."""
SHARED_WORKSPACE = PROJECT / "deploy" / "workspace.yaml"
"""They ask one code server, which FRAUD_ASSETS_CODE_HOST and FRAUD_ASSETS_CODE_PORT name."""
_QUIET = ("--log-level", "warning")


@dataclass(frozen=True)
class Server:
    """name     what a person calls it
    command     serves until it is told to stop
    port        where it listens; None: it answers nobody
    page        a page that answers when it is well
    check       a program that ends with 0 when it is well; in the place of the page
    after       the names of those that have to be well before it starts
    """

    name: str
    command: tuple[str, ...]
    port: int | None = None
    page: str = "/"
    check: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def is_checked(self) -> bool:
        """Whether there is a way to know that it is well; one without is well once it is started."""
        return bool(self.port or self.check)

    @property
    def word(self) -> str:
        """Its name where a name has to be one word: of a log, an option, a service."""
        return self.name.lower().replace(" ", "-")


def _script(name: str) -> str:
    """The program of a dependency, from the environment that runs this."""
    return str(Path(sys.executable).parent / name)


# The last heartbeats are kept by Dagster: a daemon that stopped is noticed after five minutes.
_HAS_A_HEARTBEAT = (
    *("env", "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE=300"),
    *(_script("dagster-daemon"), "liveness-check"),
)


def dagster(port: int, workspace: Path = WORKSPACE, bind: str = HOST) -> list[Server]:
    """The webserver, and the daemon that runs schedules, sensors and queued runs."""
    loads = ("-w", str(workspace))
    listens = ("-h", bind, "-p", str(port))
    webserver = (_script("dagster-webserver"), *loads, *listens, *_QUIET)
    daemon = (_script("dagster-daemon"), "run", *loads, *_QUIET)
    return [Server("Dagster", webserver, port, "/server_info"), Server("Dagster daemon", daemon)]


def code_server(port: int, bind: str = HOST) -> Server:
    """Loads the code once, for webserver and daemon."""
    dagster, code = _script("dagster"), ("-m", "fraud_assets.definitions", "--location-name", "fraud_assets")
    command = (dagster, "api", "grpc", *code, "-h", bind, "-p", str(port), *_QUIET)
    check = (dagster, "api", "grpc-health-check", "-h", HOST, "-p", str(port))
    return Server("Code server", command, port, check=check)


def mlflow(port: int, home: Path, bind: str = HOST) -> Server:
    """The tracking server, which serves the files in `home` too.

    Its database stands in the environment, since everybody can read a command line.
    """
    files = ("--serve-artifacts", "--artifacts-destination", f"{home}/models")
    listens = ("--host", bind, "--port", str(port), "--workers", "1")
    return Server("MLflow", (_script("mlflow"), "server", *listens, *files), port, "/health")


def production(ports: Mapping[str, int], home: Path, bind: str = HOST) -> list[Server]:
    """MLflow, the code server, the webserver and the daemon, on `ports` by `Server.word`."""
    registry = mlflow(ports["mlflow"], home, bind)
    code = code_server(ports["code-server"], bind)
    webserver, daemon = dagster(ports["dagster"], SHARED_WORKSPACE, bind)
    return [
        registry,
        code,
        Server(webserver.name, webserver.command, webserver.port, webserver.page, after=(code.name,)),
        Server(daemon.name, daemon.command, check=_HAS_A_HEARTBEAT, after=(registry.name, code.name)),
    ]


def is_well(server: Server, environment: Mapping[str, str]) -> bool:
    """Whether one that `is_checked` answers as it should."""
    if server.check:
        return (server.port is None or _listens(server.port)) and _succeeds(server.check, environment)
    return server.port is not None and _answers(server.port, server.page)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _succeeds(command: tuple[str, ...], environment: Mapping[str, str]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, env=dict(environment), capture_output=True, check=False, timeout=60)  # noqa: S603
        return done.returncode == 0
    return False


def _answers(port: int, page: str) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", page)
        return connection.getresponse().status < 400
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
