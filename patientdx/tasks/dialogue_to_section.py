"""Task `dialogue_to_section`: a section of a clinical note from a conversation (MTS-Dialog).

Ben Abacha et al., EACL 2023; CC BY 4.0. Each conversation comes with the header of the section that was written of it,
which the prompt names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patientdx.tasks.example import TaskData
from patientdx.tasks.text_pairs import ENDS, Corpus, Request, task

# The headers of MTS-Dialog in words; any other is named as it is written.
HEADERS = {
    "GENHX": "History of present illness",
    "FAM/SOCHX": "Family and social history",
    "PASTMEDICALHX": "Past medical history",
    "PASTSURGICAL": "Past surgical history",
    "CC": "Chief complaint",
    "ROS": "Review of systems",
    "ALLERGY": "Allergies",
    "MEDICATIONS": "Medications",
    "ASSESSMENT": "Assessment",
    "EXAM": "Physical examination",
    "DIAGNOSIS": "Diagnosis",
    "DISPOSITION": "Disposition",
    "PLAN": "Plan",
    "EDCOURSE": "Emergency department course",
    "IMMUNIZATIONS": "Immunizations",
    "IMAGING": "Imaging",
    "GYNHX": "Gynecologic history",
    "PROCEDURES": "Procedures",
    "OTHER_HISTORY": "Other history",
    "LABS": "Laboratory results",
}


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["dialogue"] or ""), str(row["section_text"] or "")


def _ask(heading: str) -> tuple[str, str]:
    header = HEADERS.get(heading, heading)
    before = f'Write the section "{header}" of a clinical note from the conversation.\n\nConversation:\n'
    return before, f"\n\n{header}:"


MTS_DIALOG = Corpus(
    name="dialogue_to_section",
    columns=(("dialogue", "section_text", "section_header"),),
    pair=_pair,
    ask=_ask,
    stops=("\nConversation:", "Write the section", *ENDS),
    source="MTS-Dialog, the csv files of Main-Dataset: github.com/abachaa/MTS-Dialog.",
    heading="section_header",
    group=("section", "section_header"),
)


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    shots: int = 0,
    chat: bool | None = None,
    new_tokens: int = 256,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 1000,
    bertscore: str | None = None,
    open_data: bool = True,
) -> TaskData:
    """MTS-Dialog; every keyword is explained in conf/task/dialogue_to_section.yaml.

    Raises UserError as `patientdx.tasks.text_pairs.task` does.
    """
    asked = Request(path, seed, shots, chat, new_tokens, fractions, limit, train_limit, bertscore, open_data)
    return task(MTS_DIALOG, asked)
