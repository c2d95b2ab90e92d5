"""Servers that live and die together, with tiny programs in the place of the real ones."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fraud_assets import supervisor
from fraud_assets.domain.errors import InvalidSettings
from fraud_assets.servers import HOST, Server

WAIT = "import time; time.sleep(60)"
# It leaves a child of its own behind and tells its number.
PARENT = f"""
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {WAIT!r}])
pathlib.Path("child.new").write_text(str(child.pid))
pathlib.Path("child.new").rename("child")
child.wait()
"""
STUBBORN = """
import pathlib, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("ready").touch()
time.sleep(60)
"""
ANSWER = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]))
        self.end_headers()
    def log_message(self, *said):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""
UNTIL = "import pathlib, time\nwhile not pathlib.Path({file!r}).exists(): time.sleep(0.01)"
# What `fraud-assets ui` does, with the parent as the one server.
RUN = f"""
import os, pathlib, sys
from fraud_assets import supervisor
from fraud_assets.servers import Server
parent = Server("Parent", (sys.executable, "-c", {PARENT!r}))
sys.exit(supervisor.run([parent], os.environ, pathlib.Path(sys.argv[1]), print))
"""


def program(name: str, text: str, *arguments: str, port: int | None = None) -> Server:
    return Server(name, (sys.executable, "-c", text, *arguments), port)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def run(folder: Path, *wanted: Server) -> tuple[int, list[str]]:
    said: list[str] = []
    return supervisor.run(wanted, os.environ, folder, said.append), said


def wait_for(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("expected it to become so within half a minute")


def is_alive(number: int) -> bool:
    """A zombie, which only its parent can bury, is not alive."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def require_the_end_of_the_child(folder: Path) -> None:
    number = int((folder / "child").read_text())
    wait_for(lambda: not is_alive(number))


def test_what_a_server_prints_is_kept_in_its_log(tmp_path: Path) -> None:
    run(tmp_path, program("Two words", "import sys; print('out'); print('err', file=sys.stderr)"))
    assert sorted((tmp_path / "logs" / "two-words.log").read_text().split()) == ["err", "out"]


def test_two_servers_cannot_have_one_port(free: int) -> None:
    with pytest.raises(InvalidSettings, match=f"expected port {free} to be free for MLflow"):
        supervisor.require_free([program("Dagster", WAIT, port=free), program("MLflow", WAIT, port=free)])


def test_a_taken_port_is_refused_with_the_name_of_who_wants_it(taken: int, free: int) -> None:
    supervisor.require_free([program("Dagster", WAIT, port=free), program("Daemon", WAIT)])
    with pytest.raises(
        InvalidSettings, match=f"expected port {taken} to be free for MLflow: .*--mlflow-port"
    ):
        supervisor.require_free([program("Dagster", WAIT, port=free), program("MLflow", WAIT, port=taken)])


@pytest.mark.parametrize("status", [0, 3])
def test_one_that_ends_stops_the_others_and_that_is_a_failure(tmp_path: Path, status: int) -> None:
    brief = program("Brief", f"{UNTIL.format(file='child')}\nraise SystemExit({status})")
    code, said = run(tmp_path, program("Parent", PARENT), brief)
    assert code == 1
    assert said == [
        "Starting Parent",
        "Starting Brief",
        "Brief stopped by itself, its log says why; stopping the others.",
    ]
    require_the_end_of_the_child(tmp_path)


def test_the_children_of_one_that_ends_by_itself_end_too(tmp_path: Path) -> None:
    assert run(tmp_path, program("Parent", PARENT.replace("child.wait()", "")))[0] == 1
    require_the_end_of_the_child(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_termination_stop_all_with_their_children(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "child").exists)
        process.send_signal(number)
        assert process.wait(30) == 0
    finally:
        process.kill()
    require_the_end_of_the_child(tmp_path)


def test_one_that_does_not_listen_is_ended_by_force(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], cwd=tmp_path, start_new_session=True)
    wait_for((tmp_path / "ready").exists)
    supervisor.stop([process], patience_seconds=0.2)
    assert process.returncode == -signal.SIGKILL


def test_a_program_that_cannot_be_started_stops_those_that_were(tmp_path: Path) -> None:
    def say(line: str) -> None:
        if line == "Starting Missing":
            wait_for((tmp_path / "child").exists)

    missing = Server("Missing", (str(tmp_path / "no-such-program"),))
    with pytest.raises(FileNotFoundError):
        supervisor.run([program("Parent", PARENT), missing], os.environ, tmp_path, say)
    require_the_end_of_the_child(tmp_path)


def test_the_address_is_said_once_it_answers(tmp_path: Path, free: int) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line == "Ctrl-C stops them.":
            (tmp_path / "heard").touch()

    page = program("Page", ANSWER, str(free), "200", port=free)
    supervisor.run([page, program("Brief", UNTIL.format(file="heard"))], os.environ, tmp_path, say)
    assert said[2:4] == [f"Page is ready at http://{HOST}:{free}", "Ctrl-C stops them."]


def test_servers_get_the_environment_that_is_handed_in(tmp_path: Path) -> None:
    writes = "import os, pathlib; pathlib.Path('seen').write_text(os.environ['ONLY_HERE'])"
    supervisor.run([program("Writes", writes)], {"ONLY_HERE": "yes"}, tmp_path, lambda _: None)
    assert (tmp_path / "seen").read_text() == "yes"
