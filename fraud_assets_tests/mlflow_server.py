"""A real MLflow tracking server on loopback, for tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen


@contextmanager
def mlflow_server(folder: Path, database: str | None = None) -> Iterator[str]:
    """The address of a server over `database` or `folder`/mlflow.db, with the models in `folder`/files."""
    process, address = _serve(folder, database or f"sqlite:///{folder}/mlflow.db")
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=30)


def _serve(folder: Path, database: str) -> tuple[subprocess.Popen[bytes], str]:
    """Tried again, because another process may take the free port before the server does."""
    stores = [f"--backend-store-uri={database}", f"--artifacts-destination={folder}/files"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for _ in range(3):
        port = _free_port()
        command = [sys.executable, "-m", "mlflow", "server", f"--port={port}", "--workers=1", *stores]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **quiet}, cwd=folder, stderr=log, start_new_session=True
            )
        if _answers(f"http://127.0.0.1:{port}/health", process):
            return process, f"http://127.0.0.1:{port}"
    raise RuntimeError(f"expected the MLflow server to answer, got {(folder / 'log').read_text()}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    """False once the process has ended, or after a minute of silence."""
    for _ in range(600):
        try:
            with urlopen(address, timeout=5):  # noqa: S310
                return True
        except OSError:
            if process.poll() is not None:
                return False
            time.sleep(0.1)
    process.kill()
    return False
