"""Input of tabular models: the numbers behind the text of each stay, from the same window."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError
from patientdx.records import concepts
from patientdx.records.window import Record

STATISTICS = ("mean", "first", "last", "minimum", "maximum", "count")
KINDS = ("drug", "procedure", "diagnosis")
_MALE = {"M": 1.0, "F": 0.0}


@dataclass(frozen=True)
class Features:
    """Input of a tabular model: `values` float64 (n, k), NaN where nothing was measured; `names` of the k columns."""

    names: tuple[str, ...]
    values: NDArray[np.float64]

    def column(self, name: str) -> "Features":
        """One column, (n, 1)."""
        return Features((name,), self.values[:, [self.names.index(name)]])


def table(
    records: Iterable[tuple[int, Record]], *, fit_on: Iterable[int] | None = None, common: float = 0.05
) -> tuple[list[int], Features]:
    """The stays in the order of `records`, (stay_id, Record) each once, and a row for each of them.

    Columns: age (years), male (1, 0), urine (mL over the window), drugs and procedures (how many different ones);
    mean, first, last, minimum, maximum and count of each reading of items.csv in its unit, whether it was ever read or
    not (count is then 0); and 1 or 0 for each drug, procedure and diagnosis that at least the share `common` of the
    stays in `fit_on` has (stay_ids, as a rule those of train; None: all). float64, NaN where nothing was read.
    `records` are those of `window.stream(con, courses=True)`; none of them is held.

    Raises UserError when the records were made otherwise, or when no record is in `fit_on`.
    """
    stays: list[int] = []
    numbers: list[np.ndarray] = []
    held: list[tuple[int, ...]] = []  # what each stay was given, had done and was diagnosed with, by number
    known: dict[tuple[str, str], int] = {}
    for stay, record in records:
        stays.append(stay)
        numbers.append(np.array(_numbers(record), dtype=np.float64))
        names = ((kind, name) for kind in KINDS for name in _names(record, kind))
        held.append(tuple(known.setdefault(pair, len(known)) for pair in names))
    chosen = range(len(stays)) if fit_on is None else _places(stays, set(fit_on))
    if not chosen:
        raise UserError("Features need at least one record among the stays that they are fitted on.")
    counts = Counter(code for row in chosen for code in held[row])
    least = common * len(chosen) - 1e-9
    named = sorted((KINDS.index(kind), name, code) for (kind, name), code in known.items() if counts[code] >= least)
    has = np.zeros((len(stays), len(named)))
    column = {code: number for number, (_, _, code) in enumerate(named)}
    for row, codes in enumerate(held):
        has[row, [column[code] for code in codes if code in column]] = 1.0
    titles = ["age", "male", "urine", "drugs", "procedures"]
    titles += [f"{reading} {statistic}" for reading in concepts.readings() for statistic in STATISTICS]
    titles += [f"{KINDS[kind]} {name}" for kind, name, _ in named]
    return stays, Features(names=tuple(titles), values=np.hstack([np.stack(numbers), has]))


def _places(stays: Sequence[int], kept: set[int]) -> list[int]:
    return [number for number, stay in enumerate(stays) if stay in kept]


def _names(record: Record, kind: str) -> set[str]:
    if kind == "drug":
        return {name for name, _ in record.drugs}
    return set(record.procedures if kind == "procedure" else record.diagnoses)


def _numbers(record: Record) -> list[float]:
    """The columns that every stay has."""
    known = len(record.courses) == len(record.readings) and all(
        name in concepts.readings() for name, _ in record.readings
    )
    if not known:
        raise UserError("Features need records with the readings of items.csv and their courses: courses=True alone.")
    nan = float("nan")
    urine = nan if record.urine is None else record.urine
    row = [record.age, _MALE.get(record.gender or "", nan), urine, len(record.drugs), len(record.procedures)]
    read = {
        name: (mean, course.first, course.last, course.minimum, course.maximum, course.count)
        for (name, mean), course in zip(record.readings, record.courses, strict=True)
    }
    absent = (nan, nan, nan, nan, nan, 0.0)
    for reading in concepts.readings():
        row += read.get(reading, absent)
    return row
