"""The task of a run, with its files found in a folder of public data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ValidationInfo, field_validator

from patientdx.core.errors import UserError
from patientdx.core.functions import Call, dotted
from patientdx.core.paths import plain_name
from patientdx.core.validation import ConfigErrors, Folder, Name
from patientdx.evaluation.config.section import Loop, Section, group_name, key, to_call
from patientdx.evaluation.registry import kind_names
from patientdx.tasks.item_files import SUFFIXES

PATH = "path"  # where a task reads one set, which then goes by the task's own name
SETS = ("medqa", "medmcqa", "pubmedqa", "mmlu_medical")  # where medical_qa reads several
_BESIDE = ("name", "kind", "metrics")


def _kind(value: Any) -> str:
    if value not in kind_names():
        raise ValueError(f"it is one of {', '.join(kind_names())}.")
    return value


def _metrics(nodes: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(nodes, Mapping | None):
        raise ValueError("give a mapping of names to functions, as {auroc: patientdx.metrics.ranking.auroc}.")
    errors = []
    for label, target in (nodes or {}).items():
        try:
            plain_name(label)
            dotted(target)
        except UserError as error:
            errors.append(f".{label}: {error}")
    if errors:
        raise ConfigErrors(errors)
    return tuple(dict(nodes or {}).items())


class TaskConfig(Section):
    """What is asked. `call` makes the task's data; `metrics` are pairs of label and dotted name, the first one leads.

    data: a folder of public data sets, or None. cache: where a task may keep files.
    """

    loop: ClassVar[Loop] = Loop.TASK

    name: Name = key("task", "name")
    kind: Annotated[str, BeforeValidator(_kind)] = key("task", "kind")
    metrics: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_metrics)] = key("task", "metrics", default=())
    data: Folder | None = key("data")
    cache: Folder = key("cache")
    call: Call = key("task")

    @classmethod
    def is_absent(cls, plain: Mapping[str, Any]) -> bool:
        """Whether this configuration has no such section."""
        return group_name(plain, "task") == "none"

    @field_validator("call", mode="before")
    @classmethod
    def _check_call(cls, node: Any, info: ValidationInfo) -> Call:
        node = dict(node)
        if info.data.get("data") is not None:
            node = with_files(node, info.data["data"])
        if "cache" in node and "cache" in info.data:
            node["cache"] = str(info.data["cache"])
        return to_call(node, _BESIDE, ())


def with_files(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The task with ``<folder>/<name>``, file or folder, for each of its paths (`PATH`, `SETS`) that is null.

    A folder that holds one data file stands for that file. Paths that are set stay, and so do those of a task that can
    do without files. Raises ConfigErrors for names that the folder lacks.
    """
    filled, errors = dict(task), []
    for name in (name for name in (PATH, *SETS) if name in task and task[name] is None):
        stem = str(task.get("name")) if name == PATH else name
        paths = [path for path in (folder / stem, *(folder / f"{stem}{end}" for end in SUFFIXES)) if path.exists()]
        if paths:
            files = [path for path in paths[0].rglob("*") if path.suffix.lower() in SUFFIXES]
            filled[name] = str(files[0] if len(files) == 1 else paths[0])
        elif "synthetic" not in task:
            content = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ""
            state = f"it holds {content or 'nothing'}" if folder.is_dir() else "there is no such folder"
            errors.append(
                f"data={folder} has no folder or file {stem} ({state}). Name one so, link to it, or give task.{name}."
            )
    if errors:
        raise ConfigErrors(errors)
    return filled
