"""What is taken out of log files, and what stays."""

from pathlib import Path

import pytest

from fraud_assets.storage import logs

ACME = logs.mention(["acme"])


@pytest.mark.parametrize(
    "said",
    [
        "acme",
        "New tenants: acme, beta",
        "/tables/acme/profiles",
        "attendance-fraud-acme",
        "fraud-assets%2Facme",
        '["acme"]',
        "a\\nacme",
        "v1 of acme.",
    ],
)
def test_an_id_is_found_wherever_it_stands(said: str) -> None:
    assert ACME.search(said.encode())


@pytest.mark.parametrize("said", ["acme-2", "my-acme", "pacmen", "acme2", "attendance-fraud-acme-2", "ACME"])
def test_an_id_is_not_found_within_another(said: str) -> None:
    assert not ACME.search(said.encode())


def test_a_record_goes_with_its_stack_and_the_others_stay_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "dagster" / "daemon.log"
    path.parent.mkdir()
    said = (
        "no date\n2026-06-01 02:00 acme-2 is fine\n2026-06-01 02:01 failed\n  Traceback of acme\n"
        "  guard g1: ñ\n2026-06-01 02:02 next\n"
    )
    path.write_text(said)
    with path.open("ab") as server:
        logs.blank(tmp_path, ACME)
        server.write(b"2026-06-01 02:03 acme\n")
    left = path.read_text()
    assert left.split("\n") == [
        "no date", "2026-06-01 02:00 acme-2 is fine", " " * 23, " " * 19, " " * 14,
        "2026-06-01 02:02 next", "2026-06-01 02:03 acme", "",
    ]  # fmt: skip


def test_only_log_files_are_written_to(tmp_path: Path) -> None:
    for name in ("runs.db", "model.ubj", "acme"):
        (tmp_path / name).write_text("of acme")
    (tmp_path / "1.err").write_text("of acme")
    logs.blank(tmp_path, ACME)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "runs.db": "of acme", "model.ubj": "of acme", "acme": "of acme", "1.err": " " * 7,
    }  # fmt: skip
    logs.blank(tmp_path / "not there", ACME)
