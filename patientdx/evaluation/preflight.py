"""What a run needs, looked at in seconds before it is sent elsewhere: data, models, licences, disk and one prompt.

No weight is read and no prompt but one is made. What a run would make first, once, is made here: converted tables and
models, and models that are downloaded. So the jobs of a cluster find them, and do not each make their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Hashable

from patientdx.evaluation import runner
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.kinds import TaskContext
from patientdx.evaluation.prompting import first_prompt
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import make_writable

_SHOWN = 600  # characters of a prompt


def needs(config: RunConfig) -> Hashable:
    """What `preflight` looks at: two runs with the same value pass or fail together."""
    merge = None if config.merge is None else config.merge.spec
    models = None if merge is None else (merge.models, merge.ancestor, merge.tokenizer, merge.config_from)
    task = None if config.task is None else (config.task.call, config.task.metrics)
    return models, task, config.inference, config.output, config.cache, config.systems.model, config.withheld


def preflight(session: Session, config: RunConfig) -> dict[str, str]:
    """Look at all that the run needs; what was seen, by its subject. Raises UserError for what is missing.

    The text of a prompt is in it only where the data are open.
    """
    seen = {"disk": _disk(config)}
    if config.merge is not None:
        parents = session.parents(config.merge.spec, config.cache)
        parents.number_of(config.merge.spec.config_from)
        sources = dict.fromkeys([*config.merge.spec.models, config.merge.spec.ancestor])
        seen["models"] = "; ".join(
            f"{model.name}, licence {model.licence or 'not stated: clarify it before the merge is passed on'}"
            for model in sources
            if model is not None
        )
    if config.task is not None:
        context = runner.task_rows(session, config)
        rows = ", ".join(f"{split} {len(numbers):,}" for split, numbers in context.rows.items())
        access = "open" if context.data.open_data else "not declared open: no text of it is shown"
        seen["data"] = f"task={config.task.name}, examples: {rows}; {access}"
        if context.prompt_spec is not None:
            seen["prompt"] = _prompt(session, config, context)
    return seen


def _disk(config: RunConfig) -> str:
    """Both folders that are written to, with the room on their disks; UserError where they cannot be written."""
    folders = {"output": config.output / config.name, "cache": config.cache}
    for key, folder in folders.items():
        make_writable(folder, key)
    return ", ".join(
        f"{key}={folder} has {shutil.disk_usage(folder).free / 1e9:.1f} GB free" for key, folder in folders.items()
    )


def _prompt(session: Session, config: RunConfig, context: TaskContext) -> str:
    example = context.data.examples[context.rows[config.inference.reported][0]]
    text, tokens = first_prompt(session, context.spec, example)
    longest = min(filter(None, (config.inference.max_tokens, context.spec.context)))
    cut = ": it will be cut" if tokens > longest else ""
    count = f"{tokens:,} tokens, of {longest:,} at most{cut}"
    if not context.data.open_data:
        return count
    middle = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}\n[…]\n{text[-_SHOWN // 2 :]}"
    return f"{count}\n{middle}"
