"""SQL, control characters, markup and paths in every text column of a source, through a whole cycle."""

import logging
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fraud_assets.domain.errors import SourceMismatch
from fraud_assets.domain.schemas import SOURCE_TABLES, History
from fraud_assets.orchestration import automation
from fraud_assets.storage.source import Source
from fraud_assets_tests import company_database
from fraud_assets_tests.world import QUICK, World, company

pytestmark = pytest.mark.usefixtures("undrawn")

HOSTILE = (
    "'; DROP TABLE attendance_event; --\n\x1b[2J\r2026-06-01 ERROR forged <script>alert(1)</script> "
    "[x](javascript:x) ../../../etc/passwd {0.__class__} %s $1 \u202e\U0001f600"
)
ENUMERATED = {"tenant_id", "unreadable", "verdict", "entry_source", "country", "tz", "source"}


def hostile(known: History) -> History:
    """The history with the text appended to each text that is free: names and all ids alike."""
    changed = {}
    for name in SOURCE_TABLES:
        rows: pl.DataFrame = getattr(known, name)
        free = [each for each, dtype in rows.schema.items() if dtype == pl.String and each not in ENUMERATED]
        changed[name] = rows.with_columns(pl.concat_str(pl.col(each), pl.lit(HOSTILE)) for each in free)
    return replace(known, **changed)


def content(url: str) -> list[pl.DataFrame]:
    with Source(url).snapshot() as snapshot:
        tables = (snapshot.fetch(f"SELECT * FROM {name}") for name in (*SOURCE_TABLES, "tenant"))
        return [rows.sort(rows.columns) for rows in tables]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/source.db"
    return request.getfixturevalue("postgres_url")


def test_hostile_text_goes_through_a_cycle_as_data(
    url: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    plain = company("acme", records=200)
    company_database.write(url, acme=hostile(plain), beta=company("beta", records=50))
    world, before = World(tmp_path / "home", instance), content(url)
    world.with_platform(source=Source(url), overrides=QUICK)
    made = world.cycle()
    assert made.records > 100
    assert made.sentence.isprintable()
    for now, then in zip(content(url), before, strict=True):
        assert_frame_equal(now, then)
    assert [folder.name for folder in (tmp_path / "home" / "tables").iterdir()] == ["acme"]
    assert world.platform.ledger.history("beta") == []


def test_no_line_of_a_log_is_forged(
    tmp_path: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path, instance, acme=company("acme", records=5, fraud=1))
    world.source.failing["acme"] = SourceMismatch(HOSTILE)
    world.run("acme", ["behavioural_profiles"])
    said = capfd.readouterr().err
    assert "forged" in said
    assert not [line for line in said.splitlines() if line.startswith("2026-06-01")]
    assert "\x1b[2J" not in said
    assert "\u202e" not in said


def test_what_the_stages_say_to_a_terminal_is_a_line_each() -> None:
    record = logging.LogRecord("dagster", logging.INFO, "", 0, "", (), None)
    record.dagster_meta = {"orig_message": HOSTILE}
    assert automation._StageLines().format(record).isprintable()
