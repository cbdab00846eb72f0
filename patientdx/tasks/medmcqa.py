"""Task `medmcqa`: questions of Indian medical entrance examinations (Pal et al., CHIL 2022; Apache-2.0)."""

from collections.abc import Mapping
from pathlib import Path

from patientdx.tasks.example import TaskData
from patientdx.tasks.item_columns import Item, items
from patientdx.tasks.item_files import rows
from patientdx.tasks.multiple_choice import Benchmark, Request, Wording, split_files, task


def read(place: Path, seed: int, answers_from: int | None) -> list[Item]:
    """MedMCQA's items. Its test answers are not public: with a dev file in the folder dev is the test split."""
    files = split_files(place)
    if any(split == "pilot" for *_, split in files):
        files = [(file, name, "test" if split == "pilot" else split) for file, name, split in files if split != "test"]
    found = []
    for file, name, split in files:
        found += items(rows(file, name), split=split, group="medmcqa", answers_from=answers_from)
    return found


MEDMCQA = Benchmark(
    "medmcqa",
    Wording(listed="Choices:\n"),
    read,
    "MedMCQA, train.json and dev.json: github.com/medmcqa/medmcqa.",
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
    answers_from: int | None = None,
) -> TaskData:
    """MedMCQA; every keyword is explained in conf/task/medmcqa.yaml. Raises UserError as `multiple_choice.load` does."""
    asked = Request(seed, answer, shots, chat, fractions, limit, answers_from, train_limit)
    return task("medmcqa", [(MEDMCQA, path)], asked)
