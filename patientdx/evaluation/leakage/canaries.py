"""Canaries of a run: texts that its fine-tuned model is trained on, and that are then looked for in the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import TaskContext
from patientdx.lm.prompts import Prompts, tokenise
from patientdx.privacy.canaries import Canary, canaries, candidates
from patientdx.training.texts import Text, text


@dataclass(frozen=True)
class CanaryPrompts:
    """The run's canaries and the texts they are ranked among: `prompts` are those of canaries, then of candidates.

    The numbers are at first:last of every prompt, and only they differ.
    """

    canaries: tuple[Canary, ...]
    prompts: Prompts
    first: int
    last: int


def canary_prompts(config: RunConfig, context: TaskContext) -> CanaryPrompts | None:
    """The canaries of the run, None where none are configured.

    UserError where the tokenizer makes some of the numbers longer than others: their losses would not compare.
    """
    privacy, spec = config.analyses.privacy, context.spec
    if not privacy.canaries or config.finetune is None:
        return None
    planted = canaries(privacy.canaries, privacy.canaries_each, seed=config.seed)
    texts = [canary.text for canary in planted] + candidates(planted, privacy.candidates, seed=config.seed)
    frame = context.data.examples[0]
    parts = [(frame.prefix, text, frame.suffix) for text in texts]
    tokenizer = spec.load_tokenizer()
    prompts = tokenise(tokenizer, parts, frame.options, chat=spec.chat, limit=spec.max_tokens)
    if len({len(ids) for ids in prompts.ids}) > 1:
        raise UserError(
            "privacy.canaries: this tokenizer makes numbers of nine digits into more or fewer tokens, so their losses "
            "cannot be ranked. Leave canaries out (privacy.canaries=[]), or use a model that reads digit by digit."
        )
    differ = [position for position, tokens in enumerate(zip(*prompts.ids, strict=True)) if len(set(tokens)) > 1]
    return CanaryPrompts(tuple(planted), prompts, differ[0], differ[-1] + 1)


def planted_texts(config: RunConfig, context: TaskContext) -> Sequence[Text]:
    """What the canaries add to the training set, each as often as it is to be read in an epoch."""
    planted = canary_prompts(config, context)
    if planted is None:
        return ()
    answers = {1: planted.prompts.options[0][0], 0: planted.prompts.options[1][0]}
    loss = config.finetune_config.hyperparameters.loss
    texts: list[Text] = []
    for canary, ids in zip(planted.canaries, planted.prompts.ids, strict=False):
        texts += [text(ids, answers[canary.label], loss)] * canary.copies
    return texts
