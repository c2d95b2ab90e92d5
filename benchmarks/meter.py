"""What the CPU of one process went into: of the plain loop, and of each run of a night.

    reading     what the source was asked for
    logging     what tables, registry and ledger were given and asked for
    compute     a tenant's stages, without the two above

What is outside of these goes under a name of the process's own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import wraps
from typing import Any, Final

from fraud_assets import cycle, mirror
from fraud_assets.storage.platform import Platform

_STORES: Final = {"source": "reading", "tables": "logging", "registry": "logging", "ledger": "logging"}
STAGES: Final = {
    cycle: ("refresh_profiles", "retrain_due", "assemble_dataset", "train", "decide"),
    mirror: ("champion", "damage"),
}


class Meter:
    """CPU-seconds by name, from the birth of the process on. Within another, a name counts alone."""

    def __init__(self, outside: str) -> None:
        self._names, self._since = [outside], 0.0
        self._spent: dict[str, float] = {}

    @property
    def spent(self) -> dict[str, float]:
        """Up to now; the sum is all that the process has spent."""
        self._count()
        return dict(self._spent)

    def turn_to(self, outside: str) -> None:
        """From now on this is the name of what has no other."""
        self._count()
        self._names[0] = outside

    @contextmanager
    def counting(self, name: str) -> Iterator[None]:
        """What is spent within goes under `name`."""
        self._count()
        self._names.append(name)
        try:
            yield
        finally:
            self._count()
            self._names.pop()

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, which counts as `name`; if it gives one thing after the other, so does each step."""

        @wraps(function)
        def watched(*given: Any, **named: Any) -> Any:
            with self.counting(name):
                found = function(*given, **named)
            return self._each(name, found) if isinstance(found, Iterator) else found

        return watched

    def _each(self, name: str, found: Iterator[Any]) -> Iterator[Any]:
        nothing = object()
        while True:
            with self.counting(name):
                one = next(found, nothing)
            if one is nothing:
                return
            yield one

    def _count(self) -> None:
        now, name = time.process_time(), self._names[-1]
        self._spent[name] = self._spent.get(name, 0.0) + now - self._since
        self._since = now


def watch(meter: Meter, platform: Platform) -> Platform:
    """`platform`, whose stores are watched. The stages are watched from now on in the whole process."""
    for module, names in STAGES.items():
        for name in names:
            setattr(module, name, meter.watch("compute", getattr(module, name)))
    stores = {store: _watched(meter, name, getattr(platform, store)) for store, name in _STORES.items()}
    return replace(platform, **stores)


def _watched(meter: Meter, name: str, store: Any) -> Any:
    """A copy whose public methods are watched."""
    watched = copy(store)
    for method in vars(type(store)):
        if not method.startswith("_") and callable(getattr(store, method)):
            # Stores are frozen.
            object.__setattr__(watched, method, meter.watch(name, getattr(store, method)))
    return watched
