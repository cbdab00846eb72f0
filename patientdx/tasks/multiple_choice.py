"""Multiple choice: questions with options, of which one is right, from files of any such benchmark.

Scored by the letter of an option or by its text. The named benchmarks (medqa, medmcqa, pubmedqa, mmlu_medical) say
which files they have and how they ask; everything else about them is here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from patientdx.core.errors import UserError
from patientdx.records.splits import SPLITS, checked_fractions, position, split_of
from patientdx.tasks import hub_files
from patientdx.tasks.example import Example, TaskData, fingerprint
from patientdx.tasks.item_columns import Item, items
from patientdx.tasks.item_files import SPLIT_WORDS, SUFFIXES, rows
from patientdx.tasks.prediction import check_numbers
from patientdx.tasks.repeats import Repeats, told_apart

ANSWERS = ("letter", "text")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")  # what the hub puts behind a split's name


@dataclass(frozen=True)
class Wording:
    """How a question is asked; the words are those of lm-evaluation-harness 0.4.13, so that numbers compare.

    description: before everything, with the place {group}. question: before the question. listed: before the list of
    options. answer: letter or text, where the user names neither.
    """

    description: str = ""
    question: str = "Question: "
    listed: str = ""
    answer: str = "letter"


@dataclass(frozen=True)
class Benchmark:
    """A named set of questions: how it asks, what reads its folder or file, and where that can be had."""

    name: str
    wording: Wording
    read: Callable[[Path, int, int | None], list[Item]]
    source: str


@dataclass(frozen=True)
class Request:
    """The keywords that every task of this kind takes, as conf/task/medqa.yaml explains them."""

    seed: int
    answer: str | None
    shots: int
    chat: bool | None
    fractions: Mapping[str, float] | None
    limit: int | None
    answers_from: int | None = None
    train_limit: int | None = 0


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    answer: str | None = None,
    shots: int = 0,
    chat: bool | None = None,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 0,
    answers_from: int | None = None,
    open_data: bool = False,
) -> TaskData:
    """Any file or folder of multiple-choice questions; every keyword is explained in conf/task/multiple_choice.yaml.

    Raises UserError for a file, a line of it or a parameter that will not do.
    """
    asked = Request(seed, answer, shots, chat, fractions, limit, answers_from, train_limit)
    own = Benchmark("multiple_choice", Wording(), read, "any jsonl, json, csv, tsv or parquet file of such questions")
    return task("multiple_choice", [(own, path)], asked, open_data=open_data)


def task(
    name: str, parts: Sequence[tuple[Benchmark, str | None]], asked: Request, *, open_data: bool = True
) -> TaskData:
    """The task of these benchmarks, each with the file or folder that the user gives for it."""
    check_numbers(shots=(asked.shots, 0), limit=(asked.limit, 1), seed=(asked.seed, 0))
    if asked.train_limit is not None:
        check_numbers(train_limit=(asked.train_limit, 0))
    if asked.answer not in (None, *ANSWERS):
        raise UserError(f"task.answer={asked.answer!r}: it is letter or text, or null for what the benchmark does.")
    if asked.answers_from not in (None, 0, 1):
        raise UserError(f"task.answers_from={asked.answers_from!r}: the first option is number 0 or 1.")
    shares = None if asked.fractions is None else checked_fractions(asked.fractions)
    examples, groups, files, fetched, count = [], [], {}, {}, 0
    for benchmark, path in parts:
        place = place_of(benchmark, path, "task.path" if len(parts) == 1 else f"task.{benchmark.name}")
        found = _alike(benchmark.read(place, asked.seed, asked.answers_from), across=shares is not None)
        found = _divided(found, shares, asked.seed)
        count += len(found)
        files |= {f"{benchmark.name}/{file}": digest for file, digest in digests(place).items()}
        fetched |= hub_files.origin(benchmark.name, path, place).get("hub", {})
        # Train is there to be shown: of some benchmarks it is a hundred times as large as all that is asked. To be
        # fine-tuned on, so much of it as is wanted comes along.
        kept = _limited([one for one in found if one.split == "train"], asked.train_limit, asked.seed)
        kept += _limited([one for one in found if one.split != "train"], asked.limit, asked.seed)
        examples += _examples(benchmark, found, kept, asked)
        groups += [item.group for item in kept]
    settings: dict[str, Any] = {
        "task": name, "answer": [asked.answer or benchmark.wording.answer for benchmark, _ in parts],
        "shots": asked.shots, "chat": asked.chat, "fractions": shares, "limit": asked.limit, "seed": asked.seed,
    }  # fmt: skip
    settings |= {} if asked.train_limit == 0 else {"train_limit": asked.train_limit}
    taught = sum(example.split == "train" for example in examples)
    different = len({(example.split, example.subject) for example in examples if example.split != "train"})
    return TaskData(
        name=name,
        kind="multiple_choice",
        examples=tuple(examples),
        open_data=open_data,
        fingerprint=fingerprint(tuple(examples), settings),
        provenance={"source": files, "settings": settings} | ({"hub": fetched} if fetched else {}),
        cohort=[
            {"step": "read", "questions": count},
            {"step": "asked, not train", "questions": len(examples) - taught},
            *told_apart("questions", len(examples) - taught, different),
            *([{"step": "of train, to teach", "questions": taught}] if taught else []),
        ],
        groups={"set": tuple(groups)} if len(set(groups)) > 1 else {},
        chat=asked.chat,
    )


def place_of(benchmark: Benchmark, path: str | None, key: str = "task.path") -> Path:
    """The file or folder of a benchmark, given as `key`, of this machine or fetched from the hub.

    Raises UserError where none is given or there is nothing.
    """
    if path is None:
        raise UserError(
            f"{key} is missing: {benchmark.name} is read from a local file or folder, or from {hub_files.FORM}. "
            f"{benchmark.source}"
        )
    if path.startswith(hub_files.PREFIX):
        return hub_files.fetched(path, key)
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(
            f"{path} does not exist. Give a local file or folder, or {hub_files.FORM}: nothing else is downloaded. "
            f"{benchmark.source}"
        )
    return place


def split_files(
    place: Path, words: Mapping[str, str] = SPLIT_WORDS, leave: Sequence[str] = ()
) -> list[tuple[Path, str, str]]:
    """(file, its name below `place`, its split) for each file of questions; a single file is the test split.

    In a folder a file's split is a word of its name, or else of its folder's name; other files are left alone, and so
    are those with a word of `leave` in their names.
    """
    if place.is_file():
        return [(place, place.name, "test")]
    found = []
    for file in sorted(place.rglob("*")):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            name = file.relative_to(place)
            parts = (file.stem, *reversed(name.parent.parts))
            named = [word for part in parts for word in re.split(r"[^a-z]+", part.lower())]
            said = [words[word] for word in named if word in words]
            found += [(file, name.as_posix(), said[0])] if said and not set(named) & set(leave) else []
    if not found:
        raise UserError(
            f"{place} holds no file whose name says its split ({', '.join(words)}) and ends in {', '.join(SUFFIXES)}. "
            "Name the files so, or give one file as task.path: it is then the test split."
        )
    return found


def read(place: Path, seed: int, answers_from: int | None, *, group: str | None = None) -> list[Item]:
    """The items of a file or folder, each file a split, as `split_files` has it. `seed` is not needed.

    group: what the items belong to; None: what a file's name says beside its split, or else the folder's name.
    """
    found = []
    for file, name, split in split_files(place):
        stem = _SHARD.sub("", file.stem)
        words = [word for word in re.split(r"[^A-Za-z0-9]+", stem) if word.lower() not in SPLIT_WORDS]
        own = group or "_".join(words) or hub_files.name_of(file.parent)
        found += items(rows(file, name), split=split, group=own, answers_from=answers_from)
    return found


def digests(place: Path) -> dict[str, str]:
    """sha256 of every file of questions at `place`, by its name there."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES)
    names = [file.name if file == place else file.relative_to(place).as_posix() for file in files]
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in zip(names, files, strict=True)}


def _alike(found: Sequence[Item], *, across: bool) -> list[Item]:
    """The items, each with the place of the first of its set that is equal. UserError for a file beside its copy."""
    repeats, marked = Repeats(across), []
    for one in found:
        parts = (one.group, one.question.strip(), one.context.strip(), one.options)
        marked.append(replace(one, same=repeats.first(one.place, one.split, parts)))
    repeats.check()
    return marked


def _divided(found: Sequence[Item], shares: Mapping[str, float] | None, seed: int) -> list[Item]:
    """The items with the splits of their files, or drawn anew where shares are given."""
    if shares is None:
        return list(found)
    return [replace(one, split=split_of(f"{one.group}:{one.same}", seed=seed, fractions=shares)) for one in found]


def _limited(found: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """The first `limit` of each split in an order fixed by seed and item, back in the order of the files."""
    kept: list[Item] = []
    for split in SPLITS:
        own = [one for one in found if one.split == split]
        if limit is not None:
            chosen = set(sorted(range(len(own)), key=lambda i: position("order", seed, own[i].place))[:limit])
            own = [one for i, one in enumerate(own) if i in chosen]
        kept += own
    return kept


def _examples(benchmark: Benchmark, found: Sequence[Item], kept: Sequence[Item], asked: Request) -> list[Example]:
    answer, wording = asked.answer or benchmark.wording.answer, benchmark.wording
    ranked: dict[str, list[Item]] = {}
    for item in sorted(found, key=lambda one: position("shot", asked.seed, one.place)):
        if item.split == "train":
            ranked.setdefault(item.group, []).append(item)
    examples = []
    for item in kept:
        shown = _shots(item, ranked.get(item.group, []), asked.shots)
        worked = "".join(f"{''.join(_asked(one, wording, answer))} {_said(one, answer)}\n\n" for one in shown)
        before, record, after = _asked(item, wording, answer)
        options = ascii_uppercase[: len(item.options)] if answer == "letter" else item.options
        uid = f"{benchmark.name}:{item.group}:{item.place}"
        opening = wording.description.format(group=item.group.replace("_", " "))
        examples.append(Example(
            uid=uid, subject=f"{benchmark.name}:{item.group}:{item.same}", split=item.split,
            prefix=f"{opening}{worked}{before}", context=record, suffix=after,
            options=tuple((option,) for option in options), gold=item.right,
        ))  # fmt: skip
    return examples


def _shots(item: Item, ranked: Sequence[Item], shots: int) -> list[Item]:
    """Worked examples from train, the same for every item unless it is one of them itself."""
    shown = list(islice((one for one in ranked if one.question != item.question), shots))
    if len(shown) < shots:
        raise UserError(
            f"task.shots={shots}: worked examples come from train alone, and train of {item.group} has {len(shown)} to "
            "show. Use fewer, give a folder with a train file, or a share for train in task.fractions."
        )
    return shown


def _asked(item: Item, wording: Wording, answer: str) -> tuple[str, str, str]:
    """The question's parts: what stands before its context, the context, and all after it."""
    after = f"{wording.question}{item.question}\n"
    if answer == "letter":
        options = zip(ascii_uppercase, item.options, strict=False)
        after += wording.listed + "".join(f"{letter}. {text}\n" for letter, text in options)
    return ("Abstract: ", item.context, f"\n{after}Answer:") if item.context else ("", "", f"{after}Answer:")


def _said(item: Item, answer: str) -> str:
    return ascii_uppercase[item.right] if answer == "letter" else item.options[item.right]
