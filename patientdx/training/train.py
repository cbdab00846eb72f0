"""Train a model in a process of its own: transformers' Trainer, with peft where it is LoRA.

   python -m patientdx.training.train START INTO WORK < job.json      started by `build`; the job comes through the pipe

A process of its own has no live model in its memory, so that its cost is the training's; it is independent of other
processes that score beside it, and draws its random numbers alone. It trains on one device.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from patientdx.core.atomic_io import write_atomically
from patientdx.core.errors import UserError
from patientdx.core.locks import locked
from patientdx.training.hyperparameters import Hyperparameters
from patientdx.training.job import Job
from patientdx.training.texts import order
from patientdx.training.trainer import TextTrainer, Watch, make_trainer
from patientdx.training.write import write_adapter, write_full

_STATE = "trainer_state.json"


def train(job: Job, start: Path, into: Path, work: Path) -> dict[str, Any]:
    """Train the model in `start`, write it into the empty folder `into`; return the course of the training.

    Continues from the last checkpoint in `work`, as if it had never been stopped.

    Returned: steps, best_step (None: the last weights count), stopped_early, tokens (of the texts shown, each time
    counted), train as [step, loss] and pilot as [step, loss, auroc (None without `job.options`)], and the cost (see
    `cost.Meter`).

    Raises:
        UserError: the model does not support a setting, the loss is not finite, or memory does not suffice.
    """
    settings, texts = job.hyperparameters, job.texts
    shown = order(len(texts), settings.batch, settings.seed, epochs=settings.epochs, steps=settings.steps)
    steps = math.ceil(len(shown) / settings.batch)
    every = min(settings.check_every or math.ceil(len(texts) / settings.batch), steps)
    checkpoint, ended_at = _last_checkpoint(work)
    if ended_at is not None:
        shown = shown[: ended_at * settings.batch]
    torch.manual_seed(settings.seed)  # of LoRA's first factors; the trainer seeds dropout
    model = _load(start, settings, job.device)
    try:
        trainer = make_trainer(model, job, [texts[i] for i in shown], every, work)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise UserError(
            f"finetune={settings.method}: the training does not fit into memory ({str(error).splitlines()[0]}). Set "
            "finetune.micro_batch_size or finetune.max_tokens lower, finetune.gradient_checkpointing=true, or use "
            "finetune=lora."
        ) from None
    if settings.method == "lora":
        write_adapter(model, into)
    else:
        write_full(start, model, into)
    trained_on = shown[: trainer.state.global_step * settings.batch]
    return _course(trainer, steps) | {"tokens": sum(len(texts[i].ids) for i in trained_on)}


def _load(start: Path, settings: Hyperparameters, device: str):
    """The model to train: float32, but for the weights that LoRA leaves alone, which may be bfloat16."""
    dtype = torch.bfloat16 if settings.method == "lora" and settings.precision == "bfloat16" else torch.float32
    if settings.precision == "bfloat16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("finetune.precision=bfloat16: this GPU does not compute in bfloat16. Use float32.")
    model = AutoModelForCausalLM.from_pretrained(start, dtype=dtype, trust_remote_code=False)
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"finetune.gradient_checkpointing=true: {type(model).__name__} cannot do it. Leave it out, and set "
            "finetune.max_tokens lower if memory is short."
        )
    if settings.method == "full":
        return model.requires_grad_(True)
    return _with_adapter(model, settings)


def _with_adapter(model, settings: Hyperparameters):
    """The model with LoRA's factors in the layers named by `targets`; UserError where it has no such layers."""
    from peft import LoraConfig, get_peft_model

    if settings.rank is None or settings.alpha is None or settings.dropout is None or settings.targets is None:
        raise ValueError("LoRA takes rank, alpha, dropout and targets")
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    linear -= {"lm_head", "embed_tokens"}
    if unknown := sorted(set(settings.targets) - linear):
        raise UserError(
            f"finetune.targets: {', '.join(unknown)} is no linear layer of this model's blocks. It has "
            f"{', '.join(sorted(linear))}."
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  # peft computes with a float too
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft reads a property of transformers by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)


def _last_checkpoint(work: Path) -> tuple[Path | None, int | None]:
    """The newest complete checkpoint (its state is written last), and the step at which training ended, if it did.

    Incomplete checkpoints are removed.
    """
    complete: dict[int, tuple[Path, dict]] = {}
    for folder in work.glob("checkpoint-*"):
        try:
            state = json.loads((folder / _STATE).read_text())
        except (OSError, ValueError):
            shutil.rmtree(folder)
        else:
            complete[state["global_step"]] = folder, state
    if not complete:
        return None, None
    step = max(complete)
    folder, state = complete[step]
    ended = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return folder, step if ended else None


def _course(trainer: TextTrainer, steps: int) -> dict[str, Any]:
    state, log = trainer.state, trainer.state.log_history
    (watch,) = (callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Watch))
    return {
        "steps": state.global_step,
        "best_step": state.best_global_step if trainer.args.load_best_model_at_end else None,
        "stopped_early": state.global_step < steps,
        **watch.cost,
        "train": [[line["step"], line["loss"]] for line in log if "loss" in line],
        "pilot": [[line["step"], line["eval_loss"], line.get("eval_auroc")] for line in log if "eval_loss" in line],
    }


def main(arguments: Sequence[str] = sys.argv[1:], read: Callable[[], str] = sys.stdin.read) -> None:
    """Run the job that comes through the pipe; write its course, or the UserError's message, to `work`/result.json."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    start, into, work = map(Path, arguments)
    job = Job.from_json(read())
    torch.set_num_threads(job.threads)
    # An earlier process, whose starter was killed, may still be at its last step.
    with locked(work / ".lock"):
        try:
            result = train(job, start, into, work)
        except UserError as error:
            result = {"error": str(error)}
        write_atomically(work / "result.json", lambda aside: aside.write_text(json.dumps(result)))


if __name__ == "__main__":
    main()
