"""A folder of public data sets, so that one word of the command finds the files of every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patientdx.tasks.item_files import SUFFIXES as FILES

PATH = "path"  # where a task reads one set, which then goes by the task's own name
SETS = ("medqa", "medmcqa", "pubmedqa", "mmlu_medical")  # where medical_qa reads several


def fill(task: dict[str, Any], data: Any, errors: list[str]) -> None:
    """Each place of the task that is null (`path`, or one of `SETS`) becomes `<data>/<its name>`, file or folder.

    A folder that holds one data file stands for that file. What is not there goes to `faults`; a place that the user
    gave is left as it is, and so is one that a task can do without.
    """
    if data is None:
        return
    root = Path(str(data)).expanduser()
    for key in (key for key in (PATH, *SETS) if key in task and task[key] is None):
        name = str(task.get("name")) if key == PATH else key
        here = [path for path in (root / name, *(root / f"{name}{end}" for end in FILES)) if path.exists()]
        if not here and "synthetic" in task:
            continue  # it can do without files
        if not here:
            there = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
            held = f"it holds {', '.join(there) or 'nothing'}" if root.is_dir() else "there is no such folder"
            errors.append(
                f"data={data} has no folder or file {name} ({held}). Name one so, link to it, or give task.{key}."
            )
            continue
        inside = [path for path in here[0].rglob("*") if path.suffix.lower() in FILES] if here[0].is_dir() else []
        task[key] = str(inside[0] if len(inside) == 1 else here[0])
