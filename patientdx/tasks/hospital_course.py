"""Task `hospital_course`: the brief hospital course of a discharge note from what stands before it in the note.

MIMIC-IV-Note (Johnson et al., PhysioNet 2023, credentialed): discharge.csv.gz. What stands behind the course (drugs at
discharge, diagnoses, instructions) tells of it, and is in no prompt. Notes without a course are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from patientdx.tasks.example import TaskData
from patientdx.tasks.text_pairs import ENDS, Corpus, Request, task

# The history of a patient who came from another hospital may have a course of that stay: brief is the word that counts.
_COURSE = [
    re.compile(rf"^[ \t]*{brief}hospital[ \t]+course(?:[ \t]+by[^\n:]*)?[ \t]*:", re.I | re.M)
    for brief in (r"brief[ \t]+", "")
]
_BEHIND = re.compile(
    r"^[ \t]*(?:(?:medications?|meds)[ \t]+on[ \t]+admission|admission[ \t]+medications?|discharge[ \t]+\w+|"
    r"follow[- \t]?up[ \t]+instructions?|facility)[ \t]*:",
    re.I | re.M,
)


def parts(note: str) -> tuple[str, str]:
    """What stands before the course, and the course itself up to the next heading of a discharge note; else ("", "").

    So too where the text before already holds the course word for word: nothing would be left to write.
    """
    heading = next(filter(None, (one.search(note) for one in _COURSE)), None)
    if heading is None:
        return "", ""
    rest = note[heading.end() :]
    end = _BEHIND.search(rest)
    before, course = note[: heading.start()], rest[: None if end is None else end.start()].strip()
    return ("", "") if " ".join(course.split()) in " ".join(before.split()) else (before, course)


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return parts(str(row["text"] or ""))


def _ask(heading: str) -> tuple[str, str]:
    before = "Write the brief hospital course of a discharge note from the part of the note before it.\n\nNote:\n"
    return before, "\n\nBrief hospital course:"


DISCHARGE = Corpus(
    name="hospital_course",
    columns=(("subject_id", "hadm_id", "text"),),
    pair=_pair,
    ask=_ask,
    stops=("\nMedications on Admission:", "\nDischarge ", "\nNote:", "Write the brief hospital course", *ENDS),
    source="MIMIC-IV-Note, discharge.csv.gz: physionet.org/content/mimic-iv-note (credentialed).",
    complete="with a brief hospital course",
)


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    shots: int = 0,
    chat: bool | None = None,
    new_tokens: int = 512,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 1000,
    bertscore: str | None = None,
    open_data: bool = False,
) -> TaskData:
    """Discharge notes; every keyword is explained in conf/task/hospital_course.yaml.

    Raises UserError as `patientdx.tasks.text_pairs.task` does.
    """
    asked = Request(path, seed, shots, chat, new_tokens, fractions, limit, train_limit, bertscore, open_data)
    return task(DISCHARGE, asked)
