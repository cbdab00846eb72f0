"""Task `record_qa`: questions about a stay, asked of its text and answered from its tables.

What is right is read from what the tables hold, never from the text; a question is asked only where the text shows the
fact, so that an answer is always there to be found. The whole text is in the prompt, and none of it is ever cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records import concepts
from patientdx.records.source import SYNTHETIC
from patientdx.records.splits import SPLITS, checked_fractions, position
from patientdx.records.stays import Request, Stay, read_stays
from patientdx.records.templates import Template, narrative, template
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint
from patientdx.tasks.prediction import FRACTIONS, check_numbers

KINDS = ("last", "highest", "lowest", "unit", "given", "starts", "urine", "age", "stays")
# exact_match: the answer and nothing else. match: the first number, yes or no, or the unit, whatever stands around it.
METRICS = ("exact_match", "match")
ASK = {"number": "Answer with the number alone.", "word": "Answer Yes or No.", "unit": "Answer with the unit alone."}
VERSION = 1  # of the questions and of how answers are judged: raise it when either comes to be otherwise
_NUMBER = re.compile(r"-?\d+(?:,\d{3}(?!\d))*(?:\.\d+)?")


@dataclass(frozen=True)
class Question:
    """A question with its answer: `asks` is number, word (yes or no) or unit. `shown`: what the text must say.

    unit: what may stand behind a number. decimals: of a number, as the text prints it.
    """

    kind: str
    text: str
    answer: str
    asks: str
    shown: str
    unit: str = ""
    decimals: int = 0


def load(
    *,
    cache: Path,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    per_stay: int = 2,
    limit: int | None = 40,
    new_tokens: int = 24,
    tolerance: float = 0.0,
    chat: bool | None = None,
    source: str = "mimic",
    mimic_root: Sequence[str] | str | None = None,
    synthetic: Mapping[str, float | None] = SYNTHETIC,
    window_hours: int = 48,
    sections: Mapping[str, int | None] | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    memory_limit: str = "2GB",
    threads: int | None = None,
) -> TaskData:
    """Questions about adult ICU stays; every keyword is explained in conf/task/record_qa.yaml.

    Raises UserError on any parameter, file or hospital that will not do.
    """
    check_numbers(per_stay=(per_stay, 1), new_tokens=(new_tokens, 1), limit=(limit, 1), seed=(seed, 0))
    chosen = _kinds(kinds)
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < 1:
        raise UserError(f"task.tolerance={tolerance!r}: it is a share of the right number, from 0 to below 1.")
    written = template("narrative", sections)
    asked = Request(cache, seed, source, mimic_root, synthetic, window_hours, fractions, memory_limit, threads)
    found = read_stays(asked)
    examples, questions = [], []
    for split in SPLITS:
        own = [stay for stay in found.stays if stay.split == split][:limit]
        for stay, text, question in _asked(own, written, chosen, per_stay, window_hours, seed):
            examples.append(_example(stay, text, question))
            questions.append(question)
    if not questions:
        raise UserError(
            f"task.kinds={chosen}: no text of these {len(found.stays)} stays shows such a fact. Ask for other kinds, "
            "or give the sections a larger budget."
        )
    settings: dict[str, Any] = {
        "task": "record_qa", "version": VERSION, "kinds": chosen, "per_stay": per_stay, "limit": limit, "seed": seed,
        "new_tokens": new_tokens, "tolerance": tolerance, "template": written.id, "template_sha256": written.sha256,
        "sections": dict(written.sections), "window_hours": window_hours, "fractions": checked_fractions(fractions),
        "chat": chat,
    }  # fmt: skip
    answers = [(one.asks, one.unit, one.decimals) for one in questions]
    return TaskData(
        name="record_qa",
        kind="generation",
        examples=tuple(examples),
        open_data=found.open_data,
        fingerprint=fingerprint(tuple(examples), settings | {"answers": answers}),
        provenance=found.provenance | {"settings": settings},
        cohort=found.cohort,
        groups={"kind": tuple(one.kind for one in questions)},
        chat=chat,
        generation=Generation(new_tokens, (), METRICS, lambda i, text: judged(text, questions[i], tolerance)),
    )


def _kinds(given: Sequence[str] | str) -> list[str]:
    chosen = [given] if isinstance(given, str) else list(given)
    if not chosen or not set(chosen) <= set(KINDS) or len(set(chosen)) < len(chosen):
        raise UserError(f"task.kinds={chosen}: name one or more of {', '.join(KINDS)}, none twice.")
    return chosen


def judged(said: str, question: Question, tolerance: float = 0.0) -> dict[str, tuple[float, float]]:
    """By metric 1 for a right answer, out of 1.

    A number is right (match) within half of the last digit that the text prints, or within `tolerance`, a share of the
    right one. Of several numbers the first counts. exact_match takes nothing beside the answer but its unit and a full
    stop.
    """
    plain = " ".join(said.split()).rstrip(".").casefold()
    forms = {question.answer, f"{question.answer} {question.unit}", f"{question.answer}{question.unit}"}
    exact = plain in {form.strip().casefold() for form in forms}
    if question.asks == "number":
        number, right = _NUMBER.search(said), float(question.answer)
        room = max(0.5 * 10**-question.decimals, tolerance * abs(right))
        match = number is not None and abs(float(number[0].replace(",", "")) - right) <= room + 1e-9
    elif question.asks == "word":
        words = re.findall(r"\b(?:yes|no)\b", plain)
        match = words[:1] == [question.answer.casefold()]
    else:
        unit = re.escape(question.answer.casefold())
        match = re.search(rf"(?<![^\W\d]){unit}(?![\w/])", plain) is not None
    return {"exact_match": (float(exact), 1.0), "match": (float(exact or match), 1.0)}


def _asked(
    stays: Sequence[Stay], written: Template, kinds: Sequence[str], per_stay: int, hours: int, seed: int
) -> Iterator[tuple[Stay, str, Question]]:
    """`per_stay` questions of each stay of a split, of as many kinds; as many yes as no."""
    drugs = sorted({name for stay in stays for name, _ in stay.record.drugs})
    drawn: list[tuple[Stay, str, list[Question]]] = []
    for stay in stays:
        text = f"{written.write(stay.record, hours)}\n{_number(stay)}"
        able: dict[str, list[Question]] = {}
        for question in _facts(stay, written, hours, drugs):
            if question.kind in kinds and question.shown in text:
                able.setdefault(question.kind, []).append(question)
        # Both answers must be there to choose from, or the balance would tell them apart.
        if len({question.answer for question in able.get("given", ())}) == 1:
            del able["given"]
        order = sorted(able, key=lambda kind, uid=stay.uid: position("kind", seed, uid, kind))[:per_stay]
        drawn += [
            (stay, text, sorted(able[kind], key=lambda one, uid=stay.uid: position("question", seed, uid, one.text)))
            for kind in order
        ]
    given = [place for place, (_, _, able) in enumerate(drawn) if able[0].kind == "given"]
    ranked = sorted(given, key=lambda place: position("given", seed, drawn[place][0].uid))
    wanted = dict(zip(ranked[: len(ranked) // 2 * 2], ("Yes", "No") * (len(ranked) // 2), strict=True))
    for place, (stay, text, able) in enumerate(drawn):
        if able[0].kind != "given":
            yield stay, text, able[0]
        elif place in wanted:
            yield stay, text, next(question for question in able if question.answer == wanted[place])


def _facts(stay: Stay, written: Template, hours: int, drugs: Sequence[str]) -> Iterator[Question]:
    """Every question that the tables answer, whether or not the text shows it."""
    record, first = stay.record, f"in the first {hours} h"
    told = [text.strip() for text in narrative.readings(record, hours).items]
    for (name, _), course in zip(record.readings, record.courses, strict=True):
        item = concepts.readings()[name]
        sentence = re.compile(rf"(?:[^:\n]+: )?{re.escape(name)} (?:rose|fell|steady|-?\d)")
        (shown,) = filter(sentence.match, told)
        number = {"asks": "number", "shown": shown, "unit": item.unit, "decimals": item.decimals}
        values = {"last": course.last, "highest": course.maximum, "lowest": course.minimum}
        if course.count > 2:
            for kind, value in values.items():
                asked = f"What was the {kind} value of {name} {first}?"
                yield Question(kind, asked, f"{value:.{item.decimals}f}", **number)
        if item.unit:
            yield Question("unit", f"In which unit is {name} given?", item.unit, "unit", shown)
    names, times = [name for name, _ in record.drugs], record.drug_times
    told = narrative.drugs(record, hours).items
    whole = "; ".join(told) + "."
    for name, when, shown in zip(names, times, told, strict=True):
        yield Question("given", f"Was {name} started {first}?", "Yes", "word", shown)
        if when.count > 1:
            yield Question("starts", f"How many times was {name} started {first}?", str(when.count), "number", shown)
    for name in drugs if names else ():
        if name not in names:  # only a list that is whole says so
            yield Question("given", f"Was {name} started {first}?", "No", "word", whole)
    if record.urine is not None:
        (shown,) = narrative.outputs(record, hours).items
        amount = f"{max(record.urine, 0):.0f}"
        yield Question("urine", f"How much urine was put out {first}, in mL?", amount, "number", shown, "mL")
    age = narrative.person(record, hours).items[0]
    yield Question("age", "How old is the patient, in years?", str(record.age), "number", age, "years")
    counted = "How many stays in intensive care has the patient had, this one included?"
    yield Question("stays", counted, str(stay.number), "number", _number(stay))


def _number(stay: Stay) -> str:
    return f"Stays of this patient in intensive care, this one included: {stay.number}."


def _example(stay: Stay, text: str, question: Question) -> Example:
    # Not as the record, which is cut where a prompt is too long: what is asked for may stand at its end.
    before = f"{text}\n\nQuestion: {question.text} {ASK[question.asks]}"
    return Example(
        uid=f"{stay.uid}:{question.kind}",
        subject=stay.subject,
        split=stay.split,
        prefix=before,
        context="",
        suffix="",
        reference=question.answer,
    )
