"""Train a comparator in a process of its own: transformers' Trainer, with peft where it is LoRA.

   python -m patientdx.training.train < job.json          started by `build`; what to train on comes by the pipe alone

A process of its own has no live model in its memory, so what it measures is the training's; it knows nothing of other
processes that score beside it, and draws its random numbers alone. It trains on one device.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from filelock import FileLock
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from patientdx.core.atomic_io import write_atomically
from patientdx.core.errors import UserError
from patientdx.training.hyperparameters import Hyperparameters
from patientdx.training.texts import Text, order
from patientdx.training.trainer import TextTrainer, Watch, trainer_of
from patientdx.training.write import write_adapter, write_full

_STATE = "trainer_state.json"


def train(
    start: Path,
    into: Path,
    work: Path,
    hyperparameters: Hyperparameters,
    texts: list[Text],
    pilot: list[tuple[Text, int]],
    options: list[list[int]],
    device: str,
) -> dict[str, Any]:
    """Train the model in `start`, write it into the empty folder `into`; return what the training was like.

    Goes on from the last checkpoint in `work`, as if it had never been stopped. `pilot` texts have their labels, and
    are looked at where `hyperparameters.patience` says so; `options` are the token ids of yes and of no, the positive one first,
    and empty where the answers are others.

    Returned: steps, best_step (None: the last counts), stopped_early, tokens (of the texts shown, each time counted),
    train as [step, loss] and pilot as [step, loss, auroc (None without `options`)], and the cost (see `cost.Meter`).

    Raises UserError where the model cannot do it, the loss is no number, or memory does not suffice.
    """
    shown = order(
        len(texts),
        hyperparameters.batch,
        hyperparameters.seed,
        epochs=hyperparameters.epochs,
        steps=hyperparameters.steps,
    )
    steps = math.ceil(len(shown) / hyperparameters.batch)
    every = min(hyperparameters.check_every or math.ceil(len(texts) / hyperparameters.batch), steps)
    last, ended = _last_checkpoint(work)
    if ended is not None:
        shown = shown[: ended * hyperparameters.batch]
    torch.manual_seed(hyperparameters.seed)  # of LoRA's first factors; the trainer seeds dropout
    model = _opened(start, hyperparameters, device)
    try:
        trainer = trainer_of(model, hyperparameters, [texts[i] for i in shown], every, pilot, options, work, device)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise UserError(
            f"finetune={hyperparameters.method}: the training does not fit into memory ({str(error).splitlines()[0]}). Set "
            "finetune.micro_batch_size or finetune.max_tokens lower, finetune.gradient_checkpointing=true, or use finetune=lora."
        ) from None
    if hyperparameters.method == "lora":
        write_adapter(model, into)
    else:
        write_full(start, model, into)
    seen = shown[: trainer.state.global_step * hyperparameters.batch]
    return _found(trainer, steps) | {"tokens": sum(len(texts[i].ids) for i in seen)}


def _opened(start: Path, hyperparameters: Hyperparameters, device: str):
    """The model to train: float32, but for the weights that LoRA leaves alone, which may be bfloat16."""
    dtype = (
        torch.bfloat16
        if hyperparameters.method == "lora" and hyperparameters.precision == "bfloat16"
        else torch.float32
    )
    if hyperparameters.precision == "bfloat16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("finetune.precision=bfloat16: this GPU does not compute in bfloat16. Use float32.")
    model = AutoModelForCausalLM.from_pretrained(start, dtype=dtype)
    if hyperparameters.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"finetune.gradient_checkpointing=true: {type(model).__name__} cannot do it. Leave it out, and set "
            "finetune.max_tokens lower if memory is short."
        )
    if hyperparameters.method == "full":
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    heads = {"lm_head", "embed_tokens"}
    if unknown := sorted(set(hyperparameters.targets) - (linear - heads)):
        raise UserError(
            f"finetune.targets: {', '.join(unknown)} is no linear layer of this model's blocks. It has "
            f"{', '.join(sorted(linear - heads))}."
        )
    config = LoraConfig(
        r=hyperparameters.rank,
        lora_alpha=hyperparameters.alpha,
        lora_dropout=hyperparameters.dropout,
        target_modules=list(hyperparameters.targets),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers for a property by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)


def _last_checkpoint(work: Path) -> tuple[Path | None, int | None]:
    """The newest checkpoint that is whole (its state is written last), and the step at which training ended, if so.

    What is not whole is removed.
    """
    whole: dict[int, tuple[Path, dict]] = {}
    for place in work.glob("checkpoint-*"):
        try:
            state = json.loads((place / _STATE).read_text())
        except (OSError, ValueError):
            shutil.rmtree(place)
        else:
            whole[state["global_step"]] = place, state
    if not whole:
        return None, None
    step = max(whole)
    place, state = whole[step]
    ended = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return place, step if ended else None


def _found(trainer: TextTrainer, steps: int) -> dict[str, Any]:
    state, log = trainer.state, trainer.state.log_history
    (watch,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, Watch))
    return {
        "steps": state.global_step,
        "best_step": state.best_global_step if trainer.args.load_best_model_at_end else None,
        "stopped_early": state.global_step < steps,
        **watch.cost,
        "train": [[one["step"], one["loss"]] for one in log if "loss" in one],
        "pilot": [[one["step"], one["eval_loss"], one.get("eval_auroc")] for one in log if "eval_loss" in one],
    }


def main(read: Callable[[], str] = sys.stdin.read) -> None:
    """Do the job that comes by the pipe; leave what it gave, or why it was refused, in the file `result`."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    job = json.loads(read())
    torch.set_num_threads(job.pop("threads"))
    result = Path(job.pop("result"))
    job |= {name: Path(job[name]) for name in ("start", "into", "work")}
    job["texts"] = [Text(tuple(ids), first) for ids, first in job["texts"]]
    job["pilot"] = [(Text(tuple(ids), first), label) for ids, first, label in job["pilot"]]
    job["hyperparameters"] = Hyperparameters(**job["hyperparameters"])
    # One whose starter was killed may still be at its last step.
    with FileLock(job["work"] / ".lock"):
        try:
            found = train(**job)
        except UserError as fault:
            found = {"refused": str(fault)}
        write_atomically(result, lambda aside: aside.write_text(json.dumps(found)))


if __name__ == "__main__":
    main()
