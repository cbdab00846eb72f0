"""Canaries in a run: put into what its fine-tuned model is trained on, and looked for in the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.evaluation.config.sections import RunConfig
from patientdx.lm.load import load_tokenizer
from patientdx.lm.prompts import Prompts, tokenise
from patientdx.privacy.canaries import Canary, canaries, candidates
from patientdx.tasks.example import TaskData
from patientdx.training.texts import Text, text


@dataclass(frozen=True)
class Planted:
    """The run's canaries and the texts they are ranked among: `prompts` are those of canaries, then of candidates.

    The numbers stand at first:last of every prompt, and only they differ.
    """

    canaries: tuple[Canary, ...]
    prompts: Prompts
    first: int
    last: int


def planted(config: RunConfig, data: TaskData, asking: tuple[Path, bool, Call, int]) -> Planted | None:
    """The canaries of the run, None where none are asked for; asking: see `plan`.

    UserError where the tokenizer makes some of the numbers longer than others: their losses would not compare.
    """
    wanted = config.analyses.privacy
    if not wanted.canaries or config.finetune is None:
        return None
    folder, chat, _, limit = asking
    made = canaries(wanted.canaries, wanted.canaries_each, seed=config.seed)
    texts = [one.text for one in made] + candidates(made, wanted.candidates, seed=config.seed)
    frame = data.examples[0]
    parts = [(frame.prefix, one, frame.suffix) for one in texts]
    prompts = tokenise(load_tokenizer(folder), parts, frame.options, chat=chat, limit=limit)
    if len({len(ids) for ids in prompts.ids}) > 1:
        raise UserError(
            "privacy.canaries: this tokenizer makes numbers of nine digits into more or fewer tokens, so their losses "
            "cannot be ranked. Leave canaries out (privacy.canaries=[]), or use a model that reads digit by digit."
        )
    differ = [place for place, tokens in enumerate(zip(*prompts.ids, strict=True)) if len(set(tokens)) > 1]
    return Planted(tuple(made), prompts, differ[0], differ[-1] + 1)


def planted_texts(config: RunConfig, data: TaskData, asking: tuple[Path, bool, Call, int]) -> Sequence[Text]:
    """What the canaries add to the training set, each as often as it is to be seen in an epoch."""
    found = planted(config, data, asking)
    if found is None:
        return ()
    answers = {1: found.prompts.options[0][0], 0: found.prompts.options[1][0]}
    loss = config.finetune.hyperparameters.loss
    return [
        one
        for canary, ids in zip(found.canaries, found.prompts.ids, strict=False)
        for one in [text(ids, answers[canary.label], loss)] * canary.copies
    ]
