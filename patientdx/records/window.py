"""What was known about a stay at prediction time, aggregated in SQL.

Revision 1 is read here, so that results made with it can be made again; `clinical_window` reads revision 2. Only what
is dated from the window's begin up to, and not including, its end is read. In revision 1, of something that goes on
beyond it (an infusion, ventilation) only the start counts: its end, length and amount come later. A reading is dated by
its charttime, as in MEDS; a laboratory value may have been reported later.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import duckdb

from patientdx.core.errors import UserError
from patientdx.records import clinical_window, concept_table, concepts
from patientdx.records.parameters import check_choice
from patientdx.records.record import Course, Record, Times

DIAGNOSES = ("none", "prior", "discharge")
BATCH = 5000  # stays aggregated at a time; neither text nor numbers depend on it
_EVENTS = {
    "icu/chartevents": {
        "stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "valuenum": "DOUBLE",
    },
    "icu/inputevents": {
        "stay_id": "BIGINT", "starttime": "TIMESTAMP", "endtime": "TIMESTAMP", "itemid": "INTEGER",
        "amount": "DOUBLE",
    },
    "icu/procedureevents": {"stay_id": "BIGINT", "starttime": "TIMESTAMP", "itemid": "INTEGER"},
    "icu/outputevents": {
        "stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "value": "DOUBLE",
    },
    "icu/d_items": {"itemid": "INTEGER", "label": "VARCHAR", "category": "VARCHAR", "linksto": "VARCHAR"},
}  # fmt: skip
_CODES = {
    "hosp/diagnoses_icd": {
        "hadm_id": "BIGINT", "seq_num": "INTEGER", "icd_code": "VARCHAR", "icd_version": "INTEGER",
    },
    "hosp/d_icd_diagnoses": {"icd_code": "VARCHAR", "icd_version": "INTEGER", "long_title": "VARCHAR"},
}  # fmt: skip
_EARLIER = {"hosp/admissions": {"subject_id": "BIGINT", "hadm_id": "BIGINT", "dischtime": "TIMESTAMP"}}


def needed(
    diagnoses: str, *beside: Mapping[str, Mapping[str, str]], revision: int = 1, clock: str = "charttime"
) -> dict[str, dict[str, str]]:
    """Tables and columns (with DuckDB types) that `records` of a revision reads, united with those `beside` it.

    Raises UserError on another `diagnoses` or `clock`.
    """
    if diagnoses not in DIAGNOSES:
        raise UserError(f"task.diagnoses={diagnoses!r}: choose {', '.join(DIAGNOSES[:-1])} or {DIAGNOSES[-1]}.")
    check_choice("clock", clock, clinical_window.CLOCKS)
    read_here = _EVENTS | {"none": {}, "prior": _CODES | _EARLIER, "discharge": _CODES}[diagnoses]
    also = [clinical_window.NEEDED] if revision > 1 else []
    also += [clinical_window.STORED] if clock == "storetime" else []
    merged: dict[str, dict[str, str]] = {}
    for tables in (*beside, read_here, *also):
        for name, columns in tables.items():
            merged.setdefault(name, {}).update(columns)
    return merged


def items_read() -> dict[str, set[int]]:
    """For tables of values the itemids that records of every revision read, all but those of `every_item`."""
    of_words = {int(row["itemid"]) for row in concept_table.rows("texts.csv")}
    of_table = {"chartevents": of_words | {item.itemid for item in concepts.items()}, "labevents": set[int]()}
    for source in concept_table.sources():
        of_table[source.table].add(source.itemid)
    return {"icu/chartevents": of_table["chartevents"], "hosp/labevents": of_table["labevents"]}


def records(con: duckdb.DuckDBPyConnection, **settings: Any) -> dict[int, Record]:
    """All that `stream` yields, by stay_id in ascending order."""
    return dict(stream(con, **settings))


def stream(
    con: duckdb.DuckDBPyConnection,
    *,
    diagnoses: str = "none",
    every_item: bool = False,
    courses: bool = False,
    limits: Mapping[int, float] | None = None,
    batch: int = BATCH,
    revision: int = 1,
    pipeline: bool = False,
    **revised: Any,
) -> Iterator[tuple[int, Record]]:
    """(stay_id, Record) for each stay of the table `cohort`, by stay_id, with `batch` stays in memory at a time.

    By default readings are those of items.csv and names are short. With `every_item` all numeric chart items
    and all drugs, procedures and outputs appear under MIMIC-IV's own labels, uncleaned, as in the paper's
    data; with `pipeline` drugs are read as that data's pipeline reads them: without rows that end in the hour in which
    they begin, and with the amounts of doses that end after the window. `courses` fills the fields that say when.
    `limits` maps an itemid to the highest value kept, in the unit charted (see outliers.limits). `revision=2` reads
    what `clinical_window` reads, which always has courses and takes further keywords (`clock`, `comorbidities`,
    `counts`); it is a UserError with `every_item`.

    `diagnoses="prior"` adds the codes of the patient's other admissions that were over when this ICU stay
    began, the latest first, each title once. `"discharge"` adds the codes of the whole admission, which are
    given after discharge and so leak the outcome. Codes without a title in d_icd_diagnoses are left out.

    Reads of `cohort`: what cohort.select leaves there; revision 1 of it stay_id, subject_id, hadm_id, intime,
    window_start, window_end, age, gender, race and insurance. Leaves temporary tables; the next call on the connection
    replaces them.
    """
    if revision > 1 and every_item:
        raise UserError("Records of all items exist in revision 1 alone.")
    stays = [row[0] for row in con.execute("SELECT stay_id FROM cohort ORDER BY stay_id").fetchall()]
    for start in range(0, len(stays), batch):
        part = stays[start : start + batch]
        # Repeats the condition of the join with `batch`: blocks of a parquet file sorted by stay can be skipped.
        bounds = f"BETWEEN {part[0]} AND {part[-1]}"
        con.execute(f"CREATE OR REPLACE TEMP TABLE batch AS SELECT * FROM cohort WHERE stay_id {bounds}")
        titles = _listed(con, _TITLES[diagnoses]) if diagnoses in _TITLES else {}
        if revision > 1:
            yield from clinical_window.batch(con, bounds, limits=limits, titles=titles, **revised)
            continue
        name_items(con, every_item=every_item, limits=limits)  # each time: another stream may have run in between
        yield from _batch(con, bounds, titles, courses, pipeline)


def _listed(con: duckdb.DuckDBPyConnection, query: str) -> dict[int, list[tuple]]:
    """The rows of a query without their first column, by it."""
    rows: dict[int, list[tuple]] = {}
    for stay, *values in con.execute(query).fetchall():
        rows.setdefault(stay, []).append(tuple(values))
    return rows


def _batch(
    con: duckdb.DuckDBPyConnection, bounds: str, titles: Mapping[int, list[tuple]], courses: bool, pipeline: bool
) -> Iterator[tuple[int, Record]]:
    """The stays of the table `batch`; all is fetched before the first is handed out."""
    con.execute(_VALUES.format(bounds=bounds))

    def listed(query: str) -> dict[int, list[tuple]]:
        return _listed(con, query.format(bounds=bounds))

    readings, drugs, procedures, outputs, urine = map(
        listed, (_READINGS, _PIPELINE_DRUGS if pipeline else _DRUGS, _PROCEDURES, _OUTPUTS, _URINE)
    )
    runs: dict[int, dict[str, Course]] = {}
    for query in (_COURSES, _COURSES_OF_SUMS) if courses else ():
        for stay, rows in listed(query).items():
            runs.setdefault(stay, {}).update((name, Course(*values)) for name, *values in rows)
    people = con.execute("SELECT stay_id, age, gender, race, insurance FROM batch ORDER BY stay_id").fetchall()
    for stay, age, gender, race, insurance in people:
        names = readings.get(stay, [])
        medication, done = drugs.get(stay, ()), procedures.get(stay, ())
        yield (
            stay,
            Record(
                age=age,
                gender=gender,
                race=race,
                insurance=insurance,
                readings=tuple(names),
                drugs=tuple((name, mean) for name, mean, *_ in medication),
                procedures=tuple(name for name, *_ in done),
                outputs=tuple(name for name, *_ in outputs.get(stay, ())),
                urine=urine[stay][0][0] if stay in urine else None,
                diagnoses=tuple(title for title, *_ in titles.get(stay, ())),
                courses=tuple(runs[stay][name] for name, _ in names) if courses and names else (),
                drug_times=tuple(Times(*rest) for _, _, *rest in medication) if courses else (),
                procedure_times=tuple(Times(*rest) for _, *rest in done) if courses else (),
            ),
        )


def name_items(
    con: duckdb.DuckDBPyConnection, *, every_item: bool = False, limits: Mapping[int, float] | None = None
) -> None:
    """Make the tables `read_items`, `named` (itemid, kind, name) and `urine_items` in the connection."""
    rows = con.execute(
        "SELECT itemid, label, category, linksto FROM d_items WHERE label IS NOT NULL ORDER BY itemid"
    ).fetchall()
    of = {link: [row[:3] for row in rows if row[3] == link] for link in {row[3] for row in rows}}
    kinds = {"drug": "inputevents", "procedure": "procedureevents", "output": "outputevents"}
    names: list[tuple[int, str, str]] = []
    for kind, link in kinds.items():
        entries = of.get(link, [])
        raw = {itemid: label for itemid, label, _ in entries}
        chosen = raw if every_item or kind == "output" else concepts.short_names(kind, entries)
        names += [(itemid, kind, name) for itemid, name in chosen.items()]
    if every_item:
        read = [(itemid, label, 0, 1, 1.0, 0.0, -1e9, 1e9) for itemid, label, _ in of.get("chartevents", [])]
    else:
        read = [(i.itemid, i.name, i.part, i.parts, i.scale, i.offset, i.minimum, i.maximum) for i in concepts.items()]
    names_read = sorted({row[1] for row in read}) if every_item else list(concepts.readings())
    order = {name: line for line, name in enumerate(names_read)}
    most = limits or {}
    read = [(*row, float(most.get(row[0], "inf")), order[row[1]], rank) for rank, row in enumerate(read)]
    columns = ("itemid", "name", "part", "parts", "scale", "shift", "minimum", "maximum", "most", "line", "place")
    _table(con, "read_items", columns, read)
    _table(con, "named", ("itemid", "kind", "name"), names)
    _table(con, "urine_items", ("itemid", "sign"), list(concepts.urine().items()))


def _table(con: duckdb.DuckDBPyConnection, name: str, columns: tuple[str, ...], rows: list[tuple]) -> None:
    lists = [list(column) for column in zip(*rows, strict=True)] if rows else [[0]] * len(columns)
    chosen = ", ".join(f"unnest(?) AS {column}" for column in columns)
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {chosen}{'' if rows else ' LIMIT 0'}", lists)


_VALUES = """
    CREATE OR REPLACE TEMP TABLE read_values AS
    SELECT c.stay_id, r.line, r.part, r.parts, r.place, epoch_us(c.charttime) - epoch_us(s.window_start) AS time,
        c.valuenum * r.scale + r.shift AS value
    FROM chartevents c JOIN batch s USING (stay_id) JOIN read_items r USING (itemid)
    WHERE c.stay_id {bounds} AND c.charttime >= s.window_start AND c.charttime < s.window_end
        AND c.valuenum <= r.most AND c.valuenum * r.scale + r.shift BETWEEN r.minimum AND r.maximum"""
# Sums are of decimals, so that neither the order of rows nor the number of threads can change a last digit.
_EXACT = "CAST({} AS DECIMAL(18, 4))"
_NAMES = "(SELECT DISTINCT line, name FROM read_items)"
_READINGS = f"""
    WITH means AS (
        SELECT stay_id, line, part, parts, sum(TRY_{_EXACT.format("value")})::DOUBLE / count(value) AS mean
        FROM read_values GROUP BY ALL)
    SELECT stay_id, name, sum(mean ORDER BY part) FROM means JOIN {_NAMES} USING (line)
    GROUP BY stay_id, line, name, parts HAVING count(*) = parts ORDER BY stay_id, line"""
_COURSES = f"""
    SELECT stay_id, name, arg_min(value, (time, place, value)), arg_max(value, (time, -place, -value)),
        min(value), max(value), count(*), min(time) / 3.6e9, max(time) / 3.6e9
    FROM read_values JOIN {_NAMES} USING (line) WHERE parts = 1 GROUP BY stay_id, name ORDER BY ALL"""
_COURSES_OF_SUMS = f"""
    WITH charted AS (
        SELECT stay_id, line, part, parts, time, arg_min(value, (place, value)) AS value
        FROM read_values WHERE parts > 1 GROUP BY ALL),
    times AS (SELECT DISTINCT stay_id, line, parts, time FROM charted),
    asked AS (SELECT stay_id, line, parts, time, p.part FROM times, unnest(range(parts)) AS p(part)),
    held AS (
        SELECT stay_id, line, parts, time, part, last_value(value IGNORE NULLS) OVER (
            PARTITION BY stay_id, line, part ORDER BY time) AS value
        FROM asked LEFT JOIN charted USING (stay_id, line, parts, time, part)),
    sums AS (
        SELECT stay_id, line, time, sum(value ORDER BY part) AS value
        FROM held GROUP BY stay_id, line, parts, time HAVING count(value) = parts)
    SELECT stay_id, name, arg_min(value, time), arg_max(value, time),
        min(value), max(value), count(*), min(time) / 3.6e9, max(time) / 3.6e9
    FROM sums JOIN {_NAMES} USING (line) GROUP BY stay_id, name ORDER BY ALL"""
_AFTER = "(epoch_us({}) - epoch_us(any_value(s.window_start))) / 3.6e9"
_TIMES = f"count(*), {_AFTER.format('min(e.starttime)')}, {_AFTER.format('max(e.starttime)')}"
_NAMED = """
    FROM {table} e JOIN batch s USING (stay_id) JOIN named n ON n.itemid = e.itemid AND n.kind = '{kind}'
    WHERE e.stay_id {{bounds}} AND e.{time} >= s.window_start AND e.{time} < s.window_end
    GROUP BY e.stay_id, n.name ORDER BY e.stay_id, count(*) DESC, n.name"""
_ENDED = "e.endtime < s.window_end AND abs(e.amount) < 1e9"
_DRUGS = f"""
    SELECT e.stay_id, n.name,
        sum(TRY_{_EXACT.format("e.amount")}) FILTER ({_ENDED})::DOUBLE
            / nullif(count(e.amount) FILTER ({_ENDED}), 0) AS mean,
        {_TIMES}
    {_NAMED.format(table="inputevents", kind="drug", time="starttime")}"""
_HOUR = "floor((epoch_us(e.{}) - epoch_us(s.window_start)) / 3.6e9)"
_PIPELINE_DRUGS = _DRUGS.replace(f"FILTER ({_ENDED})", "FILTER (abs(e.amount) < 1e9)").replace(
    "GROUP BY", f"AND {_HOUR.format('endtime')} > {_HOUR.format('starttime')} GROUP BY"
)
_PROCEDURES = f"""
    SELECT e.stay_id, n.name, {_TIMES}
    {_NAMED.format(table="procedureevents", kind="procedure", time="starttime")}"""
_OUTPUTS = f"SELECT e.stay_id, n.name {_NAMED.format(table='outputevents', kind='output', time='charttime')}"
_URINE = f"""
    SELECT e.stay_id, sum(TRY_{_EXACT.format("e.value * u.sign")})::DOUBLE
    FROM outputevents e JOIN batch s USING (stay_id) JOIN urine_items u USING (itemid)
    WHERE e.stay_id {{bounds}} AND e.charttime >= s.window_start AND e.charttime < s.window_end
        AND abs(e.value) < 20000
    GROUP BY e.stay_id ORDER BY e.stay_id"""
_TITLED = """JOIN d_icd_diagnoses t ON trim(t.icd_code) = trim(d.icd_code) AND t.icd_version = d.icd_version"""
_TITLES = {
    "prior": f"""
        WITH earlier AS (
            SELECT s.stay_id, a.hadm_id, a.dischtime FROM batch s JOIN admissions a USING (subject_id)
            WHERE a.hadm_id <> s.hadm_id AND a.dischtime <= s.intime),
        titles AS (
            SELECT e.stay_id, t.long_title, row_number() OVER (PARTITION BY e.stay_id
                ORDER BY e.dischtime DESC, e.hadm_id DESC, d.seq_num, d.icd_code, d.icd_version, t.long_title) AS line
            FROM earlier e JOIN diagnoses_icd d USING (hadm_id) {_TITLED})
        SELECT stay_id, long_title FROM titles GROUP BY ALL ORDER BY stay_id, min(line)""",
    "discharge": f"""
        SELECT s.stay_id, min(t.long_title)
        FROM batch s JOIN diagnoses_icd d USING (hadm_id) {_TITLED}
        GROUP BY s.stay_id, d.seq_num, d.icd_code, d.icd_version ORDER BY s.stay_id, d.seq_num, d.icd_code""",
}
