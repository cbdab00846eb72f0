"""Tasks `numeric_questions` and `biomedical_questions`: generated yes/no questions, as the shipped pivots were taught.

Half of the answers are yes. A merge that keeps the knowledge of its pivot answers them as the pivot does; the pivot's
model card has the scores of each model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patientdx.records.parameters import check_choice, check_numbers
from patientdx.records.splits import position
from patientdx.tasks import biomedical_generator, numeric_generator
from patientdx.tasks.clinical import OPTIONS
from patientdx.tasks.example import Example, TaskData, fingerprint
from patientdx.tasks.generated_question import Question

VERSION = 1  # of the split: raise it when the same seed gives other examples
Numbered = tuple[Example, str]  # an example and its kind of question
GENERATORS = {"numeric": numeric_generator, "biomedical": biomedical_generator}


@dataclass(frozen=True, kw_only=True)
class GeneratedQuestionsTask:
    """The keys of the tasks, as conf/task/numeric_questions.yaml and biomedical_questions.yaml explain them."""

    generator: str
    part: str
    seed: int = 0
    per_kind: int = 40
    limit: int | None = None

    def load(self) -> TaskData:
        """`per_kind` generated questions of each kind in pilot and as many in test, half of them answered by yes.

        `limit` keeps so many of each split, drawn from all kinds. A list that a question is about is its context;
        `groups` names its kind. Training uses other seeds of the generator (`held_out`), and pilot and test are never
        about the same held-out fact. Raises UserError for a generator, a part or a number that is not valid.
        """
        check_choice("generator", self.generator, GENERATORS)
        parts = GENERATORS[self.generator].PARTS
        check_choice("part", self.part, parts)
        check_numbers(seed=(self.seed, 0), per_kind=(self.per_kind, 2), limit=(self.limit, 1))
        name = f"{self.generator}_questions"
        kept: list[Numbered] = []
        number = 0
        for k, split in enumerate(("pilot", "test")):  # an even and an odd seed are never the same
            of_split: list[Numbered] = []
            for question in self._questions(2 * self.seed + k):
                uid = f"{self.generator}:{split}:{number}"
                of_split.append((_example(uid, split, question), question.kind))
                number += 1
            kept += self._limited(of_split)
        examples = tuple(example for example, _ in kept)
        settings: dict[str, Any] = {"task": name, "version": VERSION, "seed": self.seed, "per_kind": self.per_kind}
        settings |= {} if self.part == next(iter(parts)) else {"part": self.part}
        settings |= {} if self.limit is None else {"limit": self.limit}
        kinds = tuple(kind for _, kind in kept)
        cohort = [{"step": f"generated, of {len(set(kinds))} kinds", "questions": number}]
        if self.limit is not None:
            cohort.append({"step": f"at most {self.limit} of a split", "questions": len(examples)})
        return TaskData(
            name=name,
            kind="binary",
            examples=examples,
            open_data=True,
            fingerprint=fingerprint(examples, settings),
            provenance={"source": {"generated": GENERATORS[self.generator].__name__}, "settings": settings},
            cohort=cohort,
            groups={"kind": kinds},
        )

    def _questions(self, seed: int) -> list[Question]:
        """The questions of a split that are answered by yes or no."""
        questions = GENERATORS[self.generator].held_out(seed, self.per_kind, self.part)
        return [question for question in questions if not question.options]

    def _limited(self, of_split: list[Numbered]) -> list[Numbered]:
        """The examples of a split: all, or the first `limit` in an order fixed by the seed."""
        if self.limit is None:
            return of_split
        return sorted(of_split, key=lambda numbered: position("limit", self.seed, numbered[0].uid))[: self.limit]


def _example(uid: str, split: str, question: Question) -> Example:
    return Example(
        uid=uid, subject=uid, split=split, prefix="", context=question.context,
        suffix=("\n\n" if question.context else "") + question.request, options=OPTIONS, label=int(question.answer),
    )  # fmt: skip
