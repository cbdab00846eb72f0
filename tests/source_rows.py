"""Reading a whole source, for the tests of tables, conversion and MEDS."""

from pathlib import Path

from patientdx.records import cohort
from patientdx.records.source import SourceConfig, opened_source

EVENTS = {
    "icu/chartevents": {"stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "valuenum": "DOUBLE"},
    "icu/inputevents": {
        "stay_id": "BIGINT", "starttime": "TIMESTAMP", "endtime": "TIMESTAMP", "itemid": "INTEGER", "amount": "DOUBLE",
    },
    "icu/procedureevents": {"stay_id": "BIGINT", "starttime": "TIMESTAMP", "itemid": "INTEGER"},
    "icu/outputevents": {"stay_id": "BIGINT", "charttime": "TIMESTAMP", "itemid": "INTEGER", "value": "DOUBLE"},
}  # fmt: skip
_UNREAD = ("admission_type", "admission_location", "discharge_location", "hospital_expire_flag", "first_careunit")
NEEDED = EVENTS | {
    table: {name: kind for name, kind in columns.items() if name not in _UNREAD}
    for table, columns in cohort.NEEDED.items()
}
NEEDED |= {"icu/d_items": {"itemid": "INTEGER", "label": "VARCHAR", "category": "VARCHAR", "linksto": "VARCHAR"}}
NEEDED = {name: NEEDED[name] for name in sorted(NEEDED)}


def read(cache: Path, *, needed=NEEDED, root=None, **source) -> dict[str, list[tuple]]:
    """All rows of every needed table, in an order of their own."""
    with opened_source(SourceConfig(cache=cache, mimic_root=root, **source), needed) as opened:
        return {name: opened.con.execute(f"SELECT * FROM {Path(name).name} ORDER BY ALL").fetchall() for name in needed}
