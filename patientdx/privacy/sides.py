"""Members and non-members: two sets of records that differ only in whether the model was trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patientdx.core.errors import UserError


@dataclass(frozen=True)
class Sides:
    """Row numbers of the records, members first: `rows` (n,) int64, `member` (n,) bool.

    `duplicates`: number of records removed because their text occurs on both sides.
    """

    rows: NDArray[np.int64]
    member: NDArray[np.bool_]
    duplicates: int


def sides(texts: Sequence[str], subjects: Sequence[str], members: Sequence[int], others: Sequence[int]) -> Sides:
    """The records of both sides without those whose text, white space aside, occurs on both.

    texts, subjects (n,) of all records; members and others are row numbers, to come from one random split by patient.
    UserError where a side is empty or becomes so, both are the same, or a patient is on both.
    """
    if not len(members) or not len(others):
        empty = "members" if not len(members) else "non-members"
        raise UserError(
            f"membership inference has no {empty}: it compares records that the model was trained on with others of "
            "the same kind. Give both train and the reported split a share of the patients (task.fractions)."
        )
    if set(members) == set(others):
        raise UserError(
            f"members and non-members are the same {len(set(members))} records, so no attack can tell them apart. "
            "Report another split than the one that the model was trained on: splits=[test]."
        )
    shared = {subjects[i] for i in members} & {subjects[i] for i in others}
    if shared:
        raise UserError(
            f"{len(shared)} patients have records among members and non-members: the sides may differ in "
            "membership alone. Split by patient: task.split_by=patient."
        )
    words = {i: " ".join(texts[i].split()) for i in {*members, *others}}
    shared_texts = {words[i] for i in members} & {words[i] for i in others}
    inside = [i for i in members if words[i] not in shared_texts]
    outside = [i for i in others if words[i] not in shared_texts]
    if not inside or not outside:
        raise UserError(
            f"every record of one side is on the other too, word for word ({len(shared_texts)} texts). Give the text "
            "more detail (task.template=narrative, task.sections), or use another split."
        )
    member = np.arange(len(inside) + len(outside)) < len(inside)
    duplicates = len(members) + len(others) - len(member)
    return Sides(np.array([*inside, *outside], dtype=np.int64), member, duplicates)
