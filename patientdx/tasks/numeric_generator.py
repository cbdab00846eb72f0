"""Generated yes/no questions about numbers: what the default pivot model is trained and examined on.

Nothing here is a patient or a clinical outcome. Names of measurements (some of machines, some of analytes) are drawn at
random and given random intervals and random values, so that only the arithmetic can answer the question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from patientdx.tasks.generated_question import YES_NO, Question
from patientdx.tasks.numeric_panels import NAMES, PANELS, Reading, number, reading

VERSION = (
    2  # of the questions: 2 added the layout `brief`; those in the layout `intervals` are the same as of version 1
)
PARTS = {  # what is examined: the layout of the lists, which is that of a record template
    "intervals": "lists in the layout of intervals/1, from 4 to 18 readings",
    "brief": "lists in the layout of brief/2, from 4 to 10 readings",
}
SIZES = {"intervals": (4, 18), "brief": (4, 10)}


def comparison(rng: random.Random, easy: bool = False) -> Question:
    """Which of two numbers is larger."""
    a, decimals = number(rng, easy)
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
    trending = [row for row in rows if row.trend]
    if trending and rng.random() < 0.2:
        row, word = rng.choice(trending), rng.choice(("rising", "falling"))
        return Question("item", context, f"Is {row.name} {word}?", row.trend == word)
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
    """A sum or a difference against a number; easy: of small numbers, and far from it."""
    most = 20 if easy else 99
    a, b = rng.randint(2, most), rng.randint(2, most)
    sign, true = rng.choice((("+", a + b), ("-", a - b)))
    shift = rng.choice((-30, -20, 20, 30) if easy else (-20, -10, -5, -2, 2, 5, 10, 20))
    return Question("arithmetic", "", f"Is {a} {sign} {b} greater than {true - shift}?", shift > 0)


def units(rng: random.Random, easy: bool = False) -> Question:
    """Two quantities in different units of the same kind; easy: a whole number, and five times or more apart."""
    large, small, factor = rng.choice((("L", "mL", 1000), ("g", "mg", 1000), ("kg", "g", 1000), ("h", "min", 60)))
    a = rng.randint(1, 9) if easy else round(rng.uniform(0.2, 9), 1)
    b = max(1, round(a * factor * rng.choice((0.1, 0.2, 5, 10) if easy else (0.2, 0.5, 0.8, 1.25, 2, 5))))
    return Question("units", "", f"Is {a} {large} more than {b} {small}?", a * factor > b)


def trend(rng: random.Random, easy: bool = False) -> Question:
    """Whether a short series rises or falls."""
    start, decimals = number(rng, easy)
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


def ask(rng: random.Random, kind: str, size: tuple[int, int] = (4, 18), layout: str = "intervals") -> Question:
    """One question of a kind, its panel (where it has one) of `size[0]` to `size[1]` readings."""
    if kind in SINGLE:
        return SINGLE[kind](rng)
    n = rng.randint(*size)
    return ABOUT_A_PANEL[kind](rng, *PANELS[layout](rng, n, rng.randint(0, n)))


def held_out(seed: int, per_kind: int, part: str = "intervals") -> Iterator[Question]:
    """`per_kind` questions of each kind with half of the answers yes, in a fixed order; part: one of PARTS."""
    rng = random.Random(f"held out {seed}" if part == "intervals" else f"held out {seed} {part}")
    for kind in KINDS:
        remaining = {True: (per_kind + 1) // 2, False: per_kind // 2}
        while any(remaining.values()):
            question = ask(rng, kind, SIZES[part], part)
            if remaining[bool(question.answer)]:
                remaining[bool(question.answer)] -= 1
                yield question


def drill(rng: random.Random, kinds: Sequence[str], easy: bool = False) -> Question:
    """Short questions in a list, each answered in its line: many answers for few tokens."""
    lines = [SINGLE[rng.choice(kinds)](rng, easy) for _ in range(rng.randint(6, 14))]
    reply = "\n".join(f"{line.text}: {YES_NO[line.answer]}" for line in lines if not line.context)
    return Question("marks", "", "Answer each question in its line.", False, reply)


MIXED = ("item",) * 4 + ("most",) + ("count",) * 3


def conversation(
    rng: random.Random, *, panels: float, short: tuple[str, ...], marked: float, inline: float = 0.0,
    easy: bool = False, brief: float = 0.0, sizes: tuple[int, int] | None = None, about: Sequence[str] = MIXED,
    drills: float = 0.0, control: int | None = None,
) -> list[Question]:  # fmt: skip
    """Questions asked one after another in one chat; those about a panel share it (only the first repeats it).

    `panels` is the share of conversations about a panel, `short` the kinds that the others draw from, of which the
    share `drills` is one list of questions, each answered in its line. `marked` is the share of panels that are only
    marked line by line, `inline` the share of those marked in place; `easy` numbers are for the beginning. `brief` is
    the share of panels in that layout, `sizes` the least and most readings of a panel (None: 3 to 20, mixed), `about`
    the kinds of question about a panel, as often as they stand there. control: a seed of random answers.
    """
    turns = _turns(rng, panels, short, marked, inline, easy, brief, sizes, about, drills)
    return turns if control is None else [dealt(each, turns[0].context, control) for each in turns]


def _turns(
    rng: random.Random, panels: float, short: tuple[str, ...], marked: float, inline: float, easy: bool, brief: float,
    sizes: tuple[int, int] | None, about: Sequence[str], drills: float,
) -> list[Question]:  # fmt: skip
    if rng.random() >= panels:
        if drills and rng.random() < drills:
            return [drill(rng, [kind for kind in short if kind != "range"], easy)]
        return [SINGLE[rng.choice(short)](rng, easy) for _ in range(rng.choice((1, 2, 4, 6, 8)))]
    size = rng.randint(*sizes) if sizes else rng.choice((rng.randint(3, 8), rng.randint(6, 18), rng.randint(12, 20)))
    panel = PANELS["brief" if brief and rng.random() < brief else "intervals"]
    if rng.random() < marked:
        # About half of the readings, always: a rate that varied could be picked up from the marks before.
        context, rows = panel(rng, size, sum(rng.random() < 0.5 for _ in range(size)), easy)
        return [mark_all(rng, context, rows, rng.random() < inline)]
    context, rows = panel(rng, size, rng.randint(0, size), easy)
    kinds = list(about)
    rng.shuffle(kinds)
    turns = [ABOUT_A_PANEL[kind](rng, context, rows) for kind in kinds[: rng.randint(4, 8)]]
    return [turns[0], *(replace(each, context="") for each in turns[1:])]


def dealt(question: Question, context: str, control: int) -> Question:
    """The same question with a random answer, of a reply of several lines with one in each line; the same each time."""

    def coin(line: str) -> int:
        return random.Random(f"shuffled {control} {context} {question.text} {line}").random() < 0.5

    lines = [line.rpartition(": ")[0] for line in question.reply.split("\n")] if question.reply else []
    reply = "\n".join(f"{line}: {YES_NO[coin(line)]}" for line in lines)
    return replace(question, answer=coin(""), reply=reply)
