"""SQL, control characters, markup and paths in every text column of a source, through a whole cycle."""

import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fraud_assets import cycle
from fraud_assets.domain.errors import SourceMismatch
from fraud_assets.domain.schemas import SOURCE_TABLES, History
from fraud_assets.orchestration import automation
from fraud_assets.storage.source import Source
from fraud_assets_tests import company_database
from fraud_assets_tests.world import QUICK, TONIGHT, World, company

pytestmark = pytest.mark.usefixtures("undrawn")

HOSTILE = (
    "'; DROP TABLE attendance_event; --\n\x1b[2J\r2026-06-01 ERROR forged <script>alert(1)</script> "
    "[x](javascript:x) ../../../etc/passwd {0.__class__} %s $1 \u202e\U0001f600"
)
RULED = {"tenant_id", "unreadable", "verdict", "entry_source", "country", "tz"}
"""Columns of which a rule says what may stand there; hostile rows of their own break them."""


def hostile(known: History) -> History:
    """The history with the text appended to each text that is free, names and all ids alike, and a row more
    a table with the text where a rule forbids it."""
    changed = {}
    for name in SOURCE_TABLES:
        rows: pl.DataFrame = getattr(known, name)
        texts = [each for each, dtype in rows.schema.items() if dtype == pl.String]
        free = [each for each in texts if each not in RULED]
        # What refers to nothing still does.
        filled = [pl.col(each) if each.endswith("_id") else pl.col(each).fill_null("") for each in free]
        rows = rows.with_columns(pl.concat_str(each, pl.lit(HOSTILE)) for each in filled)
        ruled = [each for each in texts if each in RULED - {"tenant_id", "unreadable"}]
        more = rows.head(1).with_columns(
            pl.lit("more").alias(SOURCE_TABLES[name].primary_key()[-1]),
            *(pl.lit(HOSTILE).alias(each) for each in ruled),
        )
        changed[name] = pl.concat([rows, more.head(bool(ruled))])
    return replace(known, **changed)


def with_shifts(known: History) -> History:
    """Each event of the first fifty is of a shift of its own."""
    events = known.attendance_event.with_row_index("n").with_columns(
        shift_id=pl.when(pl.col("n") < 50).then(pl.format("s{}", "n"))
    )
    start = pl.col("punch_in_at") + timedelta(minutes=5)
    shifts = events.filter(pl.col("n") < 50).select(
        "tenant_id", "shift_id", "guard_id", "site_id",
        scheduled_start=start, scheduled_end=start + timedelta(hours=8),
        published_at=start - timedelta(days=2), unreadable=pl.lit(None, pl.String),
    )  # fmt: skip
    return replace(known, attendance_event=events.drop("n"), shift=shifts.select(known.shift.columns))


def dataset(world: World) -> pl.DataFrame:
    """Its numbers: what is no id."""
    rows = world.platform.tables.read("acme", "training_dataset")
    return rows.drop([name for name in rows.columns if name.endswith("_id")])


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
    plain = with_shifts(company("acme", records=200))
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
    by_rule = cycle.rows_set_aside(world.platform, "acme").by_rule
    found = {(table, rule): rows for table, rule, rows in by_rule.select("table", "rule", "rows").rows()}
    assert found == {
        ("site", "country|max_length"): 1,
        ("site", "unknown_time_zone"): 1,
        ("attendance_event", "entry_source|check"): 1,
        ("outcome", "verdict|check"): 1,
    }
    harmless = World(tmp_path / "other", instance, acme=plain)
    harmless.with_platform(overrides=QUICK)
    cycle.refresh_profiles(harmless.platform, "acme")
    cycle.assemble_dataset(harmless.platform, "acme")
    assert_frame_equal(dataset(world), dataset(harmless), check_exact=True)


def test_hostile_text_in_the_table_of_tenants_is_set_aside_or_stays_a_name(url: str) -> None:
    company_database.write(url, acme=company("acme", records=5, fraud=1))
    row = {"name": HOSTILE, "is_active": True, "tz": "UTC", "country": "ES"}
    company_database.add_tenants(
        url,
        {**row, "tenant_id": "named"},
        {**row, "tenant_id": HOSTILE},
        {**row, "tenant_id": "placed", "tz": HOSTILE, "country": HOSTILE},
    )
    before, found = content(url), Source(url).tenants()
    assert found.active == ["acme", "named"]
    assert found.set_aside.height == 2
    assert (found.left_out or "").isprintable()
    assert Source(url).parts("named", TONIGHT, TONIGHT, 10, Path("nowhere"))[0].collect().guard.is_empty()
    for now, then in zip(content(url), before, strict=True):
        assert_frame_equal(now, then)


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
