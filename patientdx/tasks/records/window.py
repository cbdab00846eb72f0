"""What was known about a stay at prediction time, aggregated in SQL.

Only what is dated from intime up to, and not including, prediction time (intime + window) is read. Of
something that goes on beyond it (an infusion, ventilation) only the start counts: its end, length and amount
come later.
"""

from dataclasses import dataclass

import duckdb

from patientdx.refusal import Refusal
from patientdx.tasks.records import items

DIAGNOSES = ("none", "discharge")
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


@dataclass(frozen=True)
class Record:
    """One stay as plain values. Lists are in the order of printing.

    `age` in years at ICU admission, `readings` (name, mean over the window) in the unit of items.csv, `drugs`
    (name, mean amount of the doses that ended in the window, or None), `urine` in mL over the window or None.
    """

    age: int
    gender: str | None
    race: str | None = None
    insurance: str | None = None
    readings: tuple[tuple[str, float], ...] = ()
    drugs: tuple[tuple[str, float | None], ...] = ()
    procedures: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    urine: float | None = None
    diagnoses: tuple[str, ...] = ()


def needed(diagnoses: str) -> dict[str, dict[str, str]]:
    """Tables and columns (with DuckDB types) that `records` reads. Raises Refusal on another `diagnoses`."""
    if diagnoses not in DIAGNOSES:
        raise Refusal(f"task.diagnoses={diagnoses!r}: choose {' or '.join(DIAGNOSES)}.")
    return _EVENTS | (_CODES if diagnoses == "discharge" else {})


def records(con: duckdb.DuckDBPyConnection, *, diagnoses: str = "none", every_item: bool = False) -> dict[int, Record]:
    """A Record for each stay of the table `cohort`, by stay_id.

    By default readings are those of items.csv and names are short. With `every_item` all numeric chart items
    and all drugs, procedures and outputs appear under MIMIC-IV's own labels, uncleaned, as in the paper's
    data. `diagnoses="discharge"` adds the codes of the whole admission, which are given after discharge and
    so leak the outcome.
    """
    order = _name_items(con, every_item)
    blank = {"readings": (), "drugs": (), "procedures": (), "outputs": (), "diagnoses": (), "urine": None}
    facts = {
        row[0]: dict(zip(("age", "gender", "race", "insurance"), row[1:], strict=True)) | blank
        for row in con.execute("SELECT stay_id, age, gender, race, insurance FROM cohort").fetchall()
    }
    for stay, *rest in con.execute(_READINGS).fetchall():
        facts[stay]["readings"] += (tuple(rest),)
    for fact in facts.values():
        fact["readings"] = tuple(sorted(fact["readings"], key=lambda reading: order[reading[0]]))
    for stay, name, mean in con.execute(_DRUGS).fetchall():
        facts[stay]["drugs"] += ((name, mean),)
    for stay, name in con.execute(_PROCEDURES).fetchall():
        facts[stay]["procedures"] += (name,)
    for stay, name in con.execute(_OUTPUTS).fetchall():
        facts[stay]["outputs"] += (name,)
    for stay, amount in con.execute(_URINE).fetchall():
        facts[stay]["urine"] = amount
    if diagnoses == "discharge":
        for stay, title in con.execute(_DIAGNOSES).fetchall():
            facts[stay]["diagnoses"] += (title,)
    return {stay: Record(**fact) for stay, fact in facts.items()}


def _name_items(con: duckdb.DuckDBPyConnection, every_item: bool) -> dict[str, int]:
    """Tables `read_items` and `named` (itemid, kind, name) in the connection; the order of readings."""
    rows = con.execute("SELECT itemid, label, category, linksto FROM d_items WHERE label IS NOT NULL").fetchall()
    of = {link: [row[:3] for row in rows if row[3] == link] for link in {row[3] for row in rows}}
    kinds = {"drug": "inputevents", "procedure": "procedureevents", "output": "outputevents"}
    names: list[tuple[int, str, str]] = []
    for kind, link in kinds.items():
        entries = of.get(link, [])
        raw = {itemid: label for itemid, label, _ in entries}
        chosen = raw if every_item or kind == "output" else items.short_names(kind, entries)
        names += [(itemid, kind, name) for itemid, name in chosen.items()]
    if every_item:
        read = [(itemid, label, 0, 1, 1.0, 0.0, -1e9, 1e9) for itemid, label, _ in of.get("chartevents", [])]
    else:
        read = [(i.itemid, i.name, i.part, i.parts, i.scale, i.offset, i.minimum, i.maximum) for i in items.items()]
    columns = ("itemid", "name", "part", "parts", "scale", "shift", "minimum", "maximum")
    _table(con, "read_items", columns, read)
    _table(con, "named", ("itemid", "kind", "name"), names)
    _table(con, "urine_items", ("itemid", "sign"), list(items.urine().items()))
    names_read = sorted({row[1] for row in read}) if every_item else list(items.readings())
    return {name: place for place, name in enumerate(names_read)}


def _table(con: duckdb.DuckDBPyConnection, name: str, columns: tuple[str, ...], rows: list[tuple]) -> None:
    lists = [list(column) for column in zip(*rows, strict=True)] if rows else [[0]] * len(columns)
    chosen = ", ".join(f"unnest(?) AS {column}" for column in columns)
    con.execute(f"CREATE TEMP TABLE {name} AS SELECT {chosen}{'' if rows else ' LIMIT 0'}", lists)


# Sums are of decimals, so that neither the order of rows nor the number of threads can change a last digit.
_EXACT = "CAST({} AS DECIMAL(18, 4))"
_READINGS = f"""
    WITH harmonised AS (
        SELECT c.stay_id, r.name, r.part, r.parts, c.valuenum * r.scale + r.shift AS value,
            r.minimum, r.maximum
        FROM chartevents c JOIN cohort s USING (stay_id) JOIN read_items r USING (itemid)
        WHERE c.charttime >= s.intime AND c.charttime < s.prediction_time),
    means AS (
        SELECT stay_id, name, part, parts,
            sum(TRY_{_EXACT.format("value")})::DOUBLE / count(value) AS mean
        FROM harmonised WHERE value BETWEEN minimum AND maximum GROUP BY ALL)
    SELECT stay_id, name, sum(mean ORDER BY part) FROM means GROUP BY stay_id, name, parts
    HAVING count(*) = parts ORDER BY ALL"""
_ENDED = "e.endtime < s.prediction_time AND abs(e.amount) < 1e9"
_DRUGS = f"""
    SELECT e.stay_id, n.name,
        sum(TRY_{_EXACT.format("e.amount")}) FILTER ({_ENDED})::DOUBLE
            / nullif(count(e.amount) FILTER ({_ENDED}), 0) AS mean
    FROM inputevents e JOIN cohort s USING (stay_id) JOIN named n ON n.itemid = e.itemid AND n.kind = 'drug'
    WHERE e.starttime >= s.intime AND e.starttime < s.prediction_time
    GROUP BY e.stay_id, n.name ORDER BY e.stay_id, count(*) DESC, n.name"""
_LISTED = """
    SELECT e.stay_id, n.name
    FROM {events} e JOIN cohort s USING (stay_id) JOIN named n ON n.itemid = e.itemid AND n.kind = '{kind}'
    WHERE e.{time} >= s.intime AND e.{time} < s.prediction_time
    GROUP BY e.stay_id, n.name ORDER BY e.stay_id, count(*) DESC, n.name"""
_PROCEDURES = _LISTED.format(events="procedureevents", kind="procedure", time="starttime")
_OUTPUTS = _LISTED.format(events="outputevents", kind="output", time="charttime")
_URINE = f"""
    SELECT e.stay_id, sum(TRY_{_EXACT.format("e.value * u.sign")})::DOUBLE
    FROM outputevents e JOIN cohort s USING (stay_id) JOIN urine_items u USING (itemid)
    WHERE e.charttime >= s.intime AND e.charttime < s.prediction_time AND abs(e.value) < 20000
    GROUP BY e.stay_id ORDER BY e.stay_id"""
_DIAGNOSES = """
    SELECT s.stay_id, min(t.long_title)
    FROM cohort s JOIN diagnoses_icd d USING (hadm_id)
    JOIN d_icd_diagnoses t ON trim(t.icd_code) = trim(d.icd_code) AND t.icd_version = d.icd_version
    GROUP BY s.stay_id, d.seq_num, d.icd_code, d.icd_version ORDER BY s.stay_id, d.seq_num, d.icd_code"""
