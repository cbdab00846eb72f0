"""How far apart the parents point, by layer and kind of tensor, as the runs' provenance has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patientdx.core.tables import Table, count, make_table, plain, word
from patientdx.merge.schedule import layer_of
from patientdx.reporting.groups import Group

_KINDS = {  # the first pattern that is found names the kind of a tensor
    "norms": r"norm|\.ln_",
    **{kind: rf"\b{kind}_proj\b" for kind in ("q", "k", "v", "o", "gate", "up", "down")},
    "embedding": r"embed_tokens|embed_in|\bwte\b|word_embeddings",
    "head": r"lm_head|embed_out",
    "other": "",
}
ORDER = ("q", "k", "v", "o", "gate", "up", "down", "other", "norms", "embedding", "head")


@dataclass(frozen=True)
class Angle:
    """One tensor: layer (None outside the layers), kind, angle in degrees, and whether SLERP took a straight line."""

    layer: int | None
    kind: str
    degrees: float
    line: bool


def kind_of(name: str) -> str:
    """q, k, v, o, gate, up, down, norms, embedding, head or other, from a tensor's name."""
    return next(kind for kind, pattern in _KINDS.items() if re.search(pattern, name))


def angles(group: Group) -> list[Angle]:
    """Of each tensor of the group's parents, where a run's method measured it; else empty."""
    for run in group.runs:
        merge = run.provenance.get("merge", {})
        if merge.get("ancestor") is not None:
            continue  # then the angle is between what the parents learned since
        tensors: Mapping[str, Mapping[str, Any]] = merge.get("tensors") or {}
        measured = {name: facts for name, facts in tensors.items() if facts.get("branch") in ("line", "sphere")}
        if measured:
            return [
                Angle(layer_of(name), kind_of(name), facts["angle_degrees"], facts.get("branch") == "line")
                for name, facts in measured.items()
            ]
    return []


def by_kind(group: Group) -> Table | None:
    """The angles of each kind of tensor over all layers."""
    found = angles(group)
    rows = []
    for kind in ORDER:
        these = sorted(one.degrees for one in found if one.kind == kind)
        if these:
            lines = sum(one.line for one in found if one.kind == kind)
            middle = these[len(these) // 2]
            rows.append([word(kind), count(len(these)), *map(plain, (these[0], middle, these[-1])), count(lines)])
    if not rows:
        return None
    columns = ["kind of tensor", "tensors", "smallest", "median", "largest", "straight lines"]
    notes = ["angle between base and pivot in degrees; a straight line: so close to parallel that SLERP takes the "
             "linear merge"]  # fmt: skip
    return make_table("angles", "Angles between the parents", columns, rows, notes=notes, subject=group.title)
