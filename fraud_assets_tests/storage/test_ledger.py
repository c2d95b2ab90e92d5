"""The ledger's contract, over SQLite and a real PostgreSQL: nothing is lost, changed or written twice."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine

from fraud_assets.domain.errors import InvalidSettings, InvalidTenantId, LedgerUnreachable
from fraud_assets.storage import sqlite
from fraud_assets.storage.ledger import Entry, Ledger
from fraud_assets_tests.builders import NOON
from fraud_assets_tests.postgres import binary, fresh_database

DAY = timedelta(days=1)
ACTIVATION = Entry(
    tenant="acme",
    decided_at=NOON + timedelta(minutes=7, microseconds=1),
    cycle_started_at=NOON,
    verdict="activate",
    reasons=("PR-AUC 0.81 is at least 0.70", "better than the champion's 0.79"),
    records=1234,
    fraud=56,
    model_version=3,
    model_digest="a" * 64,
    pr_auc=0.8123456789012345,
    dataset_digest="b" * 64,
    dataset_version=12,
    dagster_run_id="run-1",
    metrics={"pr_auc": 0.8123456789012345, "precision_at_80_recall": 1 / 3},
    champion_version=2,
    window_start=NOON - 180 * DAY,
    as_of=NOON,
)
ROLL_BACK = replace(
    ACTIVATION, decided_at=NOON + 2 * DAY, verdict="roll back", model_version=2, model_digest="c" * 64,
    reasons=("too many alarms",), decided_by="Ana", champion_version=3,
)  # fmt: skip
SKIPPED = Entry("acme", NOON + DAY, NOON + DAY, "skipped", ("99 records, 100 are needed",), 99, 5)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


@contextmanager
def database(url: str) -> Iterator[Any]:
    opened: Any = sqlite3.connect(url[10:]) if url.startswith("sqlite") else psycopg2.connect(url)
    with closing(opened), opened:
        yield opened.cursor()


def test_an_empty_ledger_knows_nobody(ledger: Ledger) -> None:
    assert (ledger.champion("acme"), ledger.latest("acme"), ledger.history("acme")) == (None, None, [])
    assert ledger.champions() == ledger.latest_all() == {}


@pytest.mark.parametrize("entry", [ACTIVATION, SKIPPED, ROLL_BACK])
def test_an_entry_comes_back_as_it_was_written(ledger: Ledger, entry: Entry) -> None:
    assert ledger.append(entry) is True
    assert Ledger(ledger.url).history("acme") == [entry]


def test_instants_come_back_as_aware_utc_whatever_zone_they_came_in(ledger: Ledger, url: str) -> None:
    if url.startswith("postgresql"):
        with database(url) as cursor:
            cursor.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET timezone = 'Asia/Kolkata'")
    ledger.append(replace(ACTIVATION, decided_at=NOON.astimezone(timezone(timedelta(hours=-5)))))
    [entry] = ledger.history("acme")
    assert (entry.decided_at, entry.decided_at.tzinfo, entry.cycle_started_at.tzinfo) == (NOON, UTC, UTC)


def test_the_champion_is_the_newest_activation_and_a_rejection_moves_nothing(ledger: Ledger) -> None:
    second = replace(ACTIVATION, cycle_started_at=NOON + 7 * DAY, model_version=4)
    rejected = replace(ACTIVATION, cycle_started_at=NOON + 14 * DAY, verdict="reject", model_version=5)
    for entry in (ACTIVATION, second, rejected, SKIPPED):
        ledger.append(entry)
    assert ledger.champion("acme") == second
    assert ledger.latest("acme") == SKIPPED
    assert ledger.history("acme") == [ACTIVATION, second, rejected, SKIPPED]


@pytest.mark.parametrize("verdict", ["roll back", "override", "adopt"])
def test_what_a_person_activates_is_the_champion_as_well(ledger: Ledger, verdict: str) -> None:
    theirs = replace(ROLL_BACK, verdict=verdict)
    corrected = replace(ROLL_BACK, verdict="put back", decided_by=None)
    for entry in (ACTIVATION, theirs, corrected, SKIPPED):
        ledger.append(entry)
    assert ledger.champion("acme") == theirs
    assert ledger.champions() == {"acme": theirs}


def test_the_champion_of_an_instant_is_the_last_one_decided_by_then(ledger: Ledger) -> None:
    at = ACTIVATION.decided_at
    for entry in (ACTIVATION, SKIPPED, ROLL_BACK):
        ledger.append(entry)
    indian = timezone(timedelta(hours=5, minutes=30))
    asked = (
        at - timedelta(microseconds=1),
        at,
        at.astimezone(indian),
        NOON + DAY,
        NOON + 2 * DAY,
        NOON + 9 * DAY,
    )
    found = [ledger.champion("acme", each) for each in asked]
    assert found == [None, ACTIVATION, ACTIVATION, ACTIVATION, ROLL_BACK, ROLL_BACK]


def test_a_model_is_rolled_back_from_until_it_is_activated_again(ledger: Ledger) -> None:
    earlier = replace(ACTIVATION, model_version=2, model_digest="c" * 64)
    again = replace(ACTIVATION, verdict="override", decided_by="Bo", reasons=("it was the kiosk",))
    told = []
    for entry in (earlier, ACTIVATION, ROLL_BACK, replace(ACTIVATION, verdict="reject"), again):
        ledger.append(entry)
        told.append(ledger.rolled_back("acme", str(ACTIVATION.model_digest)))
    assert told == [None, None, ROLL_BACK, ROLL_BACK, None]
    assert ledger.rolled_back("acme", "c" * 64) is None
    assert ledger.rolled_back("acme-2", str(ACTIVATION.model_digest)) is None


def test_a_corrected_alias_does_not_make_the_same_decision_another_one(ledger: Ledger) -> None:
    corrected = replace(ACTIVATION, verdict="put back")
    assert [ledger.append(each) for each in (ACTIVATION, corrected, corrected, ACTIVATION)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_newest_means_written_last_not_dated_last(ledger: Ledger) -> None:
    rolled_back = replace(ACTIVATION, decided_at=NOON - DAY, model_version=2)
    for entry in (ACTIVATION, rolled_back):
        ledger.append(entry)
    assert ledger.champion("acme") == ledger.latest("acme") == rolled_back


def test_a_tenants_entries_are_its_own(ledger: Ledger) -> None:
    theirs = replace(SKIPPED, tenant="acme-2")
    for entry in (ACTIVATION, theirs):
        ledger.append(entry)
    assert ledger.champion("acme-2") is None
    assert ledger.champions() == {"acme": ACTIVATION}
    assert ledger.latest_all() == {"acme": ACTIVATION, "acme-2": theirs}
    assert ledger.history("acme-2") == [theirs]


def test_all_tenants_take_one_query(ledger: Ledger) -> None:
    for number in range(5):
        ledger.append(replace(ACTIVATION, tenant=f"t{number}"))
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert len(ledger.champions()) == len(ledger.latest_all()) == 5
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(statements) == 2


@pytest.mark.parametrize("entry", [ACTIVATION, SKIPPED])
def test_the_same_decision_is_written_once(ledger: Ledger, entry: Entry) -> None:
    again = replace(entry, decided_at=entry.decided_at + DAY, dagster_run_id="run-2", reasons=("other",))
    assert [ledger.append(one) for one in (entry, again, entry)] == [True, False, False]
    assert ledger.history("acme") == [entry]


def test_going_back_to_an_earlier_decision_is_a_decision_of_its_own(ledger: Ledger) -> None:
    other = replace(ACTIVATION, model_version=4)
    assert [ledger.append(one) for one in (ACTIVATION, other, ACTIVATION)] == [True, True, True]
    assert ledger.champion("acme") == ACTIVATION


@pytest.mark.parametrize("entry", [ACTIVATION, SKIPPED])
def test_a_decision_comes_once_while_the_champion_stays_whatever_was_decided_between(
    ledger: Ledger, entry: Entry
) -> None:
    ledger.append(ACTIVATION)
    ledger.append(entry)
    between = replace(ACTIVATION, cycle_started_at=NOON - DAY)
    assert [ledger.append(one) for one in (between, entry, between)] == [True, False, False]


def test_the_same_decision_of_several_at_once_is_written_once(ledger: Ledger) -> None:
    ledger.latest("acme")
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda _: Ledger(ledger.url).append(ACTIVATION), range(16)))
    assert sum(written) == 1
    assert ledger.history("acme") == [ACTIVATION]


@pytest.mark.parametrize(
    "other",
    [
        replace(ACTIVATION, tenant="acme-2"),
        replace(ACTIVATION, cycle_started_at=NOON + DAY),
        replace(ACTIVATION, verdict="reject"),
        replace(ACTIVATION, model_version=4),
        replace(ACTIVATION, dataset_digest=None),
    ],
)
def test_another_decision_is_written(ledger: Ledger, other: Entry) -> None:
    assert [ledger.append(ACTIVATION), ledger.append(other)] == [True, True]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE fraud_assets_decision SET model_version = 99",
        "UPDATE fraud_assets_decision SET verdict = 'reject' WHERE tenant = 'acme'",
        "DELETE FROM fraud_assets_decision",
    ],
)
def test_the_database_refuses_to_change_or_delete_an_entry(ledger: Ledger, statement: str) -> None:
    ledger.append(ACTIVATION)
    with (
        pytest.raises((sqlite3.IntegrityError, psycopg2.errors.RaiseException), match="append-only"),
        database(ledger.url) as cursor,
    ):
        cursor.execute(statement)
    assert ledger.history("acme") == [ACTIVATION]


def test_postgresql_refuses_to_truncate(postgres_url: str) -> None:
    ledger = Ledger(postgres_url)
    ledger.append(ACTIVATION)
    with pytest.raises(psycopg2.errors.RaiseException, match="append-only"), database(postgres_url) as cursor:
        cursor.execute("TRUNCATE fraud_assets_decision")
    assert ledger.history("acme") == [ACTIVATION]


def test_sqlite_replaces_nothing(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.append(ACTIVATION)
    with database(ledger.url) as cursor:
        cursor.execute("CREATE TEMP TABLE copy AS SELECT * FROM fraud_assets_decision")
        cursor.execute("UPDATE copy SET model_version = 99")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            cursor.execute("INSERT OR REPLACE INTO fraud_assets_decision SELECT * FROM copy")
    assert ledger.history("acme") == [ACTIVATION]


ERASED = Entry(
    "acme", NOON + 3 * DAY, NOON + 3 * DAY, "erase", ("the contract ended",), 0, 0, decided_by="Ana",
    metrics={"decisions": 3.0, "models": 2.0},
)  # fmt: skip


ERASED_ALONE = replace(ERASED, metrics={"decisions": 1.0, "models": 1.0})


def erase(ledger: Ledger, tenant: str = "acme", **more: bool) -> Entry | None:
    return ledger.erase(tenant, ERASED.decided_at, "Ana", "the contract ended", **more)


def test_an_erasure_leaves_one_line_of_the_tenant_and_the_others_as_they_were(ledger: Ledger) -> None:
    theirs = replace(SKIPPED, tenant="acme-2")
    for entry in (ACTIVATION, SKIPPED, theirs, ROLL_BACK):
        ledger.append(entry)
    assert erase(ledger) == ERASED
    assert ledger.history("acme") == [ERASED]
    assert ledger.history("acme-2") == [theirs]
    assert ERASED.sentence == "Erased by Ana: the contract ended."


def test_an_erasure_is_no_decision_and_what_comes_after_it_is_the_first(ledger: Ledger) -> None:
    ledger.append(ACTIVATION)
    erase(ledger)
    assert (ledger.champion("acme"), ledger.latest("acme")) == (None, None)
    assert ledger.champions() == ledger.latest_all() == {}
    assert ledger.append(ACTIVATION)
    assert ledger.history("acme")[1:] == [ACTIVATION]


def test_an_erasure_is_noted_once_and_again_when_there_is_more_to_erase(ledger: Ledger) -> None:
    assert erase(ledger) is None
    ledger.append(SKIPPED)
    assert erase(ledger)
    assert erase(ledger) is None
    assert erase(ledger, is_noted=True)
    ledger.append(SKIPPED)
    assert erase(ledger)
    assert [entry.verdict for entry in ledger.history("acme")] == ["erase"] * 3


def test_an_erasure_that_cannot_be_noted_deletes_nothing(ledger: Ledger) -> None:
    ledger.append(ACTIVATION)
    with pytest.raises(ValueError, match="expected the name of who decided"):
        ledger.erase("acme", NOON, " ", "why")
    with pytest.raises(ValueError, match="call erase"):
        ledger.append(ERASED)
    assert ledger.history("acme") == [ACTIVATION]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM fraud_assets_decision WHERE verdict = 'erase'",
        "DELETE FROM fraud_assets_decision WHERE tenant = 'acme'",
        "DELETE FROM fraud_assets_decision WHERE tenant = 'acme-2'",
        "DELETE FROM fraud_assets_decision WHERE verdict <> 'erase'",
        "UPDATE fraud_assets_decision SET verdict = 'erase'",
        "UPDATE fraud_assets_decision SET tenant = 'acme' WHERE tenant = 'acme-2'",
    ],
)
def test_after_an_erasure_nothing_else_may_go(ledger: Ledger, statement: str) -> None:
    for entry in (ACTIVATION, replace(SKIPPED, tenant="acme-2")):
        ledger.append(entry)
    erase(ledger)
    ledger.append(ROLL_BACK)
    before = [ledger.history("acme"), ledger.history("acme-2")]
    with (
        pytest.raises((sqlite3.IntegrityError, psycopg2.errors.RaiseException), match="append-only"),
        database(ledger.url) as cursor,
    ):
        cursor.execute(statement)
    assert [ledger.history("acme"), ledger.history("acme-2")] == before


@pytest.mark.parametrize("number", [-1, 10**6])
def test_a_line_with_a_number_of_its_own_never_lets_an_entry_go_unnoticed(
    ledger: Ledger, number: int
) -> None:
    ledger.append(ACTIVATION)
    erase(ledger, "acme-2", is_noted=True)
    insert = f"""INSERT INTO fraud_assets_decision (sequence, tenant, decided_at, cycle_started_at, verdict,
    reasons, records, fraud, metrics, decided_by) SELECT {number}, 'acme', decided_at, cycle_started_at,
    verdict, reasons, 0, 0, metrics, decided_by FROM fraud_assets_decision WHERE verdict = 'erase'"""
    with suppress(sqlite3.IntegrityError, psycopg2.Error), database(ledger.url) as cursor:
        cursor.execute(insert)
    ledger.append(ROLL_BACK)
    with suppress(sqlite3.IntegrityError, psycopg2.Error), database(ledger.url) as cursor:
        cursor.execute("DELETE FROM fraud_assets_decision WHERE tenant = 'acme' AND verdict <> 'erase'")
    assert ledger.history("acme")[-1] == ROLL_BACK


def test_nothing_of_an_erased_tenant_is_left_in_the_file(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    for number in range(50):
        ledger.append(replace(ACTIVATION, model_version=number, reasons=("guard-0815 is tired" * 99,)))
    assert b"guard-0815" in (tmp_path / "ledger.db").read_bytes()
    erase(ledger)
    left = (tmp_path / "ledger.db").read_bytes()
    assert b"guard-0815" not in left
    assert left.count(b"the contract ended") == 1


def test_whoever_dies_before_the_file_is_cleaned_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, cleaned = Ledger(f"sqlite:///{tmp_path}/ledger.db"), []
    ledger.append(ACTIVATION)
    with monkeypatch.context() as patched:
        patched.delattr(sqlite, "compact")
        with pytest.raises(AttributeError):
            erase(ledger)
    monkeypatch.setattr(sqlite, "compact", cleaned.append)
    assert erase(ledger) is None
    assert cleaned == [tmp_path / "ledger.db"]
    assert ledger.history("acme") == [ERASED_ALONE]


FIRST_RELEASE = """CREATE TABLE fraud_assets_decision (
sequence {key}, tenant TEXT NOT NULL, decided_at {instant} NOT NULL, cycle_started_at {instant} NOT NULL,
verdict TEXT NOT NULL, reasons JSON NOT NULL, records BIGINT NOT NULL, fraud BIGINT NOT NULL,
model_version BIGINT, model_digest TEXT, pr_auc {double}, dataset_digest TEXT, dataset_version BIGINT,
dagster_run_id TEXT, metrics JSON NOT NULL)"""
TYPES = {
    "sqlite": {"key": "INTEGER PRIMARY KEY AUTOINCREMENT", "instant": "DATETIME", "double": "DOUBLE"},
    "postgresql": {
        "key": "BIGSERIAL PRIMARY KEY", "instant": "TIMESTAMP WITH TIME ZONE", "double": "DOUBLE PRECISION",
    },
}  # fmt: skip
OLD_ENTRY = """INSERT INTO fraud_assets_decision (tenant, decided_at, cycle_started_at, verdict, reasons,
records, fraud, model_version, model_digest, metrics) VALUES ('acme', '2026-03-02 12:07:00.000000',
'2026-03-02 12:00:00.000000', 'activate', '["good"]', 1234, 56, 3, 'abc', '{"pr_auc": 0.5}')"""


@pytest.fixture
def of_the_first_release(url: str) -> Ledger:
    """A ledger as the first release made it, with one activation."""
    with database(url) as cursor:
        cursor.execute(FIRST_RELEASE.format(**TYPES[url.partition(":")[0]]))
        if url.startswith("postgresql"):
            cursor.execute("SET timezone = 'UTC'")
        cursor.execute(OLD_ENTRY)
    return Ledger(url)


def test_an_older_ledger_keeps_its_history_and_takes_new_entries(of_the_first_release: Ledger) -> None:
    kept = Entry(
        "acme", NOON + timedelta(minutes=7), NOON, "activate", ("good",), 1234, 56, 3, "abc",
        metrics={"pr_auc": 0.5},
    )  # fmt: skip
    assert of_the_first_release.champion("acme") == kept
    assert Ledger(of_the_first_release.url).append(ROLL_BACK)
    assert Ledger(of_the_first_release.url).history("acme") == [kept, ROLL_BACK]


@pytest.mark.parametrize(
    "statement", ["UPDATE fraud_assets_decision SET decided_by = 'me'", "DELETE FROM fraud_assets_decision"]
)
def test_an_older_ledger_still_refuses_to_be_changed(of_the_first_release: Ledger, statement: str) -> None:
    before = of_the_first_release.history("acme")
    with (
        pytest.raises((sqlite3.IntegrityError, psycopg2.errors.RaiseException), match="append-only"),
        database(of_the_first_release.url) as cursor,
    ):
        cursor.execute(statement)
    assert of_the_first_release.history("acme") == before


OLD_GUARDS = {
    "sqlite": """CREATE TRIGGER fraud_assets_decision_delete BEFORE DELETE ON fraud_assets_decision
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    "postgresql": """CREATE FUNCTION fraud_assets_append_only() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
    CREATE TRIGGER fraud_assets_decision_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON fraud_assets_decision
    FOR EACH STATEMENT EXECUTE FUNCTION fraud_assets_append_only()""",
}


def test_an_older_ledger_with_the_guards_of_its_day_can_be_erased_from(
    of_the_first_release: Ledger, url: str
) -> None:
    with database(url) as cursor:
        cursor.execute(OLD_GUARDS[url.partition(":")[0]])
    assert erase(of_the_first_release)
    assert [entry.verdict for entry in of_the_first_release.history("acme")] == ["erase"]


def test_several_may_open_an_older_ledger_first_at_once(of_the_first_release: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Ledger(of_the_first_release.url).champion("acme"), range(8)))
    assert {each and each.model_version for each in found} == {3}


def test_a_ledger_that_pg_dump_copied_is_the_same_and_guarded(
    postgres_url: str, postgres_server_url: str, tmp_path: Path
) -> None:
    ledger = Ledger(postgres_url)
    for entry in (ACTIVATION, replace(SKIPPED, tenant="acme-2")):
        ledger.append(entry)
    erase(ledger)
    ledger.append(ROLL_BACK)
    dump = [binary("pg_dump"), "--format=custom", f"--file={tmp_path}/ledger.dump", postgres_url]
    subprocess.run(dump, check=True)
    with fresh_database(postgres_server_url) as url:
        restore = [binary("pg_restore"), "--exit-on-error", f"--dbname={url}", f"{tmp_path}/ledger.dump"]
        subprocess.run(restore, check=True)
        restored = Ledger(url)
        assert restored.latest_all() == ledger.latest_all()
        assert restored.history("acme") == ledger.history("acme")
        with pytest.raises(psycopg2.errors.RaiseException, match="append-only"), database(url) as cursor:
            cursor.execute("DELETE FROM fraud_assets_decision")
        assert restored.append(ACTIVATION)
        assert erase(restored)


TOGETHER = """
import multiprocessing, sys
from dataclasses import replace
from fraud_assets.storage.ledger import Ledger
from fraud_assets_tests.storage.test_ledger import ACTIVATION

def work(number, barrier, written):
    ledger = Ledger(sys.argv[1])
    barrier.wait()
    own = ledger.append(replace(ACTIVATION, tenant=f"t{number}"))
    written.put((own, ledger.append(ACTIVATION)))

context = multiprocessing.get_context("fork")
barrier, written = context.Barrier(8), context.SimpleQueue()
workers = [context.Process(target=work, args=(n, barrier, written)) for n in range(8)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print([written.get() for worker in workers if worker.exitcode == 0])
"""


def test_eight_processes_may_use_a_ledger_first_at_once(ledger: Ledger) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, ledger.url], capture_output=True, text=True, check=True
    )
    assert sorted(re.findall(r"\((\w+), (\w+)\)", done.stdout)) == [("True", "False")] * 7 + [
        ("True", "True")
    ]
    assert len(ledger.champions()) == 9
    assert ledger.history("acme") == [ACTIVATION]


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    str.strip
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    verdict=words,
    reasons=st.lists(words, min_size=1).map(tuple),
    metrics=st.dictionaries(words, st.floats(allow_nan=False, allow_infinity=False)),
    digest=words,
    cycle=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_whatever_is_written_comes_back(
    ledger: Ledger, verdict: str, reasons: Any, metrics: dict[str, float], digest: str, cycle: datetime
) -> None:
    entry = replace(
        ACTIVATION,
        verdict=verdict, reasons=reasons, metrics=metrics, dataset_digest=digest, cycle_started_at=cycle,
    )  # fmt: skip
    if ledger.append(entry):
        assert ledger.latest("acme") == entry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decided_at": NOON.replace(tzinfo=None)}, "expected aware instants"),
        ({"cycle_started_at": NOON.replace(tzinfo=None)}, "expected aware instants"),
        ({"verdict": " "}, "expected a verdict with reasons"),
        ({"reasons": ()}, "expected a verdict with reasons"),
        ({"model_version": None}, "expected an activation to name its model's version and digest"),
        ({"model_digest": None}, "expected an activation to name its model's version and digest"),
        ({"as_of": NOON.replace(tzinfo=None)}, "expected aware instants"),
        ({"verdict": "override"}, "expected the name of who decided"),
        ({"verdict": "roll back", "decided_by": " "}, "expected the name of who decided"),
        ({"verdict": "adopt", "model_digest": None}, "expected an activation to name its model"),
        ({"metrics": {"x": float("nan")}}, "expected finite metrics"),
        ({"pr_auc": float("inf")}, "expected finite metrics"),
        ({"tenant": "../acme"}, "expected a tenant id"),
    ],
)
def test_an_entry_that_says_nothing_useful_cannot_be_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ACTIVATION, **change)


def test_a_decision_is_told_in_one_sentence() -> None:
    expected = "Activated: PR-AUC 0.81 is at least 0.70; better than the champion's 0.79."
    assert ACTIVATION.sentence == expected
    assert SKIPPED.sentence == "Skipped: 99 records, 100 are needed."
    hostile = replace(SKIPPED, reasons=("site a\n2026 ERROR \x1b[2J\u202e", "more"))
    assert hostile.sentence == r"Skipped: site a\n2026 ERROR \x1b[2J\u202e; more."
    assert ROLL_BACK.sentence == "Rolled back from v3 to v2 by Ana: too many alarms."
    assert replace(ROLL_BACK, verdict="override", decided_by="{was}").sentence == (
        "Override: v2 activated by {was}: too many alarms."
    )


def test_a_hostile_tenant_id_asks_nothing(ledger: Ledger) -> None:
    for ask in (ledger.champion, ledger.latest, ledger.history):
        with pytest.raises(InvalidTenantId):
            ask("' OR 1=1 --")


def test_a_ledger_that_cannot_be_opened_is_unreachable(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/no/folder.db", "postgresql://reader:sekret@127.0.0.1:1/x"):
        with pytest.raises(LedgerUnreachable, match=r"expected the ledger .* to answer, got: ") as caught:
            Ledger(url).latest_all()
        assert "sekret" not in f"{caught.value}{caught.value.__cause__}{Ledger(url)!r}"


@pytest.mark.parametrize("url", ["", "ledger.db", "sqlite://", "sqlite:///x.db", "mysql://a:sekret@b/c"])
def test_a_url_that_names_no_ledger_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettings, match="expected a ledger URL such as") as caught:
        Ledger(url)
    assert "sekret" not in str(caught.value)


def test_the_reasons_can_be_read_with_any_tool(ledger: Ledger) -> None:
    ledger.append(ACTIVATION)
    with database(ledger.url) as cursor:
        cursor.execute("SELECT CAST(reasons AS text) FROM fraud_assets_decision")
        assert json.loads(cursor.fetchone()[0]) == list(ACTIVATION.reasons)
