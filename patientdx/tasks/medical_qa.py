"""Task `medical_qa`: the nine sets of the open medical leaderboard.

Accuracy over all questions is the average weighted by size, as lm-evaluation-harness' multimedqa has it.
"""

from collections.abc import Mapping

from patientdx.tasks.example import TaskData
from patientdx.tasks.medmcqa import MEDMCQA
from patientdx.tasks.medqa import MEDQA
from patientdx.tasks.mmlu_medical import MMLU_MEDICAL
from patientdx.tasks.multiple_choice import Request, task
from patientdx.tasks.pubmedqa import PUBMEDQA


def load(
    *,
    medqa: str | None = None,
    medmcqa: str | None = None,
    pubmedqa: str | None = None,
    mmlu_medical: str | None = None,
    seed: int = 0,
    answer: str | None = None,
    shots: int = 0,
    chat: bool | None = None,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 0,
    answers_from: int | None = None,
) -> TaskData:
    """MedQA, MedMCQA, PubMedQA and six subjects of MMLU, each from its own file or folder and worded its own way.

    Every keyword is explained in conf/task/medical_qa.yaml. `limit` keeps so many questions of each split of a
    benchmark, which changes the weights, and `train_limit` so many of its train. Raises UserError as
    `multiple_choice.load` does.
    """
    parts = [(MEDQA, medqa), (MEDMCQA, medmcqa), (PUBMEDQA, pubmedqa), (MMLU_MEDICAL, mmlu_medical)]
    return task("medical_qa", parts, Request(seed, answer, shots, chat, fractions, limit, answers_from, train_limit))
