"""Which servers there are: where they listen, what their commands show, and when they count as well."""

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fraud_assets import servers
from fraud_assets.servers import HOST, Server, is_well

PORTS = {"dagster": 3001, "mlflow": 5001, "code-server": 4001}


@pytest.fixture
def production(tmp_path: Path) -> dict[str, Server]:
    return {server.word: server for server in servers.production(PORTS, tmp_path)}


@contextmanager
def page(status: int) -> Iterator[int]:
    """The port of a server whose one page answers with `status`."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer((HOST, 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def checked(code: int, port: int | None = None) -> Server:
    return Server("Checked", (), port, check=(sys.executable, "-c", f"raise SystemExit({code})"))


def test_the_user_interfaces_are_served_on_loopback_alone(tmp_path: Path) -> None:
    webserver, daemon = servers.dagster(3001)
    tracking = servers.mlflow(5001, tmp_path)
    assert webserver.command[webserver.command.index("-h") + 1] == HOST == "127.0.0.1"
    assert tracking.command[tracking.command.index("--host") + 1] == HOST
    assert (webserver.port, daemon.port, tracking.port) == (3001, None, 5001)
    assert all(Path(server.command[0]).exists() for server in (webserver, daemon, tracking))


def test_production_is_served_on_loopback_and_elsewhere_only_if_told_so(
    production: dict[str, Server], tmp_path: Path
) -> None:
    assert {name: server.port for name, server in production.items()} == PORTS | {"dagster-daemon": None}
    assert all(HOST in server.command for server in production.values() if server.port)
    opened = [server for server in servers.production(PORTS, tmp_path, "0.0.0.0") if server.port]  # noqa: S104
    assert all("0.0.0.0" in server.command and HOST not in server.command for server in opened)  # noqa: S104


def test_every_server_of_production_has_a_way_to_know_that_it_is_well(production: dict[str, Server]) -> None:
    assert all(server.is_checked for server in production.values())
    pages = {name: server.page for name, server in production.items() if not server.check}
    assert pages == {"mlflow": "/health", "dagster": "/server_info"}
    assert production["code-server"].check[1:3] == ("api", "grpc-health-check")
    assert production["dagster-daemon"].check[-1] == "liveness-check"


def test_webserver_and_daemon_ask_the_code_server_and_wait_for_it(production: dict[str, Server]) -> None:
    for name in ("dagster", "dagster-daemon"):
        assert str(servers.SHARED_WORKSPACE) in production[name].command
        assert "Code server" in production[name].after
    assert servers.SHARED_WORKSPACE.exists()


def test_a_page_that_answers_is_well_and_one_with_an_error_is_not() -> None:
    with page(200) as port:
        assert is_well(Server("Page", (), port, "/health"), os.environ)
        assert not is_well(Server("Page", (), port, "/elsewhere"), os.environ)
    with page(503) as port:
        assert not is_well(Server("Page", (), port, "/health"), os.environ)
    assert not is_well(Server("Page", (), port, "/health"), os.environ)


def test_a_check_is_asked_only_when_somebody_listens() -> None:
    assert is_well(checked(0), os.environ)
    assert not is_well(checked(1), os.environ)
    with page(404) as port:
        assert is_well(checked(0, port), os.environ)
        assert not is_well(checked(1, port), os.environ)
    assert not is_well(checked(0, port), os.environ)
