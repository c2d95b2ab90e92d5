"""All features of all events in SQL, by DuckDB, from a tenant's Parquet files. No measuring here.

Instants are microseconds of UTC. An event is *visible* from the later of its punch-in and the instant at
which it was known; an event at t sees those that are visible before t and not older than the window. Three
forms are used, each where it was the fastest of those tried:

- a stream of changes with a running sum: one row where an event begins to count, one where it ceases to, and
  one for each event that asks;
- a join of a guard's events at a site with each other;
- the row before in order of punch-in, and a join only for the events to which that row is not visible.

A stream is in order of `tick`, half microseconds: what changes at t comes just after an event that asks at t.
What begins also ceases, so a running sum over the whole stream is zero again wherever the next guard, site
or device begins. It needs no partitions, which cost several times as much, and integers keep it exact.
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
_DAY: Final = 86_400_000_000
_MONTH: Final = 30 * _DAY
_QUARTER: Final = 90 * _DAY
_STEP: Final = 2**32


@dataclass(frozen=True)
class _Part:
    """Features that come from the same rows.

    `features` gives one row for each event of which something is known; `tables` are made before.
    """

    name: str
    features: str
    tables: dict[str, str] = field(default_factory=dict)


_MACROS: Final = """
CREATE MACRO clipped(value, lowest, highest) AS
    CASE WHEN value < lowest THEN lowest WHEN value > highest THEN highest ELSE value END;

CREATE MACRO meters_between(latitude, longitude, other_latitude, other_longitude) AS
    2 * 6371000 * asin(sqrt(clipped(
        sin(radians(other_latitude - latitude) / 2) ** 2
        + cos(radians(latitude)) * cos(radians(other_latitude))
            * sin(radians(other_longitude - longitude) / 2) ** 2,
        0, 1)));
"""

_EVENT: Final = f"""
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
        e.*, guard, site, device, country,
        s.latitude AS site_latitude, s.longitude AS site_longitude,
        epoch_us(punch_in_at) AS punch_in_us,
        epoch_us(scheduled_start) AS scheduled_us,
        epoch_us(published_at) AS published_us,
        timezone(tz, punch_in_at) AS local_at
    FROM attendance_event e
    JOIN guard_with_number USING (guard_id)
    JOIN site_with_number s USING (site_id)
    LEFT JOIN device_with_number USING (device_id)
    LEFT JOIN shift USING (shift_id)
)
SELECT
    event_id, guard, site, device, punch_in_us,
    greatest(punch_in_us, epoch_us(known_at)) AS visible_us,
    latitude, longitude,
    -- Degrees from the site's centre: small numbers, so that a spread keeps its digits.
    latitude - coalesce(site_latitude, 0) AS north_degrees,
    longitude - coalesce(site_longitude, 0) AS east_degrees,
    punch_in_us > scheduled_us + {15 * 60_000_000} AS is_late,
    greatest(visible_us, published_us) AS lateness_visible_us,
    face_verified = false AS is_mismatch,
    hour(local_at)::TINYINT AS hour_of_day,
    (isodow(local_at) - 1)::TINYINT AS day_of_week,
    day_of_week >= 5 AS is_weekend,
    epoch_us(local_at::TIME) / 3600e6 AS local_hour,
    CASE WHEN calendar.country IS NOT NULL THEN holiday.day IS NOT NULL END AS is_holiday,
    clipped(meters_between(latitude, longitude, site_latitude, site_longitude), 0, 10000)
        AS gps_drift_meters,
    clipped(1 - face_distance / 0.4, 0, 1) AS face_recognition_confidence,
    CASE WHEN published_us < punch_in_us THEN (scheduled_us - punch_in_us) / 60e6 END AS minutes_early,
    is_mock_location,
    entry_source::entry_source AS entry_source,
    face_attempts
FROM described
LEFT JOIN calendar USING (country)
LEFT JOIN holiday ON holiday.country = described.country AND holiday.day = local_at::DATE
"""

_OWN: Final = _Part(
    "own",
    """
    SELECT
        rowid AS event, hour_of_day, day_of_week, is_weekend, is_holiday, gps_drift_meters,
        face_recognition_confidence, minutes_early, is_mock_location, entry_source, face_attempts
    FROM event
    """,
)

_GUARD: Final = _Part(
    "guard",
    f"""
    WITH change AS (
        SELECT rowid AS event, guard, 2 * punch_in_us AS tick, 0 AS events, 0 AS weekends, 0 AS mismatches
        FROM event
        UNION ALL
        SELECT
            NULL, guard, 2 * visible_us + 1, 1, is_weekend::INTEGER,
            (coalesce(is_mismatch, false) AND visible_us < punch_in_us + {_MONTH})::INTEGER
        FROM event WHERE visible_us < punch_in_us + {_QUARTER}
        UNION ALL
        SELECT NULL, guard, 2 * (punch_in_us + {_QUARTER}) + 1, -1, -is_weekend::INTEGER, 0
        FROM event WHERE visible_us < punch_in_us + {_QUARTER}
        UNION ALL
        SELECT NULL, guard, 2 * (punch_in_us + {_MONTH}) + 1, 0, 0, -1
        FROM event WHERE is_mismatch AND visible_us < punch_in_us + {_MONTH}
    ),
    running AS (
        SELECT
            event,
            sum(events) OVER stream AS events,
            sum(weekends) OVER stream AS weekends,
            sum(mismatches) OVER stream AS mismatches
        FROM change
        WINDOW stream AS (ORDER BY guard, tick ROWS UNBOUNDED PRECEDING)
    )
    SELECT
        event,
        CASE WHEN events > 0 THEN weekends / events END AS weekend_work_frequency,
        mismatches AS biometric_mismatch_count_30d
    FROM running WHERE event IS NOT NULL
    """,
)

_LAST: Final = _Part(
    "last",
    f"""
    WITH again AS (
        SELECT
            q.event, max(e.punch_in_us) AS last_us,
            max(e.punch_in_us) FILTER (e.latitude IS NOT NULL) AS fix_us,
            arg_max(e.latitude, e.place) FILTER (e.latitude IS NOT NULL) AS fix_latitude,
            arg_max(e.longitude, e.place) FILTER (e.latitude IS NOT NULL) AS fix_longitude
        FROM in_order q
        JOIN in_order e ON
            e.guard = q.guard
            AND e.visible_us < q.punch_in_us AND e.punch_in_us >= q.punch_in_us - {_QUARTER}
        WHERE q.is_unseen
        GROUP BY q.event
    ),
    last AS (
        SELECT event, punch_in_us, latitude, longitude, last_us, fix_us, fix_latitude, fix_longitude
        FROM in_order WHERE NOT is_unseen
        UNION ALL
        SELECT
            event, punch_in_us, latitude, longitude,
            again.last_us, again.fix_us, again.fix_latitude, again.fix_longitude
        FROM in_order LEFT JOIN again USING (event) WHERE is_unseen
    )
    SELECT
        event,
        clipped(coalesce((punch_in_us - last_us) / 1e6, 86400), 0, 86400) AS time_since_last_event,
        CASE WHEN fix_us >= punch_in_us - {_QUARTER} THEN
            meters_between(latitude, longitude, fix_latitude, fix_longitude) / (punch_in_us - fix_us) * 3.6e6
        END AS travel_speed_kmh
    FROM last
    """,
    tables={
        "in_order": """
            WITH before AS (
                SELECT
                    rowid AS event, guard, punch_in_us, visible_us, latitude, longitude,
                    row_number() OVER ordered AS place,
                    lag(punch_in_us) OVER ordered AS last_us,
                    lag(visible_us) OVER ordered AS last_visible_us,
                    last_value(CASE WHEN latitude IS NOT NULL THEN punch_in_us END IGNORE NULLS)
                        OVER earlier AS fix_us,
                    last_value(CASE WHEN latitude IS NOT NULL THEN visible_us END IGNORE NULLS)
                        OVER earlier AS fix_visible_us,
                    last_value(latitude IGNORE NULLS) OVER earlier AS fix_latitude,
                    last_value(longitude IGNORE NULLS) OVER earlier AS fix_longitude
                FROM event
                WINDOW
                    ordered AS (PARTITION BY guard ORDER BY punch_in_us, event_id),
                    earlier AS (
                        PARTITION BY guard ORDER BY punch_in_us, event_id
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    )
            )
            -- A tie is unseen too: what happens at t is visible from t at the earliest.
            SELECT
                * EXCLUDE (last_visible_us, fix_visible_us),
                coalesce(greatest(last_visible_us, fix_visible_us) >= punch_in_us, false) AS is_unseen
            FROM before
            """,
    },
)

_GUARD_AT_SITE: Final = _Part(
    "guard_at_site",
    f"""
    WITH here AS (
        SELECT
            q.rowid AS event,
            count(e.north_degrees) AS fixes,
            (stddev_pop(e.north_degrees) + stddev_pop(e.east_degrees)) / 2 AS spread,
            avg(e.is_late::INTEGER) FILTER (e.lateness_visible_us < q.punch_in_us) AS late_arrival_rate
        FROM event q
        JOIN event e ON
            e.guard = q.guard AND e.site = q.site
            AND e.visible_us < q.punch_in_us AND e.punch_in_us >= q.punch_in_us - {_MONTH}
        GROUP BY q.rowid
    )
    SELECT
        event,
        CASE WHEN fixes >= 5 THEN clipped(1 - spread / 0.01, 0, 1) END AS location_consistency_score,
        late_arrival_rate
    FROM here
    """,
)

_SITE: Final = _Part(
    "site",
    f"""
    WITH change AS (
        SELECT rowid AS event, guard, site, 2 * punch_in_us AS tick, 0 AS change FROM event
        UNION ALL
        SELECT NULL, guard, site, 2 * visible_us + 1, 1
        FROM event WHERE visible_us < punch_in_us + {_MONTH}
        UNION ALL
        SELECT NULL, guard, site, 2 * (punch_in_us + {_MONTH}) + 1, -1
        FROM event WHERE visible_us < punch_in_us + {_MONTH}
    ),
    -- How many events the guard has at the site, after the change.
    of_guard AS (
        SELECT
            event, site, tick, change,
            (sum(change) OVER (ORDER BY guard, site, tick ROWS UNBOUNDED PRECEDING))::INTEGER AS own
        FROM change
    ),
    -- The guards seen there, the sum of their numbers of events and the sum of the squares.
    of_site AS (
        SELECT
            event, own,
            sum((own = 1 AND change = 1)::INTEGER - (own = 0 AND change = -1)::INTEGER)
                OVER stream AS guards,
            sum(change) OVER stream AS total,
            sum(2 * own * change - abs(change)) OVER stream AS squares
        FROM of_guard
        WINDOW stream AS (ORDER BY site, tick ROWS UNBOUNDED PRECEDING)
    )
    SELECT
        event,
        CASE WHEN guards * squares > total * total THEN
            clipped((own * guards - total) / sqrt(guards * squares - total * total), -3, 3)
        END AS check_in_frequency_zscore
    FROM of_site WHERE event IS NOT NULL
    """,
)

_DEVICE: Final = _Part(
    "device",
    """
    WITH change AS (
        SELECT rowid AS event, device, 2 * punch_in_us AS tick, 0 AS change
        FROM event WHERE device IS NOT NULL
        UNION ALL
        SELECT NULL, device, 2 * starts_us + 1, 1 FROM stay
        UNION ALL
        SELECT NULL, device, 2 * ends_us + 1, -1 FROM stay
    ),
    running AS (
        SELECT event, sum(change) OVER (ORDER BY device, tick ROWS UNBOUNDED PRECEDING) AS guards
        FROM change
    )
    SELECT event, guards AS device_guards_30d FROM running WHERE event IS NOT NULL
    """,
    tables={
        "stay": f"""
            -- When a guard counts as seen on a device: the spans of the single events,
            -- (visible, punch-in + 30 days], made one where they meet or overlap.
            WITH span AS (
                SELECT
                    device, guard, visible_us AS starts_us, punch_in_us + {_MONTH} AS ends_us,
                    max(punch_in_us + {_MONTH}) OVER (
                        PARTITION BY device, guard ORDER BY visible_us, punch_in_us
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ) AS covered_to_us
                FROM event WHERE device IS NOT NULL AND visible_us < punch_in_us + {_MONTH}
            ),
            numbered AS (
                SELECT
                    device, guard, starts_us, ends_us,
                    count(*) FILTER (covered_to_us IS NULL OR starts_us > covered_to_us) OVER (
                        PARTITION BY device, guard ORDER BY starts_us, ends_us
                        ROWS UNBOUNDED PRECEDING
                    ) AS stay
                FROM span
            )
            SELECT device, min(starts_us) AS starts_us, max(ends_us) AS ends_us
            FROM numbered GROUP BY device, guard, stay
            """,
    },
)

_OTHER_GUARD: Final = _Part(
    "other_guard",
    f"""
    WITH again AS (
        SELECT q.event, max(e.punch_in_us) AS other_us
        FROM turn q
        JOIN turn e ON
            e.device = q.device AND e.guard <> q.guard
            AND e.visible_us < q.punch_in_us AND e.punch_in_us >= q.punch_in_us - {_MONTH}
        WHERE q.other_visible_us >= q.punch_in_us
        GROUP BY q.event
    ),
    other AS (
        SELECT event, punch_in_us, other_us
        FROM turn WHERE other_visible_us < punch_in_us AND other_us >= punch_in_us - {_MONTH}
        UNION ALL
        SELECT event, punch_in_us, again.other_us FROM turn JOIN again USING (event)
    )
    SELECT event, (punch_in_us - other_us) / 1e6 AS seconds_since_other_guard_on_device FROM other
    """,
    tables={
        "turn": """
            -- On a device that several guards use: the newest event of another guard before this
            -- one, which is the last before the guard's turn began.
            WITH shared AS (
                SELECT device FROM event WHERE device IS NOT NULL
                GROUP BY device HAVING min(guard) < max(guard)
            ),
            neighbour AS (
                SELECT
                    rowid AS event, device, guard, punch_in_us, visible_us,
                    row_number() OVER ordered AS place,
                    lag(guard) OVER ordered <> guard AS is_first,
                    lag(punch_in_us) OVER ordered AS last_us,
                    lag(visible_us) OVER ordered AS last_visible_us
                FROM event SEMI JOIN shared USING (device)
                WINDOW ordered AS (PARTITION BY device ORDER BY punch_in_us)
            )
            SELECT
                event, device, guard, punch_in_us, visible_us,
                last_value(CASE WHEN is_first THEN last_us END IGNORE NULLS)
                    OVER ordered AS other_us,
                last_value(CASE WHEN is_first THEN last_visible_us END IGNORE NULLS)
                    OVER ordered AS other_visible_us
            FROM neighbour
            WINDOW ordered AS (PARTITION BY device ORDER BY place)
            """,
    },
)


def _rank(events: str, value: str) -> str:
    """One integer by which to rank values, the higher the more frequent, then the smaller the value."""
    return f"{events} * {_STEP} - {value}"


def _values(ranks: str) -> str:
    """The values that a list of ranks stands for."""
    return f"list_transform({ranks}, lambda rank: -rank & {_STEP - 1})"


def _most_frequent(column: str) -> str:
    """The ranks of the three most frequent values of a profile."""
    return f"""
        SELECT guard, snapshot_us, max({_rank("events", column)}, 3) AS ranks
        FROM (SELECT guard, snapshot_us, {column}, count(*) AS events FROM seen GROUP BY ALL)
        GROUP BY guard, snapshot_us
    """


def _weekday_rank(day: int) -> str:
    return _rank(f"count(*) FILTER (day_of_week = {day})", str(day))


_PROFILE: Final = _Part(
    "profile",
    """
    SELECT
        e.rowid AS event,
        NOT list_contains(usual_hours, hour_of_day) AS profile_hour_is_unusual,
        NOT list_contains(usual_weekdays, day_of_week) AS profile_weekday_is_unusual,
        NOT list_contains(usual_sites, site) AS profile_site_is_unusual,
        least(abs(local_hour - hour_mean), abs(local_hour - hour_mean - 24))
            / greatest(hour_spread, 0.25) AS profile_hour_deviation,
        (face_recognition_confidence - face_confidence_mean)
            / greatest(face_confidence_spread, 0.01) AS profile_face_deviation,
        observations AS profile_observations,
        consistency_score AS profile_consistency_score
    FROM event e
    ASOF JOIN profile p ON e.guard = p.guard AND e.punch_in_us >= p.snapshot_us
    WHERE observations >= 30
    """,
    tables={
        "profile": f"""
            WITH turned AS NOT MATERIALIZED (
                SELECT
                    guard, site, punch_in_us, visible_us, hour_of_day, day_of_week,
                    face_recognition_confidence,
                    cos(local_hour * pi() / 12) AS hour_cos, sin(local_hour * pi() / 12) AS hour_sin
                FROM event
            ),
            seen AS NOT MATERIALIZED (
                SELECT * FROM turned
                JOIN snapshot ON visible_us < snapshot_us AND punch_in_us >= snapshot_us - {_QUARTER}
            ),
            summary AS (
                SELECT
                    guard, snapshot_us, count(*) AS observations,
                    avg(hour_cos) AS hour_cos, avg(hour_sin) AS hour_sin,
                    least(sqrt(avg(hour_cos) ** 2 + avg(hour_sin) ** 2), 1) AS resultant,
                    avg(face_recognition_confidence) AS face_confidence_mean,
                    stddev_pop(face_recognition_confidence) AS face_confidence_spread,
                    -- Seven counts in the same pass cost less than one more grouping.
                    [{", ".join(_weekday_rank(day) for day in range(7))}] AS weekday_ranks
                FROM seen GROUP BY guard, snapshot_us HAVING count(*) >= 10
            ),
            hours AS ({_most_frequent("hour_of_day")}),
            sites AS ({_most_frequent("site")})
            SELECT
                guard, snapshot_us, observations,
                {_values("hours.ranks")} AS usual_hours,
                {_values("list_sort(list_filter(weekday_ranks, lambda r: r > 0), 'DESC')[:3]")}
                    AS usual_weekdays,
                {_values("sites.ranks")} AS usual_sites,
                face_confidence_mean, face_confidence_spread,
                CASE WHEN resultant >= 1e-9 THEN atan2(hour_sin, hour_cos) * 12 / pi() END AS hour_mean,
                CASE WHEN resultant >= 1e-9 THEN sqrt(-2 * ln(resultant)) * 12 / pi() END AS hour_spread,
                (resultant + ceil(sites.ranks[1] / {_STEP}) / observations) / 2 AS consistency_score
            FROM summary
            JOIN hours USING (guard, snapshot_us)
            JOIN sites USING (guard, snapshot_us)
            """,
    },
)

_PARTS: Final = (_OWN, _GUARD, _LAST, _GUARD_AT_SITE, _SITE, _DEVICE, _OTHER_GUARD, _PROFILE)


def rows(folder: Path) -> pl.DataFrame:
    """One row per event of the tenant in `folder`: event_id and the columns FEATURES, in no order."""
    with _tenant(folder) as connection:
        for part in _PARTS:
            _make_tables(connection, part)
            connection.execute(f"CREATE TABLE {part.name}_features AS {part.features}")
        joins = " ".join(f"LEFT JOIN {part.name}_features USING (event)" for part in _PARTS)
        events = "(SELECT rowid AS event, event_id FROM event)"
        frame = connection.sql(f"SELECT event_id, {', '.join(FEATURES)} FROM {events} {joins}").pl()
    types = source_columns(EventFeatures)
    return frame.cast({name: types[name] for name in FEATURES})


def run(folder: Path) -> dict[str, tuple[int, float]]:
    """For each feature the number of known values and their sum, booleans as 0 and 1, entry_source as
    its place in ENTRY_SOURCES."""
    sums: dict[str, tuple[int, float]] = {}
    with _tenant(folder) as connection:
        for part in _PARTS:
            sums |= _sums(connection, part)
    return {name: sums[name] for name in FEATURES}


@contextmanager
def _tenant(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
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
        instants = [[int(snapshot.timestamp()) * 1_000_000] for snapshot in tenant.SNAPSHOTS]
        connection.execute("CREATE TABLE snapshot (snapshot_us BIGINT)")
        connection.executemany("INSERT INTO snapshot VALUES (?)", instants)
        connection.execute(_EVENT)
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


def _make_tables(connection: duckdb.DuckDBPyConnection, part: _Part) -> None:
    for name, query in part.tables.items():
        connection.execute(f"CREATE TABLE {name} AS {query}")


def _sums(connection: duckdb.DuckDBPyConnection, part: _Part) -> dict[str, tuple[int, float]]:
    _make_tables(connection, part)
    names = [name for name in connection.sql(part.features).columns if name != "event"]
    columns = ", ".join(f"count({name}), sum({_number(name)})" for name in names)
    [found] = connection.execute(f"SELECT {columns} FROM ({part.features})").fetchall()
    for table in part.tables:
        connection.execute(f"DROP TABLE {table}")
    return {name: (found[2 * i], float(found[2 * i + 1] or 0)) for i, name in enumerate(names)}


def _number(name: str) -> str:
    return f"enum_code({name})" if name == "entry_source" else f"{name}::DOUBLE"
