"""Generated yes/no questions about numbers: what the default pivot model is trained and examined on.

Nothing here is a patient or a clinical outcome. Names of measurements (some of machines, some of analytes) are drawn at
random and given random intervals and random values, so that only the arithmetic can answer the question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ASK = " Answer Yes or No."

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


@dataclass(frozen=True)
class Question:
    """One yes/no question: `context` may be shared by several questions, `text` asks, `answer` is True for yes."""

    kind: str
    context: str
    text: str
    answer: bool
    reply: str = ""  # an answer of several lines, each with its own Yes or No (kind `marks`, training only)

    @property
    def prompt(self) -> str:
        """The user's turn as the model sees it."""
        return (self.context + "\n\n" if self.context else "") + self.text + ASK

    @property
    def target(self) -> str:
        """The assistant's turn."""
        return self.reply or ("Yes" if self.answer else "No")


@dataclass(frozen=True)
class Reading:
    """One line of a panel; `side` is -1 below, 0 inside and 1 above the interval `low`-`high`."""

    name: str
    value: str
    low: str
    high: str
    unit: str
    side: int

    @property
    def line(self) -> str:
        """The layout of the record template `intervals`."""
        return f"{self.name} {self.value} ({self.low}-{self.high}) {self.unit}".rstrip()


def _number(rng: random.Random, easy: bool = False) -> tuple[float, int]:
    if easy:
        return rng.randint(20, 60), 0
    decimals = rng.choice((0, 0, 1, 1, 2))
    return round(rng.uniform(1, 10 ** rng.choice((1, 2, 2, 3))), decimals), decimals


def reading(rng: random.Random, name: str, outside: bool, easy: bool = False) -> Reading:
    """A reading outside or inside its interval; the distance outside is 0.05 to 1.5 interval widths.

    easy: whole numbers of mostly two digits, and at least 0.4 widths outside.
    """
    low, decimals = _number(rng, easy)
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


def comparison(rng: random.Random, easy: bool = False) -> Question:
    """Which of two numbers is larger."""
    a, decimals = _number(rng, easy)
    near, far = rng.uniform(0.02, 0.1), rng.uniform(0.3 if easy else 0.1, 0.5)
    gap = max(10.0**-decimals, a * (far if easy else rng.choice((near, far))))
    b = round(a + rng.choice((-1, 1)) * gap, decimals)
    more = rng.random() < 0.5
    word = rng.choice(("greater", "larger", "higher") if more else ("less", "smaller", "lower"))
    return Question("comparison", "", f"Is {a:.{decimals}f} {word} than {b:.{decimals}f}?", (a > b) == more)


def interval(rng: random.Random, easy: bool = False) -> Question:
    """One value against its interval."""
    row = reading(rng, rng.choice(NAMES), rng.random() < 0.5, easy)
    return _about(rng, "range", row.line, row, "this value")


def _about(rng: random.Random, kind: str, context: str, row: Reading, what: str) -> Question:
    asks = [
        (f"Is {what} out of range?", row.side != 0),
        (f"Is {what} abnormal?", row.side != 0),
        (f"Is {what} within its range?", row.side == 0),
    ]
    if row.side:
        asks += [(f"Is {what} above its range?", row.side > 0), (f"Is {what} below its range?", row.side < 0)]
    text, answer = rng.choice(asks)
    return Question(kind, context, text, answer)


def item(rng: random.Random, context: str, rows: tuple[Reading, ...]) -> Question:
    """One named reading of a panel."""
    out = [row for row in rows if row.side]
    row = rng.choice(out) if out and rng.random() < 0.5 else rng.choice(rows)
    return _about(rng, "item", context, row, row.name)


def most(rng: random.Random, context: str, rows: tuple[Reading, ...]) -> Question:
    """Whether most readings of a panel are out of range (a fifth of the time: in range)."""
    share = sum(row.side != 0 for row in rows) / len(rows)
    if rng.random() < 0.2:
        return Question("most", context, "Are most readings within their range?", share < 0.5)
    word = rng.choice(("out of range", "abnormal", "outside their range"))
    return Question("most", context, f"Are most readings {word}?", share > 0.5)


def count(rng: random.Random, context: str, rows: tuple[Reading, ...]) -> Question:
    """Whether more than k (or at least k) readings are out of range; k lies near the true count."""
    out = sum(row.side != 0 for row in rows)
    k = max(0, out + rng.choice((-4, -3, -2, -1, 0, 1, 2, 3)))
    if rng.random() < 0.5 or k == 0:
        return Question("count", context, f"Are more than {k} readings out of range?", out > k)
    return Question("count", context, f"Are at least {k} readings abnormal?", out >= k)


def mark_all(rng: random.Random, context: str, rows: tuple[Reading, ...], inline: bool = False) -> Question:
    """Every reading in turn: many answers for few tokens, which is what gets the training off the ground.

    inline: the answer repeats each reading and marks it there, so that nothing has to be looked up: the comparison
    alone is learnt first.
    """
    sides = {"out of range": (-1, 1), "above its range": (1,), "below its range": (-1,)}
    word = rng.choice(("out of range", "out of range", "above its range", "below its range"))
    verdicts = {row.line if inline else row.name: row.side in sides[word] for row in rows}
    reply = "\n".join(f"{what}: {'Yes' if out else 'No'}" for what, out in verdicts.items())
    return Question("marks", "" if inline else context, f"For each reading: is it {word}?", False, reply)


def arithmetic(rng: random.Random, easy: bool = False) -> Question:
    """A sum or a difference against a number."""
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    sign, true = rng.choice((("+", a + b), ("-", a - b)))
    shift = rng.choice((-20, -10, -5, -2, 2, 5, 10, 20))
    return Question("arithmetic", "", f"Is {a} {sign} {b} greater than {true - shift}?", shift > 0)


def units(rng: random.Random, easy: bool = False) -> Question:
    """Two quantities in different units of the same kind."""
    large, small, factor = rng.choice((("L", "mL", 1000), ("g", "mg", 1000), ("kg", "g", 1000), ("h", "min", 60)))
    a = round(rng.uniform(0.2, 9), 1)
    b = max(1, round(a * factor * rng.choice((0.2, 0.5, 0.8, 1.25, 2, 5))))
    return Question("units", "", f"Is {a} {large} more than {b} {small}?", a * factor > b)


def trend(rng: random.Random, easy: bool = False) -> Question:
    """Whether a short series rises or falls."""
    start, decimals = _number(rng, easy)
    up = rng.random() < 0.5
    values = [start]
    for _ in range(rng.randint(2, 5)):
        step = max(10.0**-decimals, start * rng.uniform(0.02, 0.15))
        values.append(values[-1] + (step if up else -step))
    if values[-1] <= 0:
        return trend(rng, easy)
    series = ", ".join(f"{value:.{decimals}f}" for value in values)
    rising = rng.random() < 0.5
    return Question("trend", "", f"Series: {series}. Are the values {'rising' if rising else 'falling'}?", up == rising)


SINGLE: dict[str, Callable[..., Question]] = {
    "comparison": comparison, "range": interval, "arithmetic": arithmetic, "units": units, "trend": trend,
}  # fmt: skip
ABOUT_A_PANEL: dict[str, Callable[[random.Random, str, tuple[Reading, ...]], Question]] = {
    "item": item, "most": most, "count": count,
}  # fmt: skip
KINDS = (*SINGLE, *ABOUT_A_PANEL)


def ask(rng: random.Random, kind: str, size: tuple[int, int] = (4, 18)) -> Question:
    """One question of a kind, its panel (where it has one) of `size[0]` to `size[1]` readings."""
    if kind in SINGLE:
        return SINGLE[kind](rng)
    n = rng.randint(*size)
    return ABOUT_A_PANEL[kind](rng, *panel(rng, n, rng.randint(0, n)))


def held_out(seed: int, per_kind: int) -> Iterator[Question]:
    """`per_kind` questions of each kind with half of the answers yes, in a fixed order."""
    rng = random.Random(f"held out {seed}")
    for kind in KINDS:
        remaining = {True: (per_kind + 1) // 2, False: per_kind // 2}
        while any(remaining.values()):
            question = ask(rng, kind)
            if remaining[question.answer]:
                remaining[question.answer] -= 1
                yield question


def conversation(
    rng: random.Random, *, panels: float, short: tuple[str, ...], marked: float, inline: float = 0.0, easy: bool = False
) -> list[Question]:
    """Questions asked one after another in one chat; those about a panel share it (only the first repeats it).

    `panels` is the share of conversations about a panel, `short` the kinds that the others draw from, `marked` the
    share of panels that are only marked line by line, `inline` the share of those marked in place; `easy` numbers are
    for the beginning.
    """
    if rng.random() >= panels:
        return [SINGLE[rng.choice(short)](rng, easy) for _ in range(rng.choice((1, 2, 4, 6, 8)))]
    size = rng.choice((rng.randint(3, 8), rng.randint(6, 18), rng.randint(12, 20)))
    if rng.random() < marked:
        # About half of the readings, always: a rate that varied could be picked up from the marks before.
        context, rows = panel(rng, size, sum(rng.random() < 0.5 for _ in range(size)), easy)
        return [mark_all(rng, context, rows, rng.random() < inline)]
    context, rows = panel(rng, size, rng.randint(0, size), easy)
    kinds = ["item", "item", "item", "item", "most", "count", "count", "count"]
    rng.shuffle(kinds)
    turns = [ABOUT_A_PANEL[kind](rng, context, rows) for kind in kinds[: rng.randint(4, 8)]]
    return [turns[0], *(Question(t.kind, "", t.text, t.answer) for t in turns[1:])]
