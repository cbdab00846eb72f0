"""Examples of another hospital beside those of a task: nothing is fitted or chosen on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from patientdx.core.errors import UserError
from patientdx.core.functions import argument_errors
from patientdx.records.features import KINDS, Features
from patientdx.records.splits import EXTERNAL
from patientdx.tasks.example import TaskData

# What says how a task asks and divides stays as it is: another hospital has other files, names of columns and units.
FIXED = ("external", "external_years", "question", "prompt_variants", "fractions", "seed", "limit", "cache", "outcome",
         "window_hours", "gap_hours", "preset", "template", "sections", "text_tokens", "features", "static",
         "open_data", "days", "condition", "outliers")  # fmt: skip


class _HasExternal(Protocol):
    external: Mapping[str, Any] | None


Task = TypeVar("Task", bound=_HasExternal)


def elsewhere(task: Task) -> Task:
    """The task at the other hospital: with the keys of `task.external` in place of its own.

    Raises UserError for keys that the task lacks, that have to stay as they are, and where none says where the data is.
    """
    keys = dict(task.external or {})
    allowed = [field.name for field in fields(task) if field.name not in FIXED]  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(keys) - set(allowed)):
        raise UserError(
            f"task.external has no {', '.join(unknown)}: it names what differs at the other hospital, of "
            f"{', '.join(allowed)}. How a question is asked, and what is read, is the same at both."
        )
    if getattr(task, "outliers", None) in ("train", "cohort", "pipeline"):
        raise UserError(
            "task.external with task.outliers: the highest values kept would be those of each hospital by itself. "
            "Leave outliers out."
        )
    values = {field.name: getattr(task, field.name) for field in fields(task)}  # pyright: ignore[reportArgumentType]
    if errors := list(argument_errors(type(task), values | keys, "task.external")):
        raise UserError("\n".join(errors))
    if not keys:
        raise UserError("task.external={}: name the data of the other hospital, as in task.external={path: b.csv}.")
    return replace(task, external=None, **keys)  # pyright: ignore[reportArgumentType]


def with_elsewhere(inside: TaskData, outside: TaskData) -> TaskData:
    """The examples of both, those of elsewhere in the split external, with the features and groups of `inside`.

    Ids of elsewhere are told apart. Raises UserError where both are the same patients.
    """
    texts = {example.context for example in inside.examples}
    if all(example.context in texts for example in outside.examples):
        raise UserError("task.external: every text of the other hospital is in the first one too. Name other data.")
    examples = tuple(
        replace(example, uid=f"{EXTERNAL}:{example.uid}", subject=f"{EXTERNAL}:{example.subject}", split=EXTERNAL)
        for example in outside.examples
    )
    groups = {
        name: (*values, *outside.groups.get(name, ("unknown",) * len(examples)))
        for name, values in inside.groups.items()
    }
    both = inside.fingerprint + outside.fingerprint
    steps = [{**row, "step": f"{EXTERNAL}: {row.get('step', '')}"} for row in outside.cohort]
    is_timed = bool(inside.times) and bool(outside.times)
    return replace(
        inside,
        examples=(*inside.examples, *examples),
        open_data=inside.open_data and outside.open_data,
        fingerprint=hashlib.sha256(both.encode()).hexdigest(),
        provenance=inside.provenance | {EXTERNAL: outside.provenance},
        cohort=[*inside.cohort, *steps],
        features=_of_both(inside.features, outside.features),
        severity=_of_both(inside.severity, outside.severity),
        groups=groups,
        times=(*inside.times, *outside.times) if is_timed else (),
    )


def _of_both(inside: Features | None, outside: Features | None) -> Features | None:
    """The rows of both in the columns of `inside`; None where one hospital has none."""
    if inside is None or outside is None:
        return None
    return Features(inside.names, np.vstack([inside.values, aligned(outside, inside.names).values]))


def aligned(features: Features, names: tuple[str, ...]) -> Features:
    """The features in the columns of another table: what it lacks is 0 where it says what a stay has, else missing."""
    column = {name: number for number, name in enumerate(features.names)}
    rows = len(features.values)
    columns = [
        features.values[:, column[name]]
        if name in column
        else np.full(rows, 0.0 if name.partition(" ")[0] in KINDS else np.nan)
        for name in names
    ]
    return Features(names, np.stack(columns, axis=1) if columns else np.empty((rows, 0)))
