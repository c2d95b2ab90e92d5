"""A whole night of a fleet through Dagster's own daemon, on two cores: `python -m benchmarks.night`.

Source, ledger, MLflow and Dagster on one PostgreSQL server, with MLflow's server, Dagster's code server and
its daemon. Every tenant's profiles are refreshed, and a seventh of the models retrained. Beside it, as the
floor, the same night as a plain loop in one process, over a copy of all stores. Both are measured whole:
every process that takes part, servers included; each run, and the loop, tell what their CPU went into. Both
have to retrain that seventh, with one new model each, and to decide the same.
With --json FILE the figures are also written there; with --require the command fails if a bar is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import psutil
import psycopg2

from benchmarks import disk, fleet, measured, ticks
from benchmarks.features import exponent, reader
from benchmarks.fleet import Installation
from fraud_assets import cli, cycle, servers, supervisor
from fraud_assets.storage.registry import model_name
from fraud_assets.storage.registry_database import server_url
from fraud_assets_tests.journeys.installation import free_port
from fraud_assets_tests.postgres import postgres_server

WORKSPACE: Final = Path(__file__).with_name("workspace.yaml")
MANY: Final = 5_000
"""Tenants for whom one tick is evaluated, without a night."""
BARS: Final = {
    "ratio_cpu_floor": 2.0,
    "minutes": 15.0,
    "exponent": 1.1,
    "tick_seconds": 2.0,
    f"tick_seconds_{MANY}": 10.0,
}
"""At most so much, on two cores, with 500 tenants."""


def main() -> None:
    """Measures, prints a table, and writes the figures."""
    options = _options()
    sizes = sorted({options.tenants} if options.alone else {max(options.tenants // 10, 7), options.tenants})
    heads = ("tenants", "minutes", "a minute", "CPU-s each", "floor", "ratio", "peak MiB")
    print("".join(f"{head:>11}" for head in heads))
    nights = [_measured(size) for size in sizes]
    said(f"a tick for {MANY} tenants")
    figures = nights[-1] | {
        "exponent": exponent([(night["tenants"], night["cpu_s"]) for night in nights]),
        f"tick_seconds_{MANY}": ticks.of_many(MANY),
        "nights": nights,
    }
    _print_cpu(figures)
    _print_disk(figures)
    print(f"the night's longest tick, with the making of its runs: {figures['longest_tick_seconds']:.2f} s")
    missed = judged(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if missed and options.require:
        raise SystemExit(f"missed: {', '.join(missed)}")


def judged(figures: Mapping[str, Any]) -> list[str]:
    """Prints each figure beside its bar; those that miss it. One that was not measured misses nothing."""
    missed = []
    for name, most in BARS.items():
        found = figures[name]
        if found is None:
            print(f"{name}: not measured, at most {most:g}")
            continue
        print(f"{name}: {found:.2f}, at most {most:g}: {'met' if found <= most else 'missed'}")
        missed += [name] if found > most else []
    return missed


def _options() -> argparse.Namespace:
    parser = reader("benchmarks.night", __doc__)
    parser.add_argument("--tenants", type=int, default=50, metavar="N")
    parser.add_argument("--alone", action="store_true", help="without the smaller night before it")
    parser.add_argument("--require", action="store_true", help="fail if a bar is missed (with 500 tenants)")
    return parser.parse_args()


def _measured(count: int) -> dict[str, Any]:
    """A fleet of `count` tenants: the floor, then the night."""
    with TemporaryDirectory(prefix="night-") as folder, postgres_server() as url:
        server = url.rpartition("/")[0]
        night = Installation("night", Path(folder, "night"), server, "night_source")
        night.home.mkdir()
        for store in fleet.STORES:
            fleet.administer(server, f"CREATE DATABASE night_{store}")
        said(f"making {count} tenants")
        with mlflow(night) as served:
            fleet.fill(served, fleet.tenants(count), datetime.now(UTC))
        floor, since = night.copied("floor"), datetime.now(UTC)
        said("the floor: a plain loop")
        with mlflow(floor) as served:
            served.cycle_at(datetime.now(UTC) - timedelta(seconds=1))
            least = _floor(served)
        said("the night")
        with mlflow(night) as served:
            found = _night(served, count)
            ticked = ticks.after_a_night(served, count)
        require_same(_done(floor, since), _done(night, since), count // 7)
    return _told(count, least, found, ticked)


def _done(installation: Installation, since: datetime) -> dict[str, tuple[str, int]]:
    """The verdict of the night, and how many model versions it made, of each tenant with one of the two."""
    query = "SELECT name, count(*) FROM model_versions WHERE creation_time >= %s GROUP BY name"
    made = dict(fleet.asked(installation.url("mlflow"), query, since.timestamp() * 1000))
    latest = installation.platform.ledger.latest_all()
    return {
        tenant: (str(entry.verdict) if entry.decided_at >= since else "none", made.get(model_name(tenant), 0))
        for tenant, entry in latest.items()
        if entry.decided_at >= since or model_name(tenant) in made
    }


def require_same(
    floor: Mapping[str, tuple[str, int]], night: Mapping[str, tuple[str, int]], retrained: int
) -> None:
    """Raises SystemExit if one did less than the other, or not what the fleet was made for: a model each.

    Whom the gate lets train nothing, because its holdout happens to have no fraud, has none.
    """
    models = sum(versions for _, versions in night.values())
    untold = [name for name, (verdict, made) in night.items() if made != (verdict != cycle.NOT_TRAINED)]
    if floor != night or len(night) != retrained or untold:
        raise SystemExit(
            f"expected the same {retrained} tenants to be decided on, with a new model each, got "
            f"{len(floor)} in the floor and {len(night)} in the night, with {models} models; "
            f"without the model of their decision: {untold}; "
            f"what differs: {sorted(floor.items() ^ night.items())}"
        )
    said(f"{models} models for {retrained} tenants whose retrain was due")


def _told(
    count: int, floor: dict[str, Any], night: dict[str, Any], ticked: dict[str, float]
) -> dict[str, Any]:
    figures = {
        "tenants": count,
        "minutes": night["seconds"] / 60,
        "ratio_cpu_floor": night["cpu_s"] / floor["cpu_s"],
        "peak_mib": night["peak_mib"],
        "cpu_s": night["cpu_s"],
        "floor_cpu_s": floor["cpu_s"],
        "tick_seconds": ticked["evaluated"],
        "longest_tick_seconds": ticked["longest"],
        "floor": floor,
        "night": night,
    }
    print(
        f"{count:>11}{figures['minutes']:>11.2f}{count / figures['minutes']:>11.0f}"
        f"{night['cpu_s'] / count:>11.2f}{floor['cpu_s'] / count:>11.2f}"
        f"{figures['ratio_cpu_floor']:>11.2f}{night['peak_mib']:>11,.0f}",
        flush=True,
    )
    return figures


def _print_cpu(figures: dict[str, Any]) -> None:
    for name in ("floor", "night"):
        found = figures[name]
        for what, spent in (("all by process", found["by_process"]), ("the work by part", found["by_part"])):
            each = {part: seconds / figures["tenants"] for part, seconds in spent.items()}
            parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in each.items())
            print(f"CPU-seconds a tenant, {name}, {what}: {parts}; together {sum(each.values()):.2f}")


def _print_disk(figures: dict[str, Any]) -> None:
    count, night = figures["tenants"], figures["night"]
    grown = disk.a_tenant(night["disk_before"], night["disk"], count)
    print(f"{'on disk after the night':<24}{'MiB':>10}{'KiB a tenant':>14}{'of it new':>11}")
    for part, size in night["disk"].items():
        print(f"{part:<24}{size / 2**20:>10,.1f}{size / count / 2**10:>14,.1f}{grown[part] / 2**10:>11,.1f}")


def said(what: str) -> None:
    """A line of progress."""
    print(f"  {datetime.now(UTC):%H:%M:%S} {what}", file=sys.stderr, flush=True)


def _floor(installation: Installation) -> dict[str, Any]:
    """The plain loop in a process of its own, and what the servers did for it."""
    before = _cpu_by_process()
    command = [sys.executable, "-m", "benchmarks.plain_loop"]
    done = subprocess.run(command, env=installation.environment, stdout=subprocess.PIPE, check=True)
    parts = json.loads(done.stdout)
    spent = _spent(before) | {"the loop": sum(parts.values())}
    return {"cpu_s": sum(spent.values()), "by_process": spent, "by_part": parts}


_SENSORS: Final = 3
"""Of the platform. Their first ticks are not part of the night."""


def _night(installation: Installation, count: int) -> dict[str, Any]:
    """Dagster's daemon at work, from the start of the cycle to the end of the last run."""
    start, folder = datetime.now(UTC), installation.home.with_name("measured")
    folder.mkdir()
    installation.cycle_at(start + timedelta(hours=12))
    with dagster(installation, folder) as ask:
        _until(
            "the tenants to be known", lambda: ask("SELECT count(*) FROM dynamic_partitions") == [(count,)]
        )
        _until(
            "a tick of each sensor",
            lambda: ask("SELECT count(DISTINCT selector_id) FROM job_ticks") == [(_SENSORS,)],
        )
        held, before, start, peak = disk.held(installation), _cpu_by_process(), datetime.now(UTC), 0.0
        installation.cycle_at(start + timedelta(seconds=1))
        done = 0
        while done < count:
            time.sleep(2)
            peak = max(peak, _memory_mib())
            (done,), *_ = ask("SELECT count(*) FROM runs WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')")
        statuses = dict(ask("SELECT status, count(*) FROM runs GROUP BY status"))
        if statuses != {"SUCCESS": count}:
            raise SystemExit(f"expected {count} runs to succeed, got {statuses}")
        _until("the processes of all runs to end", lambda: len(measured.told(folder)) == count)
        spent = _spent(before)
        (last,), *_ = ask("SELECT max(end_time) FROM runs")
    return {
        "cpu_s": sum(spent.values()),
        "by_process": spent,
        "by_part": added(measured.told(folder)),
        "seconds": last - start.timestamp(),
        "peak_mib": peak,
        "disk_before": held,
        "disk": disk.held(installation),
    }


def added(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """CPU-seconds of all runs by part; a run that did not retrain may lack some."""
    whole: defaultdict[str, float] = defaultdict(float)
    for run in runs:
        for part, seconds in run.items():
            whole[part] += seconds
    return dict(whole)


def _until(what: str, question: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            raise SystemExit(f"expected {what} within {seconds:g} s")
        time.sleep(0.5)


# How it is measured


_KINDS: Final = {
    "forkserver": "fork server",
    "dagster api grpc": "code server",
    "dagster-daemon": "daemon",
    "mlflow": "MLflow server",
    "postgres": "PostgreSQL",
}


def _processes() -> Iterator[tuple[str, psutil.Process]]:
    """What was started here and still runs, with its kind."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            yield next((kind for word, kind in _KINDS.items() if word in command), "other"), process


def _cpu_by_process() -> defaultdict[str, float]:
    """CPU-seconds up to now, of running processes and of those of their children that ended."""
    spent: defaultdict[str, float] = defaultdict(float)
    for kind, process in _processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent[kind] += times.user + times.system
            ended = "runs" if kind == "fork server" else kind
            spent[ended] += times.children_user + times.children_system
    return spent


def _spent(before: Mapping[str, float]) -> dict[str, float]:
    now = _cpu_by_process()
    return {kind: seconds - before.get(kind, 0.0) for kind, seconds in now.items()}


def _memory_mib() -> float:
    """Of all processes; what several share counts once."""
    whole = 0
    for _, process in _processes():
        with suppress(psutil.Error):
            whole += process.memory_full_info().pss
    return whole / 2**20


# The servers


@contextmanager
def mlflow(installation: Installation) -> Iterator[Installation]:
    """`installation` while MLflow's server answers for it."""
    port = free_port()
    server = servers.mlflow(port, installation.home)
    served = replace(installation, tracking=f"http://{servers.HOST}:{port}")
    environment = served.environment | {
        "MLFLOW_BACKEND_STORE_URI": server_url(installation.url("mlflow")),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with _running(server, environment, served.home):
        _until("MLflow to answer", lambda: servers.is_well(server, environment))
        yield served


@contextmanager
def dagster(installation: Installation, folder: Path) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """Dagster's daemon with its code server; yields what asks its database. Runs tell in `folder`."""
    with patch.dict(os.environ, installation.environment, clear=True):
        environment = cli.environment() | {measured.FOLDER: str(folder)}
    _, daemon = servers.dagster(free_port(), WORKSPACE)
    with (
        closing(psycopg2.connect(installation.url("dagster"))) as connection,
        _running(daemon, environment, installation.home),
    ):
        connection.autocommit = True

        def ask(query: str) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                try:
                    cursor.execute(query)
                except psycopg2.errors.UndefinedTable:
                    return []
                return cursor.fetchall()

        yield ask


@contextmanager
def _running(server: servers.Server, environment: Mapping[str, str], home: Path) -> Iterator[None]:
    process = supervisor.start(server, environment, home)
    try:
        yield
    finally:
        supervisor.stop([process], patience_seconds=30)


if __name__ == "__main__":
    main()
