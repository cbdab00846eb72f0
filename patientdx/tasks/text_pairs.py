"""Tasks over texts with their references: the model writes a text, which is compared with the one written by hand.

The corpora are in corpora.py; splits, sizes, worked examples and errors of a file are here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from patientdx.core.cache import draw_secret
from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.core.progress import progress
from patientdx.records.parameters import check_choice, check_numbers
from patientdx.records.splits import SPLITS, checked_fractions, position, split_of
from patientdx.tasks.corpora import CORPORA, Corpus
from patientdx.tasks.data_files import located, split_files
from patientdx.tasks.example import Example, Generation, TaskData, fingerprint
from patientdx.tasks.hub_files import origin
from patientdx.tasks.item_files import limited, rows
from patientdx.tasks.repeats import Repeats, distinct_step

VERSION = 1  # raise it when the same file gives other prompts, or when answers are compared in another way
PATIENT = ("subject_id", "patient_id")  # columns that name the patient
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Pair:
    """A text and its reference.

    Attributes:
        location: its file and line. same: location of the first pair that is equal to it (and of the same patient where
            the file names one).
        subject: the patient, or else the pair itself.
        heading: which of several texts was written. group: what the pair belongs to.
    """

    location: str
    same: str
    split: str
    subject: str
    text: str
    reference: str
    heading: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class TextPairsTask:
    """The keys of all tasks over texts with references, as conf/task/_text_pairs.yaml explains them.

    `corpus` is a key of CORPORA.
    """

    corpus: str
    cache: Path
    path: str | None = None
    new_tokens: int
    seed: int = 0
    shots: int = 0
    chat: bool | None = None
    fractions: Mapping[str, float] | None = None
    limit: int | None = None
    train_limit: int | None = 1000
    bertscore: str | None = None
    open_data: bool = False

    def load(self) -> TaskData:
        """One example per pair. Raises UserError for a parameter, a file or a line of it that is not valid."""
        check_choice("corpus", self.corpus, CORPORA)
        corpus = CORPORA[self.corpus]
        check_numbers(
            shots=(self.shots, 0), new_tokens=(self.new_tokens, 1), limit=(self.limit, 1), seed=(self.seed, 0),
            train_limit=(self.train_limit, 0),
        )  # fmt: skip
        fractions = None if self.fractions is None else checked_fractions(self.fractions)
        encoder = None if self.bertscore is None else encoder_digest(self.bertscore)
        root = located(self.corpus, self.path, corpus.source)
        files = split_files(root, excluded=corpus.excluded)
        steps: Counter[str] = Counter()
        kept = limited(
            self._pairs(corpus, files, fractions, steps),
            lambda pair: (pair.split, position("order", self.seed, pair.location)),
            {"train": self.train_limit, "pilot": self.limit, "test": self.limit},
        )
        if not kept:
            raise UserError(f"{self.path} holds no row {corpus.complete or 'to ask about'}. {corpus.source}")
        train = [pair for pair in kept if pair.split == "train"]
        train.sort(key=lambda pair: position("shot", self.seed, pair.location))
        examples = tuple(self._example(corpus, pair, train) for pair in kept)
        settings: dict[str, Any] = {
            "task": self.corpus, "version": VERSION, "shots": self.shots, "chat": self.chat,
            "new_tokens": self.new_tokens, "stops": corpus.all_stops, "fractions": fractions, "limit": self.limit,
            "train_limit": self.train_limit, "seed": self.seed, "bertscore": encoder, "open_data": self.open_data,
        }  # fmt: skip
        group = corpus.group[0] if corpus.group is not None else ""
        return TaskData(
            name=self.corpus,
            kind="generation",
            examples=examples,
            open_data=self.open_data,
            fingerprint=fingerprint(examples, settings),
            provenance={"source": {name: sha256(file) for file, name, _ in files}, "settings": settings}
            | origin(self.corpus, self.path, root),
            cohort=_cohort(steps, kept),
            groups={group: tuple(pair.group for pair in kept)} if len({pair.group for pair in kept}) > 1 else {},
            chat=self.chat,
            generation=Generation(self.new_tokens, corpus.all_stops, encoder=self.bertscore),
        )

    def _pairs(
        self,
        corpus: Corpus,
        files: Sequence[tuple[Path, str, str]],
        fractions: Mapping[str, float] | None,
        steps: Counter[str],
    ) -> Iterator[Pair]:
        """The pairs of all files, with the splits of their files or drawn by patient; `steps` counts them.

        UserError for a row that is not valid, and for a file with its copy.
        """
        repeats = Repeats(across=fractions is not None)
        secret = draw_secret(self.cache, open_data=self.open_data)
        draw: dict[str, Any] = {"seed": self.seed, "fractions": fractions, "secret": secret}
        for file, name, split in files:
            lines = rows(file, name, header=True)
            for location, row in progress(lines, desc=name, unit="row", delay=5, leave=False):
                steps["read"] += 1
                self._check_columns(corpus, location, row)
                text, reference = (part.replace("\r\n", "\n").strip() for part in corpus.read(row))
                if not _is_complete(corpus, location, text, reference):
                    continue
                if corpus.complete is not None:
                    steps[corpus.complete] += 1
                heading = _heading(corpus, location, row)
                patient = next((row[column] for column in PATIENT if row.get(column) not in (None, "")), None)
                same = repeats.first(location, split, (str(patient), heading, text, reference))
                # A repeat of a benchmark is one item; equal reports of a hospital are of different patients. A patient
                # has the number that the tasks over records use: one patient, one split, in all of them.
                item = f"{self.corpus}:{same if corpus.complete is None else location}"
                subject = item if patient is None else str(patient)
                yield Pair(
                    location=location,
                    same=same,
                    split=split if fractions is None else split_of(subject, **draw),
                    subject=subject,
                    text=text,
                    reference=reference,
                    heading=heading,
                    group="" if corpus.group is None else str(row.get(corpus.group[1]) or "").strip(),
                )
        repeats.check()

    def _check_columns(self, corpus: Corpus, location: str, row: Mapping[str, Any]) -> None:
        if any(all(name in row for name in names) for names in corpus.columns):
            return
        # The first line of a file without a header is a record.
        there = f"Its columns are {', '.join(row) or 'none'}" if self.open_data else f"It has {len(row)} columns"
        needed = ", or ".join(" and ".join(names) for names in corpus.columns)
        raise UserError(f"{location}: task={self.corpus} needs the columns {needed}. {there}. {corpus.source}")

    def _example(self, corpus: Corpus, pair: Pair, train: Sequence[Pair]) -> Example:
        others = (other for other in train if other.subject != pair.subject and other.text != pair.text)
        shown = list(islice(others, self.shots))
        if len(shown) < self.shots:
            raise UserError(
                f"task.shots={self.shots}: worked examples come from train alone, which has {len(train)} to show, none "
                "of them of the patient or the text that is asked about. Use fewer, give a folder with a train file, a "
                "share for train in task.fractions, or a larger task.train_limit."
            )
        worked = ""
        for other in shown:
            prefix, suffix = corpus.prompt(other.heading)
            worked += f"{prefix}{other.text}{suffix} {other.reference}\n\n"
        prefix, suffix = corpus.prompt(pair.heading)
        return Example(
            uid=f"{self.corpus}:{pair.location}", subject=pair.subject, split=pair.split, prefix=worked + prefix,
            context=pair.text, suffix=suffix, reference=pair.reference,
        )  # fmt: skip


def encoder_digest(folder: str) -> str:
    """sha256 over the files of an encoder: config, weights, tokenizer. UserError where the folder holds no encoder."""
    root = expanded(folder)
    weights = [file for pattern in _WEIGHTS for file in sorted(root.glob(pattern))]
    if not (root / "config.json").is_file() or not weights:
        raise UserError(
            f"task.bertscore={folder} is no folder of an encoder with config.json, weights and tokenizer. Nothing is "
            "downloaded: give such a folder, of RoBERTa for example, or leave bertscore out."
        )
    files = {*weights, *root.glob("*.json"), *root.glob("*.txt")}
    return "+".join(sha256(file)[:16] for file in sorted(files))


def _cohort(steps: Counter[str], kept: Sequence[Pair]) -> list[dict[str, Any]]:
    sizes = Counter(pair.split for pair in kept)
    return [
        *({"step": step, "items": count} for step, count in steps.items()),
        {"step": "kept", "items": len(kept), **{name: sizes[name] for name in SPLITS if sizes[name]}},
        *distinct_step("items", len(kept), len({(pair.split, pair.same) for pair in kept})),
    ]


def _is_complete(corpus: Corpus, location: str, text: str, reference: str) -> bool:
    """Whether a row has text and reference; UserError if not and the corpus does not allow it."""
    if text and reference:
        return True
    if corpus.complete is None:
        lacking = "the text" if not text else "what was written of it"
        raise UserError(
            f"{location}: {lacking} is empty ({' and '.join(corpus.columns[0])} are needed). "
            "Fill it, or take the row out."
        )
    return False


def _heading(corpus: Corpus, location: str, row: Mapping[str, Any]) -> str:
    if corpus.heading is None:
        return ""
    heading = str(row[corpus.heading] or "").strip()
    if not heading:
        raise UserError(f"{location}: {corpus.heading} is empty. Fill it, or take the row out.")
    return heading
