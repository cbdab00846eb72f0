"""Task `numeric_questions`: the questions about numbers that the default pivot was made for, as it never saw them.

Half of the answers are yes. A merge that keeps what its pivot knew answers them as the pivot does; see the pivot's card
for what each model scored when it was made.
"""

from __future__ import annotations

from typing import Any

from patientdx.records.splits import position
from patientdx.tasks.example import Example, TaskData, fingerprint
from patientdx.tasks.numeric_generator import ASK, KINDS, Question, held_out
from patientdx.tasks.prediction import OPTIONS, check_numbers

VERSION = 1  # of the split: raise it when the same seed comes to give other examples


def load(*, seed: int = 0, per_kind: int = 40, limit: int | None = None) -> TaskData:
    """`per_kind` generated questions of each kind in pilot and as many in test, half of them answered by yes.

    `limit` keeps so many of each split, drawn from all kinds, always the same ones. The panel of readings, where a
    question has one, is the record; `groups` says of which kind a question is. The generator's seeds for training are
    others (`held_out`). Raises UserError for a number that will not do.
    """
    check_numbers(seed=(seed, 0), per_kind=(per_kind, 2), limit=(limit, 1))
    # Pilot and test are two examinations; an even and an odd seed are never the same one.
    drawn = [(split, one) for k, split in enumerate(("pilot", "test")) for one in held_out(2 * seed + k, per_kind)]
    asked = [(_example(split, number, one), one.kind) for number, (split, one) in enumerate(drawn)]
    asked = [one for split in ("pilot", "test") for one in _limited(asked, split, seed, limit)]
    examples = tuple(example for example, _ in asked)
    settings: dict[str, Any] = {"task": "numeric_questions", "version": VERSION, "seed": seed, "per_kind": per_kind}
    settings |= {} if limit is None else {"limit": limit}
    steps = [{"step": f"generated, of {len(KINDS)} kinds", "questions": len(drawn)}]
    steps += [] if limit is None else [{"step": f"at most {limit} of a split", "questions": len(examples)}]
    return TaskData(
        name="numeric_questions",
        kind="binary",
        examples=examples,
        open_data=True,
        fingerprint=fingerprint(examples, settings),
        provenance={"source": {"generated": "patientdx.tasks.numeric_generator"}, "settings": settings},
        cohort=steps,
        groups={"kind": tuple(kind for _, kind in asked)},
    )


def _limited(asked: list[tuple[Example, str]], split: str, seed: int, limit: int | None) -> list[tuple[Example, str]]:
    """The examples of a split with their kinds: all, or `limit` of them in an order fixed by seed."""
    own = [one for one in asked if one[0].split == split]
    if limit is None:
        return own
    return sorted(own, key=lambda one: position("limit", seed, one[0].uid))[:limit]


def _example(split: str, number: int, one: Question) -> Example:
    uid = f"numeric:{split}:{number}"
    after = ("\n\n" if one.context else "") + one.text + ASK
    return Example(
        uid=uid, subject=uid, split=split, prefix="", context=one.context, suffix=after, options=OPTIONS,
        label=int(one.answer),
    )  # fmt: skip
