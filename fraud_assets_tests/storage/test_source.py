"""The reader's contract, over SQLite and a real PostgreSQL; then what only one of them can get wrong."""

import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg2
import psycopg2.extensions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fraud_assets.domain.errors import InvalidSettings, InvalidTenantId, SourceMismatch, SourceUnreachable
from fraud_assets.domain.schemas import SOURCE_TABLES, History, SourceTable, Tenant
from fraud_assets.storage.source import Source
from fraud_assets_tests import builders
from fraud_assets_tests.builders import NOON, history, table

DAY = timedelta(days=1)
SINCE, UNTIL = NOON - 10 * DAY, NOON + 10 * DAY
MARK = {"sqlite": "?", "postgresql": "%s"}
TYPES: Mapping[str, Mapping[Any, str]] = {
    "sqlite": {
        **{pl.String: "TEXT", pl.Datetime: "TEXT", pl.Date: "TEXT"},
        **{pl.Float64: "REAL", pl.Int64: "INTEGER", pl.Boolean: "INTEGER"},
    },
    "postgresql": {
        **{pl.String: "text", pl.Datetime: "timestamptz", pl.Date: "date"},
        **{pl.Float64: "double precision", pl.Int64: "bigint", pl.Boolean: "boolean"},
    },
}
COMPANY = {"tenant_id": "acme", "name": "Acme", "is_active": True, "tz": "Europe/Madrid", "country": "ES"}


@dataclass(frozen=True)
class Company:
    """The company's own side of its database: it may write."""

    engine: str
    url: str

    @contextmanager
    def connection(self) -> Iterator[Any]:
        if self.engine == "sqlite":
            opened: Any = sqlite3.connect(self.url.removeprefix("sqlite:///"))
        else:
            opened = psycopg2.connect(self.url)
        with closing(opened), opened:
            yield opened

    def execute(self, statement: str, values: Sequence[Any] = ()) -> None:
        with self.connection() as connection:
            connection.cursor().execute(statement, values)

    def insert(self, name: str, *rows: Mapping[str, Any]) -> None:
        """Rows laid over the defaults of the builders; values of any type come as they are."""
        with self.connection() as connection:
            for row in rows:
                columns = ", ".join(row)
                marks = ", ".join([MARK[self.engine]] * len(row))
                values = [self.stored(value) for value in row.values()]
                connection.cursor().execute(f"INSERT INTO {name} ({columns}) VALUES ({marks})", values)

    def add(self, name: SourceTable, *rows: Mapping[str, Any]) -> None:
        """Like `insert`, laid over a valid row."""
        self.insert(name, *({**table(name, [{}]).to_dicts()[0], **row} for row in rows))

    def save(self, given: History) -> None:
        for name in SOURCE_TABLES:
            self.insert(name, *getattr(given, name).drop("unreadable").to_dicts())

    def stored(self, value: Any) -> Any:
        if self.engine == "sqlite" and isinstance(value, datetime | date):
            return value.isoformat()
        return value


def created(company: Company) -> Company:
    with company.connection() as connection:
        for name, schema in {**SOURCE_TABLES, "tenant": Tenant}.items():
            types = {
                column: TYPES[company.engine][dtype.base_type()]
                for column, dtype in schema.create_empty().schema.items()
                if column != "unreadable"
            }
            columns = ", ".join(f"{column} {type_}" for column, type_ in types.items())
            connection.cursor().execute(f"CREATE TABLE {name} ({columns})")
    return company


@pytest.fixture
def sqlite_company(tmp_path: Path) -> Company:
    return created(Company("sqlite", f"sqlite:///{tmp_path}/source.db"))


@pytest.fixture
def postgresql_company(postgres_url: str) -> Company:
    return created(Company("postgresql", postgres_url))


@pytest.fixture(params=["sqlite", "postgresql"])
def company(request: pytest.FixtureRequest) -> Company:
    return request.getfixturevalue(f"{request.param}_company")


def read(company: Company, tenant: str = "acme") -> History:
    return builders.read(Source(company.url), tenant, SINCE, UNTIL)


def ids(rows: pl.DataFrame, column: str) -> list[str | None]:
    return rows[column].to_list()


# ---- the contract


def test_what_the_company_stored_is_what_is_read(company: Company) -> None:
    stored = history(
        as_read=True,
        guard=[{"joined_on": date(2020, 2, 29), "left_on": date(2027, 1, 1)}],
        shift=[{}],
        attendance_event=[
            {"event_id": "e1", "punch_out_at": NOON + timedelta(hours=8, microseconds=7), "shift_id": "h1"},
            {"event_id": "e2", "latitude": 1 / 3, "longitude": float("inf"), "face_attempts": 2**40},
        ],
        outcome=[{"known_at": NOON + 9 * DAY}],
    )
    company.save(stored)
    for field in fields(History):
        assert_frame_equal(getattr(read(company), field.name), getattr(stored, field.name))


def test_a_null_stays_null_and_is_not_called_unreadable(company: Company) -> None:
    nothing = dict.fromkeys(
        column for column in SOURCE_TABLES["attendance_event"].column_names() if column != "unreadable"
    )
    company.insert("attendance_event", {**nothing, "tenant_id": "acme"})
    event = read(company).attendance_event.to_dicts()
    assert event == [{**nothing, "tenant_id": "acme", "unreadable": None}]


def test_empty_tables_are_read_with_their_types(company: Company) -> None:
    found = read(company)
    for name, schema in SOURCE_TABLES.items():
        assert_frame_equal(getattr(found, name), schema.create_empty())


def test_the_order_in_the_database_is_not_seen(company: Company) -> None:
    rows = [{"event_id": "e2"}, {"event_id": "e1", "face_attempts": 2}, {"event_id": "e1"}]
    company.add("attendance_event", *rows)
    first = read(company).attendance_event
    company.execute("DELETE FROM attendance_event")
    company.add("attendance_event", *reversed(rows))
    assert_frame_equal(read(company).attendance_event, first)
    assert ids(first, "event_id") == ["e1", "e1", "e2"]


def test_events_are_read_from_since_on_if_known_by_until(company: Company) -> None:
    moment = timedelta(microseconds=1)
    company.add(
        "attendance_event",
        {"event_id": "too old", "punch_in_at": SINCE - moment, "known_at": SINCE},
        {"event_id": "first", "punch_in_at": SINCE, "known_at": SINCE},
        {"event_id": "last", "punch_in_at": UNTIL, "known_at": UNTIL},
        {"event_id": "from the future", "punch_in_at": UNTIL + DAY, "known_at": UNTIL},
        {"event_id": "not known yet", "known_at": UNTIL + moment},
    )
    assert ids(read(company).attendance_event, "event_id") == ["first", "from the future", "last"]


def test_outcomes_are_read_of_the_events_in_the_window_and_of_events_that_do_not_exist(
    company: Company,
) -> None:
    company.add(
        "attendance_event",
        {"event_id": "recent", "known_at": NOON},
        {"event_id": "old", "punch_in_at": SINCE - 5 * DAY, "known_at": SINCE},
    )
    company.add(
        "outcome",
        {"outcome_id": "1", "event_id": "recent"},
        {"outcome_id": "2", "event_id": "old"},
        {"outcome_id": "3", "event_id": "nowhere"},
        {"outcome_id": "4", "event_id": "recent", "known_at": UNTIL + DAY},
        {"outcome_id": "5", "event_id": None},
    )
    assert ids(read(company).outcome, "outcome_id") == ["1", "3", "5"]


def test_shifts_are_read_round_the_window_and_if_an_event_refers_to_them(company: Company) -> None:
    old, late = SINCE - 30 * DAY, UNTIL + 2 * DAY
    company.add("attendance_event", {"shift_id": "referred to", "known_at": NOON})
    company.add(
        "shift",
        {"shift_id": "referred to", "scheduled_start": old, "published_at": old},
        {"shift_id": "old", "scheduled_start": old, "published_at": old},
        {"shift_id": "the day before", "scheduled_start": SINCE - DAY, "published_at": old},
        {"shift_id": "the day after", "scheduled_start": UNTIL + DAY},
        {"shift_id": "late", "scheduled_start": late},
        {"shift_id": "not published yet", "published_at": UNTIL + DAY},
    )
    assert ids(read(company).shift, "shift_id") == ["referred to", "the day after", "the day before"]


def test_a_shift_is_referred_to_by_the_events_of_its_guard_alone(company: Company) -> None:
    old = SINCE - 30 * DAY
    company.add("attendance_event", {"shift_id": "h1", "guard_id": "g2", "known_at": NOON})
    company.add("shift", {"scheduled_start": old, "published_at": old})
    assert read(company).shift.is_empty()


def test_a_tenant_never_sees_another_with_the_same_ids(company: Company) -> None:
    for name in SOURCE_TABLES:
        company.add(name, {"known_at": NOON} if name in {"attendance_event", "outcome"} else {})
        theirs = {"tenant_id": "acme-2"}
        company.add(name, {**theirs, "known_at": NOON} if name in {"attendance_event", "outcome"} else theirs)
    for tenant in ("acme", "acme-2"):
        found = read(company, tenant)
        for name in SOURCE_TABLES:
            assert ids(getattr(found, name), "tenant_id") == [tenant]


@pytest.mark.parametrize("value", ["'; DROP TABLE site; --", '" OR ""="', "$1", "{c}", "%s", "", "né\n\\"])
def test_hostile_text_is_data(company: Company, value: str) -> None:
    company.add("site", {"name": value, "site_id": value})
    assert read(company).site.select("site_id", "name").rows() == [(value, value)]


@pytest.mark.parametrize("tenant", ["' OR '1'='1", "../acme", "", "ACME", "acme\n", "a" * 51, "-a"])
def test_a_hostile_tenant_id_is_refused_before_anything_is_opened(tenant: str) -> None:
    with pytest.raises(InvalidTenantId, match="expected a tenant id of 1 to 50 lower-case letters"):
        read(Company("sqlite", "sqlite:////nowhere.db"), tenant)


def test_the_reader_cannot_write(company: Company) -> None:
    company.add("site", {})
    for statement in (
        "DELETE FROM site",
        "CREATE TABLE mine (a text)",
        "INSERT INTO site (name) VALUES ('x')",
    ):
        with (
            Source(company.url).snapshot() as snapshot,
            pytest.raises(SourceUnreachable, match=r"readonly|read-only"),
        ):
            snapshot.fetch(statement)
    assert read(company).site.height == 1


def write_from_another_process(company: Company, statement: str) -> None:
    """Two SQLite libraries in one process undo each other's file locks (POSIX), so not from this one."""
    name, address = ("sqlite3", company.url[10:]) if company.engine == "sqlite" else ("psycopg2", company.url)
    program = f"import {name}; c = {name}.connect({address!r}); c.cursor().execute({statement!r}); c.commit()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_read_sees_one_moment_though_the_company_goes_on_writing(company: Company) -> None:
    if company.engine == "sqlite":
        company.execute("PRAGMA journal_mode = WAL")
    company.add("site", {})
    with Source(company.url).snapshot() as snapshot:

        def rows(name: SourceTable) -> int:
            return sum(batch.height for batch in snapshot.table(name, "acme", SINCE))

        assert rows("site") == 1
        write_from_another_process(company, "INSERT INTO guard (tenant_id) VALUES ('acme')")
        write_from_another_process(company, "INSERT INTO site (tenant_id) VALUES ('acme')")
        assert rows("guard") == 0
        assert rows("site") == 1
    assert read(company).site.height == 2


def test_nothing_is_left_open_in_the_database(company: Company) -> None:
    read(company)
    company.execute("DROP TABLE site")


@pytest.mark.parametrize("name", ["tenant", "attendance_event"])
def test_a_missing_table_is_named(company: Company, name: str) -> None:
    company.execute(f"DROP TABLE {name}")
    with pytest.raises(
        SourceMismatch, match=f"table {name} of .* expected the columns tenant_id, .* no such table"
    ):
        Source(company.url).tenants() if name == "tenant" else read(company)


def test_every_missing_column_is_named(company: Company) -> None:
    for column in ("radius_m", "name"):
        company.execute(f"ALTER TABLE site DROP COLUMN {column}")
    with pytest.raises(SourceMismatch, match=r"table site.*column name: .*column radius_m: .*no such column"):
        read(company)


def test_tenants_that_break_a_rule_are_set_aside_with_the_rule(company: Company) -> None:
    company.insert(
        "tenant",
        {**COMPANY, "tenant_id": "zeta", "is_active": False},
        COMPANY,
        {**COMPANY, "tenant_id": "../acme"},
        {**COMPANY, "tenant_id": "two"},
        {**COMPANY, "tenant_id": "two"},
        {**COMPANY, "tenant_id": "nameless", "name": None, "country": "Spain"},
    )
    found = Source(company.url).tenants()
    assert ids(found.valid, "tenant_id") == ["acme", "zeta"]
    assert dict(found.set_aside.select("tenant_id", "rules").rows()) == {
        "../acme": "tenant_id|regex",
        "two": "primary_key",
        "nameless": "name|nullability, country|max_length",
    }


def test_what_is_said_of_tenants_set_aside_is_one_harmless_line_with_counts_by_rule(company: Company) -> None:
    hostile = [{**COMPANY, "tenant_id": f"{number}\n\x1b[31m{'a' * 300}"} for number in range(7)]
    company.insert("tenant", COMPANY, *hostile, {**COMPANY, "tenant_id": "nameless", "name": None})
    said = Source(company.url).tenants().left_out or ""
    assert "name|nullability: 1, tenant_id|regex: 7;" in said
    assert said.endswith(", 3 more")
    assert said.isprintable()
    assert len(said) < 800


def test_tenants_without_a_fault_leave_nothing_aside(company: Company) -> None:
    company.insert("tenant", COMPANY)
    found = Source(company.url).tenants()
    assert found.valid.to_dicts() == [COMPANY]
    assert found.set_aside.columns == [*COMPANY, "rules"]
    assert found.set_aside.is_empty()
    assert found.left_out is None


def test_a_suspended_tenant_is_not_active(company: Company) -> None:
    company.insert("tenant", *({**COMPANY, "tenant_id": t, "is_active": t != "b"} for t in ("c", "b", "a")))
    assert Source(company.url).active_tenants() == ["a", "c"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "acme",
        "mysql://a:sekret@b/c",
        "sqlite:///relative.db",
        "sqlite:////a.db?mode=rw",
        "postgresql:///x",
        "postgresql://a:sekret@b:port/c",
        "postgresql://b/c?password=sekret",
    ],
)
def test_a_url_that_names_no_source_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(
        InvalidSettings, match=r"expected a source URL such as sqlite:////absolute/path\.db"
    ) as caught:
        Source(url)
    assert "sekret" not in str(caught.value)


# ---- in parts

GUARD_IDS = st.sampled_from([None, "", "a", "B", "b", "é", "ß", "日", "g1"])
OLD = {"event_id": "old", "punch_in_at": SINCE - 5 * DAY, "known_at": SINCE}


def stored_for(company: Company, guards: Sequence[str | None]) -> None:
    """An event, a shift and an outcome for each of `guards`, and outcomes of an old and of no event."""
    names = [f"e{number % 5}" for number in range(len(guards))]
    company.add(
        "attendance_event",
        *({"event_id": name, "guard_id": g, "known_at": NOON} for name, g in zip(names, guards, strict=True)),
        OLD,
    )
    company.add("shift", *({"shift_id": f"h{number}", "guard_id": g} for number, g in enumerate(guards)))
    events = [*names, "old", "nowhere", None]
    company.add("outcome", *({"outcome_id": f"o{n}", "event_id": name} for n, name in enumerate(events)))


def parted(company: Company, size: int, folder: Path) -> list[History]:
    return [part.collect() for part in Source(company.url).parts("acme", SINCE, UNTIL, size, folder)]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(guards=st.lists(GUARD_IDS, max_size=12), size=st.integers(1, 4))
def test_the_parts_have_every_row_of_the_whole_once_and_a_guard_in_one_of_them(
    company: Company, tmp_path_factory: pytest.TempPathFactory, guards: list[str | None], size: int
) -> None:
    for name in ("attendance_event", "shift", "outcome"):
        company.execute(f"DELETE FROM {name}")
    stored_for(company, guards)
    whole, parts = read(company), parted(company, size, tmp_path_factory.mktemp("parts"))
    for name in ("attendance_event", "shift", "outcome"):
        together = pl.concat(getattr(part, name) for part in parts)
        assert_frame_equal(together, getattr(whole, name), check_row_order=False)
    for part in parts:
        assert_frame_equal(part.site, whole.site)
        assert_frame_equal(part.guard, whole.guard)
    ids_of_parts = [{*part.attendance_event["guard_id"], *part.shift["guard_id"]} for part in parts]
    assert sum(map(len, ids_of_parts)) == len(set().union(*ids_of_parts))
    assert all(some in (set(), {None}) or None not in some for some in ids_of_parts[1:])


@pytest.mark.parametrize(
    ("size", "events"), [(100, [6]), (6, [6]), (5, [4, 2]), (2, [2, 2, 2]), (1, [2, 2, 2])]
)
def test_a_part_is_of_whole_guards_in_the_order_of_their_ids_with_about_so_many_events(
    company: Company, tmp_path: Path, size: int, events: list[int]
) -> None:
    stored_for(company, ["b", "B", "é"] * 2)
    parts = parted(company, size, tmp_path)
    assert [part.attendance_event.height for part in parts] == events
    assert [guard for part in parts for guard in sorted({*part.shift["guard_id"]})] == ["B", "b", "é"]


def test_an_outcome_goes_with_the_first_part_that_has_its_event_or_with_the_last(
    company: Company, tmp_path: Path
) -> None:
    company.add("attendance_event", OLD)
    rows = [("e1", "a"), ("e2", "b"), ("e2", "c"), ("e3", "c")]
    company.add("attendance_event", *({"event_id": e, "guard_id": g, "known_at": NOON} for e, g in rows))
    events = ["e3", "e2", "e1", "old", "nowhere"]
    company.add("outcome", *({"outcome_id": name, "event_id": name} for name in events))
    parts = parted(company, 1, tmp_path)
    assert [ids(part.outcome, "outcome_id") for part in parts] == [["e1"], ["e2"], ["e3", "nowhere"]]


def test_one_part_lies_in_memory_and_many_in_files_that_need_no_database(
    company: Company, tmp_path: Path
) -> None:
    stored_for(company, ["a", "b", "c"])
    source = Source(company.url)
    [small] = source.parts("acme", SINCE, UNTIL, 3, tmp_path / "small")
    large = source.parts("acme", SINCE, UNTIL, 1, tmp_path / "large")
    company.execute("DROP TABLE attendance_event")
    assert small.collect().attendance_event.height == 3
    assert [part.collect().attendance_event.height for part in large] == [1, 1, 1]
    assert not (tmp_path / "small").exists()


# ---- SQLite: any value may stand in any column


def sqlite_event(company: Company, **values: Any) -> dict[str, Any]:
    company.execute("DELETE FROM attendance_event")
    company.add("attendance_event", {"known_at": NOON, **values})
    return read(company).attendance_event.to_dicts()[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[("latitude", value) for value in ("forty", b"40.4", "4e")],
        *[("face_attempts", value) for value in (1.5, "many", b"1")],
        *[("face_verified", value) for value in (2, -1, "yes", 0.5)],
        *[("device_id", value) for value in (b"\xff", b"ok\xc3")],
        *[("punch_in_at", value) for value in ("2026-03-02T12:00:00", "2020-02-31T12:00:00Z", "noon", "", 5)],
        *[("punch_in_at", value) for value in ("2026-03-02", "+12026-03-02T12:00:00Z", b"\xff")],
        *[("known_at", value) for value in ("2026-03-02 12:00", "2026-03-02T25:00:00Z")],
    ],
)
def test_a_value_of_another_type_is_null_and_its_column_is_named(
    sqlite_company: Company, column: str, value: Any
) -> None:
    event = sqlite_event(sqlite_company, **{column: value})
    assert (event[column], event["unreadable"]) == (None, column)


@pytest.mark.parametrize(
    "value", ["2026-02-30", "26-3-2", "2026-3-2", "soon", "2026-03-02T00:00:00Z", 20260302]
)
def test_a_date_that_is_none_is_unreadable(sqlite_company: Company, value: object) -> None:
    sqlite_company.add("guard", {"joined_on": value})
    assert read(sqlite_company).guard.select("joined_on", "unreadable").rows() == [(None, "joined_on")]


def test_every_unreadable_column_of_a_row_is_named(sqlite_company: Company) -> None:
    event = sqlite_event(sqlite_company, latitude="x", punch_out_at="y", face_verified=7)
    assert event["unreadable"] == "punch_out_at,latitude,face_verified"


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-02T12:00:00Z",
        "2026-03-02T12:00:00+00:00",
        "2026-03-02T12:00:00.000000+00:00",
        "2026-03-02T12:00:00.000Z",
        "2026-03-02T17:30:00+05:30",
        "2026-03-01T22:00:00.0-14:00",
    ],
)
def test_instants_are_read_in_every_iso_form_with_an_offset(sqlite_company: Company, text: str) -> None:
    assert sqlite_event(sqlite_company, punch_in_at=text)["punch_in_at"] == NOON


def test_the_window_is_exact_for_any_offset(sqlite_company: Company) -> None:
    day = f"{SINCE.date()}"
    sqlite_company.add(
        "attendance_event",
        {"event_id": "in", "punch_in_at": f"{day}T00:00:00-12:00", "known_at": NOON},
        {"event_id": "out", "punch_in_at": f"{day}T23:59:00+12:00", "known_at": NOON},
    )
    assert ids(read(sqlite_company).attendance_event, "event_id") == ["in"]


def test_an_old_row_that_cannot_be_dated_comes_along(sqlite_company: Company) -> None:
    undated = ["2001-01-01T12:00:00", "2001-02-30T12:00:00Z", "2001", None, b"\xff"]
    for number, value in enumerate(undated):
        sqlite_company.add(
            "attendance_event", {"event_id": f"{number}", "punch_in_at": value, "known_at": NOON}
        )
        sqlite_company.add("shift", {"shift_id": f"{number}", "scheduled_start": value})
    found = read(sqlite_company)
    assert found.attendance_event.height == found.shift.height == len(undated)


def test_one_bad_value_after_thousands_of_good_or_missing_ones_does_not_abort(
    sqlite_company: Company,
) -> None:
    missing = [
        {"event_id": f"{i:05}", "known_at": NOON, "latitude": None, "device_id": None} for i in range(3000)
    ]
    bad = {"event_id": "x", "known_at": NOON, "latitude": "north"}
    good = {"event_id": "y", "known_at": NOON, "latitude": 1.5, "device_id": "d"}
    sqlite_company.add("attendance_event", *missing, bad, good)
    events = read(sqlite_company).attendance_event
    assert events.height == 3002
    assert events.select("latitude", "unreadable", "device_id").rows()[-2:] == [
        (None, "latitude", "d1"),
        (1.5, None, "d"),
    ]


ANYTHING = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"]))
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.fixed_dictionaries(
        {
            column: ANYTHING
            for column in SOURCE_TABLES["guard"].column_names()
            if column not in {"unreadable", "tenant_id"}
        }
    )
)
def test_whatever_stands_in_a_row_it_is_read_or_named(sqlite_company: Company, row: dict[str, Any]) -> None:
    sqlite_company.execute("DELETE FROM guard")
    sqlite_company.insert("guard", {"tenant_id": "acme", **row})
    [guard] = read(sqlite_company).guard.to_dicts()
    lost = [column for column in guard if row.get(column) is not None and guard[column] is None]
    assert (guard["unreadable"] or "").split(",") == (lost or [""])


def test_a_collation_that_calls_ids_equal_shows_no_other_tenant(sqlite_company: Company) -> None:
    sqlite_company.execute("ALTER TABLE site RENAME COLUMN tenant_id TO old")
    sqlite_company.execute("ALTER TABLE site ADD COLUMN tenant_id TEXT COLLATE NOCASE")
    sqlite_company.add("site", {}, {"tenant_id": "ACME"})
    assert ids(read(sqlite_company).site, "tenant_id") == ["acme"]


def test_a_file_that_is_not_there_is_unreachable_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable, match=r"expected sqlite:.*gone\.db to answer, got: .*no such file"):
        Source(f"sqlite:///{tmp_path}/gone.db").tenants()
    assert not (tmp_path / "gone.db").exists()


def test_a_file_that_is_no_database_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "source.db").write_text("not a database, " * 100)
    with pytest.raises(SourceUnreachable, match="not a database"):
        Source(f"sqlite:///{tmp_path}/source.db").tenants()


def test_a_file_damaged_half_way_gives_nothing_partial(sqlite_company: Company) -> None:
    sqlite_company.add("attendance_event", *({"event_id": f"{i}", "known_at": NOON} for i in range(3000)))
    path = Path(sqlite_company.url.removeprefix("sqlite:///"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xee" * 8192 + content[len(content) // 2 + 8192 :])
    with pytest.raises(SourceUnreachable, match="malformed"):
        read(sqlite_company)


def test_a_path_with_odd_characters_is_opened_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a b#é&c"
    folder.mkdir()
    company = created(Company("sqlite", f"sqlite:///{folder}/source.db"))
    company.insert("tenant", COMPANY)
    assert Source(company.url).active_tenants() == ["acme"]


# ---- PostgreSQL


def test_an_infinite_or_impossible_instant_is_unreadable(postgresql_company: Company) -> None:
    for value in ("infinity", "-infinity", "200000-01-01 00:00Z", "0044-03-15 00:00Z BC"):
        postgresql_company.add("attendance_event", {"punch_in_at": value, "known_at": NOON})
    postgresql_company.add("guard", {"joined_on": "infinity"})
    found = read(postgresql_company)
    assert found.attendance_event.select("punch_in_at", "unreadable").rows() == [(None, "punch_in_at")] * 4
    assert found.guard.select("joined_on", "unreadable").rows() == [(None, "joined_on")]


def test_a_nan_is_read_as_it_is(postgresql_company: Company) -> None:
    postgresql_company.add("attendance_event", {"latitude": float("nan"), "known_at": NOON})
    assert read(postgresql_company).attendance_event["latitude"].is_nan().all()


@pytest.mark.parametrize(
    ("table_", "column", "type_"),
    [
        ("attendance_event", "punch_in_at", "timestamp without time zone"),
        ("attendance_event", "latitude", "text"),
        ("guard", "is_enabled", "integer"),
        ("site", "site_id", "bigint"),
    ],
)
def test_a_column_of_a_type_that_cannot_be_read_is_named(
    postgresql_company: Company, table_: str, column: str, type_: str
) -> None:
    postgresql_company.execute(f"ALTER TABLE {table_} DROP COLUMN {column}, ADD COLUMN {column} {type_}")
    with pytest.raises(
        SourceMismatch, match=f"table {table_} of .*column {column}: expected .*, got {type_};"
    ):
        read(postgresql_company)


def test_narrow_numbers_and_enumerations_are_read(postgresql_company: Company) -> None:
    for statement in (
        "CREATE TYPE verdict AS ENUM ('fraud', 'legitimate')",
        "ALTER TABLE outcome ALTER verdict TYPE verdict USING verdict::verdict",
        "ALTER TABLE attendance_event ALTER face_attempts TYPE smallint, ALTER accuracy_m TYPE real",
    ):
        postgresql_company.execute(statement)
    stored = history(as_read=True, attendance_event=[{}], outcome=[{}])
    postgresql_company.save(stored)
    assert_frame_equal(read(postgresql_company).outcome, stored.outcome)
    assert_frame_equal(read(postgresql_company).attendance_event, stored.attendance_event)


def test_the_servers_own_time_zone_and_encoding_do_not_matter(postgresql_company: Company) -> None:
    name = postgresql_company.url.rpartition("/")[2]
    postgresql_company.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'")
    postgresql_company.execute(f"ALTER DATABASE {name} SET client_encoding = 'LATIN1'")
    with postgresql_company.connection() as connection:
        connection.set_client_encoding("UTF8")
        connection.cursor().execute("INSERT INTO site (tenant_id, name) VALUES ('acme', 'Ñandú')")
    postgresql_company.add("attendance_event", {"known_at": NOON})
    found = read(postgresql_company)
    assert (ids(found.site, "name"), found.attendance_event["punch_in_at"].to_list()) == (["Ñandú"], [NOON])


def test_a_connection_that_breaks_half_way_is_unreachable(postgresql_company: Company) -> None:
    with (
        Source(postgresql_company.url).snapshot() as snapshot,
        pytest.raises(
            SourceUnreachable, match=r"expected postgresql://.* to answer, got: .*terminating connection"
        ),
    ):
        snapshot.fetch("SELECT pg_terminate_backend(pg_backend_pid())")


def test_rows_are_streamed_until_the_connection_breaks(postgresql_company: Company) -> None:
    wide = "SELECT repeat('x', 100) AS a, 1 / (400000 - i) AS b FROM generate_series(1, $1::int) AS i"
    with Source(postgresql_company.url).snapshot() as snapshot:
        batches = snapshot.stream(wide.replace("$1", "399999"))
        assert [batch.height > 0 for batch in batches] == [False, True, True, True]
        with pytest.raises(SourceUnreachable, match="division by zero"):
            list(snapshot.stream(wide.replace("$1", "400000")))


def test_the_asked_for_tenant_is_forgotten_with_the_transaction(postgresql_company: Company) -> None:
    source = Source(postgresql_company.url)
    with source.snapshot() as snapshot:
        list(snapshot.table("site", "acme", SINCE))
        snapshot.execute("COMMIT")
        found = snapshot.fetch("SELECT current_setting('fraud_assets.tenant', true) AS it")
    assert found["it"].to_list() == [""]


def test_no_statement_runs_for_ever(postgresql_company: Company) -> None:
    with Source(postgresql_company.url).snapshot() as snapshot:
        found = snapshot.fetch("SELECT current_setting($1) AS it", "statement_timeout")
    assert found["it"].to_list() == ["10min"]


def test_no_server_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://reader:sekret@127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(SourceUnreachable, match="Connection refused") as caught:
            Source(url).tenants()
    assert "sekret" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://reader:sekret@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2"
        with pytest.raises(SourceUnreachable, match="timeout expired"):
            Source(url).tenants()


@pytest.mark.parametrize("password", ["sekret", "sek%25ret", "s%40/ek:ret"])
def test_the_password_is_in_no_message(postgres_url: str, password: str) -> None:
    address = postgres_url.partition("@")[2]
    source = Source(f"postgresql://postgres:{password}@{address}")
    with pytest.raises(
        SourceUnreachable, match=r"postgres:\*\*\*@.*password authentication failed"
    ) as caught:
        source.tenants()
    assert password not in f"{caught.value}{source!r}"
    assert caught.value.__cause__ is None
