"""The command line: `fraud-assets demo` and `status`; those about one tenant's model are in `commands`,
those that start servers in `serving`, those about a whole installation in `operations`.

Imports that cost seconds stand in the functions that need them.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fraud_assets import commands as about_models
from fraud_assets import operations, serving, terminal
from fraud_assets.domain.errors import FraudAssetsError, InvalidSettings, TableDamaged, TableNotFound
from fraud_assets.serving import home

if TYPE_CHECKING:
    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo

    from fraud_assets.storage.platform import Platform

PROJECT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 on success, 1 on an error that has a plain sentence, 2 on wrong usage."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.command(given))
    except FraudAssetsError as error:
        terminal.say(f"fraud-assets: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fraud-assets", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, command, text in (
        ("demo", demo, "make the demo company, run every tenant's cycle, and print what was decided"),
        ("status", status, "print what was decided last for each tenant"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="one JSON object a tenant instead of the table")
        sub.set_defaults(command=command)
    about_models.add_to(commands)
    serving.add_to(commands, environment)
    operations.add_to(commands, environment)
    return parser


def demo(given: argparse.Namespace) -> int:
    """Makes the demo company's database, then runs each active tenant's cycle in this process."""
    from fraud_assets.definitions import open_platform
    from fraud_assets.demo import database
    from fraud_assets.domain.settings import Settings

    platform = open_platform()
    terminal.say(f"Everything is kept in {home()}")
    # Up to the start of the day's cycle, so that everybody who tries it on one day sees the same.
    until = Settings().latest_cycle_start(platform.now())
    database.create(platform.source.url, until, on_progress=terminal.say)
    _run_cycles(platform)
    return _report(platform, as_json=given.json)


def _run_cycles(platform: "Platform") -> None:
    os.environ.update(environment())
    import dagster as dg

    from fraud_assets.definitions import build_definitions
    from fraud_assets.orchestration.partitions import tenants

    job = build_definitions(lambda: platform).resolve_job_def("tenant_cycle")
    active = platform.source.active_tenants()
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(tenants.name), active)
        for position, tenant in enumerate(active, start=1):
            terminal.say(f"[{position}/{len(active)}] {tenant}")
            try:
                _run_cycle(platform, tenant, job, instance)
            except FraudAssetsError as error:
                terminal.say(f"  failed: {error}")


def _run_cycle(
    platform: "Platform", tenant: str, job: "dg.JobDefinition", instance: "dg.DagsterInstance"
) -> None:
    """Runs what is due. A stage that fails is said, and ends the tenant's cycle."""
    import dagster as dg

    from fraud_assets import cycle, mirror
    from fraud_assets.orchestration.assets.model import fail_window
    from fraud_assets.storage.ledger import NOTES

    start = platform.cycle_start(tenant)
    last = platform.ledger.latest(tenant)
    if last and last.cycle_started_at == start and last.verdict not in NOTES:
        terminal.say(f"  nothing to do: decided for the cycle of {start:%Y-%m-%d %H:%M} UTC. {last.sentence}")
        return
    due = cycle.retrain_due(platform, tenant, start, fail_window(), mirror.damage(platform, tenant))
    terminal.say(f"  {due.reason}")
    stages = cycle.CYCLE_STAGES
    result = job.execute_in_process(
        partition_key=tenant,
        instance=instance,
        asset_selection=[dg.AssetKey(stage) for stage in (stages if due.is_due else stages[:1])],
        run_config={"loggers": {"progress": {}}},
        raise_on_error=False,
    )
    for event in result.filter_events(lambda event: event.is_step_failure):
        terminal.say(f"  {event.step_key} failed: {_cause(event.step_failure_data.error)}")


def _cause(error: "SerializableErrorInfo | None") -> str:
    """What was raised first; Dagster wraps it."""
    while error and error.cause:
        error = error.cause
    return error.message.strip() if error else "see the run in Dagster"


def status(given: argparse.Namespace) -> int:
    """Prints what the ledger says of each tenant of the source."""
    from fraud_assets.definitions import open_platform

    return _report(open_platform(), as_json=given.json)


def _report(platform: "Platform", *, as_json: bool) -> int:
    rows = list(_rows(platform))
    if as_json:
        terminal.objects(rows)
        return 0
    _print_table(rows, platform.now())
    terminal.answer("")
    terminal.answer("To look at it, start both user interfaces with: uv run fraud-assets ui")
    return 0


def _rows(platform: "Platform") -> Iterator[dict[str, Any]]:
    found = platform.source.tenants()
    if found.left_out:
        terminal.say(found.left_out)
    tenants = found.valid.select("tenant_id", "is_active")
    latest, champions = platform.ledger.latest_all(), platform.ledger.champions()
    for tenant, is_active in tenants.iter_rows():
        last, champion = latest.get(tenant), champions.get(tenant)
        decided = last.sentence if last else "No decision yet."
        yield {
            "tenant": tenant,
            "events": _events(platform, tenant),
            "records": last.records if last else None,
            "fraud": last.fraud if last else None,
            "decision": decided if is_active else "Suspended: not run.",
            "model_version": champion.model_version if champion else None,
            "pr_auc": champion.pr_auc if champion else None,
            "activated_at": champion.decided_at.isoformat() if champion else None,
        }


def _events(platform: "Platform", tenant: str) -> int | None:
    try:
        return int(platform.tables.facts(tenant, "training_dataset")["events"])
    except (TableNotFound, TableDamaged):
        return None


def _print_table(rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    head = ("tenant", "events", "records", "fraud", "model", "PR-AUC", "age", "decision")
    lines = [head] + [
        (
            row["tenant"],
            _number(row["events"]),
            _number(row["records"]),
            _number(row["fraud"]),
            f"v{row['model_version']}" if row["model_version"] else "-",
            f"{row['pr_auc']:.3f}" if row["pr_auc"] is not None else "-",
            _age(row["activated_at"], now),
            row["decision"],
        )
        for row in rows
    ]
    terminal.table(lines)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _age(activated_at: str | None, now: datetime) -> str:
    if activated_at is None:
        return "-"
    hours = (now - datetime.fromisoformat(activated_at)).total_seconds() / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def environment() -> dict[str, str]:
    """The environment in which Dagster and MLflow find this installation; lays out Dagster's home folder.

    FRAUD_ASSETS_DAGSTER_URL puts Dagster's runs, events and schedules on PostgreSQL, FRAUD_ASSETS_RAY_ADDRESS
    spreads runs over a Ray cluster.
    """
    root = home()
    dagster_home = root / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    dagster_url = os.environ.get("FRAUD_ASSETS_DAGSTER_URL")
    instance = PROJECT / _instance()
    if not instance.exists():
        raise InvalidSettings(f"expected {instance}; run fraud-assets from a checkout of the project")
    _copy(instance, dagster_home / "dagster.yaml")
    return {
        **os.environ,
        **({"FRAUD_ASSETS_DAGSTER_URL": _with_psycopg2(dagster_url)} if dagster_url else {}),
        "FRAUD_ASSETS_HOME": str(root),
        "DAGSTER_HOME": str(dagster_home),
        "MPLCONFIGDIR": str(root / "matplotlib"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _copy(file: Path, target: Path) -> None:
    """Whole or not at all: another process of the installation may read it at this moment."""
    if not target.exists() or target.read_bytes() != file.read_bytes():
        with TemporaryDirectory(dir=target.parent) as folder:
            Path(shutil.copy(file, folder)).replace(target)


def _instance() -> str:
    """Which of the Dagster instances the environment asks for."""
    if os.environ.get("FRAUD_ASSETS_RAY_ADDRESS"):
        _require_a_cluster()
        return "deploy/ray/dagster.yaml"
    return "deploy/postgres/dagster.yaml" if os.environ.get("FRAUD_ASSETS_DAGSTER_URL") else "dagster.yaml"


def _require_a_cluster() -> None:
    """Raises InvalidSettings for what a run on another machine would lack."""
    stores = ("FRAUD_ASSETS_SOURCE_URL", "FRAUD_ASSETS_LEDGER_URL", "MLFLOW_TRACKING_URI")
    found = {name: os.environ.get(name, "") for name in (*stores, "FRAUD_ASSETS_DAGSTER_URL")}
    if lacking := [name for name, url in found.items() if not url or url.startswith("sqlite")]:
        raise InvalidSettings(
            f"expected servers that each node of Ray reaches, got none in {', '.join(lacking)}; "
            "set the variables there and on the nodes"
        )
    if not found["FRAUD_ASSETS_DAGSTER_URL"].startswith("postgresql+psycopg2://"):
        raise InvalidSettings(
            "expected FRAUD_ASSETS_DAGSTER_URL to start with postgresql+psycopg2://, which the nodes read "
            "unchanged; write it so here and there"
        )
    if find_spec("dagster_ray") is None:
        raise InvalidSettings("expected dagster-ray to be installed; run `uv sync --extra ray`")


def _with_psycopg2(url: str) -> str:
    """SQLAlchemy takes plain `postgresql://` for psycopg 3; Dagster comes with psycopg2 (dagster #33958)."""
    scheme, separator, rest = url.partition("://")
    plain = scheme in {"postgres", "postgresql"}
    return f"postgresql+psycopg2{separator}{rest}" if plain else url


if __name__ == "__main__":
    sys.exit(main())
