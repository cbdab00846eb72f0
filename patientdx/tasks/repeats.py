"""Questions that are there twice: a file beside its copy is refused, single ones are counted and drawn as one.

Some benchmarks ask a question twice. Both stay, so that a score is the one that others report; but they are no two
pieces of evidence, so a bootstrap draws them together.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

from patientdx.core.errors import UserError
from patientdx.tasks.item_files import file_of


@dataclass
class Repeats:
    """What was read so far. `across`: splits are drawn anew, and equal questions of any file must come into one."""

    across: bool
    _first: dict[tuple[bytes, str], str] = field(default_factory=dict)
    _count: Counter[tuple[str, str]] = field(default_factory=Counter)
    _elsewhere: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def first(self, place: str, split: str, parts: object) -> str:
        """The place of the first question with the same parts, in the same split unless `across`; often `place`."""
        key = hashlib.sha256(json.dumps(parts).encode()).digest()  # notes of a hospital are too large to be kept
        found = self._first.setdefault((key, split), place)
        own, other = (file_of(place), split), (file_of(found), split)
        self._count[own] += 1
        if own != other:
            self._elsewhere.setdefault(own, {})[place] = found
            self._elsewhere.setdefault(other, {}).setdefault(found, place)
        return self._first.setdefault((key, ""), place) if self.across else found

    def check(self) -> None:
        """UserError for a file of which every question is in another file of its split too."""
        for (file, split), pairs in self._elsewhere.items():
            if len(pairs) == self._count[file, split]:
                place, other = next(iter(pairs.items()))
                raise UserError(
                    f"Every question of {file} is in another file of the {split} split too ({place} is {other}), so "
                    "each would count twice. Take one of the files out, or give one file or folder alone."
                )


def told_apart(unit: str, kept: int, different: int) -> list[dict[str, object]]:
    """The step of a cohort that says how many of what was kept differ; none where all do."""
    return [{"step": "different ones", unit: different}] if different < kept else []
