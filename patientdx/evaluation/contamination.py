"""What a model that was made here was trained on: a parent is not evaluated on its own training examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.evaluation.store import read_json, write_json
from patientdx.tasks.example import Example, TaskData

MANIFEST = "seen.json"  # of a model's folder


def digest(example: Example) -> str:
    """16 hexadecimal digits of the SHA-256 of the question, without worked examples where these are separate.

    Complete texts, so that no digest can be turned back into one.
    """
    question = f"{example.context}\n{example.suffix}" if example.context or example.suffix else example.prefix
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def write_manifest(folder: Path, examples: Iterable[Example]) -> None:
    """Write beside a model's weights what it was trained on, as digests."""
    write_json({"questions": sorted(set(map(digest, examples)))}, folder / MANIFEST)


def check_parents(parents: Iterable[tuple[str, Path]], data: TaskData, splits: Iterable[str]) -> None:
    """UserError where one of the parents, each a name and a folder, was trained on questions of one of the splits."""
    for name, folder in parents:
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            continue
        trained = set(manifest["questions"])
        for split in splits:
            questions = [digest(example) for example in data.examples if example.split == split]
            if known := sum(question in trained for question in questions):
                raise UserError(
                    f"{name} was trained on {known} of the {len(questions)} questions of task={data.name} that the "
                    f"{split} split asks, so its score would be of what it was taught. Take the seed, task.fractions "
                    f"and files of its training ({folder / 'training.json'}), another hospital, or another model."
                )
