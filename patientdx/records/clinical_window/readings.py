"""The SQL of readings: what was charted in the window, what cannot be one, and what follows from several of them."""

from patientdx.records.clinical_window import items
from patientdx.records.concept_table import concepts

_LINE = {name: number for number, name in enumerate(concepts())}
HOUR = 3_600_000_000  # microseconds
GAS_HOURS = 4  # an inspired oxygen belongs to the gases of so many hours after it (mimic-code, bg)
LAB_HOURS = 24  # before ICU admission
# Sums are of decimals, so that neither the order of rows nor the number of threads can change a last digit.
_EXACT = "TRY_CAST({} AS DECIMAL(18, 4))"
_POSSIBLE = (
    """coalesce(e.valuenum <= r.most AND e.valuenum * r.scale + r.shift BETWEEN r.minimum AND r.maximum, false)"""
)
_INTUBATED = f"""EXISTS (SELECT 1 FROM procedureevents p JOIN named n ON n.itemid = p.itemid AND n.kind = 'procedure'
    WHERE p.stay_id = e.stay_id AND n.name = '{items.VENTILATED}' AND e.charttime BETWEEN p.starttime AND p.endtime)"""


def charted(bounds: str, clock: str) -> str:
    """`charted`: every value of a read item in the window, and whether it is a reading.

    `clock` is the SQL of the time at which the value was known. A verbal response of an intubated patient says
    nothing ("No Response-ETT"; where the source keeps no words, a 1 during invasive ventilation): `unable`.
    """
    verbal = _LINE[items.VERBAL]
    wordless = "(e.value IS NULL OR TRY_CAST(e.value AS DOUBLE) IS NOT NULL)"
    return f"""CREATE OR REPLACE TEMP TABLE charted AS
    SELECT e.stay_id, r.line, r.place, r.again, epoch_us(e.charttime) - epoch_us(s.window_start) AS time,
        e.valuenum * r.scale + r.shift AS value, {_POSSIBLE} AS possible,
        CASE WHEN r.line = {verbal} THEN coalesce(contains(e.value, 'ETT') OR contains(e.value, 'ET/Trach'), false)
            OR (e.valuenum = 1 AND {wordless} AND {_INTUBATED}) ELSE false END AS unable
    FROM chartevents e JOIN batch s USING (stay_id) JOIN read_items r USING (itemid)
    WHERE e.stay_id {bounds} AND e.charttime >= s.window_start AND {clock} < s.window_end
        AND e.charttime < s.window_end AND e.valuenum IS NOT NULL"""


def laboratory(clock: str) -> str:
    """Adds to `charted` the laboratory values in the window of readings that no chart item has."""
    return f"""INSERT INTO charted
    SELECT s.stay_id, r.line, r.place, r.again, epoch_us(e.charttime) - epoch_us(s.window_start),
        e.valuenum * r.scale + r.shift, {_POSSIBLE}, false
    FROM labevents e JOIN batch s USING (subject_id) JOIN lab_items r USING (itemid)
    WHERE r.only AND e.charttime >= s.window_start AND e.charttime < s.window_end AND {clock} < s.window_end
        AND e.valuenum IS NOT NULL"""


def earlier(clock: str) -> str:
    """(stay_id, name, last value) of the laboratory in the hours before ICU admission."""
    return f"""
    SELECT s.stay_id, l.name, arg_max(e.valuenum * r.scale + r.shift, (e.charttime, -r.place, -e.valuenum))
    FROM labevents e JOIN batch s USING (subject_id) JOIN lab_items r USING (itemid) JOIN concept_lines l USING (line)
    WHERE e.charttime >= s.intime - to_hours({LAB_HOURS}) AND e.charttime < s.intime AND {clock} < s.window_end
        AND {_POSSIBLE}
    GROUP BY s.stay_id, l.name, l.line ORDER BY s.stay_id, l.line"""


KNOWN = """CREATE OR REPLACE TEMP TABLE known_values AS
    SELECT stay_id, line, place, time, value FROM charted WHERE possible AND NOT unable"""


def _of(name: str, best: str = "arg_min(value, (place, value))") -> str:
    return f"SELECT stay_id, time, {best} AS value FROM known_values WHERE line = {_LINE[name]} GROUP BY ALL"


def _within(name: str) -> str:
    return f"BETWEEN {concepts()[name].minimum} AND {concepts()[name].maximum}"


RATIO = f"""INSERT INTO known_values
    WITH pressure AS ({_of(items.PRESSURE)}), oxygen AS ({_of(items.OXYGEN, "max(value)")}),
    ratio AS (
        SELECT p.stay_id, p.time, 100 * p.value / o.value AS value
        FROM pressure p ASOF JOIN oxygen o ON p.stay_id = o.stay_id AND p.time >= o.time
        WHERE p.time - o.time <= {GAS_HOURS * HOUR})
    SELECT stay_id, {_LINE[items.RATIO]}, 0, time, value FROM ratio WHERE value {_within(items.RATIO)}"""
BODY_MASS = f"""INSERT INTO known_values
    WITH weight AS ({_of(items.WEIGHT)}), height AS ({_of(items.HEIGHT)}),
    tall AS (SELECT stay_id, min(time) AS time, arg_max(value, time) AS value FROM height GROUP BY stay_id),
    mass AS (
        SELECT w.stay_id, greatest(w.time, t.time) AS time, w.value / (t.value / 100) ** 2 AS value
        FROM (SELECT stay_id, min(time) AS time, arg_min(value, time) AS value FROM weight GROUP BY stay_id) w
        JOIN tall t USING (stay_id))
    SELECT stay_id, {_LINE[items.BODY_MASS]}, 0, time, value FROM mass WHERE value {_within(items.BODY_MASS)}"""
_PARTS = (items.EYE, items.VERBAL, items.MOTOR)
# Each part holds until it is charted again. Where the verbal response cannot be tested there is no sum.
COMA = f"""INSERT INTO known_values
    WITH parts AS (
        SELECT stay_id, line, time, arg_min(CASE WHEN unable THEN 0 ELSE value END, (place, value)) AS value
        FROM charted WHERE line IN ({", ".join(str(_LINE[name]) for name in _PARTS)}) AND (possible OR unable)
        GROUP BY ALL),
    times AS (SELECT DISTINCT stay_id, time FROM parts),
    held AS (
        SELECT t.stay_id, t.time, {
    ", ".join(
        f'''last_value(any_value(p.value) FILTER (p.line = {_LINE[name]}) IGNORE NULLS) OVER w AS part_{number}'''
        for number, name in enumerate(_PARTS)
    )
}
        FROM times t JOIN parts p USING (stay_id, time) GROUP BY t.stay_id, t.time
        WINDOW w AS (PARTITION BY t.stay_id ORDER BY t.time))
    SELECT stay_id, {_LINE[items.COMA]}, 0, time, part_0 + part_1 + part_2 FROM held
    WHERE part_1 > 0 AND part_0 + part_1 + part_2 IS NOT NULL"""
COURSES = f"""
    SELECT stay_id, name, sum({_EXACT.format("value")})::DOUBLE / count(*), arg_min(value, (time, place, value)),
        arg_max(value, (time, -place, -value)), min(value), max(value), count(*), min(time) / {HOUR}.0,
        max(time) / {HOUR}.0
    FROM known_values JOIN concept_lines USING (line) GROUP BY stay_id, name, line ORDER BY stay_id, line"""
COUNTS = """
    SELECT l.name, count(*) FILTER (NOT again), count(*) FILTER (possible)
    FROM charted JOIN concept_lines l USING (line) GROUP BY l.name, l.line ORDER BY l.line"""


def words(bounds: str, clock: str) -> str:
    """(stay_id, name, text, hour): the last entry of what is charted in words; a number is no word."""
    return f"""
    WITH entries AS (
        SELECT e.stay_id, w.name, w.weight, trim(e.value) AS text,
            (epoch_us(e.charttime) - epoch_us(s.window_start)) / {HOUR}.0 AS hour
        FROM chartevents e JOIN batch s USING (stay_id) JOIN word_items w USING (itemid)
        WHERE e.stay_id {bounds} AND e.charttime >= s.window_start AND e.charttime < s.window_end
            AND {clock} < s.window_end AND e.value IS NOT NULL AND TRY_CAST(e.value AS DOUBLE) IS NULL)
    SELECT stay_id, name, arg_max(text, (hour, text)), max(hour) FROM entries WHERE text <> ''
    GROUP BY stay_id, name, weight ORDER BY stay_id, weight DESC, name"""


UNABLE = f"""
    SELECT stay_id, '{items.VERBAL}', 'not testable (intubated)', max(time) / {HOUR}.0
    FROM charted WHERE line = {_LINE[items.VERBAL]} AND (unable OR possible)
    GROUP BY stay_id HAVING arg_max(unable, (time, unable)) ORDER BY stay_id"""
