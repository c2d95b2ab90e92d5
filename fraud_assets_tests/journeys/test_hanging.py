"""A source that freezes while it is read: who reads is ended by force, and reads again once it goes on."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from fraud_assets.orchestration import launcher
from fraud_assets.storage.source import Source
from fraud_assets_tests import company_database
from fraud_assets_tests.builders import read
from fraud_assets_tests.postgres import fresh_database, postgres_server
from fraud_assets_tests.world import TONIGHT, company

YEAR = timedelta(days=365)


def rows(url: str) -> int:
    return read(Source(url), "acme", TONIGHT - YEAR, TONIGHT).attendance_event.height


def read_for_ever(url: str, told: Connection) -> None:
    while True:
        told.send(rows(url))


@contextmanager
def frozen(server: list[psutil.Process]) -> Iterator[None]:
    for process in server:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in server:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def server_of(url: str) -> list[psutil.Process]:
    """All processes of the server, which are children of the tests'."""
    port = url.rpartition(":")[2].partition("/")[0]
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if f"--port={port}" in child.cmdline():
                return [child, *child.children(recursive=True)]
    raise AssertionError(f"expected a server on port {port} among the children of process {os.getpid()}")


@pytest.mark.journey
def test_a_reader_of_a_frozen_source_is_ended_and_the_next_one_reads_all(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    with postgres_server() as server, fresh_database(server) as url:
        company_database.write(url, acme=company("acme", records=400))
        here, there = processes.Pipe()
        process = processes.Process(target=read_for_ever, args=(url, there))
        process.start()
        there.close()
        assert here.recv() == 400
        with frozen(server_of(url)):
            # What it had read before.
            while here.poll(2):
                here.recv()
            assert process.is_alive()
            os.kill(process.pid or 0, signal.SIGINT)
            process.join(2)
            # As the launcher does with who does not hear an interrupt.
            launcher._end(psutil.Process(process.pid))
            process.join()
            assert process.exitcode in {1, -signal.SIGINT, -signal.SIGKILL}
        assert rows(url) == 400
