"""Repeated questions: a copy of a whole file is an error, single repeats are counted and drawn together.

Some benchmarks ask a question twice. Both stay, so that a score is comparable with published ones; but they are not
independent, so a bootstrap draws them together.
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
    """The questions read so far. `across`: splits are drawn anew, and equal questions of any file get the same one."""

    across: bool
    _first: dict[tuple[bytes, str], str] = field(default_factory=dict)
    _count: Counter[tuple[str, str]] = field(default_factory=Counter)
    _elsewhere: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def first(self, location: str, split: str, parts: object) -> str:
        """Location of the first question with the same parts, in the same split unless `across`; often `location`."""
        key = hashlib.sha256(json.dumps(parts).encode()).digest()  # notes of a hospital are too large to keep in memory
        earlier = self._first.setdefault((key, split), location)
        here, other = (file_of(location), split), (file_of(earlier), split)
        self._count[here] += 1
        if here != other:
            self._elsewhere.setdefault(here, {})[location] = earlier
            self._elsewhere.setdefault(other, {}).setdefault(earlier, location)
        return self._first.setdefault((key, ""), location) if self.across else earlier

    def check(self, unchecked: str | None = None) -> None:
        """Raise UserError for a file of which every question is in another file of its split too, other than the split
        `unchecked`."""
        for (file, split), pairs in self._elsewhere.items():
            if split != unchecked and len(pairs) == self._count[file, split]:
                location, other = next(iter(pairs.items()))
                raise UserError(
                    f"Every question of {file} is in another file of the {split} split too ({location} is {other}), so "
                    "each would count twice. Take one of the files out, or give one file or folder alone."
                )


def distinct_step(unit: str, kept: int, different: int) -> list[dict[str, object]]:
    """The cohort step with the number of distinct items among the kept ones; [] if all are distinct."""
    return [{"step": "different ones", unit: different}] if different < kept else []
