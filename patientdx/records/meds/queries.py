"""The SQL that makes MIMIC-IV's tables from MEDS events. For what replaces data that MEDS lacks see `meds_tables`.

It reads what `meds_tables` sets up: the views `events` (subject_id, time, code, number, text_value, hadm_id, stay_id,
order_id, race, insurance, unit; NULL where a folder has no such column) and `codes` (code, description), and the table
`bundled`, the dictionary of items that comes with this package.
"""


def spans(table: str, opens: str, closes: str, id_column: str) -> str:
    """Starts, each with the end that follows it, unless another start comes first.

    With ids the rows of one span are paired; a stay of no length then opens before it closes. Without ids the spans
    of a patient follow one another, and one may close when the next opens.
    """
    return f"""CREATE TEMP TABLE {table} AS
    WITH ends AS (
        SELECT *, starts_with(code, '{closes}//') AS closes FROM events
        WHERE starts_with(code, '{opens}//') OR starts_with(code, '{closes}//')),
    followed AS (
        SELECT *, lead(time) OVER w AS next_time, lead(closes) OVER w AS next_closes, lead(code) OVER w AS next_code
        FROM ends WINDOW w AS (PARTITION BY subject_id, {id_column}
            ORDER BY time, closes = ({id_column} IS NULL) DESC, code))
    SELECT * EXCLUDE ({id_column}, code),
        coalesce({id_column}, row_number() OVER (ORDER BY subject_id, time, code)) AS {id_column},
        code AS start_code, CASE WHEN next_closes THEN next_time END AS end_time,
        CASE WHEN next_closes THEN next_code END AS end_code
    FROM followed WHERE NOT closes"""


WITH_IDS = """CREATE TEMP TABLE with_ids AS
    SELECT DISTINCT subject_id FROM events WHERE stay_id IS NOT NULL AND NOT starts_with(code, 'ICU_')"""
STAYS = """CREATE TEMP TABLE stays AS
    SELECT p.* EXCLUDE (hadm_id), coalesce(p.hadm_id, a.hadm_id) AS hadm_id
    FROM placed p ASOF LEFT JOIN admissions a
        ON a.subject_id = p.subject_id AND a.time <= coalesce(p.end_time, p.time)"""
_PATIENTS = """
    WITH born AS (SELECT subject_id, min(time) AS birth FROM events WHERE code = 'MEDS_BIRTH' GROUP BY subject_id),
    dead AS (SELECT subject_id, min(time)::DATE AS dod FROM events WHERE code = 'MEDS_DEATH' GROUP BY subject_id),
    sex AS (SELECT subject_id, min(split_part(code, '//', 2)) AS gender FROM events
        WHERE starts_with(code, 'GENDER//') GROUP BY subject_id),
    first AS (SELECT subject_id, year(min(time)) AS anchor_year FROM
        (SELECT subject_id, time FROM admissions UNION ALL SELECT subject_id, time FROM stays) GROUP BY subject_id)
    SELECT subject_id, gender, anchor_year - year(birth) AS anchor_age, anchor_year, dod
    FROM born FULL JOIN sex USING (subject_id) LEFT JOIN first USING (subject_id) LEFT JOIN dead USING (subject_id)"""
_ADMISSIONS = """
    WITH dead AS (SELECT subject_id, min(time) AS death FROM events WHERE code = 'MEDS_DEATH' GROUP BY subject_id),
    said AS (
        SELECT subject_id, time, min(substr(code, 7)) FILTER (starts_with(code, 'RACE//')) AS said_race,
            min(substr(code, 12)) FILTER (starts_with(code, 'INSURANCE//')) AS said_insurance
        FROM events WHERE starts_with(code, 'RACE//') OR starts_with(code, 'INSURANCE//') GROUP BY subject_id, time),
    whole AS (
        SELECT *, coalesce(end_code = 'HOSPITAL_DISCHARGE//DIED', false) AS died
        FROM admissions LEFT JOIN dead USING (subject_id) LEFT JOIN said USING (subject_id, time))
    SELECT subject_id, hadm_id, time AS admittime, end_time AS dischtime,
        CASE WHEN death::TIME <> TIME '00:00:00' AND (died OR death BETWEEN time AND end_time) THEN death END
            AS deathtime,
        nullif(split_part(start_code, '//', 2), 'UNK') AS admission_type,
        nullif(split_part(start_code, '//', 3), 'UNK') AS admission_location,
        nullif(split_part(end_code, '//', 2), 'UNK') AS discharge_location,
        died::INTEGER AS hospital_expire_flag,
        coalesce(insurance, said_insurance) AS insurance, coalesce(race, said_race) AS race
    FROM whole"""
_ICUSTAYS = """
    SELECT subject_id, hadm_id, stay_id, time AS intime, end_time AS outtime,
        epoch(end_time - time) / 86400 AS los, split_part(start_code, '//', 2) AS first_careunit,
        split_part(end_code, '//', 2) AS last_careunit
    FROM stays"""
# LAB//220045//bpm, LAB//RESULT//50912//mg/dL, PROCEDURE//START//225792; numbers from 220000 on are the ICU's.
_ITEM = "coalesce(TRY_CAST(split_part(code, '//', 2) AS INTEGER), TRY_CAST(split_part(code, '//', 3) AS INTEGER))"
_D_ITEMS = f"""
    WITH seen AS (
        SELECT {_ITEM} AS itemid, CASE
            WHEN starts_with(code, 'LAB//') THEN 'chartevents' WHEN starts_with(code, 'INFUSION_') THEN 'inputevents'
            WHEN starts_with(code, 'PROCEDURE//') THEN 'procedureevents' ELSE 'outputevents' END AS linksto
        FROM (SELECT DISTINCT code FROM events)
        WHERE regexp_matches(code, '^(LAB|INFUSION_START|INFUSION_END|PROCEDURE|SUBJECT_FLUID_OUTPUT)//')),
    said AS (SELECT {_ITEM} AS itemid, min(description) AS description FROM codes GROUP BY 1)
    SELECT s.itemid, coalesce(min(b.label), min(d.description)) AS label, min(b.category) AS category,
        min(s.linksto) AS linksto
    FROM seen s LEFT JOIN bundled b USING (itemid) LEFT JOIN said d USING (itemid)
    WHERE s.itemid >= 220000 GROUP BY s.itemid"""
_DIAGNOSES = """
    SELECT e.subject_id, coalesce(e.hadm_id, a.hadm_id) AS hadm_id, NULL AS seq_num,
        split_part(e.code, '//', 4) AS icd_code, split_part(e.code, '//', 3) AS icd_version
    FROM events e LEFT JOIN admissions a
        ON e.hadm_id IS NULL AND a.subject_id = e.subject_id AND a.end_time = e.time
    WHERE starts_with(e.code, 'DIAGNOSIS//ICD//')"""
_TITLES = """
    SELECT split_part(code, '//', 4) AS icd_code, split_part(code, '//', 3) AS icd_version,
        min(description) AS long_title
    FROM codes WHERE starts_with(code, 'DIAGNOSIS//ICD//') AND description IS NOT NULL GROUP BY 1, 2"""
_LABS = f"""
    SELECT subject_id, hadm_id, time AS charttime, {_ITEM} AS itemid, number AS valuenum, text_value AS value,
        nullif(split_part(code, '//', CASE WHEN starts_with(code, 'LAB//RESULT//') THEN 4 ELSE 3 END), 'UNK')
            AS valueuom
    FROM events WHERE starts_with(code, 'LAB//') AND NOT starts_with(code, 'LAB//SPECIMEN') AND {_ITEM} < 220000"""
_WHOLE = {
    "hosp/patients": _PATIENTS,
    "hosp/admissions": _ADMISSIONS,
    "hosp/diagnoses_icd": _DIAGNOSES,
    "hosp/d_icd_diagnoses": _TITLES,
    "hosp/labevents": _LABS,
    "icu/icustays": _ICUSTAYS,
    "icu/d_items": _D_ITEMS,
}
_IDS = ("subject_id", "hadm_id", "stay_id")
_PERIOD = (*_IDS, "starttime", "endtime", "itemid")
COLUMNS = {
    "hosp/patients": ("subject_id", "gender", "anchor_age", "anchor_year", "dod"),
    "hosp/admissions": (
        "subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "admission_location",
        "discharge_location", "hospital_expire_flag", "insurance", "race",
    ),
    "hosp/diagnoses_icd": ("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"),
    "hosp/d_icd_diagnoses": ("icd_code", "icd_version", "long_title"),
    "hosp/labevents": ("subject_id", "hadm_id", "charttime", "itemid", "valuenum", "value", "valueuom"),
    "icu/icustays": (*_IDS, "first_careunit", "last_careunit", "intime", "outtime", "los"),
    "icu/chartevents": (*_IDS, "charttime", "itemid", "valuenum", "value", "valueuom"),
    "icu/outputevents": (*_IDS, "charttime", "itemid", "value", "valueuom"),
    "icu/inputevents": (*_PERIOD, "amount", "amountuom", "rate", "rateuom"),
    "icu/procedureevents": _PERIOD,
    "icu/d_items": ("itemid", "label", "category", "linksto"),
}  # fmt: skip


def query(name: str) -> str:
    """A SELECT with all of COLUMNS[name], to be run where the views and tables of this module are."""
    if name in _WHOLE:
        return _WHOLE[name]
    unit = "nullif(split_part(code, '//', 3), 'UNK') AS valueuom"
    columns = "subject_id, hadm_id, stay_id, time AS charttime, itemid"
    if name == "icu/chartevents":
        rows = _placed(f"starts_with(e.code, 'LAB//') AND {_ITEM} >= 220000")
        return f"SELECT {columns}, number AS valuenum, text_value AS value, {unit} FROM ({rows})"
    if name == "icu/outputevents":
        rows = _placed("starts_with(e.code, 'SUBJECT_FLUID_OUTPUT//')")
        return f"SELECT {columns}, number AS value, {unit} FROM ({rows})"
    if name == "icu/inputevents":
        return _paired("INFUSION_START//", "INFUSION_END//")
    return _paired("PROCEDURE//START//", "PROCEDURE//END//")


def _placed(condition: str) -> str:
    """The events e that meet a condition, with itemid, stay_id and hadm_id: their `own`, or by time.

    By time are those of patients of whose events none has a stay_id: one shard of a folder may carry them, another not.
    """
    return f"""SELECT e.* EXCLUDE (stay_id, hadm_id), {_ITEM} AS itemid, e.stay_id AS event_stay,
            coalesce(e.stay_id, s.stay_id) AS stay_id, coalesce(e.hadm_id, s.hadm_id) AS hadm_id
        FROM events e LEFT JOIN (FROM stays ANTI JOIN with_ids USING (subject_id)) s
            ON s.subject_id = e.subject_id AND e.time >= s.time AND e.time < coalesce(s.end_time, s.time)
        WHERE {condition}"""


def _paired(begins: str, ends: str) -> str:
    """Starts with their ends: those of the same rank among the starts and ends of a patient, item, order and stay.

    What starts before an ICU stay and goes on in it belongs to that stay.
    """
    group = "subject_id, itemid, order_id, event_stay"
    rank = f"row_number() OVER (PARTITION BY {group} ORDER BY time, number) AS place"
    same = " AND ".join(f"s.{name} IS NOT DISTINCT FROM e.{name}" for name in group.split(", "))
    ended = f"SELECT *, stay_id AS event_stay, {_ITEM} AS itemid FROM events WHERE starts_with(code, '{ends}')"
    return f"""
        WITH starts AS (SELECT *, {rank} FROM ({_placed(f"starts_with(e.code, '{begins}')")})),
        ends AS (SELECT *, {rank} FROM ({ended}))
        SELECT s.subject_id, coalesce(s.hadm_id, CASE WHEN e.time > o.time THEN o.hadm_id END) AS hadm_id,
            coalesce(s.stay_id, CASE WHEN e.time > o.time THEN o.stay_id END) AS stay_id,
            s.time AS starttime, e.time AS endtime, s.itemid,
            e.number AS amount, e.unit AS amountuom, s.number AS rate, s.unit AS rateuom
        FROM starts s LEFT JOIN ends e ON {same} AND s.place = e.place
        ASOF LEFT JOIN (FROM stays ANTI JOIN with_ids USING (subject_id)) o
            ON o.subject_id = s.subject_id AND s.time < o.time"""
