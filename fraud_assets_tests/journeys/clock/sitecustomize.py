"""Python imports this at its start where this folder is on its path: the process follows a clock in a file.

The file, named by FRAUD_ASSETS_TESTS_CLOCK, says by how many seconds the clock is ahead of the true one. It
is read again and again, so that the clock is set while the process lives, as an operating system sets it.
What counts the seconds since the machine was started goes on as it was. gRPC's core, in C, holds deadlines
against the true clock: a server that starts while the two differ is not reached.
"""

import os
import threading
import time
from pathlib import Path

import time_machine


def follow(file: Path) -> None:
    ahead = [float(file.read_text())]
    clock = time_machine.travel(time.time() + ahead[0]).start()

    def watch() -> None:
        while True:
            said = float(file.read_text())
            clock.shift(said - ahead[0])
            ahead[0] = said
            # A wait that does not ask the clock that is set here.
            threading.Event().wait(0.05)

    def start() -> None:
        threading.Thread(target=watch, daemon=True).start()

    start()
    os.register_at_fork(after_in_child=start)


if found := os.environ.get("FRAUD_ASSETS_TESTS_CLOCK"):
    follow(Path(found))
