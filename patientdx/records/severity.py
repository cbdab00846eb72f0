"""Severity scores of a stay, from what was known in its window: SOFA, OASIS and NEWS2.

severity.csv holds the published points. Of the rows of a component the first counts whose variable lies in the interval
`values` and whose `condition` is true; none: 0 points. A component none of whose variables is known counts 0 points, as
normal, as the scores are published, and is counted as missing. Sources: SOFA, Vincent et al., Intensive Care Med. 1996,
and OASIS, Johnson et al., Crit. Care Med. 2013, both with the limits of mimic-code (mimic-iv/concepts/score); NEWS2,
Royal College of Physicians 2017, scale 1 of oxygen saturation.

SOFA and OASIS take the worst value of the window, NEWS2 the last one. Where the window is not 24 h long, urine is
scaled to 24 h. Differences from mimic-code: ventilation counts where it ran at any time in the window; an admission of
type SURGICAL SAME DAY ADMISSION is elective too. A coma scale whose verbal part cannot be tested is missing, and so
normal, as there. NEWS2 takes a coma scale below 15 as "not alert", and oxygen from the device last charted, else from
the inspired oxygen and its flow.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from patientdx.records.concept_table import concepts
from patientdx.records.features import Features
from patientdx.records.record import Record

SCORES = ("sofa", "oasis", "news2")
COLUMNS = tuple(name for score in SCORES for name in (score, f"{score} missing"))
VENTILATION = "Invasive ventilation"
STATISTICS = ("first", "last", "minimum", "maximum")
_DOSED, _DOSE = ("Dopamine", "Epinephrine", "Norepinephrine", "Dobutamine"), "mcg/kg/min"
_UNKNOWN_DOSE = 1e-6  # given, so more than none: the least points of the drug
_ELECTIVE = ("ELECTIVE", "SURGICAL SAME DAY ADMISSION")
_DEVICE, _NO_DEVICE, _ROOM_AIR = "Oxygen device", ("none", "room air"), 21
_OXYGEN = ("Inspired oxygen", "Oxygen flow")
_UNKNOWN = float("nan")
_DECIMALS = 6  # a temperature charted in °F must meet a limit in °C exactly


@dataclass(frozen=True)
class Rule:
    """One row of severity.csv: `points` of a component where its variable lies between `low` and `high`."""

    points: int
    variable: str
    low: float
    high: float
    includes_low: bool
    includes_high: bool
    condition: str

    def holds(self, variables: Mapping[str, float]) -> bool:
        """Whether the variable is known and in the interval, and the condition is true."""
        value = variables.get(self.variable)
        if value is None or (self.condition and not variables.get(self.condition)):
            return False
        above = value > self.low or (self.includes_low and value == self.low)
        return above and (value < self.high or (self.includes_high and value == self.high))


@cache
def rules() -> dict[str, dict[str, tuple[Rule, ...]]]:
    """The rows of severity.csv by score and component, in order."""
    text = (resources.files("patientdx.records") / "severity.csv").read_text(encoding="utf-8")
    table: dict[str, dict[str, tuple[Rule, ...]]] = {score: {} for score in SCORES}
    for row in csv.DictReader(io.StringIO(text)):
        values = row["values"]
        low, high = map(float, values[1:-1].split(","))
        bounds = (low, high, values[0] == "[", values[-1] == "]")
        rule = Rule(int(row["points"]), row["variable"], *bounds, row["condition"])
        before = table[row["score"]].get(row["component"], ())
        table[row["score"]][row["component"]] = (*before, rule)
    return table


@cache
def taken() -> tuple[str, ...]:
    """The variables that the rules take, each once."""
    read = [rule for components in rules().values() for of_component in components.values() for rule in of_component]
    return tuple(dict.fromkeys(name for rule in read for name in (rule.variable, rule.condition) if name))


@cache
def _statistics() -> dict[str, tuple[str, ...]]:
    """By reading: the statistics of it that are needed."""
    needed = (*taken(), *(f"{name} last" for name in _OXYGEN))
    return {
        name: tuple(statistic for statistic in STATISTICS if f"{name} {statistic}" in needed) for name in concepts()
    }


def points(score: str, variables: Mapping[str, float]) -> dict[str, int | None]:
    """The points of each component; None where none of its variables is known."""
    scored: dict[str, int | None] = {}
    for component, of_component in rules()[score].items():
        known = any(rule.variable in variables for rule in of_component)
        scored[component] = next((r.points for r in of_component if r.holds(variables)), 0) if known else None
    return scored


def variables(record: Record, hours: int) -> dict[str, float]:
    """What the rules take of a stay, by name, each only where it is known; `hours` is the length of the window."""
    before = record.background.hours_before_icu
    known: dict[str, float | None] = {
        "age": record.age,
        "invasive ventilation": float(VENTILATION in record.procedures),
        "urine in 24 h": None if record.urine is None else record.urine * 24 / hours,
        "minutes before intensive care": None if before is None else before * 60,
        "elective surgery": _elective(record),
    }
    for (name, _), course in zip(record.readings, record.courses, strict=True):
        known |= {f"{name} {statistic}": getattr(course, statistic) for statistic in _statistics().get(name, ())}
    doses = {name: how for (name, _), how in zip(record.drugs, record.infusions, strict=False) if how.unit == _DOSE}
    for name in {name for name, _ in record.drugs}.intersection(_DOSED):
        highest = doses[name].highest if name in doses else None
        known[f"{name} dose maximum"] = _UNKNOWN_DOSE if highest is None else highest
    known["supplemental oxygen"] = _oxygen(record, known)
    return {name: round(value, _DECIMALS) for name, value in known.items() if value is not None}


def _elective(record: Record) -> float | None:
    """Whether the admission is for planned surgery; None where that is not known."""
    kind, surgical = record.background.admission_type, record.background.surgical
    planned = kind is not None and kind.strip().upper() in _ELECTIVE
    if kind is None or (planned and surgical is None):
        return None
    return float(planned and surgical is True)


def _oxygen(record: Record, known: Mapping[str, float | None]) -> float | None:
    """Whether oxygen is given at the end of the window; None where nothing is charted of it."""
    device = next((word.text for word in record.words if word.name == _DEVICE), None)
    if device is not None:
        return float(device.strip().lower() not in _NO_DEVICE)
    share, flow = (known.get(f"{name} last") for name in _OXYGEN)
    if known["invasive ventilation"] or (share or 0) > _ROOM_AIR or (flow or 0) > 0:
        return 1.0
    return None if share is None and flow is None else 0.0


class Scores:
    """Collects what the scores take of stays as their records pass by; `scored` counts the points, when needed."""

    def __init__(self, hours: int) -> None:
        self._hours = hours
        self._rows: dict[int, list[float]] = {}

    def watch(self, records: Iterator[tuple[int, Record]]) -> Iterator[tuple[int, Record]]:
        """The same records, which have courses."""
        for stay, record in records:
            known = variables(record, self._hours)
            self._rows[stay] = [known.get(name, _UNKNOWN) for name in taken()]
            yield stay, record

    def table(self, stays: Sequence[int]) -> Features:
        """Each variable of the rules, NaN where it is not known, float64 (n, variables), in the order of `stays`."""
        return Features(taken(), np.array([self._rows[stay] for stay in stays], dtype=np.float64))


def of_features(table: Features, units: Mapping[str, str]) -> Features:
    """The same table of features alone, named as in `records.features`, for records of another hospital.

    `units` by reading: one in another unit than ours is missing, and so is all that no feature tells.
    """
    same = {name for name, concept in concepts().items() if units.get(name) == concept.unit}
    readable = {f"{name} {statistic}" for name in same for statistic in STATISTICS} | {"age"}
    values = np.full((len(table.values), len(taken())), np.nan)
    for number, name in enumerate(taken()):
        if name in readable and name in table.names:
            values[:, number] = np.round(table.values[:, table.names.index(name)], _DECIMALS)
    return Features(taken(), values)


def scored(table: Features) -> Features:
    """The points of each score and how many of its components are missing, float64 (n, COLUMNS), of such a table."""
    rows = np.asarray(table.values, dtype=np.float64).tolist()
    known = [{name: x for name, x in zip(table.names, row, strict=True) if x == x} for row in rows]  # no NaN
    return Features(COLUMNS, np.array(list(map(_counted, known)), dtype=np.float64).reshape(len(rows), len(COLUMNS)))


def _counted(known: Mapping[str, float]) -> list[float]:
    """The points of each score and how many of its components are missing, as COLUMNS has them."""
    counts = [points(score, known).values() for score in SCORES]
    return [float(n) for parts in counts for n in (sum(filter(None, parts)), sum(part is None for part in parts))]
