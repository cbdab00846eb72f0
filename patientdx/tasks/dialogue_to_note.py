"""Task `dialogue_to_note`: the whole note of a visit from its conversation (ACI-Bench, Yim et al., Sci. Data 2023).

CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patientdx.tasks.example import TaskData
from patientdx.tasks.text_pairs import ENDS, Corpus, Request, task


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["dialogue"] or ""), str(row["note"] or "")


def _ask(heading: str) -> tuple[str, str]:
    before = "Write the clinical note of a visit from the conversation of doctor and patient.\n\nConversation:\n"
    return before, "\n\nClinical note:"


ACI_BENCH = Corpus(
    name="dialogue_to_note",
    columns=(("dialogue", "note"),),
    pair=_pair,
    ask=_ask,
    stops=("\nConversation:", "Write the clinical note", *ENDS),
    source="ACI-Bench, the csv files of data/challenge_data: github.com/wyim/aci-bench.",
    group=("dataset", "dataset"),
    leave=("metadata",),
)


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    shots: int = 0,
    chat: bool | None = None,
    new_tokens: int = 1024,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 1000,
    bertscore: str | None = None,
    open_data: bool = True,
) -> TaskData:
    """ACI-Bench; every keyword is explained in conf/task/dialogue_to_note.yaml.

    Raises UserError as `patientdx.tasks.text_pairs.task` does.
    """
    asked = Request(path, seed, shots, chat, new_tokens, fractions, limit, train_limit, bertscore, open_data)
    return task(ACI_BENCH, asked)
