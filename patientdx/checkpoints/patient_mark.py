"""The mark of a folder whose weights were trained on patients' records, and so may hold some of what was in them."""

from __future__ import annotations

import os
from pathlib import Path

MARK = "HOLDS_PATIENTS.txt"
WORDS = """\
The weights in this folder were trained on patients' records that are not open, or come from weights that were.
A model can remember what it was trained on: treat this folder as you treat the records themselves.
patientdx keeps it in its cache, and writes no merge of it unless told to by save_patients=true; the merge then has
this mark too. Do not delete the mark: whoever opens the folder next has nothing else to go by.
"""


def mark(folder: Path) -> None:
    """Leave the mark in a folder, and the folder to its owner alone."""
    folder.chmod(0o700)
    (folder / MARK).write_text(WORDS, encoding="utf-8")


def marked(folder: Path) -> bool:
    """Whether a folder has the mark; whatever has its name counts, so that none is hidden behind a link or a pipe."""
    return os.path.lexists(folder / MARK)
