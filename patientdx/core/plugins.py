"""Merge methods, tasks and analyses of other packages. A package declares them by entry points; see docs/plugins.md.

A yaml can name a function of patientdx and of declared packages, and no other: what it names is called.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError

GROUPS = ("patientdx.merge_methods", "patientdx.tasks", "patientdx.analyses")


@lru_cache(maxsize=len(GROUPS))
def declared(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, by name. Raises UserError for a name that two packages declare."""
    points = sorted(set(installed().select(group=group)), key=lambda point: point.name)
    for first, second in pairwise(points):
        if first.name == second.name and first.value != second.value:
            raise UserError(f"two packages declare {first.name} in {group}: {first.value} and {second.value}.")
    return tuple(points)


@lru_cache(maxsize=1)
def installed() -> Any:  # EntryPoints, or before Python 3.12 SelectableGroups, which has select() too
    """The entry points of all installed packages: their files are read once, not for each group."""
    return entry_points()


def packages() -> tuple[str, ...]:
    """The top-level packages that the entry points of all groups name."""
    return tuple(sorted({point.module.partition(".")[0] for group in GROUPS for point in declared(group)}))


def is_plugin(target: str) -> bool:
    """Whether a dotted name is of a declared package, which patientdx itself is never."""
    package = str(target).partition(".")[0]
    return package != "patientdx" and package in packages()


def identity(target: str) -> str:
    """What a result depends on of the function that a dotted name stands for: its name, and its package's code.

    Of patientdx the name alone: version constants say where its results change.
    """
    return f"{target} {code(target)}" if is_plugin(target) else target


@lru_cache(maxsize=8)
def code(target: str) -> str:
    """SHA-256 over all Python files of a declared package, by their paths in it."""
    spec = find_spec(target.partition(".")[0])
    digest = hashlib.sha256()
    for root in map(Path, spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(root.rglob("*.py")):
            digest.update(
                f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
            )
    if spec is not None and spec.submodule_search_locations is None and spec.origin is not None:
        digest.update(Path(spec.origin).read_bytes())  # a module of one file
    return digest.hexdigest()
