"""All features of all events, beside what a user would pick instead: `python -m benchmarks.features`.

Each contender runs in a process of its own on the same Parquet files and must come to the same numbers;
its seconds are those from reading the files to the last feature, imports not counted. With --json FILE
the figures are also written there, `ratio_NAME` being how many times our seconds NAME takes:

- duckdb: the SQL of a good analyst, windows with RANGE, ASOF JOIN and joins, on two threads;
- duckdb_streams: the fastest SQL that we know, rewritten as running sums, on two threads;
- pandas: groupby-rolling and merges, as pandas runs them: on one thread;
- pandas_threads: the same, its families of features two at a time;
- per_event: the queries of an application, one event at a time, from a sample of the events.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from math import isclose
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from fraud_assets.compute.sweeps import COMPILE_FROM

SMALL: Final = 10_000
"""Events of a small tenant, for which no fixed cost should be noticed."""

_MODULES: Final = {
    "duckdb": "duckdb_sql",
    "duckdb_streams": "duckdb_streams",
    "pandas": "pandas_rolling",
    "pandas_threads": "pandas_threads",
}
_SAMPLE: Final = 3_000
"""Events of the loop that asks for one at a time, a twentieth at most; others are taken to cost the same."""


def main() -> None:
    """Measures, prints a table, and writes the figures."""
    options = _options()
    if options.contender:
        print(json.dumps(_measured(options.contender, options.folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        figures = _compared(options.events, options.without, options.folder or Path(scratch))
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def reader(module: str, description: str | None) -> argparse.ArgumentParser:
    """Of the command line of a benchmark, which all can write their figures to a file."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser


def _options() -> argparse.Namespace:
    parser = reader("benchmarks.features", __doc__)
    parser.add_argument("--events", type=lambda text: int(float(text)), default=100_000, metavar="N")
    parser.add_argument("--without", nargs="*", default=[], choices=[*_MODULES, "per_event"])
    parser.add_argument("--folder", type=Path, help="where the Parquet files are made, and found again")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args()


def _compared(events: int, without: list[str], folder: Path) -> dict[str, Any]:
    sizes = sorted({max(events // 100, SMALL), max(events // 10, SMALL), max(events, SMALL)})
    print(
        f"{'contender':<22}{'events':>12}{'seconds':>10}{'events/s':>12}{'peak MiB':>10}{'ratio':>9}",
        flush=True,
    )
    first = _first_use(_tenant(folder, SMALL))
    _line("ours, nothing compiled", SMALL, first)
    if (
        sizes[-1] >= COMPILE_FROM
    ):  # a new machine compiles here, and not in one of the sizes that are compared
        _line("ours, warming up", COMPILE_FROM, _fresh("ours", _tenant(folder, COMPILE_FROM)))
    grown = [(size, _line("ours", size, _fresh("ours", _tenant(folder, size)))) for size in sizes]
    largest, ours = grown[-1]
    figures: dict[str, Any] = {
        "events": largest,
        "seconds": ours["seconds"],
        "events_per_s": largest / ours["seconds"],
        "peak_mib": ours["peak_mib"],
        "exponent": exponent([(size, each["seconds"]) for size, each in grown]),
        "first_use_s": first["seconds"],
        "floor_s": _line("floor: one read", largest, _fresh("floor", _tenant(folder, largest)), ours)[
            "seconds"
        ],
    }
    for name in (*_MODULES, "per_event"):
        if name not in without:
            found = _line(name, largest, _fresh(name, _tenant(folder, largest)), ours)
            _must_agree(name, ours["totals"], found["totals"])
            figures[f"ratio_{name}"] = found["seconds"] / ours["seconds"]
    if figures["exponent"] is not None:
        print(f"\ngrowth exponent from {sizes[0]:,} to {largest:,} events: {figures['exponent']:.2f}")
    return figures


def _tenant(folder: Path, events: int) -> Path:
    """The folder of a tenant with `events` events; made in a process of its own, if it is not there."""
    made = folder / str(events)
    if not (made / "outcome.parquet").exists():
        subprocess.run([sys.executable, "-m", "benchmarks.tenant", str(events), str(made)], check=True)
    return made


def _first_use(folder: Path) -> dict[str, Any]:
    """Ours with no compiled code kept from an earlier run."""
    with tempfile.TemporaryDirectory() as empty:
        return _fresh("ours", folder, {"NUMBA_CACHE_DIR": empty})


def _fresh(contender: str, folder: Path, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What `_measured` says in a new process."""
    command = [sys.executable, "-m", "benchmarks.features", "--contender", contender, "--folder", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def _measured(contender: str, folder: Path) -> dict[str, Any]:
    """Seconds, peak memory and totals by feature of one contender, in this process."""
    module = importlib.import_module(f"benchmarks.{_MODULES.get(contender, contender)}")
    if contender == "per_event":
        return _scaled(module, folder)
    start = time.perf_counter()
    totals = module.run(folder)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mib": _peak_mib(), "totals": totals}


def _scaled(module: Any, folder: Path) -> dict[str, Any]:
    """The seconds that a loop over all events would take, from a sample of them."""
    events = pl.scan_parquet(folder / "attendance_event.parquet").select(pl.len()).collect().item()
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "events.sqlite"
        module.prepare(folder, database)
        done, seconds = module.run(database, min(_SAMPLE, events // 20))
    return {"seconds": seconds * events / done, "peak_mib": _peak_mib(), "totals": {}}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(measured: list[tuple[int, float]]) -> float | None:
    """The slope of log cost over log size; None with a single size."""
    if len(measured) == 1:
        return None
    events, seconds = np.log(np.array(measured)).T
    return float(np.polyfit(events, seconds, 1)[0])


def _line(
    name: str, events: int, found: dict[str, Any], ours: dict[str, Any] | None = None
) -> dict[str, Any]:
    ratio = f"{found['seconds'] / ours['seconds']:9.2f}" if ours else ""
    speed = events / found["seconds"]
    print(
        f"{name:<22}{events:>12,}{found['seconds']:>10.2f}{speed:>12,.0f}{found['peak_mib']:>10,.0f}{ratio}",
        flush=True,
    )
    return found


def _must_agree(name: str, ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> None:
    """Raises SystemExit if a contender came to other numbers: it would not be a comparison."""
    wrong = {
        feature: (ours[feature], found)
        for feature, found in theirs.items()
        if ours[feature][0] != found[0] or not isclose(ours[feature][1], found[1], rel_tol=1e-9, abs_tol=1e-6)
    }
    if wrong:
        raise SystemExit(f"expected {name} to come to the same numbers as ours, got (ours, theirs): {wrong}")


if __name__ == "__main__":
    main()
