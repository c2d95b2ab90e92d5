from pathlib import Path

from benchmarks import disk
from benchmarks.fleet import STORES, Installation
from fraud_assets_tests.postgres import administer


def test_each_database_and_each_folder_of_the_home_is_told_apart(
    tmp_path: Path, postgres_server_url: str
) -> None:
    made = Installation("disk", tmp_path, postgres_server_url.rpartition("/")[0], "disk_source")
    for store in STORES:
        administer(postgres_server_url, f"CREATE DATABASE disk_{store} STRATEGY file_copy")
    try:
        before = disk.held(made)
        administer(made.url("ledger"), "CREATE TABLE t AS SELECT generate_series(1, 100000)")
        (tmp_path / "tables/acme").mkdir(parents=True)
        (tmp_path / "tables/acme/part").write_bytes(b"x" * 100_000)
        grown = disk.a_tenant(before, disk.held(made), 2)
    finally:
        for store in STORES:
            administer(postgres_server_url, f"DROP DATABASE disk_{store} WITH (FORCE)")
    assert {part for part, size in grown.items() if size} == {"database ledger", "folder tables"}
    assert grown["folder tables"] >= 50_000
    assert grown["database ledger"] > 1_000_000
