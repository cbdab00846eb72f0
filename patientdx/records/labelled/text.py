"""Text and features of a labelled stay, both from the same courses of the same concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from patientdx.records.concept_table import Concept
from patientdx.records.features import STATISTICS, Features
from patientdx.records.labelled.readings import Readings
from patientdx.records.record import Course
from patientdx.records.templates.sections import Section, fitted

VERSION = 1  # raise it when the same readings give another text or other features
_SEX = {"f": "female", "female": "female", "w": "female", "m": "male", "male": "male"}


def text(
    statics: Mapping[str, object],
    courses: Mapping[str, tuple[Course, float]],
    concepts: Mapping[str, Concept],
    budget: int,
) -> tuple[str, int]:
    """The text of one stay, and how many readings its budget of tokens left out: those of least clinical weight.

    statics: what is known of the patient, by name. Values are those before the prediction time; each line has the unit,
    the usual interval, and the last, first, lowest, highest and mean value.
    """
    lines = [f"{name}: {shown}" for name, value in statics.items() if (shown := _static(name, value))]
    ordered = sorted(courses, key=lambda name: -concepts[name].weight)
    section = Section(
        [_line(concepts[name], *courses[name]) for name in ordered],
        before="Readings before the prediction, unit and usual interval in brackets:\n",
        separator="\n",
        rest="\n{n} more readings did not fit.",
    )
    written, dropped = fitted(section, budget)
    return "\n".join([*lines, written or "No readings."]), dropped


def _line(concept: Concept, course: Course, mean: float) -> str:
    def shown(value: float) -> str:
        printed = concept.printed(value)
        side = " (low)" if float(printed) < concept.low else " (high)" if float(printed) > concept.high else ""
        return printed + side

    usual = f"{concept.low:g}-{concept.high:g}"
    head = f"{concept.name} ({f'{concept.unit}, ' if concept.unit else ''}{usual}):"
    if course.count == 1:
        return f"{head} {shown(course.last)}, once"
    return (
        f"{head} last {shown(course.last)}, first {shown(course.first)}, lowest {shown(course.minimum)}, highest "
        f"{shown(course.maximum)}, mean {concept.printed(mean)}, {course.count} times"
    )


def _static(name: str, value: object) -> str:
    if value is None or value != value or not str(value).strip():
        return ""
    plain = str(value).strip()
    if name.lower() in ("sex", "gender"):
        return _SEX.get(plain.lower(), plain)
    try:
        return f"{float(plain):.4g}"
    except ValueError:
        return plain


def features(
    readings: Readings, concepts: Sequence[str], statics: Sequence[Mapping[str, object]], is_checked: Sequence[bool]
) -> Features:
    """A row for each stay: static values that are numbers (male is 1, female 0), then STATISTICS of each concept.

    A static that is a number for no stay of `is_checked` has no column.
    """
    checked = np.array(is_checked, dtype=bool)
    names = list(statics[0]) if statics else []
    columns = [[_number(name, row[name]) for row in statics] for name in names]
    numeric = [
        (name, column) for name, column in zip(names, columns, strict=True) if not np.isnan(column)[checked].all()
    ]
    nan = float("nan")
    rows = []
    for number, courses in enumerate(readings.courses):
        row = [column[number] for _, column in numeric]
        for concept in concepts:
            course, mean = courses.get(concept, (None, nan))
            row += [nan] * 5 + [0.0] if course is None else [mean, *course[:4], float(course.count)]
        rows.append(row)
    titles = [name for name, _ in numeric] + [
        f"{concept} {statistic}" for concept in concepts for statistic in STATISTICS
    ]
    return Features(tuple(titles), np.array(rows, dtype=np.float64).reshape(len(rows), len(titles)))


def _number(name: str, value: object) -> float:
    if name.lower() in ("sex", "gender"):
        return {"male": 1.0, "female": 0.0}.get(_SEX.get(str(value).strip().lower(), ""), float("nan"))
    try:
        return float(str(value)) if value is not None else float("nan")
    except ValueError:
        return float("nan")
