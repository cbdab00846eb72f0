"""Whether the values of a code are in the unit that the file of concepts says: a wrong factor shows in the median."""

from __future__ import annotations

from dataclasses import dataclass

from patientdx.records.concept_table import Concept
from patientdx.records.labelled.concept_file import Code

LEAST = 20  # values of a code without which its median says little
FAR = 3.0  # times as far from the reference interval as this, a median is no patient's but a unit's
# Factors between units that laboratories use; each may be the other way round.
FACTORS = {
    1000.0: "a thousand (g and mg, L and mL)",
    100.0: "a hundred (a fraction and percent)",
    10.0: "ten (g/L and g/dL)",
    88.42: "88.42 (creatinine in µmol/L and mg/dL)",
    18.02: "18.02 (glucose in mg/dL and mmol/L)",
    17.1: "17.1 (bilirubin in µmol/L and mg/dL)",
    7.5: "7.5 (mmHg and kPa)",
    4.0: "4 (calcium in mg/dL and mmol/L)",
    2.8: "2.8 (urea nitrogen in mg/dL, urea in mmol/L: 2.8)",
    2.43: "2.43 (magnesium in mg/dL and mmol/L)",
}


@dataclass(frozen=True)
class Spread:
    """Values of one code in the unit of its concept: how many, their median, the share that can be a reading at all."""

    code: Code
    count: int
    median: float
    possible: float


def objection(spread: Spread, concept: Concept, file: str) -> tuple[str, bool] | None:
    """What is wrong with the unit of a code, and whether that is certain; None where nothing is.

    Certain where most values are impossible, by minimum and maximum of the concept. Otherwise a median far from the
    reference interval counts if one of FACTORS brings it there.
    """
    if spread.count < LEAST:
        return None
    certain, factors = spread.possible < 0.5, _factors(spread.median, concept)
    if not certain and (not factors or _distance(spread.median, concept) < FAR):
        return None
    unit = f" {concept.unit}" if concept.unit else ""
    text = (
        f"{file}, line {spread.code.line}: {concept.name} has a median of {spread.median:g}{unit} in {spread.count} "
        f"values of {spread.code.code}, and {concept.low:g} to {concept.high:g}{unit} is usual"
    )
    if certain:
        text += f"; {1 - spread.possible:.0%} of the values are outside {concept.minimum:g} to {concept.maximum:g}"
    if factors:
        scales = " or ".join(f"{spread.code.scale * scale:.4g} for a factor of {words}" for scale, words in factors)
        text += f". Is it another unit? Then scale is {scales}"
    return text + ".", certain


def _distance(value: float, concept: Concept) -> float:
    """How many times a value is above the interval or below it; 1 inside."""
    if value > concept.high:
        return value / concept.high if concept.high > 0 else 1.0
    if 0 < value < concept.low:
        return concept.low / value
    return 1.0


def _factors(value: float, concept: Concept) -> list[tuple[float, str]]:
    """The factors that bring the value inside the interval, with what they are."""
    return [
        (scale, words)
        for factor, words in FACTORS.items()
        for scale in (factor, 1 / factor)
        if concept.low <= value * scale <= concept.high
    ]
