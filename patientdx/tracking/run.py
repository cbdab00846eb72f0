"""What is told of one evaluation: already scrubbed, the same for every tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One evaluation, as a tracker gets it.

    `id` comes from the fingerprint of the result, so that a repeat replaces the earlier run. `summary` holds final
    numbers by key (`mortality/auroc`). `curves` are points (x, y) by name (`mortality/test/roc`). `folder` is the
    result folder, below `output`; `predictions` is a file in it, or None where scores of single examples stay here.
    All three are absolute.
    """

    id: str
    project: str
    entity: str | None
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    summary: dict[str, float | int | str]
    curves: Mapping[str, Sequence[tuple[float, float]]]
    folder: Path
    output: Path
    predictions: Path | None

    @property
    def numbers(self) -> dict[str, float | int]:
        """What of the summary can be drawn."""
        return {key: value for key, value in self.summary.items() if isinstance(value, int | float)}
