"""A task as token ids, made once for all runs of a process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import Kind, PromptSpec, texts_of
from patientdx.evaluation.session import Parents, Session
from patientdx.lm.chat import check_template, encode, render
from patientdx.tasks.example import Example, PromptVariant, TaskData


def prompt_spec(config: RunConfig, parents: Parents, without: str | None = None) -> PromptSpec:
    """The base's tokenizer, or the pivot's where the vocabulary is; the task, and how long its prompts may be."""
    merge = config.merge_config
    model = merge.pivot if merge.spec.tokenizer == "pivot" else merge.base
    folder, arguments = parents.checkpoints[0].folder, json.dumps(model.template_args, sort_keys=True)
    limits = [parent.config.get("max_position_embeddings") for parent in parents.checkpoints[:2]]
    context = min((limit for limit in limits if limit is not None), default=None)
    task, longest = config.task_config.call, config.inference.max_tokens
    vocabulary = parents.checkpoints[0].config.get("vocab_size")
    return PromptSpec(folder, model.chat_template, task, longest, arguments, context, without, vocabulary)


def prompts_of(session: Session, kind: Kind, spec: PromptSpec) -> Any:
    """The task's examples as `kind` encodes them."""
    return session.remember("prompts", spec, lambda: _encode(session, kind, spec, None, None))


def variant_prompts(session: Session, kind: Kind, spec: PromptSpec, variant: PromptVariant, split: str) -> Any:
    """The prompts of one split with the question of a prompt variant in place of its own."""
    key = (spec, variant.name, split)
    return session.remember("variants", key, lambda: _encode(session, kind, spec, variant, split))


def _encode(session: Session, kind: Kind, spec: PromptSpec, variant: PromptVariant | None, split: str | None) -> Any:
    data = session.task_data(spec.task, spec.without)
    tokenizer = spec.load_tokenizer()
    chat = _is_chat(data, tokenizer, spec)
    if variant is not None:
        changed = {"suffix": variant.suffix, "options": variant.options}
        examples = tuple(replace(example, **changed) for example in data.examples if example.split == split)
        data = replace(data, examples=examples)
        chat = spec.chat
    prompts = kind.encode(data, tokenizer, chat=chat, max_tokens=spec.max_tokens, context=spec.context)
    _check_vocabulary(prompts.ids, spec)
    return prompts


def _check_vocabulary(ids: Iterable[Sequence[int]], spec: PromptSpec) -> None:
    largest = max((max(row, default=0) for row in ids), default=0)
    if spec.vocabulary is not None and largest >= spec.vocabulary:
        raise UserError(
            f"the tokenizer in {spec.tokenizer} writes a prompt with token {largest}, and the model has "
            f"{spec.vocabulary} tokens (vocab_size in its config.json): they do not belong together. Put the model's "
            "own tokenizer there."
        )


def first_prompt(session: Session, spec: PromptSpec, example: Example) -> tuple[str, int]:
    """The text of one prompt as the model gets it, uncut, and how many tokens it has. UserError where none is made."""
    data, tokenizer = session.task_data(spec.task, spec.without), spec.load_tokenizer()
    chat = _is_chat(data, tokenizer, spec)
    check_template(tokenizer, chat)
    text = render(tokenizer, "".join(texts_of(example)), chat)
    return text, len(encode(tokenizer, [text], chat)[0])


def _is_chat(data: TaskData, tokenizer: Any, spec: PromptSpec) -> bool:
    """Whether prompts go through the chat template: a task may determine it itself."""
    if data.chat and not tokenizer.chat_template:
        raise UserError(
            f"task.chat=true asks task={data.name} as a chat, but the tokenizer in {spec.tokenizer} has no chat "
            "template. Leave task.chat out, or use a model whose tokenizer has one."
        )
    return spec.chat if data.chat is None else data.chat
