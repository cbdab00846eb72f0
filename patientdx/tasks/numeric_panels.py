"""Lists of readings beside their intervals, for the questions of `numeric_generator`, in two layouts.

Nothing here is a patient: names, intervals, values and the lines around are drawn independently of each other.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

NAMES = (
    "Pump pressure", "Coolant temperature", "Valve flow", "Motor speed", "Tank level", "Battery voltage",
    "Line current", "Oil pressure", "Humidity", "Wind speed", "Soil moisture", "Water hardness", "Channel 1",
    "Channel 4", "Channel 7", "Sensor A", "Sensor C", "Noise level", "Brightness", "Load", "Torque",
    "Vibration", "Exhaust temperature", "Feed rate", "Cabin pressure", "Turbidity", "Conductivity", "Dew point",
    "Heart rate", "Respiratory rate", "Oxygen saturation", "Systolic pressure", "Mean arterial pressure",
    "Body temperature", "Sodium", "Potassium", "Chloride", "Bicarbonate", "Creatinine", "Urea nitrogen",
    "Glucose", "Lactate", "Haemoglobin", "White cells", "Platelets", "Bilirubin", "INR", "pH",
    "Oxygen pressure", "Carbon dioxide pressure", "Albumin", "Calcium", "Magnesium", "Phosphate", "Iron",
    "Zinc",
)  # fmt: skip
UNITS = (
    "bar",
    "mmHg",
    "%",
    "V",
    "A",
    "L/min",
    "mL",
    "mg/dL",
    "mmol/L",
    "mEq/L",
    "bpm",
    "g/dL",
    "K/uL",
    "units",
    "",
)
HEADERS = (
    "Readings:",
    "Readings, mean of the first {n} hours:",
    "Measurements of the last {n} minutes:",
    "Values with their normal range:",
)
LINES = (
    "Site {n}, night shift.",
    "Unit {n}, type B.",
    "Age {n} months, indoor.",
    "Parts: filter, hose, gasket",
    "Tools: wrench, gauge",
    "Volume {n} mL",
    "Steps: cleaning, calibration",
)

# The layout `brief`: short names, no units, and what stands around.
SHORT_NAMES = (
    "MAP", "SBP", "DBP", "HR", "RR", "SpO2", "T", "CVP", "GCS", "Lac", "pH", "P/F", "PO2", "PCO2", "FiO2", "PEEP", "TV",
    "Cr", "BUN", "Bili", "HCO3", "AG", "Alb", "Na", "K", "Glu", "Mg", "Phos", "Ca", "iCa", "ALT", "AST", "TnT", "Plt",
    "WBC", "Hgb", "RDW", "INR", "PTT", "Fib", "Wt", "BMI", "P1", "Q2", "RPM", "Vib", "Lux", "Volt", "Torq", "Dew",
)  # fmt: skip
NAMED = (
    ("Drugs: ", ("Saline", "Dextrose", "Water", "Iron", "Zinc", "Vitamin C")),
    ("Procedures: ", ("Cleaning", "Calibration", "Inspection", "Weighing", "Filter change")),
)


@dataclass(frozen=True)
class Reading:
    """One line of a panel; `side` is -1 below, 0 inside and 1 above the interval `low`-`high`."""

    name: str
    value: str
    low: str
    high: str
    unit: str
    side: int
    trend: str = ""  # rising or falling, in the layout `brief`
    detail: str = ""  # numbers behind the interval that are no reading, in the layout `brief`

    @property
    def line(self) -> str:
        """The layout of the record template `intervals`; of `brief`, where there is no unit."""
        line = f"{self.name} {self.value} ({self.low}-{self.high}) {self.unit}".rstrip()
        return line + self.detail + (f", {self.trend}" if self.trend else "")


def number(rng: random.Random, easy: bool = False) -> tuple[float, int]:
    """A number and its decimals; easy: whole, of two digits."""
    if easy:
        return rng.randint(20, 60), 0
    decimals = rng.choice((0, 0, 1, 1, 2))
    return round(rng.uniform(1, 10 ** rng.choice((1, 2, 2, 3))), decimals), decimals


def reading(rng: random.Random, name: str, outside: bool, easy: bool = False) -> Reading:
    """A reading outside or inside its interval; the distance outside is 0.05 to 1.5 interval widths.

    easy: whole numbers of mostly two digits, and at least 0.4 widths outside.
    """
    low, decimals = number(rng, easy)
    step = 10.0**-decimals
    width = max(2 * step, round(low * rng.uniform(0.4 if easy else 0.1, 1.0), decimals))
    high = low + width
    side = 0
    value = rng.uniform(low + step, high - step)
    if outside:
        near, far = rng.uniform(0.05, 0.4), rng.uniform(0.3, 1.5)
        distance = max(step, width * (rng.uniform(0.4, 1.0) if easy else rng.choice((near, far))))
        side = 1 if low - distance <= 0 or rng.random() < 0.5 else -1
        value = high + distance if side > 0 else low - distance
    # A value printed with one more decimal than its interval must not round on to the border.
    printed = decimals + (not easy and rng.random() < 0.3)
    text = f"{value:.{printed}f}"
    if (float(text) > round(high, decimals)) - (float(text) < round(low, decimals)) != side:
        return reading(rng, name, outside, easy)
    return Reading(name, text, f"{low:.{decimals}f}", f"{high:.{decimals}f}", rng.choice(UNITS), side)


def panel(rng: random.Random, size: int, outside: int, easy: bool = False) -> tuple[str, tuple[Reading, ...]]:
    """A list of `size` readings of which `outside` are out of range, between lines of other text."""
    flags = [i < outside for i in range(size)]
    rng.shuffle(flags)
    rows = tuple(reading(rng, name, flag, easy) for name, flag in zip(rng.sample(NAMES, size), flags, strict=True))
    lines = [row.line for row in rows]
    text = "; ".join(lines) if rng.random() < 0.1 else "\n".join(lines)
    if rng.random() < 0.8:
        text = rng.choice(HEADERS).format(n=rng.choice((12, 24, 48, 60))) + "\n" + text
    if rng.random() < 0.6:
        text = rng.choice(LINES).format(n=rng.randint(1, 99)) + "\n" + text
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        text += "\n" + rng.choice(LINES).format(n=rng.randint(1, 2000))
    return text, rows


def brief_panel(rng: random.Random, size: int, outside: int, easy: bool = False) -> tuple[str, tuple[Reading, ...]]:
    """As `panel`, in the layout of the record template `brief`.

    Short names, no units, trends behind some readings, sometimes three more numbers behind one of them as behind the
    coma scale, a count of readings that are not listed, and lists of names and a volume behind.
    """
    flags = [i < outside for i in range(size)]
    rng.shuffle(flags)
    rows = []
    for name, flag in zip(rng.sample(SHORT_NAMES, size), flags, strict=True):
        trend = rng.choice(("", "", "", "rising", "falling"))
        rows.append(replace(reading(rng, name, flag, easy), unit="", trend=trend))
    if rng.random() < 0.5:
        i = rng.randrange(size)
        parts = f" E{rng.randint(1, 4)} V{rng.randint(1, 5)} M{rng.randint(1, 6)}"
        rows[i] = replace(rows[i], detail=parts)
    lines = [f"Readings, mean of the first {rng.choice((12, 24, 48))} hours:", *(row.line for row in rows)]
    if rng.random() < 0.7:
        lines.insert(0, f"Age {rng.randint(18, 90)}, {rng.choice(('male', 'female'))}.")
    if rng.random() < 0.5:
        lines.append(f"and {rng.randint(1, 30)} more readings")
    for before, names in NAMED:
        if rng.random() < 0.6:
            listed = rng.sample(names, rng.randint(1, len(names)))
            more = [f"and {rng.randint(1, 9)} more"] if rng.random() < 0.3 else []
            lines.append(before + ", ".join(listed + more))
    if rng.random() < 0.6:
        lines.append(f"Urine output {rng.randint(100, 6000)} mL")
    return "\n".join(lines), tuple(rows)


PANELS = {"intervals": panel, "brief": brief_panel}
