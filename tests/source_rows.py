"""Reading a whole source, for the tests of tables, conversion and MEDS."""

from pathlib import Path

from patientdx.records.source import SourceConfig, opened_source

EVENTS = {
    "icu/chartevents": {"stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "valuenum": "DOUBLE"},
    "icu/inputevents": {
        "stay_id": "BIGINT", "starttime": "TIMESTAMP", "endtime": "TIMESTAMP", "itemid": "INTEGER", "amount": "DOUBLE",
    },
    "icu/procedureevents": {"stay_id": "BIGINT", "starttime": "TIMESTAMP", "itemid": "INTEGER"},
    "icu/outputevents": {"stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "value": "DOUBLE"},
}  # fmt: skip
NEEDED = EVENTS | {
    "hosp/patients": {
        "subject_id": "BIGINT", "gender": "VARCHAR", "anchor_age": "INTEGER", "anchor_year": "INTEGER",
        "dod": "TIMESTAMP",
    },
    "hosp/admissions": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "admittime": "TIMESTAMP", "dischtime": "TIMESTAMP",
        "deathtime": "TIMESTAMP", "insurance": "VARCHAR", "race": "VARCHAR",
    },
    "icu/icustays": {
        "subject_id": "BIGINT", "hadm_id": "BIGINT", "stay_id": "BIGINT", "intime": "TIMESTAMP", "outtime": "TIMESTAMP",
    },
    "icu/d_items": {"itemid": "INTEGER", "label": "VARCHAR", "category": "VARCHAR", "linksto": "VARCHAR"},
}  # fmt: skip
NEEDED = {name: NEEDED[name] for name in sorted(NEEDED)}


def read(cache: Path, *, needed=NEEDED, root=None, **source) -> dict[str, list[tuple]]:
    """All rows of every needed table, in an order of their own."""
    with opened_source(SourceConfig(cache=cache, mimic_root=root, **source), needed) as opened:
        return {name: opened.con.execute(f"SELECT * FROM {Path(name).name} ORDER BY ALL").fetchall() for name in needed}
