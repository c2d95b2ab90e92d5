"""All features of all events by DuckDB, as a good analyst writes them: windows, ASOF JOIN, GROUP BY. No
measuring here, and no reformulation for speed; the fastest SQL that we know is in `duckdb_streams`.

An event is looked at from `happened_at`, its punch-in, and sees those that happened before it within the
window and were known by then. Ties are not seen: a frame ends a microsecond before. A frame holds what
happened, known or not, so late rows are put right by plain joins:

- of a guard: an event whose frame holds a row that was not known yet is told anew by a join;
- at a site, where most frames hold such a row: what was not known is taken out of the frame's counts;
- on a device, where a frame cannot leave out the guard who asks: everything is a join.
"""

from typing import Final

from benchmarks.duckdb_parts import OWN, Contender, Part

_INSTANTS: Final = """
punch_in_at AS happened_at,
greatest(punch_in_at, known_at) AS known_at,
-- From when on nothing about the event was missing, its shift included.
greatest(punch_in_at, known_at, published_at) AS complete_at
"""


def _before(days: int, of: str) -> str:
    """The frame of what happened in the `days` before an event, to the same `of`."""
    return f"""(
        PARTITION BY {of} ORDER BY happened_at
        RANGE BETWEEN INTERVAL {days} DAYS PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING
    )"""


def _sees(days: int, known: str = "e.known_at") -> str:
    """The condition for an event q to see an event e of the `days` before."""
    return f"e.happened_at >= q.happened_at - INTERVAL {days} DAYS AND {known} < q.happened_at"


_GUARD: Final = Part(
    "guard",
    """
    SELECT
        event,
        CASE WHEN fixes >= 5 THEN clipped(1 - (north_spread + east_spread) / 2 / 0.01, 0, 1) END
            AS location_consistency_score,
        late_arrival_rate,
        weekend_work_frequency,
        biometric_mismatch_count_30d,
        clipped(coalesce(seconds_between(last_at, happened_at), 86400), 0, 86400) AS time_since_last_event,
        CASE WHEN fix_at >= happened_at - INTERVAL 90 DAYS THEN
            meters_between(latitude, longitude, fix_latitude, fix_longitude)
                / seconds_between(fix_at, happened_at) * 3.6
        END AS travel_speed_kmh
    FROM (SELECT * FROM told_by_frames WHERE all_known UNION ALL BY NAME SELECT * FROM told_anew)
    JOIN (SELECT rowid AS event, happened_at, latitude, longitude FROM event) USING (event)
    """,
    tables={
        "told_by_frames": f"""
            WITH fix AS (
                -- Of two at one instant the one with the greater id.
                SELECT
                    guard, happened_at,
                    arg_max(latitude, event_id) AS latitude, arg_max(longitude, event_id) AS longitude
                FROM event WHERE latitude IS NOT NULL GROUP BY guard, happened_at
            ),
            framed AS (
                SELECT
                    rowid AS event, guard, happened_at,
                    coalesce((max(complete_at) OVER quarter) < happened_at, true) AS all_known,
                    avg(is_weekend::INTEGER) OVER quarter AS weekend_work_frequency,
                    max(happened_at) OVER quarter AS last_at,
                    count(*) FILTER (is_mismatch) OVER month AS biometric_mismatch_count_30d,
                    avg(is_late::INTEGER) OVER month_here AS late_arrival_rate,
                    count(north_degrees) OVER month_here AS fixes,
                    stddev_pop(north_degrees) OVER month_here AS north_spread,
                    stddev_pop(east_degrees) OVER month_here AS east_spread
                FROM event
                WINDOW
                    quarter AS {_before(90, "guard")},
                    month AS {_before(30, "guard")},
                    month_here AS {_before(30, "guard, site")}
            )
            SELECT
                framed.* EXCLUDE (guard, happened_at), fix.happened_at AS fix_at,
                fix.latitude AS fix_latitude, fix.longitude AS fix_longitude
            FROM framed
            ASOF LEFT JOIN fix ON framed.guard = fix.guard AND framed.happened_at > fix.happened_at
            """,
        "told_anew": f"""
            SELECT
                q.rowid AS event, false AS all_known,
                avg(e.is_weekend::INTEGER) AS weekend_work_frequency,
                max(e.happened_at) AS last_at,
                count(*) FILTER (e.is_mismatch AND {_sees(30)}) AS biometric_mismatch_count_30d,
                avg(e.is_late::INTEGER) FILTER (e.site = q.site AND {_sees(30, "e.complete_at")})
                    AS late_arrival_rate,
                count(e.north_degrees) FILTER (e.site = q.site AND {_sees(30)}) AS fixes,
                stddev_pop(e.north_degrees) FILTER (e.site = q.site AND {_sees(30)}) AS north_spread,
                stddev_pop(e.east_degrees) FILTER (e.site = q.site AND {_sees(30)}) AS east_spread,
                max(e.happened_at) FILTER (e.latitude IS NOT NULL) AS fix_at,
                arg_max(e.latitude, row(e.happened_at, e.event_id)) FILTER (e.latitude IS NOT NULL)
                    AS fix_latitude,
                arg_max(e.longitude, row(e.happened_at, e.event_id)) FILTER (e.latitude IS NOT NULL)
                    AS fix_longitude
            FROM event q
            JOIN told_by_frames f ON f.event = q.rowid AND NOT f.all_known
            LEFT JOIN event e ON e.guard = q.guard AND {_sees(90)}
            GROUP BY q.rowid
            """,
    },
)

# Joining the events at a site with each other to count them is shorter to write; it takes twice as long.
_SITE: Final = Part(
    "site",
    f"""
    WITH framed AS (
        SELECT
            rowid AS event, guard,
            histogram(guard) OVER {_before(30, "site")} AS events_by_guard
        FROM event
    ),
    counted AS (
        SELECT
            event,
            coalesce(events_by_guard[guard], 0) - coalesce(unknown_by_guard[guard], 0) AS own,
            list_transform(
                map_entries(events_by_guard),
                lambda entry: entry.value - coalesce(unknown_by_guard[entry.key], 0)
            ) AS counts,
            list_filter(counts, lambda events: events > 0) AS of_guards
        FROM framed LEFT JOIN unknown USING (event)
    )
    SELECT
        event,
        CASE WHEN list_min(of_guards) < list_max(of_guards) THEN
            clipped((own - list_avg(of_guards)) / list_stddev_pop(of_guards), -3, 3)
        END AS check_in_frequency_zscore
    FROM counted
    """,
    tables={
        "unknown": """
            WITH late AS (
                SELECT site, guard, happened_at, known_at FROM event
                QUALIFY known_at >= lead(happened_at) OVER (PARTITION BY site ORDER BY happened_at)
            )
            SELECT q.rowid AS event, histogram(e.guard) AS unknown_by_guard
            FROM event q
            JOIN late e ON
                e.site = q.site
                AND e.happened_at >= q.happened_at - INTERVAL 30 DAYS AND e.happened_at < q.happened_at
                AND e.known_at >= q.happened_at
            GROUP BY q.rowid
            """,
    },
)

_DEVICE: Final = Part(
    "device",
    f"""
    WITH user_before AS (
        SELECT q.rowid AS event, q.guard AS own, e.guard, q.happened_at, max(e.happened_at) AS last_at
        FROM event q
        LEFT JOIN event e ON e.device = q.device AND {_sees(30)}
        WHERE q.device IS NOT NULL
        GROUP BY ALL
    )
    SELECT
        event,
        count(guard) AS device_guards_30d,
        min(seconds_between(last_at, happened_at)) FILTER (guard <> own)
            AS seconds_since_other_guard_on_device
    FROM user_before GROUP BY event
    """,
)


def _usual(column: str) -> str:
    """The three most frequent values before each snapshot; of equally frequent ones the smallest first."""
    return f"""
        SELECT
            guard, snapshot_at, list({column} ORDER BY events DESC, {column})[:3] AS usual,
            max(events) AS most
        FROM (SELECT guard, snapshot_at, {column}, count(*) AS events FROM seen GROUP BY ALL)
        GROUP BY guard, snapshot_at
    """


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
        (face_recognition_confidence - face_mean) / greatest(face_spread, 0.01) AS profile_face_deviation,
        observations AS profile_observations,
        consistency_score AS profile_consistency_score
    FROM event e
    ASOF JOIN profile p ON e.guard = p.guard AND e.happened_at >= p.snapshot_at
    WHERE observations >= 30
    """,
    tables={
        "profile": f"""
            WITH seen AS NOT MATERIALIZED (
                SELECT *, local_hour * pi() / 12 AS angle
                FROM event
                JOIN snapshot ON known_at < snapshot_at AND happened_at >= snapshot_at - INTERVAL 90 DAYS
            ),
            summary AS (
                SELECT
                    guard, snapshot_at, count(*) AS observations,
                    avg(cos(angle)) AS across, avg(sin(angle)) AS up,
                    least(sqrt(across ** 2 + up ** 2), 1) AS resultant,
                    avg(face_recognition_confidence) AS face_mean,
                    stddev_pop(face_recognition_confidence) AS face_spread
                FROM seen GROUP BY guard, snapshot_at HAVING observations >= 10
            ),
            hours AS ({_usual("hour_of_day")}),
            weekdays AS ({_usual("day_of_week")}),
            sites AS ({_usual("site")})
            SELECT
                guard, snapshot_at, observations, face_mean, face_spread,
                hours.usual AS usual_hours,
                weekdays.usual AS usual_weekdays,
                sites.usual AS usual_sites,
                CASE WHEN resultant >= 1e-9 THEN atan2(up, across) * 12 / pi() END AS hour_mean,
                CASE WHEN resultant >= 1e-9 THEN sqrt(-2 * ln(resultant)) * 12 / pi() END AS hour_spread,
                (resultant + sites.most / observations) / 2 AS consistency_score
            FROM summary
            JOIN hours USING (guard, snapshot_at)
            JOIN weekdays USING (guard, snapshot_at)
            JOIN sites USING (guard, snapshot_at)
            """,
    },
)

_CONTENDER: Final = Contender(_INSTANTS, (OWN, _GUARD, _SITE, _DEVICE, _PROFILE))
rows: Final = _CONTENDER.rows
run: Final = _CONTENDER.run
