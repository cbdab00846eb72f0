"""Task `pubmedqa`: yes, no or maybe from the abstract of a paper (Jin et al., EMNLP 2019; MIT)."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.records.splits import position
from patientdx.tasks.example import TaskData
from patientdx.tasks.item_columns import Item, items
from patientdx.tasks.item_files import rows
from patientdx.tasks.multiple_choice import Benchmark, Request, Wording, split_files, task

OPTIONS = ("yes", "no", "maybe")
LABELLED, TRUTH = "ori_pqal.json", "test_ground_truth.json"
PILOT = 0.1  # of the 500 labelled items that are not in the official test


def read(place: Path, seed: int, answers_from: int | None) -> list[Item]:
    """PubMedQA's labelled items: the official files, of which `test_ground_truth.json` names the test; or any others.

    Of the official items outside the test a tenth, drawn with `seed`, is pilot and the rest train.
    """
    official = place.is_dir() and (place / LABELLED).exists()
    files = [(place / LABELLED, LABELLED, "train")] if official else split_files(place)
    found = []
    for file, name, split in files:
        found += items(rows(file, name), split=split, group="pubmedqa", options=OPTIONS, answers_from=answers_from)
    found = [one if one.context else _parted(one) for one in found]
    return _officially(found, place / TRUTH, seed) if official else found


def _parted(item: Item) -> Item:
    """Some copies have the abstract and the question in one text, the question in its last line."""
    context, _, question = item.question.rstrip().rpartition("\n")
    return replace(item, context=context, question=question) if context else item


def _officially(found: list[Item], truth: Path, seed: int) -> list[Item]:
    try:
        tested = set(json.loads(truth.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{LABELLED} needs {TRUTH} beside it, which names the official test: {error}") from None
    places = []
    for item in found:
        pmid = item.place.rpartition(" ")[2]
        held_back = position("pilot", seed, pmid) < PILOT
        places.append("test" if pmid in tested else "pilot" if held_back else "train")
    return [replace(item, split=split) for item, split in zip(found, places, strict=True)]


PUBMEDQA = Benchmark(
    "pubmedqa",
    Wording(answer="text"),
    read,
    f"PubMedQA, {LABELLED} and {TRUTH}: github.com/pubmedqa/pubmedqa.",
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
    """PubMedQA; every keyword is explained in conf/task/pubmedqa.yaml. Raises UserError as `multiple_choice.load` does.

    The abstract is the only part of a prompt that is cut where it is too long.
    """
    asked = Request(seed, answer, shots, chat, fractions, limit, train_limit=train_limit)
    return task("pubmedqa", [(PUBMEDQA, path)], asked)
