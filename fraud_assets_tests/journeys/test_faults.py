"""A full disk and many writers at once, for real, on the embedded default."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef
from dagster._core.test_utils import create_run_for_test

from fraud_assets import cycle
from fraud_assets.orchestration.launcher import PRELOADED
from fraud_assets.storage.ledger import Ledger
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.registry import Registry
from fraud_assets_tests import company_database
from fraud_assets_tests.builders import entry, submission
from fraud_assets_tests.journeys import chain
from fraud_assets_tests.journeys.installation import Installation
from fraud_assets_tests.journeys.test_crashes import require_sound
from fraud_assets_tests.journeys.test_daemon import at_work, daemon, ticks
from fraud_assets_tests.orchestration.test_instance import instance_in
from fraud_assets_tests.world import TONIGHT, company

DAY = timedelta(days=1)
WRITERS, WRITES = 16, 2
TENANTS = ("alcazar-security", "bluewater-guards", "drift-patrol")

needs_mlflow = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
_processes = multiprocessing.get_context("forkserver")


def write(folder: str, number: int, instance: InstanceRef, together: Barrier) -> None:
    """What the run of a tenant does: a model with its alias, a decision, and the events of a run."""
    from fraud_assets.storage.ledger import Ledger
    from fraud_assets.storage.registry import Registry

    tenant = f"tenant-{number}"
    registry, ledger = Registry(f"sqlite:///{folder}/mlflow.db"), Ledger(f"sqlite:///{folder}/ledger.db")
    with dg.DagsterInstance.from_ref(instance) as opened:
        for count in range(WRITES):
            together.wait()
            made = registry.register(tenant, submission(f"model {number} {count}".encode()))
            registry.set_champion(tenant, made.version, pr_auc=0.8)
            ledger.append(entry(tenant, model_version=made.version))
            run = create_run_for_test(opened, job_name="tenant_cycle", tags={"dagster/partition": tenant})
            for _ in range(5):
                opened.report_engine_event("written", run)
    os._exit(0)


@pytest.mark.journey
@needs_mlflow
def test_16_processes_that_write_at_once_lose_nothing(tmp_path: Path, migrated: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(migrated.read_bytes())
    _processes.set_forkserver_preload(list(PRELOADED))
    (tmp_path / "dagster").mkdir()
    together = _processes.Barrier(WRITERS, timeout=300)
    with instance_in(tmp_path / "dagster") as instance:
        writers = [
            _processes.Process(target=write, args=(str(tmp_path), number, instance.get_ref(), together))
            for number in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [0] * WRITERS
        runs = instance.get_runs()
        assert len(runs) == WRITERS * WRITES
        assert [len(instance.all_logs(run.run_id)) for run in runs] == [5] * len(runs)
    registry, ledger = Registry(f"sqlite:///{tmp_path}/mlflow.db"), Ledger(f"sqlite:///{tmp_path}/ledger.db")
    for number in range(WRITERS):
        tenant = f"tenant-{number}"
        assert len(ledger.history(tenant)) == WRITES
        found = [registry.version(tenant, version + 1) for version in range(WRITES)]
        assert len({each.digest for each in found}) == WRITES
        assert [registry.damage(tenant, each.version, each.digest) for each in found] == [None] * len(found)
        assert registry.champion_version(tenant) == WRITES


SPACES = ["--mount", "--user --map-root-user --mount"]


def _namespace() -> list[str]:
    """How to have a small disk of one's own here; skips where the system does not permit it."""
    for space in SPACES:
        tried = ["unshare", *space.split(), "sh", "-c", "mount -t tmpfs none /mnt"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return ["unshare", *space.split()]
    pytest.skip("this system permits no mount namespace, neither as root nor with a user namespace")


def run_on_a_small_disk(disk: Path, size: str, nights: Callable[[str], None], before: str = "true") -> str:
    """What `nights` of this module wrote to stderr, called with a `disk` of that size, after `before`."""
    code = f"from {__name__} import {nights.__name__} as nights; nights({str(disk)!r})"
    script = f'mount -t tmpfs -o size={size} none "{disk}" && {before} && exec "$@"'
    done = subprocess.run(
        [*_namespace(), "sh", "-c", script, "sh", sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("healed\n")
    return done.stderr


def night_on_a_full_disk(folder: str) -> None:
    """Inside the namespace: a night, one without room at every amount of room left, and one with room."""
    from fraud_assets.domain.errors import FraudAssetsError

    home, now = Path(folder), TONIGHT
    platform = replace(Platform.from_environment({"FRAUD_ASSETS_HOME": folder}), now=lambda: now)

    def night() -> None:
        cycle.refresh_profiles(platform, "acme")
        cycle.assemble_dataset(platform, "acme")
        cycle.train(platform, "acme", None)
        cycle.decide(platform, "acme", None)

    night()
    first = platform.champion("acme")
    assert first is not None
    filler = home / "filler"
    for left in (0, 40_000, 150_000, 400_000):
        now += DAY
        free = os.statvfs(home).f_bavail * os.statvfs(home).f_frsize
        filler.write_bytes(b"\0" * max(free - left, 0))
        try:
            night()
        except FraudAssetsError as error:
            sys.stderr.write(f"{left}: {type(error).__name__}: {error}\n")
        else:
            raise AssertionError(f"expected no night with {left} bytes left")
        finally:
            filler.unlink()
        champion = platform.champion("acme")
        assert champion is not None
        platform.registry.load("acme", champion.version, champion.digest)
    now += DAY
    night()
    healed = platform.champion("acme")
    assert healed is not None
    assert healed.cycle_started_at == now
    assert platform.registry.champion_version("acme") == healed.version
    sys.stdout.write("healed\n")


def nights_of_a_daemon_on_a_full_disk(folder: str) -> None:
    """Inside the namespace: all of an installation on one disk, which is full for a night of the daemon."""
    installation = Installation(Path(folder))
    installation.create_company(dict.fromkeys(TENANTS, 30))
    installation.cycle_at(datetime.now(UTC) + timedelta(hours=12))
    try:
        with daemon(installation) as instance:
            follow_a_full_disk(installation, instance)
    finally:
        installation.stop()
    platform = installation.platform
    for tenant in TENANTS:
        require_sound(platform, tenant)
    assert set(platform.ledger.champions()) == set(TENANTS)
    sys.stdout.write("healed\n")


def follow_a_full_disk(installation: Installation, instance: dg.DagsterInstance) -> None:
    def call_a_night() -> Callable[[], bool]:
        start = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
        installation.cycle_at(start, retrain_after='"PT1S"')
        latest = installation.platform.ledger.latest_all

        def is_over() -> bool:
            decided = {tenant: each.cycle_started_at for tenant, each in latest().items()}
            ended = all(run.is_finished for run in instance.get_runs())
            return ended and decided == dict.fromkeys(TENANTS, start)

        return is_over

    installation.wait_for("a first tick", lambda: ticks(instance))
    installation.wait_for("a first night", call_a_night())
    call_a_night()
    installation.wait_for("a run at work", lambda: at_work(instance))
    filler, space = installation.folder / "filler", os.statvfs(installation.folder)
    with suppress(OSError):
        filler.write_bytes(b"\0" * (space.f_bavail * space.f_frsize + 1_000_000))
    time.sleep(20)
    for tenant, champion in installation.platform.ledger.champions().items():
        version, digest = champion.model_version or 0, champion.model_digest or ""
        assert installation.platform.registry.load(tenant, version, digest)
    filler.unlink()
    installation.wait_for("the next night", call_a_night())
    assert instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])), installation.told()


@pytest.mark.journey
@needs_mlflow
def test_a_disk_that_is_full_in_the_middle_of_a_night_of_the_daemon_costs_that_night_alone(
    tmp_path: Path,
) -> None:
    run_on_a_small_disk(tmp_path, "256m", nights_of_a_daemon_on_a_full_disk)


@pytest.mark.journey
@needs_mlflow
def test_a_full_disk_fails_the_night_clearly_and_the_next_one_with_room_succeeds(
    tmp_path: Path, migrated: Path
) -> None:
    prepared, disk = tmp_path / "prepared", tmp_path / "disk"
    for folder in (prepared, disk):
        folder.mkdir()
    known = company("acme", records=300, fraud=45, until=TONIGHT + 60 * DAY)
    company_database.write(f"sqlite:///{prepared}/source.db", acme=known)
    (prepared / "mlflow.db").write_bytes(migrated.read_bytes())
    chain.lay_out(prepared)
    said = run_on_a_small_disk(disk, "12m", night_on_a_full_disk, f'cp "{prepared}"/* "{disk}"')
    assert "check that its disk has room" in said
