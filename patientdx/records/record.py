"""One ICU stay as plain values: what a template prints and a tabular model reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from patientdx.records.concept_table import Concept, concepts


class Course(NamedTuple):
    """A reading over the window, in its unit; hours since intime.

    Of several values at one time the one whose item is first in items.csv is taken for first and last
    (then the lower). For a sum of parts (the coma scale) each part holds until it is charted again, and the
    course is that of the sum from the time on when every part is known.
    """

    first: float
    last: float
    minimum: float
    maximum: float
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    first_hour: float
    last_hour: float


class Times(NamedTuple):
    """How often something was started in the window, and when first and last (hours since intime)."""

    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    first_hour: float
    last_hour: float


class Infusion(NamedTuple):
    """How a drug was given in the window; rates in `unit`, None where no rate is known.

    `at_start`: running when the window begins, at ICU admission as a rule. `at_end`: running at its end. `hours`:
    running time inside the window. `weight` and `group` as in concept_table/interventions.csv.
    """

    group: str
    weight: int
    unit: str
    first: float | None
    last: float | None
    highest: float | None
    at_start: bool
    at_end: bool
    hours: float


class Period(NamedTuple):
    """How a procedure went on in the window; fields as in Infusion."""

    group: str
    weight: int
    at_start: bool
    at_end: bool
    hours: float


class Word(NamedTuple):
    """The last entry of what is charted in words, such as an oxygen device, and when (hours since the window began)."""

    name: str
    text: str
    hour: float


@dataclass(frozen=True)
class Background:
    """Where the patient came from. What the source does not know is None; `surgical` is that of the service."""

    admission_type: str | None = None
    admission_location: str | None = None
    first_careunit: str | None = None
    hours_before_icu: float | None = None
    surgical: bool | None = None
    comorbidities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One stay as plain values. Lists are in the order of printing.

    `age` in years at ICU admission, `readings` (name, mean over the window) in the unit of items.csv, `drugs`
    (name, mean amount of the doses that ended in the window, or None), `urine` in mL over the window or None.
    `courses`, `drug_times` and `procedure_times` run parallel to `readings`, `drugs` and `procedures`, and are
    empty unless requested.

    Records of revision 2 have more: `infusions` and `periods`, parallel to `drugs` and `procedures`; `words`; the last
    laboratory value of each reading in the 24 h before the ICU, `earlier` (name, value); `fluid_in` and `fluid_out` in
    mL; `background`; `age` is at most 90, which stands for over 89. `concepts` describes their readings: the bundled
    ones, or those of another hospital. `at_discharge`: the window is the last hours of the stay, not the first.
    """

    age: int
    gender: str | None
    race: str | None = None
    insurance: str | None = None
    readings: tuple[tuple[str, float], ...] = ()
    drugs: tuple[tuple[str, float | None], ...] = ()
    procedures: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    urine: float | None = None
    diagnoses: tuple[str, ...] = ()
    courses: tuple[Course, ...] = ()
    drug_times: tuple[Times, ...] = ()
    procedure_times: tuple[Times, ...] = ()
    infusions: tuple[Infusion, ...] = ()
    periods: tuple[Period, ...] = ()
    words: tuple[Word, ...] = ()
    earlier: tuple[tuple[str, float], ...] = ()
    fluid_in: float | None = None
    fluid_out: float | None = None
    background: Background = Background()
    at_discharge: bool = False
    concepts: Mapping[str, Concept] = field(default_factory=concepts, repr=False, compare=False)
