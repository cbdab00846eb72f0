"""What was dropped and what is missing of the readings is shown from readings.csv of a result folder."""

import csv
from pathlib import Path

from patientdx.reporting import tables
from patientdx.reporting.run_tables import run_tables
from patientdx.reporting.runs import Run

ROWS = [
    {"reading": "Heart rate", "values": 900, "dropped": 3, "stays_without": 0, "stays": 40},
    {"reading": "Lactate", "values": 50, "dropped": 0, "stays_without": 20, "stays": 40},
    {"reading": "Sodium", "values": 300, "dropped": 0, "stays_without": 19, "stays": 40},
]


def test_dropped_values_are_lines_and_missing_readings_a_note():
    table = tables.readings(ROWS)
    assert [[cell.text for cell in line] for line in table.rows] == [["Heart rate", "900", "3", "0"]]
    assert list(table.notes) == ["missing in half of the 40 stays or more: Lactate", "every reading: readings.csv"]


def test_the_table_comes_from_the_result_folder(tmp_path: Path):
    with (tmp_path / "readings.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    assert Run(tmp_path).readings == [{name: str(value) for name, value in row.items()} for row in ROWS]
    assert tables.readings(Run(tmp_path).readings).title == "Readings"
    assert run_tables is not None
