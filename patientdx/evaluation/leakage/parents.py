"""The records of a parent: what a merge tells of those that one of its parents was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError, present
from patientdx.core.paths import expanded
from patientdx.evaluation.inference import MERGED, Array
from patientdx.evaluation.language_systems import WeightsSystem
from patientdx.evaluation.leakage.losses import COLUMNS, mean_losses
from patientdx.evaluation.plan import Run
from patientdx.lm.logprobs import check_lengths
from patientdx.metrics.bootstrap import Bootstrap
from patientdx.privacy import attacks
from patientdx.privacy.blind import blind_scores
from patientdx.privacy.estimates import auc
from patientdx.privacy.parent_check import compared, reading
from patientdx.privacy.sides import sides
from patientdx.tasks import item_files
from patientdx.tasks.labelled_rows import identifier

KEY = "privacy.parent_file"
_COLUMNS = ("text", "member", "patient_id")


@dataclass(frozen=True)
class ParentRecords:
    """Records of which it is known whether the parent was trained on them: row by row text, tokens and patient."""

    texts: list[str]
    ids: list[list[int]]
    subjects: list[str]
    member: Array
    duplicates: int


def file_of(run: Run) -> Path | None:
    """The file of the records; UserError where it does not exist."""
    named = run.config.analyses.privacy.parent_file
    if named is None:
        return None
    file = expanded(named)
    if not file.is_file():
        raise UserError(
            f"{KEY}={named}: there is no such file. It has a row for each record: {', '.join(_COLUMNS)}; member is 1 "
            "where the parent was trained on it, else 0."
        )
    return file


def fingerprint(run: Run) -> str | None:
    """What the comparison depends on beside the models; None where there is none."""
    file = file_of(run)
    return None if file is None else sha256(file)


def parent_records(run: Run) -> ParentRecords | None:
    """The records, read and in tokens; None where there are none. UserError for rows that are not valid."""
    file = file_of(run)
    if file is None:
        return None
    spec = present(run.plan.context.spec, "a run of a merge has a tokenizer")
    rows = [_row(*row) for row in item_files.rows(file, file.name, header=True)]
    texts, subjects, members = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    numbers = {side: [i for i, member in enumerate(members) if member == side] for side in (0, 1)}
    both = sides(texts, subjects, numbers[1], numbers[0])
    kept = [texts[i] for i in both.rows]
    tokenizer = spec.load_tokenizer()
    ids = [tokenizer(text)["input_ids"] for text in kept]
    check_lengths(ids, spec.context)
    return ParentRecords(kept, ids, [subjects[i] for i in both.rows], both.member.astype(int), both.duplicates)


def _row(location: str, cells: Mapping[str, Any]) -> tuple[str, str, int]:
    """Text, patient and membership; UserError, which quotes no value, where one of them is missing."""
    text, member, patient = (identifier(cells.get(name)) for name in _COLUMNS)
    if not text or not patient or member not in ("0", "1"):
        raise UserError(
            f"{location} of {KEY}: each row has the columns {', '.join(_COLUMNS)}: a text, 1 or 0, and an id, none of "
            "them empty."
        )
    return text, patient, int(member)


def parent_losses(run: Run, records: ParentRecords) -> dict[str, Array]:
    """By role of a parent or of the merge the losses of the records, (n, 5); all processes take part."""
    systems = {system.role: system for system in run.plan.systems if isinstance(system, WeightsSystem)}
    k = run.config.analyses.privacy.k
    return {
        role: mean_losses(run, systems[role], records.ids, k=k, label="losses of a parent's records")
        for role in ("base", "pivot", MERGED)
    }


def result(run: Run, records: ParentRecords, losses: Mapping[str, Array], draws: Bootstrap) -> dict[str, Any]:
    """What privacy.json has of it: numbers alone. The other parent is the reference of both models."""
    parent = run.config.analyses.privacy.parent
    other = next(role for role in ("base", "pivot") if role != parent)
    sizes = attacks.compressed_bytes(records.texts)
    subject = np.array(records.subjects)
    is_drawn = subject[:, None] != subject[records.member == 0]
    outside = np.flatnonzero(records.member == 0)

    def scores(role: str) -> dict[str, Array]:
        columns = dict(zip(COLUMNS, losses[role].T, strict=True))
        mean = columns["total"] / columns["tokens"]
        reference = losses[other][:, COLUMNS.index("total")] / columns["tokens"]
        scores = attacks.of_losses(mean, sizes, reference, outside, is_drawn)
        return scores | {"min_k": columns["min_k"], "min_k_pp": columns["min_k_pp"]}

    areas = compared(scores(MERGED), scores(parent), records.member, records.subjects, draws)
    tokens = losses[parent][:, COLUMNS.index("tokens")]
    blind = blind_scores(records.texts, tokens, records.member, records.subjects, seed=draws.seed)
    count = {name: int((records.member == side).sum()) for name, side in (("members", 1), ("non_members", 0))}
    return {
        "parent": parent, **count, "patients": len(set(records.subjects)), "duplicates": records.duplicates,
        "blind": {name: {"auc": auc(score, records.member, records.subjects, draws)} for name, score in blind.items()},
        "attacks": areas, "reading": reading(parent, areas, draws),
    }  # fmt: skip
