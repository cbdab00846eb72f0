"""The angles between the parents' tensors by layer and kind, from the runs' provenance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patientdx.core.tables import Table, count, make_table, plain, word
from patientdx.merge.schedule import layer_of
from patientdx.reporting.groups import Group

_KINDS = {  # the first pattern that matches gives the kind of a tensor
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
    is_line: bool


def kind_of(name: str) -> str:
    """q, k, v, o, gate, up, down, norms, embedding, head or other, from a tensor's name."""
    return next(kind for kind, pattern in _KINDS.items() if re.search(pattern, name))


def angles(group: Group) -> list[Angle]:
    """The angle of each tensor between the group's parents, where a run's method measured it; else empty."""
    for run in group.runs:
        merge = run.provenance.get("merge", {})
        if merge.get("ancestor") is not None:
            continue  # then the angle is between the parents' differences from the ancestor
        tensors: Mapping[str, Mapping[str, Any]] = merge.get("tensors") or {}
        measured = {name: part for name, part in tensors.items() if part.get("branch") in ("line", "sphere")}
        if measured:
            return [
                Angle(layer_of(name), kind_of(name), part["angle_degrees"], part.get("branch") == "line")
                for name, part in measured.items()
            ]
    return []


def by_kind(group: Group) -> Table | None:
    """The angles of each kind of tensor over all layers."""
    rows = []
    for kind in ORDER:
        tensors = [angle for angle in angles(group) if angle.kind == kind]
        if tensors:
            degrees = sorted(angle.degrees for angle in tensors)
            ends = (degrees[0], degrees[len(degrees) // 2], degrees[-1])
            lines = sum(angle.is_line for angle in tensors)
            rows.append([word(kind), count(len(tensors)), *map(plain, ends), count(lines)])
    if not rows:
        return None
    columns = ["kind of tensor", "tensors", "smallest", "median", "largest", "straight lines"]
    notes = ["angle between base and pivot in degrees; straight lines: tensors so close to parallel that SLERP is the "
             "linear merge"]  # fmt: skip
    return make_table("angles", "Angles between the parents", columns, rows, notes=notes, section="angles")
