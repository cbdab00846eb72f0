"""Task `numeric_questions`: generated questions about numbers, of the kinds on which the default pivot was trained.

Half of the answers are yes. A merge that keeps the knowledge of its pivot answers them as the pivot does; the pivot's
model card has the scores of each model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patientdx.records.parameters import check_numbers
from patientdx.records.splits import position
from patientdx.tasks.clinical import OPTIONS
from patientdx.tasks.example import Example, TaskData, fingerprint
from patientdx.tasks.numeric_generator import KINDS, held_out

VERSION = 1  # of the split: raise it when the same seed gives other examples
Numbered = tuple[Example, str]  # an example and its kind of question


@dataclass(frozen=True, kw_only=True)
class NumericQuestionsTask:
    """The keys of the task, as conf/task/numeric_questions.yaml explains them."""

    seed: int = 0
    per_kind: int = 40
    limit: int | None = None

    def load(self) -> TaskData:
        """`per_kind` generated questions of each kind in pilot and as many in test, half of them answered by yes.

        `limit` keeps so many of each split, drawn from all kinds. The panel of readings that a question has is its
        context; `groups` names its kind. Training uses other seeds of the generator (`held_out`). Raises UserError for
        a number that is not valid.
        """
        check_numbers(seed=(self.seed, 0), per_kind=(self.per_kind, 2), limit=(self.limit, 1))
        kept: list[Numbered] = []
        number = 0
        for k, split in enumerate(("pilot", "test")):  # an even and an odd seed are never the same
            of_split: list[Numbered] = []
            for question in held_out(2 * self.seed + k, self.per_kind):
                of_split.append((_example(split, number, question), question.kind))
                number += 1
            kept += self._limited(of_split)
        examples = tuple(example for example, _ in kept)
        settings: dict[str, Any] = {
            "task": "numeric_questions", "version": VERSION, "seed": self.seed, "per_kind": self.per_kind,
        }  # fmt: skip
        settings |= {} if self.limit is None else {"limit": self.limit}
        cohort = [{"step": f"generated, of {len(KINDS)} kinds", "questions": number}]
        if self.limit is not None:
            cohort.append({"step": f"at most {self.limit} of a split", "questions": len(examples)})
        return TaskData(
            name="numeric_questions",
            kind="binary",
            examples=examples,
            open_data=True,
            fingerprint=fingerprint(examples, settings),
            provenance={"source": {"generated": "patientdx.tasks.numeric_generator"}, "settings": settings},
            cohort=cohort,
            groups={"kind": tuple(kind for _, kind in kept)},
        )

    def _limited(self, of_split: list[Numbered]) -> list[Numbered]:
        """The examples of a split: all, or the first `limit` in an order fixed by the seed."""
        if self.limit is None:
            return of_split
        return sorted(of_split, key=lambda numbered: position("limit", self.seed, numbered[0].uid))[: self.limit]


def _example(split: str, number: int, question: Question) -> Example:
    uid = f"numeric:{split}:{number}"
    suffix = ("\n\n" if question.context else "") + question.text + ASK
    return Example(
        uid=uid, subject=uid, split=split, prefix="", context=question.context, suffix=suffix, options=OPTIONS,
        label=int(question.answer),
    )  # fmt: skip
