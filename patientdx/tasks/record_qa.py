"""Task `record_qa`: questions about a stay that its text answers, with right answers from its tables.

A right answer is read from the tables, never from the text; a question is asked only where the text shows the answer.
The full text is in the prompt, and none of it is ever cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records import concepts
from patientdx.records.parameters import check_numbers
from patientdx.records.splits import SPLITS, position
from patientdx.records.stays import Stay, StaysConfig, read_stays
from patientdx.records.templates import Template, narrative, template
from patientdx.records.window import Record
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint

KINDS = ("last", "highest", "lowest", "unit", "given", "starts", "urine", "age", "stays")
# exact_match: the answer and nothing else. match: the first number, yes or no, or the unit, whatever is around it.
METRICS = ("exact_match", "match")
ASK = {"number": "Answer with the number alone.", "word": "Answer Yes or No.", "unit": "Answer with the unit alone."}
VERSION = 1  # of the questions and of the scoring: raise it when either changes
_NUMBER = re.compile(r"-?\d+(?:,\d{3}(?!\d))*(?:\.\d+)?")


@dataclass(frozen=True)
class Question:
    """A question with its answer: `asks` is number, word (yes or no) or unit. `shown`: what the text must contain.

    unit: what may follow a number. decimals: of a number, as the text prints it.
    """

    kind: str
    text: str
    answer: str
    asks: str
    shown: str
    unit: str = ""
    decimals: int = 0


@dataclass(frozen=True, kw_only=True)
class RecordQaTask(StaysConfig):
    """The keys of the task, as conf/task/record_qa.yaml explains them."""

    kinds: Sequence[str] = KINDS
    per_stay: int = 2
    limit: int | None = 40
    new_tokens: int = 24
    tolerance: float = 0.0
    chat: bool | None = None
    sections: Mapping[str, int | None] | None = None
    fractions: Mapping[str, float] | None = None

    def load(self) -> TaskData:
        """One example per question about an adult ICU stay.

        Raises UserError on keys, files or a hospital that are not valid.
        """
        check_numbers(
            per_stay=(self.per_stay, 1), new_tokens=(self.new_tokens, 1), limit=(self.limit, 1), seed=(self.seed, 0)
        )
        kinds, tolerance = _checked_kinds(self.kinds), self.tolerance
        if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < 1:
            raise UserError(f"task.tolerance={tolerance!r}: it is a share of the right number, from 0 to below 1.")
        narrative_text = template("narrative/1", self.sections)
        stays = read_stays(self, self.fractions)
        examples, questions = [], []
        for split in SPLITS:
            of_split = [stay for stay in stays.stays if stay.split == split][: self.limit]
            for stay, text, question in _draw(
                of_split, narrative_text, kinds, self.per_stay, self.window_hours, self.seed
            ):
                examples.append(_example(stay, text, question))
                questions.append(question)
        if not questions:
            raise UserError(
                f"task.kinds={kinds}: no text of these {len(stays.stays)} stays shows such a fact. Ask for other "
                "kinds, or give the sections a larger budget."
            )
        settings: dict[str, Any] = {
            "task": "record_qa", "version": VERSION, "kinds": kinds, "per_stay": self.per_stay, "limit": self.limit,
            "seed": self.seed, "new_tokens": self.new_tokens, "tolerance": tolerance, "template": narrative_text.id,
            "template_sha256": narrative_text.sha256, "sections": dict(narrative_text.sections),
            "window_hours": self.window_hours, "fractions": stays.fractions, "chat": self.chat,
        }  # fmt: skip
        answers = [(question.asks, question.unit, question.decimals) for question in questions]
        return TaskData(
            name="record_qa",
            kind="generation",
            examples=tuple(examples),
            open_data=stays.open_data,
            fingerprint=fingerprint(tuple(examples), settings | {"answers": answers}),
            provenance=stays.provenance | {"settings": settings},
            cohort=stays.cohort,
            groups={"kind": tuple(question.kind for question in questions)},
            chat=self.chat,
            generation=Generation(self.new_tokens, (), METRICS, lambda i, text: judged(text, questions[i], tolerance)),
        )


def _checked_kinds(kinds: Sequence[str] | str) -> list[str]:
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    if not names or not set(names) <= set(KINDS) or len(set(names)) < len(names):
        raise UserError(f"task.kinds={names}: name one or more of {', '.join(KINDS)}, none twice.")
    return names


def judged(text: str, question: Question, tolerance: float = 0.0) -> dict[str, tuple[float, float]]:
    """(1 for a right answer else 0, 1) by metric.

    A number is right (match) within half of the last digit that the text prints, or within `tolerance`, a fraction of
    the right one. Of several numbers the first counts. exact_match allows only its unit and a final period with the
    answer.
    """
    plain = " ".join(text.split()).rstrip(".").casefold()
    forms = {question.answer, f"{question.answer} {question.unit}", f"{question.answer}{question.unit}"}
    exact = plain in {form.strip().casefold() for form in forms}
    if question.asks == "number":
        number, right = _NUMBER.search(text), float(question.answer)
        room = max(0.5 * 10**-question.decimals, tolerance * abs(right))
        match = number is not None and abs(float(number[0].replace(",", "")) - right) <= room + 1e-9
    elif question.asks == "word":
        words = re.findall(r"\b(?:yes|no)\b", plain)
        match = words[:1] == [question.answer.casefold()]
    else:
        unit = re.escape(question.answer.casefold())
        match = re.search(rf"(?<![^\W\d]){unit}(?![\w/])", plain) is not None
    return {"exact_match": (float(exact), 1.0), "match": (float(exact or match), 1.0)}


def _draw(
    stays: Sequence[Stay], narrative_text: Template, kinds: Sequence[str], per_stay: int, hours: int, seed: int
) -> Iterator[tuple[Stay, str, Question]]:
    """`per_stay` questions of different kinds for each stay of a split; Yes and No are right equally often."""
    drugs = sorted({name for stay in stays for name, _ in stay.record.drugs})
    drawn: list[tuple[Stay, str, list[Question]]] = []
    for stay in stays:
        text = f"{narrative_text.write(stay.record, hours)}\n{_number(stay)}"
        candidates: dict[str, list[Question]] = {}
        for question in _questions(stay, hours, drugs):
            if question.kind in kinds and question.shown in text:
                candidates.setdefault(question.kind, []).append(question)
        # Both answers must be available, or the balance would distinguish them.
        if len({question.answer for question in candidates.get("given", ())}) == 1:
            del candidates["given"]
        order = sorted(candidates, key=lambda kind, uid=stay.uid: position("kind", seed, uid, kind))[:per_stay]
        for kind in order:
            in_order = sorted(
                candidates[kind], key=lambda question, uid=stay.uid: position("question", seed, uid, question.text)
            )
            drawn.append((stay, text, in_order))
    of_drugs = [number for number, (_, _, candidates) in enumerate(drawn) if candidates[0].kind == "given"]
    of_drugs.sort(key=lambda number: position("given", seed, drawn[number][0].uid))
    half = len(of_drugs) // 2
    answers = dict(zip(of_drugs[: 2 * half], ("Yes", "No") * half, strict=True))
    for number, (stay, text, in_order) in enumerate(drawn):
        if in_order[0].kind != "given":
            yield stay, text, in_order[0]
        elif number in answers:
            yield stay, text, next(question for question in in_order if question.answer == answers[number])


def _questions(stay: Stay, hours: int, drugs: Sequence[str]) -> Iterator[Question]:
    """Every question that the tables answer, whether or not the text shows the answer."""
    record, first = stay.record, f"in the first {hours} h"
    yield from _about_readings(record, hours)
    names, times = [name for name, _ in record.drugs], record.drug_times
    listed = narrative.drugs(record, hours).items
    for name, when, shown in zip(names, times, listed, strict=True):
        yield Question("given", f"Was {name} started {first}?", "Yes", "word", shown)
        if when.count > 1:
            yield Question("starts", f"How many times was {name} started {first}?", str(when.count), "number", shown)
    complete = "; ".join(listed) + "."  # only a complete list shows that a drug is not in it
    for name in drugs if names else ():
        if name not in names:
            yield Question("given", f"Was {name} started {first}?", "No", "word", complete)
    if record.urine is not None:
        (shown,) = narrative.outputs(record, hours).items
        amount = f"{max(record.urine, 0):.0f}"
        yield Question("urine", f"How much urine was put out {first}, in mL?", amount, "number", shown, "mL")
    age = narrative.person(record, hours).items[0]
    yield Question("age", "How old is the patient, in years?", str(record.age), "number", age, "years")
    counted = "How many stays in intensive care has the patient had, this one included?"
    yield Question("stays", counted, str(stay.number), "number", _number(stay))


def _about_readings(record: Record, hours: int) -> Iterator[Question]:
    """Questions about the values and the unit of each reading."""
    sentences = [text.strip() for text in narrative.readings(record, hours).items]
    for (name, _), course in zip(record.readings, record.courses, strict=True):
        item = concepts.readings()[name]
        sentence = re.compile(rf"(?:[^:\n]+: )?{re.escape(name)} (?:rose|fell|steady|-?\d)")
        (shown,) = filter(sentence.match, sentences)
        values = {"last": course.last, "highest": course.maximum, "lowest": course.minimum}
        for kind, value in values.items() if course.count > 2 else ():
            yield Question(
                kind, f"What was the {kind} value of {name} in the first {hours} h?", f"{value:.{item.decimals}f}",
                "number", shown, item.unit, item.decimals,
            )  # fmt: skip
        if item.unit:
            yield Question("unit", f"In which unit is {name} given?", item.unit, "unit", shown)


def _number(stay: Stay) -> str:
    return f"Stays of this patient in intensive care, this one included: {stay.number}."


def _example(stay: Stay, text: str, question: Question) -> Example:
    # Not as the context, which is cut where a prompt is too long: the answer may be at its end.
    prefix = f"{text}\n\nQuestion: {question.text} {ASK[question.asks]}"
    return Example(
        uid=f"{stay.uid}:{question.kind}",
        subject=stay.subject,
        split=stay.split,
        prefix=prefix,
        context="",
        suffix="",
        reference=question.answer,
    )
