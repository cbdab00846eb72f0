"""What a tabular model sees of the stays: the numbers behind the text, from the same window."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from patientdx.refusal import Refusal
from patientdx.tasks.example import Features
from patientdx.tasks.records import items
from patientdx.tasks.records.window import Record

STATISTICS = ("mean", "first", "last", "minimum", "maximum", "count")
_MALE = {"M": 1.0, "F": 0.0}


def table(records: Mapping[int, Record], *, fit_on: Iterable[int] | None = None, common: float = 0.05) -> Features:
    """One row per record, in their order; columns float64, NaN where nothing was read.

    Columns: age (years), male (1, 0), urine (mL over the window), drugs and procedures (how many different ones);
    mean, first, last, minimum, maximum and count of each reading of items.csv in its unit, whether it was ever read or
    not (count is then 0); and 1 or 0 for each drug, procedure and diagnosis that at least the share `common` of the
    stays in `fit_on` has (stay_ids, as a rule those of train; None: all). `records` are those of
    `window.records(con, courses=True)`.

    Raises Refusal when the records were made otherwise, or when no record is in `fit_on`.
    """
    chosen = list(records) if fit_on is None else sorted(set(fit_on) & set(records))
    if not chosen:
        raise Refusal("Features need at least one record among the stays that they are fitted on.")
    for record in records.values():
        if len(record.courses) != len(record.readings) or any(
            name not in items.readings() for name, _ in record.readings
        ):
            raise Refusal("Features need records with the readings of items.csv and their courses: courses=True alone.")
    named = [
        (kind, name)
        for kind in ("drug", "procedure", "diagnosis")
        for name in _common((_names(records[stay], kind) for stay in chosen), least=common * len(chosen))
    ]
    names = ["age", "male", "urine", "drugs", "procedures"]
    names += [f"{reading} {statistic}" for reading in items.readings() for statistic in STATISTICS]
    names += [f"{kind} {name}" for kind, name in named]
    values = np.array([_row(record, named) for record in records.values()], dtype=np.float64)
    return Features(names=tuple(names), values=values)


def _names(record: Record, kind: str) -> set[str]:
    if kind == "drug":
        return {name for name, _ in record.drugs}
    return set(record.procedures if kind == "procedure" else record.diagnoses)


def _common(sets: Iterable[set[str]], least: float) -> list[str]:
    counts = Counter(name for names in sets for name in names)
    return sorted(name for name, count in counts.items() if count >= least - 1e-9)


def _row(record: Record, named: list[tuple[str, str]]) -> list[float]:
    nan = float("nan")
    urine = nan if record.urine is None else record.urine
    row = [record.age, _MALE.get(record.gender or "", nan), urine, len(record.drugs), len(record.procedures)]
    read = {
        name: (mean, course.first, course.last, course.minimum, course.maximum, course.count)
        for (name, mean), course in zip(record.readings, record.courses, strict=True)
    }
    absent = (nan, nan, nan, nan, nan, 0.0)
    for reading in items.readings():
        row += read.get(reading, absent)
    has = {kind: _names(record, kind) for kind in ("drug", "procedure", "diagnosis")}
    return row + [float(name in has[kind]) for kind, name in named]
