"""Files of a hospital's own that tests write: notes with a label, a patient and numbers."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

QUESTION = "Will the patient die in hospital? Answer with yes or no."


def notes(patients: int = 40, each: int = 2, seed: int = 0, risk: float = 0.35) -> list[dict[str, Any]]:
    """Rows of `patients` patients with `each` texts; sicker patients die more often, and have higher lactate."""
    drawn, rows = random.Random(seed), []
    for number in range(patients * each):
        sick = drawn.random() < risk
        lactate = round(drawn.gauss(4.0 if sick else 1.5, 0.7), 1)
        rows.append(
            {
                "text": f"Heart rate of {drawn.randint(60, 120)} bpm; lactate {lactate} mmol/L. Note {number}.",
                "label": int(drawn.random() < (0.75 if sick else 0.15)),
                "patient_id": 1000 + number // each,
                "lactate": lactate,
            }
        )
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The rows as csv, jsonl or parquet, by the suffix of the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path
