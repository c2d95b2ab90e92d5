"""A whole night of a fleet through Dagster's own daemon, on two cores: `python -m benchmarks.night`.

Source, ledger, MLflow and Dagster on one PostgreSQL server, with MLflow's server, Dagster's code server and
its daemon. Every tenant's profiles are refreshed, and a seventh of the models retrained. Beside it, as the
floor, the same night as a plain loop in one process, over a copy of all stores. Both are measured whole:
every process that takes part, servers included. Both have to retrain that seventh, and to decide the same.
With --json FILE the figures are also written there; with --require the command fails if a bar is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import dagster as dg
import psutil
import psycopg2

from benchmarks import fleet
from benchmarks.features import exponent, reader
from benchmarks.fleet import Installation
from fraud_assets import cli, cycle, mirror, servers, supervisor
from fraud_assets.definitions import build_definitions, open_platform
from fraud_assets.domain.errors import FraudAssetsError
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.storage.registry_database import server_url
from fraud_assets_tests.journeys.installation import free_port
from fraud_assets_tests.postgres import postgres_server

WEEK: Final = timedelta(days=7)
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
    if options.floor:
        print(json.dumps(plain_loop()))
        return
    sizes = sorted({options.tenants} if options.alone else {max(options.tenants // 10, 7), options.tenants})
    heads = ("tenants", "minutes", "a minute", "CPU-s each", "floor", "ratio", "peak MiB")
    print("".join(f"{head:>11}" for head in heads))
    nights = [_measured(size) for size in sizes]
    ticks = {count: _tick_seconds(count) for count in (options.tenants, MANY)}
    figures = nights[-1] | {
        "exponent": exponent([(night["tenants"], night["cpu_s"]) for night in nights]),
        "tick_seconds": ticks[options.tenants],
        f"tick_seconds_{MANY}": ticks[MANY],
        "nights": nights,
    }
    _print_split(figures)
    for count, seconds in ticks.items():
        print(f"a tick's evaluation, {count:,} tenants: {seconds:.2f} s")
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
    parser.add_argument("--floor", action="store_true", help=argparse.SUPPRESS)
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
        require_same(_decided(floor, since), _decided(night, since), count // 7)
    return _told(count, least, found)


def _decided(installation: Installation, since: datetime) -> dict[str, str]:
    """The verdicts of the night by tenant."""
    latest = installation.platform.ledger.latest_all()
    return {tenant: str(entry.verdict) for tenant, entry in latest.items() if entry.decided_at >= since}


def require_same(floor: Mapping[str, str], night: Mapping[str, str], retrained: int) -> None:
    """Raises SystemExit if one did less than the other, or not what the fleet was made for."""
    if floor != night or len(night) != retrained:
        raise SystemExit(
            f"expected the same {retrained} tenants to be decided on, got {len(floor)} in the floor and "
            f"{len(night)} in the night; other verdicts: {dict(floor.items() ^ night.items())}"
        )


def _told(count: int, floor: dict[str, Any], night: dict[str, Any]) -> dict[str, Any]:
    figures = {
        "tenants": count,
        "minutes": night["seconds"] / 60,
        "ratio_cpu_floor": night["cpu_s"] / floor["cpu_s"],
        "peak_mib": night["peak_mib"],
        "cpu_s": night["cpu_s"],
        "floor_cpu_s": floor["cpu_s"],
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


def _print_split(figures: dict[str, Any]) -> None:
    count, floor, night = figures["tenants"], figures["floor"], figures["night"]
    for name, split in (("floor's loop", in_parts(floor)), ("night's runs", in_parts(floor, night))):
        print(f"CPU-seconds a tenant, in the {name}: ", end="")
        print(", ".join(f"{part} {seconds / count:.2f}" for part, seconds in split.items()))
    for name, found in (("floor", floor), ("night", night)):
        print(f"CPU-seconds a tenant by process, {name}: ", end="")
        print(
            ", ".join(f"{process} {seconds / count:.2f}" for process, seconds in found["by_process"].items())
        )


def in_parts(floor: Mapping[str, Any], night: Mapping[str, Any] | None = None) -> dict[str, float]:
    """CPU-seconds of the floor's loop, or of the night's runs: those do the loop's work, and the rest is
    their start and Dagster's events."""
    work = {part: floor[part] for part in ("reading", "compute", "logging")}
    if night is None:
        return work
    return {"start-up": night["by_process"]["runs"] - sum(work.values()), **work}


def said(what: str) -> None:
    """A line of progress."""
    print(f"  {datetime.now(UTC):%H:%M:%S} {what}", file=sys.stderr, flush=True)


def _floor(installation: Installation) -> dict[str, Any]:
    """The plain loop in a process of its own, and what the servers did for it."""
    before = _cpu_by_process()
    command = [sys.executable, "-m", "benchmarks.night", "--floor"]
    done = subprocess.run(command, env=installation.environment, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    spent = _spent(before) | {"the loop": found["cpu_s"]}
    return found | {"cpu_s": sum(spent.values()), "by_process": spent}


def plain_loop() -> dict[str, float]:
    """The night without Dagster, in this process: its CPU-seconds, and what part of them went into what."""
    platform = open_platform()
    clock = _Clock()
    platform = replace(
        platform,
        source=clock.watch("reading", platform.source, "parts", "active_tenants"),
        tables=clock.watch("logging", platform.tables, "write", "read", "facts", "version", "prune"),
        ledger=clock.watch("logging", platform.ledger, "append", "champion", "rolled_back"),
        registry=clock.watch("logging", platform.registry, *_REGISTRY),
    )
    for tenant in platform.source.active_tenants():
        with suppress(FraudAssetsError):
            made = cycle.refresh_profiles(platform, tenant)
            mirror.champion(platform, tenant)
            damage = mirror.damage(platform, tenant)
            if cycle.retrain_due(platform, tenant, made.as_of, WEEK, damage).is_due:
                cycle.assemble_dataset(platform, tenant)
                cycle.train(platform, tenant, None)
                cycle.decide(platform, tenant, None)
    whole = time.process_time()
    return {"cpu_s": whole, **clock.spent, "compute": whole - sum(clock.spent.values())}


_REGISTRY: Final = (
    *("champion_version", "damage", "find", "register", "challenger", "challenge", "load", "annotate"),
    "set_champion",
)


class _Clock:
    """CPU-seconds that watched methods took, under the name that they were watched for."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def watch(self, name: str, store: Any, *methods: str) -> Any:
        """`store`, whose `methods` count."""
        watched = copy(store)
        self.spent.setdefault(name, 0.0)
        for method in methods:
            object.__setattr__(watched, method, self._timed(name, getattr(store, method)))
        return watched

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return method(*given, **named)
            finally:
                self.spent[name] += time.process_time() - start

        return timed


def _night(installation: Installation, count: int) -> dict[str, Any]:
    """Dagster's daemon at work, from the start of the cycle to the end of the last run."""
    start = datetime.now(UTC)
    installation.cycle_at(start + timedelta(hours=12))
    with dagster(installation) as ask:
        _until(
            "the tenants to be known", lambda: ask("SELECT count(*) FROM dynamic_partitions") == [(count,)]
        )
        _until(
            "a tick of both sensors",
            lambda: ask("SELECT 1 FROM job_ticks HAVING count(DISTINCT selector_id) = 2"),
        )
        before, start, peak = _cpu_by_process(), datetime.now(UTC), 0.0
        installation.cycle_at(start + timedelta(seconds=1))
        done = 0
        while done < count:
            time.sleep(2)
            peak = max(peak, _memory_mib())
            (done,), *_ = ask("SELECT count(*) FROM runs WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')")
        spent = _spent(before)
        statuses = dict(ask("SELECT status, count(*) FROM runs GROUP BY status"))
        (last,), *_ = ask("SELECT max(end_time) FROM runs")
    if statuses != {"SUCCESS": count}:
        raise SystemExit(f"expected {count} runs to succeed, got {statuses}")
    return {
        "cpu_s": sum(spent.values()),
        "by_process": spent,
        "seconds": last - start.timestamp(),
        "peak_mib": peak,
    }


def _tick_seconds(count: int) -> float:
    """What it takes to find out which of `count` tenants start their cycle, and which are retrained."""
    with TemporaryDirectory(prefix="tick-") as folder, postgres_server() as url:
        server = url.rpartition("/")[0]
        made = Installation("tick", Path(folder), server, "tick_source", "http://127.0.0.1:9")
        for store in fleet.STORES:
            fleet.administer(server, f"CREATE DATABASE tick_{store}")
        now = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0)
        fleet.enrol(made, count, now)
        platform = replace(made.platform, now=lambda: now)
        definitions = build_definitions(lambda: platform)
        chain = dg.AssetSelection.assets(*cycle.CYCLE_STAGES)
        with _instance(made) as instance:
            instance.add_dynamic_partitions(str(tenants.name), platform.source.active_tenants())
            cursor, asked = None, 0
            for at in (now - timedelta(minutes=1), now):
                start = time.perf_counter()
                found = dg.evaluate_automation_conditions(
                    definitions, instance, asset_selection=chain, evaluation_time=at, cursor=cursor
                )
                seconds, cursor, asked = time.perf_counter() - start, found.cursor, found.total_requested
    if asked < count:
        raise SystemExit(f"expected at least {count} partitions to be asked for, got {asked}")
    return seconds


@contextmanager
def _instance(installation: Installation) -> Iterator[dg.DagsterInstance]:
    with patch.dict(os.environ, installation.environment, clear=True):
        os.environ.update(cli.environment())
        with dg.DagsterInstance.get() as instance:
            yield instance


def _until(what: str, question: Callable[[], Any], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            raise SystemExit(f"expected {what} within {seconds:g} s")
        time.sleep(0.5)


# How it is measured


_KINDS: Final = {
    "forkserver": "runs",
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
            # What ended under the server of forks were runs.
            spent[kind] += times.children_user + times.children_system
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
def dagster(installation: Installation) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """Dagster's daemon with its code server; yields what asks its database."""
    with patch.dict(os.environ, installation.environment, clear=True):
        environment = cli.environment()
    _, daemon = servers.dagster(free_port())
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
