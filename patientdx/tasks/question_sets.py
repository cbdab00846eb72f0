"""The named sets of multiple-choice questions as data: who made them, how they ask, and how their files are read.

A new set is one entry of SETS and one yaml in conf/task/. The words are those of lm-evaluation-harness 0.4.13, so that
scores are comparable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.records.splits import position
from patientdx.tasks import hub_files
from patientdx.tasks.data_files import split_files
from patientdx.tasks.item_columns import Item, items
from patientdx.tasks.item_files import SPLIT_WORDS, rows

SUBJECTS = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics", "professional_medicine",
)  # fmt: skip
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")  # the hub appends this to a split's name
# MMLU's dev holds five items per subject, meant as worked examples; its val is called dev elsewhere.
_MMLU_WORDS = SPLIT_WORDS | {"dev": "train", "auxiliary": "auxiliary"}
_LABELLED, _TRUTH = "ori_pqal.json", "test_ground_truth.json"
_PILOT_FRACTION = 0.1  # of the 500 labelled items of PubMedQA that are not in the official test


@dataclass(frozen=True)
class QuestionSet:
    """A set of multiple-choice questions.

    Attributes:
        source: where its files are available.
        read: maps (file or folder, seed, answers_from) to the items.
        public: its questions are known to be public.
        description: text before everything, with {group} for the item's group. question: text before the question.
        listed: text before the list of options.
        answer: "letter" or "text", the default of the user's key.
    """

    source: str
    read: Callable[[Path, int, int | None], list[Item]]
    public: bool = True
    description: str = ""
    question: str = "Question: "
    listed: str = ""
    answer: str = "letter"


def read_files(root: Path, seed: int, answers_from: int | None, *, group: str | None = None) -> list[Item]:
    """The items of a file or folder, with the splits of `split_files`.

    group: the items' group; None: the words of a file's name that are no split, or else the folder's name.
    """
    found_items = []
    for file, name, split in split_files(root):
        stem = _SHARD.sub("", file.stem)
        words = [word for word in re.split(r"[^A-Za-z0-9]+", stem) if word.lower() not in SPLIT_WORDS]
        name_of_group = group or "_".join(words) or hub_files.name_of(file.parent)
        found_items += items(rows(file, name), split=split, group=name_of_group, answers_from=answers_from)
    return found_items


def _read_medmcqa(root: Path, seed: int, answers_from: int | None) -> list[Item]:
    """MedMCQA's items. Its test answers are not public: with a dev file in the folder dev is the test split."""
    files = split_files(root)
    if any(split == "pilot" for *_, split in files):
        files = [(file, name, "test" if split == "pilot" else split) for file, name, split in files if split != "test"]
    return [
        item
        for file, name, split in files
        for item in items(rows(file, name), split=split, group="medmcqa", answers_from=answers_from)
    ]


def _read_pubmedqa(root: Path, seed: int, answers_from: int | None) -> list[Item]:
    """PubMedQA's labelled items: the official files, of which `test_ground_truth.json` names the test; or any others.

    Of the official items outside the test a tenth, drawn with `seed`, is pilot and the rest train.
    """
    official = root.is_dir() and (root / _LABELLED).exists()
    files = [(root / _LABELLED, _LABELLED, "train")] if official else split_files(root)
    labelled = []
    for file, name, split in files:
        labelled += items(
            rows(file, name), split=split, group="pubmedqa", options=("yes", "no", "maybe"), answers_from=answers_from
        )
    labelled = [item if item.context else _with_context(item) for item in labelled]
    if not official:
        return labelled
    try:
        test = set(json.loads((root / _TRUTH).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{_LABELLED} needs {_TRUTH} beside it, which names the official test: {error}") from None
    return [replace(item, split=_official_split(item.location.rpartition(" ")[2], test, seed)) for item in labelled]


def _with_context(item: Item) -> Item:
    """Some copies have the abstract and the question in one text, with the question in its last line."""
    context, _, question = item.question.rstrip().rpartition("\n")
    return replace(item, context=context, question=question) if context else item


def _official_split(pmid: str, test: set[str], seed: int) -> str:
    if pmid in test:
        return "test"
    return "pilot" if position("pilot", seed, pmid) < _PILOT_FRACTION else "train"


def _read_mmlu(root: Path, seed: int, answers_from: int | None) -> list[Item]:
    """MMLU's items of the six subjects: a file per subject and split (anatomy_test.csv), or a column `subject`.

    A single file without that column is one subject, named by the file. Raises UserError where a subject is missing.
    """
    read: list[Item] = []
    for file, name, split in split_files(root, _MMLU_WORDS):
        subject = next((subject for subject in SUBJECTS if file.stem.startswith(subject)), "")
        if split == "auxiliary" or (not subject and root.is_dir() and file.suffix.lower() in (".csv", ".tsv")):
            continue  # another subject of MMLU
        of_file = items(rows(file, name), split=split, group=subject, answers_from=answers_from)
        read += [replace(item, question=item.question.strip()) for item in of_file if item.group in SUBJECTS]
    absent = [name for name in SUBJECTS if not any(item.group == name and item.split == "test" for item in read)]
    if absent and (root.is_dir() or len(absent) == len(SUBJECTS)):
        raise UserError(
            f"{root} has no test questions of {', '.join(absent)}. MMLU has a file for each subject and split, "
            "as test/anatomy_test.csv, or files with a column subject."
        )
    return read


SETS = {
    # United States Medical Licensing Examination (Jin et al., Appl. Sci. 2021; MIT)
    "medqa": QuestionSet(
        "MedQA, the four-option files train.jsonl, dev.jsonl and test.jsonl: github.com/jind11/MedQA.",
        partial(read_files, group="medqa"),
    ),
    # Indian medical entrance examinations (Pal et al., CHIL 2022; Apache-2.0)
    "medmcqa": QuestionSet(
        "MedMCQA, train.json and dev.json: github.com/medmcqa/medmcqa.", _read_medmcqa, listed="Choices:\n"
    ),
    # yes, no or maybe from the abstract of a paper (Jin et al., EMNLP 2019; MIT)
    "pubmedqa": QuestionSet(
        f"PubMedQA, {_LABELLED} and {_TRUTH}: github.com/pubmedqa/pubmedqa.", _read_pubmedqa, answer="text"
    ),
    # the six medical subjects of MMLU (Hendrycks et al., ICLR 2021; MIT)
    "mmlu_medical": QuestionSet(
        "MMLU, the folders dev, val and test: github.com/hendrycks/test.",
        _read_mmlu,
        description="The following are multiple choice questions (with answers) about {group}.\n\n",
        question="",
    ),
    "multiple_choice": QuestionSet(
        "any jsonl, json, csv, tsv or parquet file of such questions", read_files, public=False
    ),
}
# The nine sets of the open medical leaderboard. Accuracy over all questions is the average weighted by size, as
# lm-evaluation-harness' multimedqa has it.
COLLECTIONS = {"medical_qa": ("medqa", "medmcqa", "pubmedqa", "mmlu_medical")}
