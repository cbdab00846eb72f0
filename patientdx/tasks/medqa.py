"""Task `medqa`: questions of the United States Medical Licensing Examination (Jin et al., Appl. Sci. 2021; MIT)."""

from collections.abc import Mapping
from functools import partial

from patientdx.tasks.example import TaskData
from patientdx.tasks.multiple_choice import Benchmark, Request, Wording, read, task

MEDQA = Benchmark(
    "medqa",
    Wording(),
    partial(read, group="medqa"),
    "MedQA, the four-option files train.jsonl, dev.jsonl and test.jsonl: github.com/jind11/MedQA.",
)


def load(
    *,
    path: str | None = None,
    seed: int = 0,
    answer: str | None = None,
    shots: int = 0,
    chat: bool | None = None,
    fractions: Mapping[str, float] | None = None,
    limit: int | None = None,
    train_limit: int | None = 0,
) -> TaskData:
    """MedQA; every keyword is explained in conf/task/medqa.yaml. Raises UserError as `multiple_choice.load` does."""
    return task("medqa", [(MEDQA, path)], Request(seed, answer, shots, chat, fractions, limit, train_limit=train_limit))
