"""One patient with one ICU stay, event by event, for tests of what a window shows."""

from pathlib import Path
from typing import Any

import pandas as pd

SUBJECT, ADMISSION, STAY = 1, 10, 100
EARLIER, LATER = 9, 11  # the patient's other admissions, before and after
INTIME = pd.Timestamp("2150-03-01 12:00")
ITEMS = {  # itemid: (label, category, table)
    221906: ("Norepinephrine", "Medications", "inputevents"), 222315: ("Vasopressin", "Medications", "inputevents"),
    221749: ("Phenylephrine", "Medications", "inputevents"), 222168: ("Propofol", "Medications", "inputevents"),
    225974: ("Metoprolol", "Medications", "inputevents"), 225152: ("Heparin Sodium", "Medications", "inputevents"),
    225975: ("Heparin Sodium (Prophylaxis)", "Medications", "inputevents"),
    225158: ("NaCl 0.9%", "Fluids/Intake", "inputevents"),
    226364: ("OR Crystalloid Intake", "Fluids/Intake", "inputevents"),
    225792: ("Invasive Ventilation", "2-Ventilation", "procedureevents"),
    225752: ("Arterial Line", "Access Lines - Invasive", "procedureevents"),
    226559: ("Foley", "Output", "outputevents"), 227488: ("GU Irrigant Volume In", "Output", "outputevents"),
    226588: ("Chest Tube #1", "Output", "outputevents"),
}  # fmt: skip
_IDS = {"subject_id": SUBJECT, "hadm_id": ADMISSION, "stay_id": STAY}


def at(hour: float) -> pd.Timestamp:
    """So many hours after ICU admission."""
    return INTIME + pd.Timedelta(hours=hour)


def chart(hour: float, itemid: int, value: float, text: str | None = None, stored: float | None = None) -> dict:
    """A row of chartevents; `text` None: the number as text, as MIMIC-IV writes it."""
    stored = hour if stored is None else stored
    return _IDS | {
        "charttime": at(hour), "storetime": at(stored), "itemid": itemid, "valuenum": value,
        "value": str(value) if text is None else text, "valueuom": "",
    }  # fmt: skip


def lab(hour: float, itemid: int, value: float, stored: float | None = None) -> dict:
    """A row of labevents, of no admission, as in the emergency department."""
    stored = hour if stored is None else stored
    return {
        "subject_id": SUBJECT, "hadm_id": None, "charttime": at(hour), "storetime": at(stored), "itemid": itemid,
        "valuenum": value, "value": str(value), "valueuom": "",
    }  # fmt: skip


def infusion(
    start: float, end: float | None, itemid: int, amount: float, rate: float | None = None, unit: str | None = None,
    weight: float = 80.0,
) -> dict:  # fmt: skip
    """A row of inputevents."""
    return _IDS | {
        "starttime": at(start), "endtime": None if end is None else at(end), "itemid": itemid, "amount": amount,
        "amountuom": "ml" if ITEMS[itemid][1] == "Fluids/Intake" else "mg", "rate": rate, "rateuom": unit,
        "patientweight": weight,
    }  # fmt: skip


def procedure(start: float, end: float | None, itemid: int) -> dict:
    """A row of procedureevents."""
    return _IDS | {"starttime": at(start), "endtime": None if end is None else at(end), "itemid": itemid}


def output(hour: float, itemid: int, value: float) -> dict:
    """A row of outputevents."""
    return _IDS | {
        "charttime": at(hour), "storetime": at(hour), "itemid": itemid, "value": value, "valueuom": "ml",
    }  # fmt: skip


_EVENTS: dict[str, dict] = {
    "icu/chartevents": chart(0, 0, 0.0), "icu/inputevents": infusion(0, 1, 221906, 0.0),
    "hosp/labevents": lab(0, 0, 0.0), "icu/procedureevents": procedure(0, 1, 0), "icu/outputevents": output(0, 0, 0.0),
}  # fmt: skip


def write_ward(root: Path, *, gender: str = "M", age: int = 60, codes: Any = (), **events: list[dict]) -> Path:
    """The tables of the patient in `root`; events by table (chartevents=[...]); `codes`: (hadm_id, ICD-10 code)."""
    admissions = [
        (EARLIER, at(-5000), at(-4900), None, "ELECTIVE", None, "HOME", 0),
        (ADMISSION, at(-6), at(200), None, "EW EMER.", "EMERGENCY ROOM", "HOME", 0),
        (LATER, at(900), at(950), None, "URGENT", None, "HOME", 0),
    ]
    columns = [
        "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "admission_location", "discharge_location",
        "hospital_expire_flag",
    ]  # fmt: skip
    dated = pd.DataFrame(admissions, columns=columns).assign(subject_id=SUBJECT, insurance="Medicare", race="WHITE")
    stay = _IDS | {
        "intime": INTIME, "outtime": at(120), "first_careunit": "Coronary Care Unit (CCU)",
        "last_careunit": "Coronary Care Unit (CCU)", "los": 5.0,
    }  # fmt: skip
    patient = {
        "subject_id": SUBJECT, "gender": gender, "anchor_age": age, "anchor_year": INTIME.year, "dod": None,
    }  # fmt: skip
    tables = {
        "hosp/patients": pd.DataFrame([patient]).astype({"dod": "datetime64[us]"}),
        "hosp/admissions": dated.astype({"deathtime": "datetime64[us]"}),
        "icu/icustays": pd.DataFrame([stay]),
        "icu/d_items": pd.DataFrame(
            [(itemid, *described) for itemid, described in ITEMS.items()],
            columns=["itemid", "label", "category", "linksto"],
        ),
        "hosp/diagnoses_icd": pd.DataFrame(
            [(SUBJECT, hadm, 1, code, 10) for hadm, code in codes],
            columns=["subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"],
        ).astype({"subject_id": "int64", "hadm_id": "int64", "icd_code": "str", "icd_version": "int64"}),
        "hosp/d_icd_diagnoses": pd.DataFrame(
            {"icd_code": ["I509"], "icd_version": [10], "long_title": ["Heart failure"]}
        ),
        "hosp/services": pd.DataFrame(
            {"hadm_id": [ADMISSION] * 2, "transfertime": [at(-6), at(60)], "curr_service": ["CMED", "CSURG"]}
        ),
    }
    for name, template in _EVENTS.items():
        rows = events.pop(Path(name).name, [])
        kinds = {column: _kind(column, value) for column, value in template.items()}
        tables[name] = pd.DataFrame(rows or [template]).astype(kinds).iloc[: len(rows)]
    assert not events, events
    for name, table in tables.items():
        path = root / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, index=False)
    return root


def _kind(column: str, value: Any) -> str:
    if column in ("rate", "amount"):
        return "float64"
    if column in ("hadm_id", "rateuom"):
        return "Int64" if column == "hadm_id" else "string"
    if isinstance(value, pd.Timestamp):
        return "datetime64[us]"
    if isinstance(value, str):
        return "string"
    return "Int64" if isinstance(value, int) else "float64" if isinstance(value, float) else "object"
