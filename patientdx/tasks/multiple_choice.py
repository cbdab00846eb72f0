"""Multiple-choice tasks: questions with options, of which one is right, from files of any such question set.

Scored by the letter of an option or by its text. The sets themselves are in question_sets.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from string import ascii_uppercase
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.parameters import check_choice, check_numbers
from patientdx.records.splits import SPLITS, checked_fractions, position, split_of
from patientdx.tasks import hub_files
from patientdx.tasks.data_files import digests, located
from patientdx.tasks.example import Example, TaskData, fingerprint
from patientdx.tasks.item_columns import Item
from patientdx.tasks.item_files import limited
from patientdx.tasks.question_sets import COLLECTIONS, SETS, QuestionSet
from patientdx.tasks.repeats import Repeats, distinct_step

ANSWERS = ("letter", "text")


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceTask:
    """The keys of all multiple-choice tasks, as conf/task/_multiple_choice.yaml explains them.

    `question_set` is a key of SETS or COLLECTIONS. A set is read from `path`, the sets of a collection from the key of
    their name. `train_limit` keeps so many questions of train to fine-tune on.
    """

    question_set: str
    path: str | None = None
    medqa: str | None = None
    medmcqa: str | None = None
    pubmedqa: str | None = None
    mmlu_medical: str | None = None
    seed: int = 0
    answer: str | None = None
    shots: int = 0
    chat: bool | None = None
    fractions: Mapping[str, float] | None = None
    limit: int | None = None
    train_limit: int | None = 0
    answers_from: int | None = None
    open_data: bool = False

    def load(self) -> TaskData:
        """One example per question. Raises UserError for a file, a line of it or a parameter that is not valid."""
        self._check()
        fractions = None if self.fractions is None else checked_fractions(self.fractions)
        names = COLLECTIONS.get(self.question_set, (self.question_set,))
        examples, groups, files, fetched, count = [], [], {}, {}, 0
        for name in names:
            key = "path" if len(names) == 1 else name
            question_set, path = SETS[name], getattr(self, key)
            root = located(name, path, question_set.source, f"task.{key}")
            read = _with_repeats(question_set.read(root, self.seed, self.answers_from), across=fractions is not None)
            read = _divided(read, fractions, self.seed)
            count += len(read)
            files |= {f"{name}/{file}": digest for file, digest in digests(root).items()}
            fetched |= hub_files.origin(name, path, root).get("hub", {})
            # Train of some sets is a hundred times as large as the rest; only what fine-tuning needs is kept of it.
            kept = self._limited(read)
            examples += self._examples(name, question_set, read, kept)
            groups += [item.group for item in kept]
        settings: dict[str, Any] = {
            "task": self.question_set, "answer": [self.answer or SETS[name].answer for name in names],
            "shots": self.shots, "chat": self.chat, "fractions": fractions, "limit": self.limit, "seed": self.seed,
        }  # fmt: skip
        settings |= {} if self.train_limit == 0 else {"train_limit": self.train_limit}
        return TaskData(
            name=self.question_set,
            kind="multiple_choice",
            examples=tuple(examples),
            open_data=self.open_data or all(SETS[name].public for name in names),
            fingerprint=fingerprint(tuple(examples), settings),
            provenance={"source": files, "settings": settings} | ({"hub": fetched} if fetched else {}),
            cohort=_cohort(count, examples),
            groups={"set": tuple(groups)} if len(set(groups)) > 1 else {},
            chat=self.chat,
        )

    def _check(self) -> None:
        check_choice("question_set", self.question_set, (*SETS, *COLLECTIONS))
        check_numbers(
            shots=(self.shots, 0), limit=(self.limit, 1), train_limit=(self.train_limit, 0), seed=(self.seed, 0)
        )
        if self.answer not in (None, *ANSWERS):
            raise UserError(f"task.answer={self.answer!r}: it is letter or text, or null for what the benchmark does.")
        if self.answers_from not in (None, 0, 1):
            raise UserError(f"task.answers_from={self.answers_from!r}: the first option is number 0 or 1.")

    def _limited(self, read: Sequence[Item]) -> list[Item]:
        """The questions to keep: at most `limit` of pilot and of test and `train_limit` of train, split after split."""
        most = {"train": self.train_limit, "pilot": self.limit, "test": self.limit}
        kept = limited(read, lambda item: (item.split, position("order", self.seed, item.location)), most)
        return sorted(kept, key=lambda item: SPLITS.index(item.split))

    def _examples(
        self, name: str, question_set: QuestionSet, read: Sequence[Item], kept: Sequence[Item]
    ) -> list[Example]:
        answer = self.answer or question_set.answer
        train: dict[str, list[Item]] = {}
        for item in sorted(read, key=lambda item: position("shot", self.seed, item.location)):
            if item.split == "train":
                train.setdefault(item.group, []).append(item)
        examples = []
        for item in kept:
            shown = _shots(item, train.get(item.group, []), self.shots)
            worked = "".join(
                f"{''.join(_parts(other, question_set, answer))} {_answer(other, answer)}\n\n" for other in shown
            )
            prefix, context, suffix = _parts(item, question_set, answer)
            description = question_set.description.format(group=item.group.replace("_", " "))
            options = ascii_uppercase[: len(item.options)] if answer == "letter" else item.options
            example = Example(
                uid=f"{name}:{item.group}:{item.location}", subject=f"{name}:{item.group}:{item.same}",
                split=item.split, prefix=f"{description}{worked}{prefix}", context=context, suffix=suffix,
                options=tuple((option,) for option in options), gold=item.right,
            )  # fmt: skip
            examples.append(example)
        return examples


def _cohort(count: int, examples: Sequence[Example]) -> list[dict[str, Any]]:
    scored = [(example.split, example.subject) for example in examples if example.split != "train"]
    train = len(examples) - len(scored)
    return [
        {"step": "read", "questions": count},
        {"step": "asked, not train", "questions": len(scored)},
        *distinct_step("questions", len(scored), len(set(scored))),
        *([{"step": "of train, to teach", "questions": train}] if train else []),
    ]


def _with_repeats(read: Sequence[Item], *, across: bool) -> list[Item]:
    """The items, each with the location of the first equal item. UserError for a file with its copy."""
    repeats, marked = Repeats(across), []
    for item in read:
        parts = (item.group, item.question.strip(), item.context.strip(), item.options)
        marked.append(replace(item, same=repeats.first(item.location, item.split, parts)))
    repeats.check()
    return marked


def _divided(read: Sequence[Item], fractions: Mapping[str, float] | None, seed: int) -> list[Item]:
    """The items with the splits of their files, or with splits drawn anew by the fractions."""
    if fractions is None:
        return list(read)
    return [replace(item, split=split_of(f"{item.group}:{item.same}", seed=seed, fractions=fractions)) for item in read]


def _shots(item: Item, train: Sequence[Item], shots: int) -> list[Item]:
    """Worked examples from train, the same for every item except the item itself."""
    shown = list(islice((other for other in train if other.question != item.question), shots))
    if len(shown) < shots:
        raise UserError(
            f"task.shots={shots}: worked examples come from train alone, and train of {item.group} has {len(shown)} to "
            "show. Use fewer, give a folder with a train file, or a share for train in task.fractions."
        )
    return shown


def _parts(item: Item, question_set: QuestionSet, answer: str) -> tuple[str, str, str]:
    """Prefix, context and suffix of the question."""
    suffix = f"{question_set.question}{item.question}\n"
    if answer == "letter":
        options = zip(ascii_uppercase, item.options, strict=False)
        suffix += question_set.listed + "".join(f"{letter}. {text}\n" for letter, text in options)
    return ("Abstract: ", item.context, f"\n{suffix}Answer:") if item.context else ("", "", f"{suffix}Answer:")


def _answer(item: Item, answer: str) -> str:
    return ascii_uppercase[item.right] if answer == "letter" else item.options[item.right]
