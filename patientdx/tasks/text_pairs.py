"""Texts beside what was written of them by hand: what the tasks share that have a model write the same.

A task says which columns its file has, how it asks, and where an answer ends; splits, sizes, worked examples and what
is wrong with a file are here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.records.splits import SPLITS, checked_fractions, position, split_of
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint
from patientdx.tasks.hub_files import origin
from patientdx.tasks.item_files import first, rows
from patientdx.tasks.multiple_choice import place_of, split_files
from patientdx.tasks.prediction import check_numbers
from patientdx.tasks.repeats import Repeats, told_apart

VERSION = 1  # raise it when the same file comes to give other prompts, or when answers come to be compared otherwise
ENDS = ("</s>", "<|im_end|>")  # end marks that a model writes out as text
PATIENT = ("subject_id", "patient_id")  # columns that name the patient
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Pair:
    """A text and what was written of it; `place` is its file and line, `subject` the patient or else the pair itself.

    `same`: the place of the first pair that is equal to it, and of the same patient where the file names one.
    `heading`: what of several things was written. `group`: what the pair belongs to.
    """

    place: str
    same: str
    split: str
    subject: str
    text: str
    written: str
    heading: str = ""
    group: str = ""


@dataclass(frozen=True)
class Corpus:
    """How the files of a task are read, and how it asks.

    `columns`: sets of columns, one of which a row must have; `pair` makes text and written of a row that has one.
    `ask(heading)`: what stands before the text and after it. `source`: where the files can be had. `complete`:
    rows without text or written are left out and counted under this name; None: they are refused. `leave`: words in the
    names of files beside the others that hold no such pairs.
    """

    name: str
    columns: tuple[tuple[str, ...], ...]
    pair: Callable[[Mapping[str, Any]], tuple[str, str]]
    ask: Callable[[str], tuple[str, str]]
    stops: tuple[str, ...]
    source: str
    heading: str | None = None
    group: tuple[str, str] | None = None
    complete: str | None = None
    leave: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """The keywords that all of these tasks take, as conf/task/dialogue_to_section.yaml explains them."""

    path: str | None
    seed: int
    shots: int
    chat: bool | None
    new_tokens: int
    fractions: Mapping[str, float] | None
    limit: int | None
    train_limit: int | None
    bertscore: str | None
    open_data: bool


def task(corpus: Corpus, asked: Request) -> TaskData:
    """The task of a corpus. Raises UserError for a parameter, a file or a line of it that will not do."""
    check_numbers(
        shots=(asked.shots, 0), new_tokens=(asked.new_tokens, 1), limit=(asked.limit, 1), seed=(asked.seed, 0)
    )
    if asked.train_limit is not None:
        check_numbers(train_limit=(asked.train_limit, 0))
    shares = None if asked.fractions is None else checked_fractions(asked.fractions)
    encoder = None if asked.bertscore is None else encoder_digest(asked.bertscore)
    place = place_of(corpus, asked.path)
    files = split_files(place, leave=corpus.leave)
    steps: Counter[str] = Counter()
    kept = first(
        _pairs(corpus, files, asked, shares, steps),
        lambda one: (one.split, position("order", asked.seed, one.place)),
        {"train": asked.train_limit, "pilot": asked.limit, "test": asked.limit},
    )
    if not kept:
        raise UserError(f"{asked.path} holds no row {corpus.complete or 'to ask about'}. {corpus.source}")
    train = sorted(
        (one for one in kept if one.split == "train"), key=lambda one: position("shot", asked.seed, one.place)
    )
    examples = tuple(_example(corpus, one, train, asked.shots) for one in kept)
    settings: dict[str, Any] = {
        "task": corpus.name, "version": VERSION, "shots": asked.shots, "chat": asked.chat,
        "new_tokens": asked.new_tokens, "stops": corpus.stops, "fractions": shares, "limit": asked.limit,
        "train_limit": asked.train_limit, "seed": asked.seed, "bertscore": encoder, "open_data": asked.open_data,
    }  # fmt: skip
    read = [{"step": step, "items": count} for step, count in steps.items()]
    found = Counter(one.split for one in kept)
    left = [{"step": "kept", "items": len(kept), **{name: found[name] for name in SPLITS if found[name]}}]
    different = len({(one.split, one.same) for one in kept})
    left += told_apart("items", len(kept), different)
    group = corpus.group[0] if corpus.group is not None else ""
    return TaskData(
        name=corpus.name,
        kind="generation",
        examples=examples,
        open_data=asked.open_data,
        fingerprint=fingerprint(examples, settings),
        provenance={"source": {name: sha256(file) for file, name, _ in files}, "settings": settings}
        | origin(corpus.name, asked.path, place),
        cohort=[*read, *left],
        groups={group: tuple(one.group for one in kept)} if len({one.group for one in kept}) > 1 else {},
        chat=asked.chat,
        generation=Generation(asked.new_tokens, corpus.stops, encoder=asked.bertscore),
    )


def encoder_digest(folder: str) -> str:
    """sha256 over what is in an encoder's folder: config, weights, tokenizer. UserError where it holds no such model."""
    place = Path(folder).expanduser()
    weights = [file for pattern in _WEIGHTS for file in sorted(place.glob(pattern))]
    if not (place / "config.json").is_file() or not weights:
        raise UserError(
            f"task.bertscore={folder} is no folder of an encoder with config.json, weights and tokenizer. Nothing is "
            "downloaded: give such a folder, of RoBERTa for example, or leave bertscore out."
        )
    files = {*weights, *place.glob("*.json"), *place.glob("*.txt")}
    return "+".join(sha256(file)[:16] for file in sorted(files))


def _pairs(
    corpus: Corpus,
    files: Sequence[tuple[Path, str, str]],
    asked: Request,
    shares: Mapping[str, float] | None,
    steps: Counter[str],
) -> Iterator[Pair]:
    """The pairs of all files, with the splits of their files or drawn by patient; `steps` counts them.

    UserError for a row that will not do, and for a file beside its copy.
    """
    repeats = Repeats(across=shares is not None)
    for file, name, split in files:
        read = rows(file, name, header=True)
        for place, row in tqdm(read, desc=name, unit="row", delay=5, leave=False, disable=None):
            steps["read"] += 1
            _check_columns(corpus, place, row, asked.open_data)
            text, written = (part.replace("\r\n", "\n").strip() for part in corpus.pair(row))
            if not text or not written:
                if corpus.complete is None:
                    lacking = "the text" if not text else "what was written of it"
                    raise UserError(
                        f"{place}: {lacking} is empty ({' and '.join(corpus.columns[0])} are needed). "
                        "Fill it, or take the row out."
                    )
                continue
            if corpus.complete is not None:
                steps[corpus.complete] += 1
            heading = "" if corpus.heading is None else str(row[corpus.heading] or "").strip()
            if corpus.heading is not None and not heading:
                raise UserError(f"{place}: {corpus.heading} is empty. Fill it, or take the row out.")
            patient = next((row[name] for name in PATIENT if row.get(name) not in (None, "")), None)
            same = repeats.first(place, split, (str(patient), heading, text, written))
            # What a benchmark has twice is one; equal reports of a hospital are of different patients.
            subject = f"{corpus.name}:{same if corpus.complete is None else place}"
            # A patient's number is what the tasks of records have it by: one patient, one split, in all of them.
            subject = subject if patient is None else str(patient)
            yield Pair(
                place=place,
                same=same,
                split=split if shares is None else split_of(subject, seed=asked.seed, fractions=shares),
                subject=subject,
                text=text,
                written=written,
                heading=heading,
                group="" if corpus.group is None else str(row.get(corpus.group[1]) or "").strip(),
            )
    repeats.check()


def _check_columns(corpus: Corpus, place: str, row: Mapping[str, Any], open_data: bool) -> None:
    if any(all(name in row for name in names) for names in corpus.columns):
        return
    # The first line of a file without a header is a record.
    there = f"Its columns are {', '.join(row) or 'none'}" if open_data else f"It has {len(row)} columns"
    wanted = ", or ".join(" and ".join(names) for names in corpus.columns)
    raise UserError(f"{place}: task={corpus.name} needs the columns {wanted}. {there}. {corpus.source}")


def _example(corpus: Corpus, one: Pair, train: Sequence[Pair], shots: int) -> Example:
    others = (other for other in train if other.subject != one.subject and other.text != one.text)
    shown = list(islice(others, shots))
    if len(shown) < shots:
        raise UserError(
            f"task.shots={shots}: worked examples come from train alone, which has {len(train)} to show, none of them "
            "of the patient or the text that is asked about. Use fewer, give a folder with a train file, a share for "
            "train in task.fractions, or a larger task.train_limit."
        )
    worked = ""
    for other in shown:
        before, after = corpus.ask(other.heading)
        worked += f"{before}{other.text}{after} {other.written}\n\n"
    before, after = corpus.ask(one.heading)
    return Example(
        uid=f"{corpus.name}:{one.place}", subject=one.subject, split=one.split, prefix=worked + before, context=one.text,
        suffix=after, reference=one.written,
    )  # fmt: skip
