"""Small hospitals in layouts of their own: stays with labels and records, as MEDS, long, wide and YAIB's export."""

import csv
import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

CONCEPTS = [  # the columns of a file of concepts
    {"code": "LOCAL//HR", "name": "Heart rate", "unit": "bpm", "low": 60, "high": 100, "weight": 90, "minimum": 10,
     "maximum": 300, "decimals": 0},
    {"code": "LOCAL//LACT", "name": "Lactate", "unit": "mmol/L", "low": 0.5, "high": 2.0, "weight": 95, "minimum": 0.1,
     "maximum": 50, "decimals": 1},
    {"code": "LOCAL//CREA", "name": "Creatinine", "unit": "mg/dL", "low": 0.5, "high": 1.2, "weight": 80,
     "minimum": 0.05, "maximum": 40, "decimals": 1, "scale": 0.01131},
]  # fmt: skip
CODES = {"hr": "LOCAL//HR", "lact": "LOCAL//LACT", "crea": "LOCAL//CREA"}
HOURS = (1, 6, 12, 20, 30)  # of the measurements; prediction is at 24 h


@dataclass(frozen=True)
class Hospital:
    """Stays with label, age, sex and patient (two stays each); values (stay, hour, variable, value) in YAIB's units."""

    stays: list[dict]
    values: list[tuple[int, float, str, float]]


def hospital(stays: int = 80, seed: int = 0, severity: float = 0.0) -> Hospital:
    """A hospital whose sicker patients have higher lactate, and die more often; `severity` shifts all of them."""
    drawn = np.random.default_rng(seed)
    rows, values = [], []
    for number in range(stays):
        sick = drawn.normal() + severity
        label = int(drawn.random() < 1 / (1 + np.exp(1.2 - 1.5 * sick)))
        rows.append({"stay_id": 5000 + number, "subject_id": 1000 + number // 2, "label": label,
                     "age": int(drawn.integers(20, 90)), "sex": ("Male", "Female")[number % 2]})  # fmt: skip
        for hour in HOURS:
            later = 40 * label if hour > 24 else 0  # what is charted after the prediction tells the outcome
            values += [
                (5000 + number, hour, "hr", float(round(85 + 12 * sick + drawn.normal(0, 6) + later))),
                (5000 + number, hour, "crea", round(float(max(0.3, 1.0 + 0.4 * sick + drawn.normal(0, 0.2))), 2)),
            ]
            if hour != 6:
                values.append((5000 + number, hour, "lact", round(float(np.exp(0.5 + 0.5 * sick)), 1)))
    return Hospital(rows, values)


def table(path: Path, rows: list[dict]) -> Path:
    """Rows as csv or parquet, by the suffix; the first row has all columns, or the union of all has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        columns = {name: [row.get(name) for row in rows] for name in names}
        pyarrow.parquet.write_table(pa.table(columns), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)
    return path


def concepts(path: Path, rows: list[dict] = CONCEPTS) -> Path:
    """A file of concepts; its creatinine is in µmol/L in the records."""
    return table(path, rows)


def start(stay: int) -> datetime:
    """Admission of a stay."""
    return datetime(2130, 1, 1) + timedelta(days=3 * stay)


def local(variable: str, value: float) -> float:
    """The value as the hospital's own records have it."""
    return round(value / 0.01131, 1) if variable == "crea" else value


def meds(folder: Path, house: Hospital, *, splits: bool = False) -> tuple[Path, Path]:
    """(labels, records): MEDS labels at 24 h, and a MEDS folder with codes of its own, and some that nothing reads."""
    of = {row["stay_id"]: row for row in house.stays}
    schema = {"subject_id": pa.int64(), "time": pa.timestamp("us"), "code": pa.string(), "numeric_value": pa.float32()}
    events = [(of[stay]["subject_id"], start(stay) + timedelta(hours=hour), CODES[name], local(name, value))
              for stay, hour, name, value in house.values]  # fmt: skip
    events += [(row["subject_id"], start(row["stay_id"]), "LOCAL//NOTE", None) for row in house.stays]
    events += [(row["subject_id"], start(row["stay_id"]), "LOCAL//OTHER", 1.0) for row in house.stays]
    events.sort(key=lambda event: (event[0], event[1]))
    columns = {name: pa.array(values, kind) for (name, kind), values in
               zip(schema.items(), zip(*events, strict=True), strict=True)}  # fmt: skip
    (folder / "records/data/train").mkdir(parents=True)
    (folder / "records/metadata").mkdir()
    pyarrow.parquet.write_table(pa.table(columns), folder / "records/data/train/0.parquet")
    (folder / "records/metadata/dataset.json").write_text(json.dumps({"meds_version": "0.4.1"}))
    if splits:
        names = ("train", "tuning", "held_out")
        rows = [{"subject_id": subject, "split": names[subject % 3]}
                for subject in sorted({row["subject_id"] for row in house.stays})]  # fmt: skip
        table(folder / "records/metadata/subject_splits.parquet", rows)
    rows = [{"subject_id": row["subject_id"], "prediction_time": start(row["stay_id"]) + timedelta(hours=24),
             "boolean_value": bool(row["label"])} for row in house.stays]  # fmt: skip
    return table(folder / "labels/0.parquet", rows).parent, folder / "records"


def long(folder: Path, house: Hospital) -> tuple[Path, Path]:
    """(labels, records) as csv with times in hours: a row for each value."""
    labels = [{"stay_id": row["stay_id"], "patient_id": row["subject_id"], "label": row["label"], "time": 24,
               "age": row["age"], "sex": row["sex"]} for row in house.stays]  # fmt: skip
    rows = [{"stay_id": stay, "time": hour, "code": CODES[name], "value": local(name, value)}
            for stay, hour, name, value in house.values]  # fmt: skip
    return table(folder / "labels.csv", labels), table(folder / "values.csv", rows)


def wide(folder: Path, house: Hospital, name: str = "values.parquet") -> tuple[Path, Path]:
    """(labels, records): a column for each code."""
    labels, _ = long(folder, house)
    return labels, table(folder / name, _wide(house, CODES, local))


def yaib(folder: Path, house: Hospital) -> Path:
    """YAIB's export: outc, dyn and sta.parquet, in ricu's names and units, of the first 24 hours, no patient in it."""
    names = {name: name for name in CODES}
    inside = Hospital(house.stays, [value for value in house.values if value[1] <= 24])
    table(folder / "dyn.parquet", _wide(inside, names, lambda name, value: value))
    table(folder / "outc.parquet", [{"stay_id": row["stay_id"], "label": row["label"]} for row in house.stays])
    static = [{"stay_id": row["stay_id"], "age": float(row["age"]), "sex": row["sex"], "height": 170.0, "weight": 70.0}
              for row in house.stays]  # fmt: skip
    table(folder / "sta.parquet", static)
    return folder


def later(ward: Path, folder: Path) -> Path:
    """A copy of a hospital of which every fourth patient came in later years."""
    shutil.copytree(ward, folder)
    path = folder / "hosp/patients.parquet"
    table = pyarrow.parquet.read_table(path)
    years = ["2017 - 2019" if subject % 4 == 0 else "2011 - 2013" for subject in table["subject_id"].to_pylist()]
    number = table.column_names.index("anchor_year_group")
    pyarrow.parquet.write_table(table.set_column(number, "anchor_year_group", pa.array(years)), path)
    return folder


def _wide(house: Hospital, names: dict[str, str], unit) -> list[dict]:
    rows: dict[tuple[int, float], dict] = {}
    for stay, hour, name, value in house.values:
        row = rows.setdefault((stay, hour), {"stay_id": stay, "time": float(hour)} | dict.fromkeys(names.values()))
        row[names[name]] = unit(name, value)
    return list(rows.values())
