"""Writing the demo company to both engines: all or nothing, once, readable by the platform's own reader."""

import sqlite3
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import polars as pl
import psycopg2
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import make_url

from fraud_assets.demo.database import create
from fraud_assets.domain.errors import InvalidSettings, SourceMismatch, SourceUnreachable
from fraud_assets.domain.schemas import SOURCE_TABLES
from fraud_assets.storage.source import Source
from fraud_assets_tests import builders
from fraud_assets_tests.demo.worlds import BY_ID, UNTIL, history

EMBER = BY_ID["ember-watch"]
CORRUPT = replace(BY_ID["harbour-corrupt"], guards=14, days=120)
PAIR = (EMBER, CORRUPT)
LONG_AGO = UNTIL - timedelta(days=400)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new folder/demo.db"
    return request.getfixturevalue("postgres_url")


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def stop_at_the_second(sentence: str) -> None:
    if CORRUPT.id in sentence:
        raise KeyboardInterrupt


def test_the_reader_finds_the_tenants_and_their_events(url: str):
    written = create(url, UNTIL, tenants=PAIR)
    tenants = Source(url).tenants()
    assert tenants.valid["tenant_id"].to_list() == [EMBER.id, CORRUPT.id]
    assert tenants.set_aside.is_empty()
    for tenant, events in written:
        read = builders.read(Source(url), tenant, LONG_AGO, UNTIL).attendance_event
        assert read.height == events > 100


def test_what_is_read_is_what_was_generated(url: str):
    create(url, UNTIL, tenants=[EMBER])
    read = builders.read(Source(url), EMBER.id, LONG_AGO, UNTIL)
    for name, schema in SOURCE_TABLES.items():
        key = schema.primary_key()
        generated = getattr(history(EMBER.id), name)
        if name == "shift":
            generated = generated.filter(pl.col("scheduled_start") <= UNTIL + timedelta(days=1))
        got = getattr(read, name)
        assert got["unreadable"].null_count() == got.height
        assert_frame_equal(got.drop("unreadable").sort(key), generated.sort(key))


def test_the_corrupt_tenant_has_values_that_cannot_be_read(url: str):
    create(url, UNTIL, tenants=PAIR)
    events = builders.read(Source(url), CORRUPT.id, LONG_AGO, UNTIL).attendance_event
    unreadable = set(events["unreadable"].drop_nulls())
    on_sqlite = {"punch_in_at", "known_at", "latitude", "accuracy_m", "is_mock_location", "face_attempts"}
    assert unreadable == (on_sqlite if url.startswith("sqlite") else {"punch_out_at"})


def test_the_second_time_does_nothing_and_says_so(url: str):
    first = create(url, UNTIL, tenants=PAIR)
    sentences: list[str] = []
    assert create(url, UNTIL + timedelta(days=9), 8, sentences.append, PAIR) == first
    assert len(sentences) == 1
    assert "already" in sentences[0]
    assert (
        dict(first)[EMBER.id] == builders.read(Source(url), EMBER.id, LONG_AGO, UNTIL).attendance_event.height
    )


def test_each_tenant_is_told_as_it_is_written(url: str):
    sentences: list[str] = []
    create(url, UNTIL, on_progress=sentences.append, tenants=PAIR)
    assert [sentence.partition(":")[0] for sentence in sentences] == [EMBER.id, CORRUPT.id]


def test_an_interruption_half_way_leaves_nothing_and_the_next_try_succeeds(url: str):
    with pytest.raises(KeyboardInterrupt):
        create(url, UNTIL, on_progress=stop_at_the_second, tenants=PAIR)
    if url.startswith("sqlite"):
        assert list(file_of(url).parent.iterdir()) == []
    assert len(create(url, UNTIL, tenants=PAIR)) == 2


def test_no_table_is_left_in_postgresql_after_an_interruption(postgres_url: str):
    with pytest.raises(KeyboardInterrupt):
        create(postgres_url, UNTIL, on_progress=stop_at_the_second, tenants=PAIR)
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchone() == (0,)
    connection.close()


def test_the_same_instant_and_seed_give_the_same_file(tmp_path: Path):
    digests = set()
    for name in ("one", "two"):
        create(f"sqlite:///{tmp_path}/{name}.db", UNTIL, tenants=PAIR)
        digests.add(sha256((tmp_path / f"{name}.db").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_database_with_other_tables_is_refused_and_stays_as_it_was(tmp_path: Path):
    path = tmp_path / "payroll.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE payroll (amount REAL)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SourceMismatch, match="payroll"):
        create(f"sqlite:///{path}", UNTIL, tenants=PAIR)
    assert path.read_bytes() == before


def test_a_source_without_the_demos_tenants_is_refused(url: str):
    create(url, UNTIL, tenants=[EMBER])
    with pytest.raises(SourceMismatch, match="give another database"):
        create(url, UNTIL, tenants=PAIR)


def test_other_tables_in_postgresql_are_left_alone(postgres_url: str):
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE payroll (amount integer)")
    connection.close()
    assert len(create(postgres_url, UNTIL, tenants=[EMBER])) == 1


def test_another_kind_of_url_is_refused():
    with pytest.raises(InvalidSettings):
        create("mysql://localhost/demo", UNTIL)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "taken").touch()
    with pytest.raises(SourceUnreachable, match="expected to write the demo company"):
        create(f"sqlite:///{tmp_path}/taken/demo.db", UNTIL, tenants=[EMBER])


def test_a_wrong_password_is_told_without_the_password(postgres_url: str):
    password = token_hex()
    wrong = make_url(postgres_url).set(password=password).render_as_string(hide_password=False)
    with pytest.raises(SourceUnreachable) as caught:
        create(wrong, UNTIL, tenants=[EMBER])
    assert password not in str(caught.value)
