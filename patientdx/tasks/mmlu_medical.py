"""Task `mmlu_medical`: the six medical subjects of MMLU (Hendrycks et al., ICLR 2021; MIT)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.tasks.example import TaskData
from patientdx.tasks.item_columns import Item, items
from patientdx.tasks.item_files import SPLIT_WORDS, rows
from patientdx.tasks.multiple_choice import Benchmark, Request, Wording, split_files, task

SUBJECTS = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics", "professional_medicine",
)  # fmt: skip
# MMLU's dev holds five items a subject, made for showing; val is what others call dev.
WORDS = SPLIT_WORDS | {"dev": "train", "auxiliary": "auxiliary"}


def read(place: Path, seed: int, answers_from: int | None) -> list[Item]:
    """MMLU's items of the six subjects: a file each and split (anatomy_test.csv), or files with a column `subject`.

    A single file without that column is one subject, named by the file. Raises UserError where a subject is not there.
    """
    found: list[Item] = []
    for file, name, split in split_files(place, WORDS):
        own = next((subject for subject in SUBJECTS if file.stem.startswith(subject)), "")
        if split == "auxiliary" or (not own and place.is_dir() and file.suffix.lower() in (".csv", ".tsv")):
            continue  # another subject of MMLU
        read = items(rows(file, name), split=split, group=own, answers_from=answers_from)
        found += [item for item in read if item.group in SUBJECTS]
    found = [replace(item, question=item.question.strip()) for item in found]
    absent = [name for name in SUBJECTS if not any(item.group == name and item.split == "test" for item in found)]
    if absent and (place.is_dir() or len(absent) == len(SUBJECTS)):
        raise UserError(
            f"{place} has no test questions of {', '.join(absent)}. MMLU has a file for each subject and split, "
            "as test/anatomy_test.csv, or files with a column subject."
        )
    return found


MMLU_MEDICAL = Benchmark(
    "mmlu_medical",
    Wording(description="The following are multiple choice questions (with answers) about {group}.\n\n", question=""),
    read,
    "MMLU, the folders dev, val and test: github.com/hendrycks/test.",
)


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
) -> TaskData:
    """MMLU's medical subjects; every keyword is explained in conf/task/mmlu_medical.yaml.

    Raises UserError as `multiple_choice.load` does, and for a folder that lacks a subject.
    """
    asked = Request(seed, answer, shots, chat, fractions, limit, train_limit=train_limit)
    return task("mmlu_medical", [(MMLU_MEDICAL, path)], asked)
