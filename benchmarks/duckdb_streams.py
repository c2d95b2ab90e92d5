"""All features of all events by DuckDB, in the fastest SQL that we know. No measuring here.

It is tuned to this one purpose; what a user would write is in `duckdb_sql`.

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

from typing import Final

from benchmarks.duckdb_parts import OWN, Contender, Part

_DAY: Final = 86_400_000_000
_MONTH: Final = 30 * _DAY
_QUARTER: Final = 90 * _DAY
_STEP: Final = 2**32

_GUARD: Final = Part(
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

_LAST: Final = Part(
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

_GUARD_AT_SITE: Final = Part(
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

_SITE: Final = Part(
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

_DEVICE: Final = Part(
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

_OTHER_GUARD: Final = Part(
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


_PROFILE: Final = Part(
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
                JOIN (SELECT epoch_us(snapshot_at) AS snapshot_us FROM snapshot)
                    ON visible_us < snapshot_us AND punch_in_us >= snapshot_us - {_QUARTER}
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

_CONTENDER: Final = Contender(
    """
    epoch_us(punch_in_at) AS punch_in_us,
    greatest(punch_in_us, epoch_us(known_at)) AS visible_us,
    greatest(visible_us, epoch_us(published_at)) AS lateness_visible_us
    """,
    (OWN, _GUARD, _LAST, _GUARD_AT_SITE, _SITE, _DEVICE, _OTHER_GUARD, _PROFILE),
)
rows: Final = _CONTENDER.rows
run: Final = _CONTENDER.run
