"""Progress bars in a terminal; without one, as in the log of a cluster's job, a line every 30 seconds."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

SECONDS = 30.0


class _Lines(tqdm):
    """A line instead of a bar that is drawn over itself."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write the line; an empty one, which would clear a bar, is left out."""
        if msg != "":
            self.fp.write(f"{self if msg is None else msg}\n")
            self.fp.flush()

    def close(self) -> None:
        """End without the return that would begin a bar's line again."""
        if not self.disable:
            self.disable = True
            self._decr_instances(self)  # pyright: ignore[reportAttributeAccessIssue]


def progress(*items: Any, show: bool = True, **options: Any) -> tqdm:
    """`tqdm` with these options on stderr; show: false in all processes but the first.

    Without a terminal nothing is written in the first 30 seconds.
    """
    if sys.stderr.isatty():
        return tqdm(*items, disable=not show, **options)
    lines = {"delay": SECONDS, "mininterval": SECONDS, "miniters": 1, "leave": False, "ncols": 0, "ascii": True}
    return _Lines(*items, disable=not show, **options | lines)
