"""What the two DuckDB contenders share: the tenant as tables, and queries run part by part. No features here
but those of the event alone.

Both number guards, sites and devices and look at the event alone in the same way. How they look at what came
before is theirs: `duckdb_sql` and `duckdb_streams`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import duckdb
import holidays
import polars as pl

from benchmarks import tenant
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES, EventFeatures, source_columns

_THREADS: Final = 2
_MEMORY: Final = "10GB"


@dataclass(frozen=True)
class Part:
    """Features that come from the same rows.

    `features` gives one row for each event of which something is known, its number `event` first; `tables`
    are made before.
    """

    name: str
    features: str
    tables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """`instants` are the columns, as SQL, that say when an event happened and was known. They are made from
    punch_in_at, known_at, scheduled_start and published_at, instants in UTC; the last two may be null."""

    instants: str
    parts: tuple[Part, ...]

    def rows(self, folder: Path) -> pl.DataFrame:
        """One row per event of the tenant in `folder`: event_id and the columns FEATURES, in no order."""
        with _tenant(folder, self.instants) as connection:
            for part in self.parts:
                _make_tables(connection, part)
                connection.execute(f"CREATE TABLE {part.name}_features AS {part.features}")
            joins = " ".join(f"LEFT JOIN {part.name}_features USING (event)" for part in self.parts)
            events = "(SELECT rowid AS event, event_id FROM event)"
            frame = connection.sql(f"SELECT event_id, {', '.join(FEATURES)} FROM {events} {joins}").pl()
        types = source_columns(EventFeatures)
        return frame.cast({name: types[name] for name in FEATURES})

    def run(self, folder: Path) -> dict[str, tuple[int, float]]:
        """For each feature the number of known values and their sum, booleans as 0 and 1, entry_source as
        its place in ENTRY_SOURCES."""
        sums: dict[str, tuple[int, float]] = {}
        with _tenant(folder, self.instants) as connection:
            for part in self.parts:
                sums |= _sums(connection, part)
        return {name: sums[name] for name in FEATURES}


_MACROS: Final = """
CREATE MACRO clipped(value, lowest, highest) AS
    CASE WHEN value < lowest THEN lowest WHEN value > highest THEN highest ELSE value END;

CREATE MACRO seconds_between(earlier, later) AS (epoch_us(later) - epoch_us(earlier)) / 1e6;

CREATE MACRO meters_between(latitude, longitude, other_latitude, other_longitude) AS
    2 * 6371000 * asin(sqrt(clipped(
        sin(radians(other_latitude - latitude) / 2) ** 2
        + cos(radians(latitude)) * cos(radians(other_latitude))
            * sin(radians(other_longitude - longitude) / 2) ** 2,
        0, 1)));
"""

_EVENT: Final = """
CREATE TABLE event AS
WITH site_with_number AS (
    -- In the order of site_id: of equally frequent sites a profile names the first.
    SELECT *, (row_number() OVER (ORDER BY site_id))::INTEGER AS site FROM site
),
guard_with_number AS (
    SELECT guard_id, (row_number() OVER ())::INTEGER AS guard FROM guard
),
device_with_number AS (
    SELECT device_id, (row_number() OVER ())::INTEGER AS device
    FROM (SELECT DISTINCT device_id FROM attendance_event WHERE device_id IS NOT NULL)
),
described AS (
    SELECT
        e.* EXCLUDE (punch_in_at, known_at), guard, site, device, country,
        timezone('UTC', punch_in_at) AS punch_in_at,
        timezone('UTC', known_at) AS known_at,
        timezone('UTC', scheduled_start) AS scheduled_start,
        timezone('UTC', published_at) AS published_at,
        timezone(tz, e.punch_in_at) AS local_at,
        s.latitude AS site_latitude, s.longitude AS site_longitude
    FROM attendance_event e
    JOIN guard_with_number USING (guard_id)
    JOIN site_with_number s USING (site_id)
    LEFT JOIN device_with_number USING (device_id)
    LEFT JOIN shift USING (shift_id)
)
SELECT
    event_id, guard, site, device,
    {instants},
    latitude, longitude,
    -- Degrees from the site's centre: small numbers, so that a spread keeps its digits.
    latitude - coalesce(site_latitude, 0) AS north_degrees,
    longitude - coalesce(site_longitude, 0) AS east_degrees,
    punch_in_at > scheduled_start + INTERVAL 15 MINUTES AS is_late,
    face_verified = false AS is_mismatch,
    hour(local_at)::TINYINT AS hour_of_day,
    (isodow(local_at) - 1)::TINYINT AS day_of_week,
    day_of_week >= 5 AS is_weekend,
    epoch_us(local_at::TIME) / 3600e6 AS local_hour,
    CASE WHEN calendar.country IS NOT NULL THEN holiday.day IS NOT NULL END AS is_holiday,
    clipped(meters_between(latitude, longitude, site_latitude, site_longitude), 0, 10000)
        AS gps_drift_meters,
    clipped(1 - face_distance / 0.4, 0, 1) AS face_recognition_confidence,
    CASE WHEN published_at < punch_in_at THEN
        (epoch_us(scheduled_start) - epoch_us(punch_in_at)) / 60e6
    END AS minutes_early,
    is_mock_location,
    entry_source::entry_source AS entry_source,
    face_attempts
FROM described
LEFT JOIN calendar USING (country)
LEFT JOIN holiday ON holiday.country = described.country AND holiday.day = local_at::DATE
"""

OWN: Final = Part(
    "own",
    """
    SELECT
        rowid AS event, hour_of_day, day_of_week, is_weekend, is_holiday, gps_drift_meters,
        face_recognition_confidence, minutes_early, is_mock_location, entry_source, face_attempts
    FROM event
    """,
)


@contextmanager
def _tenant(folder: Path, instants: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with the table `event` that everything is made of, and `snapshot`."""
    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as connection:
        connection.execute(f"SET threads = {_THREADS}; SET memory_limit = '{_MEMORY}'")
        connection.execute(f"SET temp_directory = '{spill}'")
        connection.execute(_MACROS)
        for table in ("site", "guard", "shift", "attendance_event"):
            connection.read_parquet(str(folder / f"{table}.parquet")).create_view(table)
        sources = ", ".join(f"'{source}'" for source in ENTRY_SOURCES)
        connection.execute(f"CREATE TYPE entry_source AS ENUM ({sources})")
        _make_calendar(connection)
        snapshots = [[snapshot.replace(tzinfo=None)] for snapshot in tenant.SNAPSHOTS]
        connection.execute("CREATE TABLE snapshot (snapshot_at TIMESTAMP)")
        connection.executemany("INSERT INTO snapshot VALUES (?)", snapshots)
        connection.execute(_EVENT.format(instants=instants))
        yield connection


def _make_calendar(connection: duckdb.DuckDBPyConnection) -> None:
    """The countries that have a calendar, and their public holidays in the years of the events."""
    [(first, last)] = connection.execute(
        """
        SELECT year(min(utc) - INTERVAL 1 DAY), year(max(utc) + INTERVAL 1 DAY)
        FROM (SELECT timezone('UTC', punch_in_at) AS utc FROM attendance_event)
        """
    ).fetchall()
    known = holidays.list_supported_countries()
    countries = connection.execute("SELECT DISTINCT country FROM site WHERE country IS NOT NULL").fetchall()
    connection.execute("CREATE TABLE calendar (country VARCHAR)")
    connection.execute("CREATE TABLE holiday (country VARCHAR, day DATE)")
    for (country,) in countries:
        if country in known:
            days = holidays.country_holidays(country, years=range(first, last + 1), expand=False)
            connection.execute("INSERT INTO calendar VALUES (?)", [country])
            connection.execute("INSERT INTO holiday SELECT ?, unnest(?)", [country, sorted(days)])


def _make_tables(connection: duckdb.DuckDBPyConnection, part: Part) -> None:
    for name, query in part.tables.items():
        connection.execute(f"CREATE TABLE {name} AS {query}")


def _sums(connection: duckdb.DuckDBPyConnection, part: Part) -> dict[str, tuple[int, float]]:
    _make_tables(connection, part)
    names = [name for name in connection.sql(part.features).columns if name != "event"]
    columns = ", ".join(f"count({name}), sum({_number(name)})" for name in names)
    [found] = connection.execute(f"SELECT {columns} FROM ({part.features})").fetchall()
    for table in part.tables:
        connection.execute(f"DROP TABLE {table}")
    return {name: (found[2 * i], float(found[2 * i + 1] or 0)) for i, name in enumerate(names)}


def _number(name: str) -> str:
    return f"enum_code({name})" if name == "entry_source" else f"{name}::DOUBLE"
