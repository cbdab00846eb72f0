"""What a model made here was taught: a parent is not to be asked in pilot or test what it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.evaluation.store import read_json, write_json
from patientdx.tasks.example import Example, TaskData

SEEN = "seen.json"  # of a model's folder


def digest(example: Example) -> str:
    """16 hexadecimal digits of the SHA-256 of what is asked, without worked examples where these stand apart.

    Whole texts, so that no digest can be turned back into one.
    """
    asked = f"{example.context}\n{example.suffix}" if example.context or example.suffix else example.prefix
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def leave(folder: Path, taught: Iterable[Example]) -> None:
    """Write beside a model's weights what it was taught, as digests."""
    write_json({"questions": sorted(set(map(digest, taught)))}, folder / SEEN)


def refuse(parents: Iterable[tuple[str, Path]], data: TaskData, splits: Iterable[str]) -> None:
    """UserError where one of the parents, each a name and a folder, was taught what one of the splits asks."""
    for name, folder in parents:
        told = read_json(folder / SEEN)
        if told is None:
            continue
        taught = set(told["questions"])
        for split in splits:
            asked = [digest(example) for example in data.examples if example.split == split]
            if known := sum(one in taught for one in asked):
                raise UserError(
                    f"{name} was trained on {known} of the {len(asked)} questions of task={data.name} that the {split} "
                    "split asks, so its score would be of what it was taught. Take the seed, task.fractions and files "
                    f"of its training ({folder / 'training.json'}), another hospital, or another model."
                )
