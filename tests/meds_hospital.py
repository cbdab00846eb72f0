"""A MEDS folder made of a hospital's tables, with the codes and columns of the public MIMIC-IV extraction."""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet

# table: code, time, number, text, and columns of the event beside hadm_id and icustay_id
_EVENTS = """
    SELECT subject_id, NULL::TIMESTAMP AS time, 'GENDER//' || gender AS code, NULL AS numeric_value,
        NULL AS text_value, NULL::BIGINT AS hadm_id, NULL::BIGINT AS icustay_id, NULL AS order_id,
        NULL AS race, NULL AS insurance FROM patients
    UNION ALL BY NAME
    SELECT subject_id, make_timestamp(anchor_year - anchor_age, 1, 1, 0, 0, 0) AS time, 'MEDS_BIRTH' AS code
    FROM patients
    UNION ALL BY NAME
    SELECT p.subject_id, coalesce(min(a.deathtime), p.dod::TIMESTAMP) AS time, 'MEDS_DEATH' AS code
    FROM patients p LEFT JOIN admissions a USING (subject_id) GROUP BY p.subject_id, p.dod HAVING time IS NOT NULL
    UNION ALL BY NAME
    SELECT subject_id, admittime AS time, hadm_id, race, insurance,
        'HOSPITAL_ADMISSION//' || admission_type || '//' || coalesce(admission_location, 'UNK') AS code FROM located
    UNION ALL BY NAME
    SELECT subject_id, dischtime AS time, hadm_id,
        'HOSPITAL_DISCHARGE//' || CASE WHEN hospital_expire_flag = 1 THEN 'DIED'
            ELSE coalesce(discharge_location, 'HOME') END AS code FROM located
    UNION ALL BY NAME
    SELECT subject_id, charttime AS time, 'LAB//' || itemid || '//' || coalesce(nullif(valueuom, ''), 'UNK') AS code,
        valuenum AS numeric_value, value AS text_value, hadm_id, stay_id AS icustay_id FROM chartevents
    UNION ALL BY NAME
    SELECT subject_id, charttime AS time, 'LAB//' || itemid || '//' || coalesce(nullif(valueuom, ''), 'UNK') AS code,
        valuenum AS numeric_value, value AS text_value, hadm_id FROM laboratory
    UNION ALL BY NAME
    SELECT subject_id, starttime AS time, 'INFUSION_START//' || itemid AS code, rate AS numeric_value, hadm_id,
        stay_id AS icustay_id, order_id FROM numbered
    UNION ALL BY NAME
    SELECT subject_id, endtime AS time, 'INFUSION_END//' || itemid AS code, amount AS numeric_value, hadm_id,
        stay_id AS icustay_id, order_id FROM numbered
    UNION ALL BY NAME
    SELECT subject_id, charttime AS time, 'SUBJECT_FLUID_OUTPUT//' || itemid || '//' || valueuom AS code,
        value AS numeric_value, hadm_id, stay_id AS icustay_id FROM outputevents
    UNION ALL BY NAME
    SELECT d.subject_id, a.dischtime AS time, d.hadm_id,
        'DIAGNOSIS//ICD//' || d.icd_version || '//' || d.icd_code AS code
    FROM diagnoses_icd d JOIN admissions a USING (hadm_id)"""
_OF_STAYS = (  # table, time, beginning of the code, column that ends it
    ("icustays", "intime", "ICU_ADMISSION", "first_careunit"),
    ("icustays", "outtime", "ICU_DISCHARGE", "last_careunit"),
    ("procedureevents", "starttime", "PROCEDURE//START", "itemid"),
    ("procedureevents", "endtime", "PROCEDURE//END", "itemid"),
)
_EVENTS += "".join(
    f" UNION ALL BY NAME SELECT subject_id, {time} AS time, '{code}//' || {column} AS code, hadm_id, "
    f"stay_id AS icustay_id FROM {table}"
    for table, time, code, column in _OF_STAYS
)
_LABORATORY = {
    "subject_id": "BIGINT", "hadm_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "valuenum": "DOUBLE",
    "value": "VARCHAR", "valueuom": "VARCHAR",
}  # fmt: skip
_CORE = ["subject_id", "time", "code", "numeric_value"]
_TYPES = {"subject_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string(), "numeric_value": pa.float32()}


def write_meds(root: Path, target: Path, *, ids: bool = True, version: str | None = "0.4.1", shards: int = 2) -> Path:
    """The tables of `root` as a MEDS folder in `target`.

    ids: the events carry hadm_id, icustay_id, order_id, race, insurance and text_value, as the extraction of MIMIC-IV
    writes them; without, only MEDS's own columns, as in the demo's repack.
    """
    con = duckdb.connect()
    for path in root.rglob("*.parquet"):
        con.execute(f"CREATE VIEW {path.stem} AS SELECT * FROM read_parquet('{path}')")
    # Columns and tables that only some of the tests' hospitals have.
    con.execute("CREATE TABLE optional_rate (rate DOUBLE)")
    con.execute("CREATE TABLE optional_location (admission_location VARCHAR, discharge_location VARCHAR)")
    con.execute(f"CREATE TABLE laboratory ({', '.join(f'{name} {kind}' for name, kind in _LABORATORY.items())})")
    if (root / "hosp/labevents.parquet").is_file():
        con.execute(f"INSERT INTO laboratory SELECT {', '.join(_LABORATORY)} FROM labevents")
    con.execute("""CREATE TABLE numbered AS SELECT *, row_number() OVER () || '' AS order_id
        FROM (FROM inputevents UNION ALL BY NAME FROM optional_rate)""")
    con.execute("CREATE TABLE located AS FROM admissions UNION ALL BY NAME FROM optional_location")
    if "rate" not in con.execute("SELECT * FROM inputevents LIMIT 0").df().columns:
        con.execute("UPDATE numbered SET rate = 1.5")
    events = con.sql(f"SELECT * FROM ({_EVENTS}) ORDER BY subject_id, time NULLS FIRST, code").to_arrow_table()
    if not ids:
        events = events.select(_CORE)
    fields = [pa.field(field.name, _TYPES.get(field.name, field.type)) for field in events.schema]
    events = events.cast(pa.schema(fields))
    subjects = events["subject_id"].to_pylist()
    cuts = [0, *(subjects.index(subjects[len(subjects) * n // shards]) for n in range(1, shards)), len(subjects)]
    for number in range(shards):
        shard = target / ("data/train" if number else "data/held_out") / f"{number}.parquet"
        shard.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(events.slice(cuts[number], cuts[number + 1] - cuts[number]), shard)
    (target / "metadata").mkdir(exist_ok=True)
    described = {"dataset_name": "test"} | ({"meds_version": version} if version else {})
    (target / "metadata/dataset.json").write_text(json.dumps(described))
    titles = "SELECT 'DIAGNOSIS//ICD//' || icd_version || '//' || icd_code AS code, long_title AS description"
    items = "SELECT 'PROCEDURE//START//' || itemid, 'described ' || itemid FROM d_items"
    codes = con.sql(f"{titles} FROM d_icd_diagnoses UNION ALL {items}").to_arrow_table()
    pyarrow.parquet.write_table(codes, target / "metadata/codes.parquet")
    return target
