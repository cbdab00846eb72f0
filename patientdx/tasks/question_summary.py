"""Task `question_summary`: a consumer's long health question as a short one (MeQSum).

Ben Abacha and Demner-Fushman, ACL 2019; CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patientdx.tasks.example import TaskData
from patientdx.tasks.text_pairs import ENDS, Corpus, Request, task


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["chq"] or ""), str(row["summary"] or "")


def _ask(heading: str) -> tuple[str, str]:
    return "Summarise the health question in one short question.\n\nHealth question:\n", "\n\nShort question:"


MEQSUM = Corpus(
    name="question_summary",
    columns=(("chq", "summary"),),
    pair=_pair,
    ask=_ask,
    stops=("\nHealth question:", "Summarise the health question", *ENDS),
    source="MeQSum, the xlsx file with the columns File, CHQ and Summary: github.com/abachaa/MeQSum.",
)


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    shots: int = 0,
    chat: bool | None = None,
    new_tokens: int = 64,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 1000,
    bertscore: str | None = None,
    open_data: bool = True,
) -> TaskData:
    """MeQSum; every keyword is explained in conf/task/question_summary.yaml.

    Raises UserError as `patientdx.tasks.text_pairs.task` does.
    """
    asked = Request(path, seed, shots, chat, new_tokens, fractions, limit, train_limit, bertscore, open_data)
    return task(MEQSUM, asked)
