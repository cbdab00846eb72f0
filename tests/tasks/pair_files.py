"""Files of texts and references that tests write: conversations, questions in a sheet, discharge notes."""

import csv
import gzip
from pathlib import Path

import openpyxl


def write_csv(path: Path, columns: list[str], rows: list[list]) -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def dialogues(path: Path, count: int, name: str = "a") -> Path:
    rows = [[i, "CC" if i % 2 else "GENHX", f"{name} has pain {i}.", f"Doctor: {name} {i}?\nPatient: It hurts, {i}."]
            for i in range(count)]  # fmt: skip
    return write_csv(path, ["ID", "section_header", "section_text", "dialogue"], rows)


def summaries(path: Path, rows: list[list]) -> Path:
    book = openpyxl.Workbook()
    for row in [["File", "CHQ", "Summary"], *rows]:
        book.active.append(row)
    book.save(path)
    return path


NOTE = """Name: ___
Service: MEDICINE

Chief Complaint:
dyspnea

History of Present Illness:
Came from another hospital. Hospital course: there she had diuretics {n}.

Pertinent Results:
BNP 4000

Brief Hospital Course:
Patient {n} was treated for heart failure.
TRANSITIONAL ISSUES:
- weigh daily {n}

Medications on Admission:
furosemide

Discharge Disposition:
Home, SECRET {n}
"""


def notes(path: Path, patients: int, each: int = 2) -> Path:
    rows = [[100 + k // each, 7000 + k, NOTE.format(n=k)] for k in range(patients * each)]
    rows.append([99, 6999, "Name: ___\nNo course in it."])
    return write_csv(path, ["subject_id", "hadm_id", "text"], rows)
