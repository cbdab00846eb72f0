"""Input of tabular models: the numbers behind the text of each stay, from the same window."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError
from patientdx.records import concept_table, concepts
from patientdx.records.record import Record

STATISTICS = ("mean", "first", "last", "minimum", "maximum", "count")
KINDS = ("drug", "procedure", "diagnosis", "running", "comorbidity", "admission", "source", "unit", "status")
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
    records: Iterable[tuple[int, Record]],
    *,
    fit_on: Iterable[int] | None = None,
    common: float = 0.05,
    revision: int = 1,
) -> tuple[list[int], Features]:
    """The stays in the order of `records`, (stay_id, Record) each once, and a row for each of them.

    Columns: age (years), male (1, 0), urine (mL over the window), drugs and procedures (how many different ones);
    mean, first, last, minimum, maximum and count of each reading of items.csv in its unit, whether it was ever read or
    not (count is then 0); and 1 or 0 for each drug, procedure and diagnosis that at least the share `common` of the
    stays in `fit_on` has (stay_ids, as a rule those of train; None: all). float64, NaN where nothing was read.
    Of records of revision 2 there are further columns: mL of fluid in, out and their balance, hours in hospital before
    intensive care, whether the service is surgical, hours of ventilation and on vasopressors, highest and last rate of
    every drug that has a unit (0 where not given), the last laboratory value of each reading in the 24 h before
    intensive care; and 1 or 0 for what was running at admission, comorbidities, admission type, source, first unit and
    what is charted in words. `records` are those of `window.stream(con, courses=True)`, or with `revision=2` those of
    that revision; none of them is held.

    Raises UserError when the records were made otherwise, or when no record is in `fit_on`.
    """
    stays: list[int] = []
    numbers: list[np.ndarray] = []
    held: list[tuple[int, ...]] = []  # what each stay was given, had done and was diagnosed with, by number
    known: dict[tuple[str, str], int] = {}
    for stay, record in records:
        stays.append(stay)
        known_concepts = concepts.readings() if revision == 1 else concept_table.concepts()
        row = _numbers(record, known_concepts) + (_revised(record) if revision > 1 else [])
        numbers.append(np.array(row, dtype=np.float64))
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
    described = concepts.readings() if revision == 1 else concept_table.concepts()
    titles += [f"{reading} {statistic}" for reading in described for statistic in STATISTICS]
    titles += _revised_titles() if revision > 1 else []
    titles += [f"{KINDS[kind]} {name}" for kind, name, _ in named]
    return stays, Features(names=tuple(titles), values=np.hstack([np.stack(numbers), has]))


def _places(stays: Sequence[int], kept: set[int]) -> list[int]:
    return [number for number, stay in enumerate(stays) if stay in kept]


def _names(record: Record, kind: str) -> set[str]:
    known = record.background
    pairs = zip(record.drugs, record.infusions, strict=False)
    running = {name for (name, _), how in pairs if how.at_start}
    running |= {name for name, period in zip(record.procedures, record.periods, strict=False) if period.at_start}
    names: dict[str, Iterable[str | None]] = {
        "drug": (name for name, _ in record.drugs), "procedure": record.procedures, "diagnosis": record.diagnoses,
        "running": running, "comorbidity": known.comorbidities, "admission": [known.admission_type],
        "source": [known.admission_location], "unit": [known.first_careunit],
        "status": (f"{word.name}: {word.text}" for word in record.words),
    }  # fmt: skip
    return {name for name in names[kind] if name}


def _numbers(record: Record, described: Mapping[str, object]) -> list[float]:
    """The columns that every stay has."""
    known = len(record.courses) == len(record.readings) and all(name in described for name, _ in record.readings)
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
    for reading in described:
        row += read.get(reading, absent)
    return row


@cache
def _rated() -> tuple[str, ...]:
    """The drugs whose rate is read, in the order of their clinical weight."""
    rows = [row for row in concept_table.rows("interventions.csv") if row["unit"]]
    return tuple(dict.fromkeys(row["name"] for row in sorted(rows, key=lambda row: -int(row["weight"]))))


@cache
def _before() -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.name for source in concept_table.sources() if source.table == "labevents"))


def _revised_titles() -> list[str]:
    titles = ["fluid in", "fluid out", "fluid balance", "hours before ICU", "surgical", "hours ventilated"]
    titles += ["hours on vasopressors"]
    titles += [f"{name} {statistic} rate" for name in _rated() for statistic in ("highest", "last")]
    return titles + [f"{name} before ICU" for name in _before()]


def _revised(record: Record) -> list[float]:
    """The columns of _revised_titles."""
    nan, known = float("nan"), record.background
    into, out = (nan if volume is None else volume for volume in (record.fluid_in, record.fluid_out))
    ventilated = [period.hours for period in record.periods if period.group == "ventilation"]
    pressed = [how.hours for how in record.infusions if how.group == "vasopressor"]
    row = [
        into, out, into - out, nan if known.hours_before_icu is None else known.hours_before_icu,
        nan if known.surgical is None else float(known.surgical), max(ventilated, default=0.0),
        max(pressed, default=0.0),
    ]  # fmt: skip
    rates = {
        name: (how.highest, how.last) for (name, _), how in zip(record.drugs, record.infusions, strict=True) if how.unit
    }
    for name in _rated():
        row += [nan if rate is None else rate for rate in rates.get(name, (0.0, 0.0))]
    before = dict(record.earlier)
    return row + [before.get(name, nan) for name in _before()]
