"""Rows of results, as `patientdx.reporting` describes them: the metrics in them, and all of them as a csv file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.core.atomic_io import write_atomically
from patientdx.reporting import numbers
from patientdx.reporting.lambda_picture import Row


def metric_names(rows: Iterable[Row]) -> list[str]:
    """The metrics that the rows hold, in the order of their first mention: keys that have a `_ci_low`."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if f"{key}_ci_low" in keys]


def model_name(row: Row) -> str:
    """What the row's model is called: method, λ and the numbers that tell it from others of its method; else its role.

    The role of what was trained has its method behind it (`finetuned lora(base)`); a tabular model's is its method.
    """
    if row.get("role") != "merged":
        role, method = row.get("role"), row.get("method")
        return numbers.text(role) if method in (None, role) else f"{role} {method}"
    method, place, variant = numbers.text(row.get("method")), row.get("lambda"), row.get("variant")
    name = method if place is None else f"{method} λ={place:g}"
    return f"{name} {variant}" if variant else name


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as csv with every digit of their floats; None is an empty field."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The same as a file. Whole or not at all."""
    write_atomically(Path(path), lambda aside: aside.write_text(csv_text(rows), encoding="utf-8", newline=""))
