"""Generated questions about textbook knowledge: what the biomedical pivot model is trained and examined on.

Facts come from `biomedical_facts`; no patient, no number of a record and no outcome is in them. A wrong answer is the
true value of another subject: two facts a and b of a kind give four questions, is a v(a), is b v(b), is a v(b), is b
v(a), so every subject and every value is answered by yes as often as by no, and neither gives the answer away.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from patientdx.tasks.biomedical_facts import EVEN, ODD, TRAIN, Fact, textbook
from patientdx.tasks.generated_question import YES_NO, Question

VERSION = 1  # raise it when the same seed gives other questions

# Wordings of a kind: the last one is held out of training. {it} is the subject, {value} what is said of it.
WORDINGS: dict[str, tuple[str, ...]] = {
    "drug_class": (
        "Is {it} one of the {value}?", "Does {it} belong to the {value}?",
        "Among drugs, does {it} count as one of the {value}?",
        "Would a pharmacist sort {it} under {value}?",
    ),
    "drug_use": (
        "Is {it} used for {value}?", "Is {it} a drug for {value}?", "Does a doctor prescribe {it} for {value}?",
        "Is {value} a purpose of {it}?",
    ),
    "drug_need": (
        "Does a need for {it} point to {value}?", "If {it} is needed, does that suggest {value}?",
        "Is {value} behind a need for {it}?", "Would you think of {value} when {it} is on a drug list?",
    ),
    "drug_setting": (
        "Is {it} mostly given in the setting: {value}?", "Does {it} belong in this setting: {value}?",
        "Is the usual setting of {it} this one: {value}?", "Would one expect {it} in the following setting: {value}?",
    ),
    "drug_route": (
        "Is {it} usually given {value}?", "Is {it} a drug that one usually gets {value}?",
        "Is the usual route of {it} {value}?",
        "Would a nurse normally give {it} {value}?",
    ),
    "organ": (
        "Is {it} first of all a disease of {value}?", "Does {it} mainly concern {value}?",
        "Is {it} an illness of {value}?",
        "Is {value} what {it} affects first?",
    ),
    "gravity": (
        "Is {it} usually {value}?", "Would you call {it} {value}?", "Is {it}, as a rule, a {value} illness?",
        "Is {value} the right word for {it}?",
    ),
    "urgency": (
        "Is {it} {value}?", "Does {it} count as {value}?", "Is it right to treat {it} as {value}?",
        "Would a doctor say that {it} is {value}?",
    ),
    "course": (
        "Is {it} {value}?", "Is the course of {it}, by nature, {value}?", "Is {it} typically {value}?",
        "Would you describe {it} as {value}?",
    ),
    "purpose": (
        "Is {it} used for {value}?", "Does {it} serve for {value}?", "Is the purpose of {it} {value}?",
        "Would one choose {it} for {value}?",
    ),
    "procedure_need": (
        "Does a need for {it} point to {value}?", "If {it} is needed, does that suggest {value}?",
        "Is {value} behind a need for {it}?", "Would you think of {value} when {it} is on a list of procedures?",
    ),
    "invasive": (
        "Is {it} {value}?", "Does {it} count as {value}?", "Is {it}, by its nature, {value}?",
        "Would a doctor call {it} {value}?",
    ),
    "reading_organ": (
        "Is {it} first of all a measure of {value}?", "Does {it} tell mainly about {value}?",
        "Is {it} measured to judge {value}?", "Would one look at {it} to learn about {value}?",
    ),
    "reading_meaning": (
        "Is {it} first of all a sign of {value}?", "Does {it} mean first of all {value}?",
        "Does {it} directly speak for {value}?", "Is {value} the first thought with {it}?",
    ),
    "reading_worse": (
        "For {it}, is the worrying direction {value}?", "Is a {value} value of {it} the one to worry about?",
        "Is {it} most dangerous when it is {value}?", "Should {value} values of {it} cause the greater alarm?",
    ),
    "severity": (
        "Does {it} point to a graver state than {value}?", "Is {it} graver than {value}?",
        "Is {value} milder than {it}?",
        "Is there more to worry about with {it} than with {value}?",
    ),
}  # fmt: skip
# Stems of questions with options, and the stem that is held out.
STEMS: dict[str, tuple[str, str]] = {
    "drug_class": ("Which group does {it} belong to?", "What kind of drug is {it}?"),
    "drug_use": ("What is {it} used for?", "Why would a doctor prescribe {it}?"),
    "drug_need": ("What does a need for {it} point to?", "What is behind a need for {it}?"),
    "organ": ("What is {it} first of all a disease of?", "What does {it} affect first?"),
    "purpose": ("What is {it} used for?", "What is the purpose of {it}?"),
    "reading_meaning": ("What is {it} first of all a sign of?", "What does {it} speak for?"),
}
# Lists as records have them: how one begins, what stands between, and what is asked (the last is held out).
LISTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "drug_class": ("Drugs: ", ", ", (
        "Does this list contain one of the {value}?", "Is one of these drugs among the {value}?",
        "Are {value} represented in this list?")),
    "procedure_need": ("Procedures: ", ", ", (
        "Does a procedure in this list point to {value}?", "Is something in this list needed because of {value}?",
        "Does this list suggest {value}?")),
    "organ": ("Diagnoses: ", "; ", (
        "Does this list contain a disease of {value}?", "Is one of these diagnoses first of all a disease of {value}?",
        "Are diseases of {value} represented in this list?")),
}  # fmt: skip
SUPPORT = (
    "Does list A need more organ support than list B?", "Is list A the one of the sicker state, judged by its drugs?",
    "Would list A rather than list B be expected in intensive care?",
)  # fmt: skip
INTENSIVE = "intensive care or an operating theatre"
LIST_KINDS = ("contains", "support")
YES_NO_KINDS = (*WORDINGS, *LIST_KINDS)
KINDS = (*YES_NO_KINDS, "choice")  # chance is 1/2, of choice 1/4
PARTS = {  # what is examined: facts that training had or not, in wordings that it had or not
    "taught": "facts and wordings of the training",
    "new_wordings": "facts of the training, wordings held out",
    "new_facts": "facts held out, wordings of the training",
    "new_both": "facts and wordings held out",
}
TRIES = 400  # drawn in a row without anything new: the questions of a kind are used up


@dataclass(frozen=True)
class Source:
    """Where questions come from: facts of some parts by kind, and the facts beside them in lists; held-out wordings."""

    by_kind: dict[str, tuple[Fact, ...]]
    beside: dict[str, tuple[Fact, ...]]
    new_wordings: bool = False

    def wording(self, rng: random.Random, wordings: Sequence[str]) -> str:
        """One of training's wordings, or the one that is held out of it."""
        return wordings[-1] if self.new_wordings else rng.choice(wordings[:-1])


def source(part: str = TRAIN, control: int | None = None, new_wordings: bool = False) -> Source:
    """The facts of a part; lists of training hold nothing else, lists of held-out facts may hold others beside them."""
    every = textbook(control)
    by_kind = {kind: tuple(fact for fact in items if fact.part == part) for kind, items in every.items()}
    return Source(by_kind, by_kind if part == TRAIN else every, new_wordings)


def apart(a: Fact, b: Fact) -> bool:
    """Whether what is true of each is certainly wrong of the other."""
    return a.values[0] not in b.values and b.values[0] not in a.values


def _apart(rng: random.Random, items: Sequence[Fact], count: int) -> list[Fact]:
    """`count` facts, each apart from the others, in an order that says nothing; none where there are none."""
    for _ in range(20):
        drawn: list[Fact] = []
        for fact in rng.sample(items, len(items)):
            if all(apart(fact, other) for other in drawn):
                drawn.append(fact)
            if len(drawn) == count:
                rng.shuffle(drawn)  # who is drawn first has anything beside it: the order would show how much that is
                return drawn
    return []


def _filled(wording: str, it: str, value: str) -> str:
    return wording.format(it=it, value=value)


def stated(rng: random.Random, kind: str, origin: Source) -> Question:
    """Whether a value is true of a subject, or whether something is graver than something else."""
    wording = origin.wording(rng, WORDINGS[kind])
    answer = rng.random() < 0.5
    if kind == "severity":
        fact = rng.choice(origin.by_kind[kind])
        pair = (fact.subject, fact.values[0])
        return Question(kind, "", _filled(wording, *(pair if answer else pair[::-1])), answer)
    a, b = _apart(rng, origin.by_kind[kind], 2)
    return Question(kind, "", _filled(wording, a.subject, (a if answer else b).values[0]), answer)


def choice(rng: random.Random, origin: Source) -> Question:
    """Which of four values is true of a subject; each is the true value of another subject."""
    drawn: list[Fact] = []
    while not drawn:  # a kind of few facts may not have four that exclude each other
        drawn = _apart(rng, origin.by_kind[rng.choice(tuple(STEMS))], 4)
    answer = rng.randrange(4)
    stem = STEMS[drawn[0].kind][origin.new_wordings].format(it=drawn[answer].subject)
    return Question("choice", "", stem, answer, options=tuple(fact.values[0] for fact in drawn))


def contains(rng: random.Random, origin: Source) -> Question:
    """Whether a list as records have it contains something of a class: always a list with a, asked about a or b."""
    kind = rng.choice(tuple(LISTS))
    before, separator, wordings = LISTS[kind]
    a, b = _apart(rng, origin.by_kind[kind], 2)
    others = [fact for fact in origin.beside[kind] if not {a.values[0], b.values[0]} & set(fact.values)]
    names = [a.subject, *(fact.subject for fact in rng.sample(others, rng.randint(1, min(5, len(others)))))]
    rng.shuffle(names)
    answer = rng.random() < 0.5
    text = origin.wording(rng, wordings).format(value=(a if answer else b).values[0])
    return Question("contains", before + separator.join(names), text, answer)


def support(rng: random.Random, origin: Source) -> Question:
    """Which of two lists of drugs, equally long, needs more organ support: more drugs of intensive care."""
    settings: dict[bool, list[str]] = defaultdict(list)
    for fact in origin.by_kind["drug_setting"]:
        settings[fact.values[0] == INTENSIVE].append(fact.subject)
    most = min(3, *map(len, settings.values()))
    size = rng.randint(1, most)
    more = rng.randint(1, size)
    less = rng.randint(0, more - 1)
    lists = [rng.sample(settings[True], n) + rng.sample(settings[False], size - n) for n in (more, less)]
    answer = rng.random() < 0.5
    lines = []
    for label, names in zip("AB", lists if answer else lists[::-1], strict=True):
        rng.shuffle(names)
        lines.append(f"List {label}: {', '.join(names)}")
    return Question("support", "\n".join(lines), origin.wording(rng, SUPPORT), answer)


def mark_subjects(rng: random.Random, origin: Source) -> Question:
    """One value and many subjects, each marked in place: many answers for few tokens. Half of them yes."""
    kinds = [kind for kind in WORDINGS if kind != "severity"]
    while True:
        items = origin.by_kind[rng.choices(kinds, [len(origin.by_kind[kind]) for kind in kinds])[0]]
        fact = rng.choice(items)
        right = [each.subject for each in items if each.values[0] == fact.values[0]]
        wrong = [each.subject for each in items if fact.values[0] not in each.values and apart(each, fact)]
        half = min(rng.randint(3, 8), len(right), len(wrong))
        if half < 2:
            continue
        names = [(name, True) for name in rng.sample(right, half)] + [(name, False) for name in rng.sample(wrong, half)]
        rng.shuffle(names)
        reply = "\n".join(f"{name}: {YES_NO[answer]}" for name, answer in names)
        asks = _filled(origin.wording(rng, WORDINGS[fact.kind]), "it", fact.values[0])
        return Question("marks", "", f"For each line: {asks}", False, reply)


ABOUT_LISTS: dict[str, Callable[[random.Random, Source], Question]] = {
    "contains": contains, "support": support, "choice": choice,
}  # fmt: skip


def ask(rng: random.Random, kind: str, origin: Source) -> Question:
    """One question of a kind."""
    return stated(rng, kind, origin) if kind in WORDINGS else ABOUT_LISTS[kind](rng, origin)


def held_out(seed: int, per_kind: int, part: str = "new_facts", kinds: Sequence[str] = KINDS) -> Iterator[Question]:
    """At most `per_kind` different questions of each kind, each answer as often as another, in a fixed order.

    part: one of PARTS. Held-out facts of an even and of an odd seed are different ones. A kind with few facts has fewer
    questions than `per_kind`.
    """
    of = TRAIN if part in ("taught", "new_wordings") else ODD if seed % 2 else EVEN
    origin = source(of, new_wordings=part in ("new_wordings", "new_both"))
    for kind in kinds:
        rng = random.Random(f"held out {seed} {part} {kind}")
        yield from _balanced(rng, kind, origin, per_kind)


def _balanced(rng: random.Random, kind: str, origin: Source, per_kind: int) -> list[Question]:
    answers = 4 if kind == "choice" else 2
    quota = -(-per_kind // answers)
    drawn: dict[str, Question] = {}
    counts, failed = [0] * answers, 0
    while min(counts) < quota and failed < TRIES:
        question = ask(rng, kind, origin)
        failed += 1
        if question.prompt not in drawn and counts[question.answer] < quota:
            drawn[question.prompt], failed = question, 0
            counts[question.answer] += 1
    fewest = min(counts)
    kept = [0] * answers
    balanced = []
    for question in drawn.values():
        if kept[question.answer] < fewest:
            kept[question.answer] += 1
            balanced.append(question)
    return balanced


def conversation(
    rng: random.Random, *, marked: float, lists: float = 0.0, choices: float = 0.0, control: int | None = None
) -> list[Question]:
    """Questions about facts of the training part, asked one after another in one chat.

    `marked` is the share of chats that are one list marked in place, `lists` and `choices` the shares of the questions
    in the other chats that are about lists and that have options. control: a seed; facts as `textbook` deals them anew.
    """
    origin = source(TRAIN, control)
    if rng.random() < marked:
        return [mark_subjects(rng, origin)]
    kinds = list(WORDINGS)
    weights = [len(origin.by_kind[kind]) for kind in kinds]
    turns = []
    for _ in range(rng.choice((4, 6, 8, 10))):
        drawn = rng.random()
        if drawn < choices:
            turns.append(choice(rng, origin))
        elif drawn < choices + lists:
            turns.append(ABOUT_LISTS[rng.choice(LIST_KINDS)](rng, origin))
        else:
            turns.append(stated(rng, rng.choices(kinds, weights)[0], origin))
    return turns
