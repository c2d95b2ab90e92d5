"""The commands that start the servers of an installation: `ui`, `serve`, `health` and `migrate`.

Which servers there are is in `servers`, how they are kept running in `supervisor`.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraud_assets import terminal
from fraud_assets.domain.errors import DagsterUnreachable

if TYPE_CHECKING:
    from fraud_assets.servers import Server

Environment = Callable[[], Mapping[str, str]]

_PORTS = {"dagster": 3000, "mlflow": 5000, "code-server": 4000}
_SERVERS = ("mlflow", "code-server", "dagster", "dagster-daemon")


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", environment: Environment) -> None:
    """The commands of this module, beside the others; `environment` is the one that the servers get."""

    def command(name: str, does: Callable[..., int], text: str, *ports: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        for port in ports:
            sub.add_argument(f"--{port}-port", type=_port, default=_PORTS[port])
        sub.set_defaults(command=does, environment=environment)
        return sub

    command("ui", ui, "start Dagster and MLflow to look at them on this machine", "dagster", "mlflow")
    sub = command("serve", serve, "start all servers of production, or one of them, until Ctrl-C", *_PORTS)
    sub.add_argument("server", nargs="?", choices=_SERVERS, help="this one alone, in this very process")
    sub = command("health", health, "say whether the servers that `serve` starts are well", *_PORTS)
    sub.add_argument("server", nargs="?", choices=_SERVERS, help="this one alone")
    command("migrate", migrate, "make the databases of ledger, Dagster and MLflow, or bring them up to date")


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")


def ui(given: argparse.Namespace) -> int:
    """Runs both user interfaces until Ctrl-C; if one stops, all stop."""
    from fraud_assets import servers

    return _run([*servers.dagster(given.dagster_port), servers.mlflow(given.mlflow_port, home())], given)


def serve(given: argparse.Namespace) -> int:
    """Runs the servers of production; a single one in the place of this process, without migrating."""
    wanted = _production(given)
    if given.server is not None:
        [server] = (server for server in wanted if server.word == given.server)
        _lay_out(given)
        os.chdir(home())
        os.execve(server.command[0], server.command, os.environ)  # noqa: S606
    return _run(wanted, given)


def health(given: argparse.Namespace) -> int:
    """0 if all are well."""
    from fraud_assets import servers

    wanted = [server for server in _production(given) if given.server in {None, server.word}]
    if given.server is None:
        wanted = _here(wanted)
    _lay_out(given)
    well = {server.name: servers.is_well(server, os.environ) for server in wanted}
    for name, is_well in well.items():
        terminal.answer(f"{name}: {'well' if is_well else 'does not answer'}")
    return 0 if all(well.values()) else 1


def migrate(given: argparse.Namespace) -> int:
    """What is there stays there; safe to repeat."""
    _lay_out(given)
    _prepare_stores()
    terminal.answer("The databases are up to date.")
    return 0


def _production(given: argparse.Namespace) -> "list[Server]":
    from fraud_assets import servers

    ports = {name: vars(given)[f"{name.replace('-', '_')}_port"] for name in _PORTS}
    return servers.production(ports, home(), _bind())


def _run(wanted: "list[Server]", given: argparse.Namespace) -> int:
    from fraud_assets import servers, supervisor

    wanted = _here(wanted)
    supervisor.require_free(wanted, _bind())
    _lay_out(given)
    if any(server.word == "mlflow" for server in wanted):
        pages = f"http://{servers.HOST}:{given.mlflow_port}"
        os.environ["FRAUD_ASSETS_MLFLOW_PAGES"] = pages
        if os.environ.get("FRAUD_ASSETS_MLFLOW_URL"):
            os.environ["MLFLOW_TRACKING_URI"] = pages
    _prepare_stores()
    terminal.say(f"Logs are in {home() / 'logs'}")
    return supervisor.run(wanted, os.environ, home(), terminal.say)


def _here(wanted: "list[Server]") -> "list[Server]":
    """Without MLflow, where that is served elsewhere."""
    if elsewhere := os.environ.get("MLFLOW_TRACKING_URI"):
        terminal.say(f"MLflow is served elsewhere: {elsewhere}")
        return [server for server in wanted if server.word != "mlflow"]
    return wanted


def _lay_out(given: argparse.Namespace) -> None:
    """The environment in which the servers find their stores and each other."""
    from fraud_assets import servers
    from fraud_assets.storage.registry_database import server_url

    os.environ.update(given.environment())
    url = os.environ.get("FRAUD_ASSETS_MLFLOW_URL")
    os.environ["MLFLOW_BACKEND_STORE_URI"] = server_url(url) if url else f"sqlite:///{home()}/mlflow.db"
    if port := vars(given).get("code_server_port"):
        os.environ.setdefault("FRAUD_ASSETS_CODE_HOST", servers.HOST)
        os.environ.setdefault("FRAUD_ASSETS_CODE_PORT", str(port))


def _prepare_stores() -> None:
    """One process makes or migrates them: the first use by Dagster or MLflow breaks when two do it."""
    from fraud_assets.definitions import open_platform
    from fraud_assets.storage import registry_database

    _prepare_dagster()
    platform = open_platform()
    platform.ledger.prepare()
    if url := os.environ.get("FRAUD_ASSETS_MLFLOW_URL"):
        registry_database.prepare(registry_database.server_url(url))
    else:
        platform.registry.prepare()


def _prepare_dagster() -> None:
    """What `dagster instance migrate` does, if need be."""
    import dagster as dg
    from dagster_postgres.utils import DagsterPostgresException

    try:
        with dg.DagsterInstance.get() as instance:
            stores: Any = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
            if any(found != latest for found, latest in (store.alembic_version() for store in stores)):
                instance.upgrade(terminal.say)
    except DagsterPostgresException as error:
        raise DagsterUnreachable(
            f"expected Dagster's database to answer, got: {error.__cause__ or error}; "
            "check that it is there, and FRAUD_ASSETS_DAGSTER_URL"
        ) from error


def _bind() -> str:
    """Where servers listen. Only a container has reason to say otherwise: what it opens is told outside."""
    from fraud_assets import servers

    return os.environ.get("FRAUD_ASSETS_BIND") or servers.HOST


def home() -> Path:
    """The home folder that this process's environment names."""
    from fraud_assets.storage import platform

    return platform.home(os.environ)
