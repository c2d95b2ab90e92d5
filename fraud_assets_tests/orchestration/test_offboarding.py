"""Off-boarding a tenant, for real: nothing of it is left but a line, and its neighbour is as it was."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast, get_args

import dagster as dg
import polars as pl
import pytest
import sqlalchemy as sa
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES as FINISHED
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.test_utils import create_run_for_test
from dagster_shared.serdes import deserialize_value, serialize_value
from mlflow import MlflowClient

from fraud_assets import mirror
from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets.domain.errors import InvalidTenantId, Refused
from fraud_assets.domain.schemas import History
from fraud_assets.orchestration import offboarding, traces
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.stewardship import Word
from fraud_assets.storage import registry
from fraud_assets.storage.ledger import Ledger
from fraud_assets.storage.registry import Registry
from fraud_assets.storage.tables import Kind, Tables
from fraud_assets_tests.builders import entry, submission
from fraud_assets_tests.postgres import rows, with_driver
from fraud_assets_tests.world import TONIGHT, World, company

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

PROJECT = Path(__file__).parent.parent.parent
ANA = Word("Ana", "the contract ended")
GONE, STAYS = "zebra-guarding", "acme"
DAY = timedelta(days=1)


@dataclass
class Site:
    """A world whose stores are real and lie in `home`, or in `databases` of a PostgreSQL server."""

    world: World
    home: Path
    databases: tuple[str, ...]

    def offboard(self, tenant: str = GONE) -> offboarding.Offboarded:
        return offboarding.offboard(self.world.platform, self.world.instance, tenant, ANA, self.home / "logs")


def named(history: History, tenant: str) -> History:
    """The guards under names that nothing else has."""
    names = pl.concat_str(pl.lit(f"guard-of-{tenant}-"), pl.col("guard_id"))
    return replace(
        history,
        guard=history.guard.with_columns(guard_id=names),
        attendance_event=history.attendance_event.with_columns(guard_id=names),
    )


def histories() -> dict[str, History]:
    return {each: named(company(each, records=60, fraud=6, until=TONIGHT), each) for each in (GONE, STAYS)}


@pytest.fixture(params=["sqlite", "postgresql"])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Two tenants, and nothing done yet."""
    home, configuration, databases = tmp_path / "home", PROJECT / "dagster.yaml", ()
    (home / "dagster").mkdir(parents=True)
    decisions = f"sqlite:///{home}/ledger.db"
    if request.param == "postgresql":
        decisions = request.getfixturevalue("postgres_url")
        databases = (decisions,)
        configuration = PROJECT / "deploy/postgres/dagster.yaml"
        monkeypatch.setenv("FRAUD_ASSETS_DAGSTER_URL", with_driver(decisions))
    shutil.copy(configuration, home / "dagster/dagster.yaml")
    shutil.copy(migrated, home / "mlflow.db")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        world = World(home, instance, **histories())
        models = Registry(f"sqlite:///{home}/mlflow.db", f"{home}/models")
        world.with_platform(registry=models, ledger=Ledger(decisions))
        yield Site(world, home, databases)


@pytest.fixture
def lived(site: Site) -> Site:
    """Both after a night, with a champion and a rejected model, and in the servers' logs; one is suspended.

    They are too small to be trained, which would take a while: the models are put there by hand.
    """
    assert all(result.success for result in site.world.night().values())
    platform = site.world.platform
    for tenant in (GONE, STAYS):
        for content, verdict in {b"model one": "activate", b"model two": "reject"}.items():
            made = platform.registry.register(tenant, submission(content))
            facts = {"verdict": verdict, "model_version": made.version, "model_digest": made.digest}
            decided = entry(tenant, **facts)
            platform.ledger.append(decided)
            mirror.show(platform, decided)
    (site.home / "logs").mkdir()
    said = (
        f"2026-06-01 02:00:01 +0000 - New tenants: {GONE}\n  in {GONE}\n2026-06-01 02:00:02 +0000 - {STAYS}\n"
    )
    (site.home / "logs/dagster-daemon.log").write_text(said)
    site.world.instance.report_runless_asset_event(dg.AssetMaterialization("active_model", partition=GONE))
    site.world.source.suspended.add(GONE)
    return site


def remembered(site: Site, *words: str) -> list[str]:
    """Where one of `words` still stands: files, byte by byte and by name, and rows of tables."""
    files = [path for path in site.home.rglob("*") if path.is_file()]
    paths = [str(path.relative_to(site.home)) for path in site.home.rglob("*")]
    found = [path for path in paths if any(word in path for word in words)]
    found += [str(path) for path in files for word in words if word.encode() in path.read_bytes()]
    return found + [row for url in site.databases for row in rows(url) if any(word in row for word in words)]


def state(world: World, tenant: str) -> tuple[Any, ...]:
    """What a tenant has: its history, its champion to the bit, its tables, its runs with their events."""
    champion = world.platform.champion(tenant)
    assert champion is not None
    instance, tables, kinds = world.instance, world.platform.tables, get_args(Kind)
    wanted = [dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=[tenant]) for name in CYCLE_STAGES]
    runs = instance.get_runs(dg.RunsFilter(tags={traces.PARTITION: tenant}))
    return (
        world.platform.ledger.history(tenant),
        world.platform.registry.load(tenant, champion.version, champion.digest),
        world.platform.registry.champion_version(tenant),
        [(tables.version(tenant, kind), tables.facts(tenant, kind)) for kind in kinds],
        [(run.run_id, run.status, len(instance.all_logs(run.run_id))) for run in runs],
        [instance.fetch_materializations(each, limit=9).records for each in wanted],
    )


def test_nothing_is_left_of_a_tenant_but_one_line_and_the_other_is_as_it_was(lived: Site) -> None:
    guard = f"guard-of-{GONE}-g0"
    assert len(remembered(lived, GONE)) > 20
    assert remembered(lived, guard)
    before, files = state(lived.world, STAYS), contents(lived.home)
    done = lived.offboard()
    assert (done.runs, done.versions, done.remains) == (1, 2, ())
    assert done.line is not None
    assert lived.world.platform.ledger.history(GONE) == [done.line]
    assert remembered(lived, guard) == []
    [left] = remembered(lived, GONE)
    assert left.endswith("ledger.db") or left.startswith("fraud_assets_decision: ")
    if left.endswith("ledger.db"):
        assert Path(left).read_bytes().count(GONE.encode()) == 2, "the line, and its entry in the index"
    assert state(lived.world, STAYS) == before
    assert contents(lived.home) == files
    shards = {path.stem for path in (lived.home / "dagster/history/runs").glob("*-*.db")}
    kept = {run.run_id for run in lived.world.instance.get_runs()}
    assert shards == (set() if lived.databases else kept)
    assert {path.name for path in (lived.home / "dagster/storage").iterdir()} == kept
    assert lived.world.instance.get_dynamic_partitions(str(tenants.name)) == [STAYS]
    assert lived.world.materialized("training_dataset") == {STAYS}
    assert lived.world.materialized("active_model") == set()
    log = (lived.home / "logs/dagster-daemon.log").read_text()
    assert log.strip() == f"2026-06-01 02:00:02 +0000 - {STAYS}"


def contents(home: Path) -> dict[str, bytes]:
    """The neighbour's own files."""
    folders = (home / "tables" / STAYS, home / "models" / STAYS)
    return {str(path): path.read_bytes() for each in folders for path in each.rglob("*") if path.is_file()}


class Crash(Exception):
    """The process dies."""


STEPS: list[tuple[Any, str]] = [
    (dg.DagsterInstance, "delete_dynamic_partition"),
    (traces.logs, "blank"),
    (SqliteEventLogStorage, "delete_events"),
    (traces, "_erase_run"),
    (traces, "_erase_events"),
    (traces, "_erase_ticks"),
    (traces, "_forget_newest"),
    (Tables, "erase"),
    (MlflowClient, "delete_registered_model"),
    (MlflowClient, "delete_run"),
    (MlflowClient, "delete_logged_model"),
    (MlflowClient, "rename_experiment"),
    (MlflowClient, "delete_experiment"),
    (registry, "_purge"),
    (Registry, "erase"),
    (Ledger, "erase"),
]


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_whoever_dies_on_the_way_asks_again_and_who_comes_back_starts_from_nothing(
    lived: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(lived.world, STAYS)
    for owner, name in STEPS:
        step = getattr(owner, name)

        def dies_before(*given: Any, **named: Any) -> None:
            raise Crash

        def dies_after(*given: Any, step: Callable[..., Any] = step, **named: Any) -> None:
            step(*given, **named)
            raise Crash

        reached = 0
        for dies in (dies_before, dies_after):
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, dies)
                try:
                    lived.offboard()
                except Crash:
                    reached += 1
        assert reached, f"{name} was never called"
    assert lived.offboard().line is None
    [left] = lived.world.platform.ledger.history(GONE)
    assert (left.verdict, left.metrics) == ("erase", {"decisions": 3.0, "models": 2.0})
    assert len(remembered(lived, GONE, f"guard-of-{GONE}")) == 1
    assert state(lived.world, STAYS) == before
    require_a_fresh_start(lived)


def require_a_fresh_start(site: Site) -> None:
    """The tenant is on-boarded again, and the other goes on from where it was."""
    site.world.source.suspended.clear()
    asked = site.world.night(TONIGHT + DAY)
    assert set(asked) == {GONE, STAYS}
    assert all(result.success for result in asked.values())
    platform = site.world.platform
    versions = [platform.tables.version(tenant, "training_dataset") for tenant in (GONE, STAYS)]
    assert versions == [0, 1]
    assert [each.verdict for each in platform.ledger.history(GONE)] == ["erase", "not trained"]
    assert [platform.registry.register(tenant, submission()).version for tenant in (GONE, STAYS)] == [1, 3]


def test_a_tenant_that_is_active_in_the_source_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"expected acme to be suspended .* is_active to false"):
        offboarding.offboard(world.platform, world.instance, STAYS, ANA, tmp_path / "logs")
    assert world.instance.get_dynamic_partitions(str(tenants.name)) == [STAYS]


@pytest.mark.parametrize("status", [status for status in dg.DagsterRunStatus if status not in FINISHED])
def test_a_tenant_with_a_run_in_progress_is_refused(
    world: World, tmp_path: Path, status: dg.DagsterRunStatus
) -> None:
    world.source.suspended.add(STAYS)
    server = GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="fraud_assets")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(server, "repository"), "tenant_cycle")
    run = create_run_for_test(
        world.instance,
        tags={traces.PARTITION: STAYS},
        remote_job_origin=origin,
        status=dg.DagsterRunStatus.QUEUED,
    )
    with cast("Any", world.instance.run_storage).connect() as connection:
        connection.execute(sa.update(RunsTable).values(status=status.value))
    with pytest.raises(Refused, match=rf"no run of acme in progress, got {run.run_id}; wait for it"):
        offboarding.offboard(world.platform, world.instance, STAYS, ANA, tmp_path / "logs")
    assert world.instance.get_dynamic_partitions(str(tenants.name)) == [STAYS]


def test_nothing_is_erased_while_a_backfill_may_start_runs(world: World, tmp_path: Path) -> None:
    world.source.suspended.add(STAYS)
    world.instance.add_backfill(backfill("going-on", BulkActionStatus.REQUESTED, STAYS))
    with pytest.raises(Refused, match="no backfill in progress, got going-on"):
        offboarding.require_possible(world.platform, world.instance, STAYS)


def backfill(name: str, status: BulkActionStatus, *partitions: str) -> PartitionBackfill:
    return PartitionBackfill(
        backfill_id=name,
        status=status,
        partition_names=list(partitions),
        from_failure=False,
        tags={},
        backfill_timestamp=TONIGHT.timestamp(),
    )


def test_notes_that_name_the_tenant_go_and_the_others_stay(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, cleaned = site.world.instance, []
    monkeypatch.setattr(
        traces.sqlite, "compact", lambda path: cleaned.append(str(path.relative_to(site.home)))
    )
    site.world.source.suspended.add(GONE)
    done = BulkActionStatus.COMPLETED_SUCCESS
    for name, partitions in {"theirs": (STAYS, f"my-{GONE}"), "ours": (STAYS, GONE)}.items():
        instance.add_backfill(backfill(name, done, *partitions))
        for status in (TickStatus.SUCCESS, TickStatus.STARTED):
            instance.create_tick(tick(name, status, partitions))
    with cast("Any", instance.event_log_storage).index_connection() as connection:
        checks = [{"asset_key": "x", "partition": tenant} for tenant in (STAYS, GONE)]
        connection.execute(sa.insert(AssetCheckExecutionsTable), checks)
    site.offboard()
    assert [each.backfill_id for each in instance.get_backfills()] == ["theirs"]
    kept = {name: {each.status for each in instance.get_ticks(name, name)} for name in ("theirs", "ours")}
    # One that goes on is Dagster's own to finish.
    assert kept == {"theirs": {TickStatus.SUCCESS, TickStatus.STARTED}, "ours": {TickStatus.STARTED}}
    with cast("Any", instance.event_log_storage).index_connection() as connection:
        assert connection.execute(sa.select(AssetCheckExecutionsTable.c.partition)).all() == [(STAYS,)]
    # PostgreSQL cleans up by itself.
    own = [
        "dagster/history/runs.db", "dagster/history/runs/index.db", "dagster/schedules/schedules.db",
        "mlflow.db", "ledger.db",
    ]  # fmt: skip
    assert cleaned == (["mlflow.db"] if site.databases else own)


def tick(name: str, status: TickStatus, partitions: Sequence[str]) -> TickData:
    return TickData(
        instigator_origin_id=name,
        instigator_name=name,
        instigator_type=InstigatorType.SENSOR,
        status=status,
        timestamp=TONIGHT.timestamp(),
        run_ids=[],
        run_requests=[dg.RunRequest(partition_key=partition) for partition in partitions],
        selector_id=name,
    )


def test_a_tenant_of_whom_nothing_is_kept_leaves_no_line(world: World, tmp_path: Path) -> None:
    done = offboarding.offboard(world.platform, world.instance, "unknown", ANA, tmp_path / "logs")
    assert done.sentence == "Nothing is kept of unknown: nothing was written."
    assert world.platform.ledger.history("unknown") == []
    with pytest.raises(InvalidTenantId):
        offboarding.offboard(world.platform, world.instance, "../acme", ANA, tmp_path / "logs")


def test_a_tenant_without_a_decision_leaves_a_line_and_its_settings_are_named(
    world: World, tmp_path: Path
) -> None:
    world.source.suspended.add(STAYS)
    world.with_platform(overrides={"tenants": {STAYS: {"maturity_days": 9}}})
    done = offboarding.offboard(world.platform, world.instance, STAYS, ANA, tmp_path / "logs")
    assert done.line is not None
    assert done.sentence.endswith("in the ledger. Erased by Ana: the contract ended.")
    assert done.remains == ("settings.toml still has the section [tenants.acme]: take it out by hand.",)


def test_the_automation_goes_on_without_a_tenant_that_it_asked_for_in_its_last_tick(
    world: World, tmp_path: Path
) -> None:
    world.source.histories["other"] = world.source.histories[STAYS]
    assert set(world.tick(TONIGHT)) == {STAYS, "other"}
    kept = serialize_value(world.cursor)
    assert STAYS in kept
    world.cursor = deserialize_value(kept)
    world.source.suspended.add(STAYS)
    offboarding.offboard(world.platform, world.instance, STAYS, ANA, tmp_path / "logs")
    assert world.tick(TONIGHT + timedelta(seconds=30)) == {}
    assert STAYS not in serialize_value(world.cursor)
    assert set(world.tick(TONIGHT + DAY)) == {"other"}


@pytest.fixture
def world(tmp_path: Path, instance: dg.DagsterInstance) -> World:
    """acme, active and known to Dagster, of whom nothing was made yet."""
    return World(tmp_path, instance, acme=company(STAYS, records=60, fraud=6))
