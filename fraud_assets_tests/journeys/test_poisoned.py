"""A million rows of garbage: their tenant gets a decision that counts them, its neighbour notices nothing."""

import multiprocessing
import resource
import sqlite3
from contextlib import closing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fraud_assets_tests import company_database
from fraud_assets_tests.world import TONIGHT, company

ROWS = 1_000_000
MEBIBYTE = 1024
POISON = f"""
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
    INSERT INTO attendance_event (tenant_id, event_id, guard_id, site_id, punch_in_at, latitude)
    SELECT 'acme', 'x' || i, CASE i % 3 WHEN 0 THEN NULL ELSE 'g' || (i % 8) END, char(1, 10, 27) || i,
        CASE i % 5 WHEN 0 THEN 'yesterday' ELSE '2026-05-0' || (i % 9 + 1) || 'T10:00:00+00:00' END, 'north'
    FROM n
"""


def night(home: str, tenant: str, told: Connection) -> None:
    """What the night's first two stages count of a tenant, how it ends, and the peak of memory in KiB."""
    from fraud_assets import cycle, stored
    from fraud_assets.storage.ledger import Entry
    from fraud_assets.storage.platform import Platform

    platform = replace(Platform.from_environment({"FRAUD_ASSETS_HOME": home}), now=lambda: TONIGHT)
    profiled = cycle.refresh_profiles(platform, tenant).profiled
    made = cycle.assemble_dataset(platform, tenant)
    with stored.opened(platform, tenant) as dataset:
        found = stored.shortage(dataset, platform.settings(tenant))
    trained = cycle.train(platform, tenant, None) if found else None
    said = trained.sentence if isinstance(trained, Entry) else ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told.send((profiled, made.counts["records"], made.account.set_aside.rows(), said, peak))


def after_a_night(home: Path, tenant: str) -> tuple[int, int, list[tuple[str, str, int]], str, int]:
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    process = processes.Process(target=night, args=(str(home), tenant, there))
    process.start()
    there.close()
    answer = here.recv()
    process.join()
    return answer


@pytest.mark.journey
def test_a_million_rows_of_garbage_are_counted_by_rule_and_trouble_no_neighbour(tmp_path: Path) -> None:
    few, enough = (company(name, records=n, fraud=n // 8) for name, n in (("acme", 80), ("beta", 400)))
    company_database.write(f"sqlite:///{tmp_path}/source.db", acme=few, beta=enough)
    before = after_a_night(tmp_path, "beta")
    with closing(sqlite3.connect(tmp_path / "source.db")) as connection, connection:
        connection.execute(POISON)
    _, records, set_aside, said, peak = after_a_night(tmp_path, "acme")
    assert records == 80
    assert max(rows for table, _, rows in set_aside if table == "attendance_event") == ROWS
    assert said.startswith("Not trained: 80 usable records, 100 are needed; 1000000 of 1000080")
    assert peak < 1500 * MEBIBYTE
    assert after_a_night(tmp_path, "beta")[:4] == before[:4]
