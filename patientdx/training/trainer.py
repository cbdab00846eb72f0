"""transformers' Trainer with a loss of chosen tokens, evaluation on pilot, the cost, and an end for orphans."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import EarlyStoppingCallback, ExportableState, PrinterCallback, TrainerCallback

from patientdx.core.errors import UserError
from patientdx.core.progress import progress
from patientdx.metrics.ranking import auroc
from patientdx.training.cost import Meter
from patientdx.training.job import Job
from patientdx.training.loss import evaluate_texts, inputs_and_targets, target_losses
from patientdx.training.texts import Text


class TextTrainer(Trainer):
    """Trains on the targets of a job's texts, and evaluates its pilot texts in one forward pass."""

    def __init__(self, model, arguments: TrainingArguments, job: Job, **named: Any) -> None:
        super().__init__(model, arguments, **named)
        # A step's loss is the mean over all its targets, however many micro-batches it is computed in.
        self.model_accepts_loss_kwargs = True
        self.job = job

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """See `rate`. The library's own schedule has a first step at rate 0: one of two, where there are few texts."""
        if self.lr_scheduler is None:
            schedule = partial(rate, steps=num_training_steps, warmup_ratio=self.job.hyperparameters.warmup_ratio)
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = LambdaLR(optimizer, schedule)  # pyright: ignore[reportArgumentType]
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _cast(self):
        enabled = self.job.hyperparameters.precision == "bfloat16"
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=enabled)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Summed cross entropy of these texts over the number of targets in the whole step."""
        with self._cast():
            losses_N, _ = target_losses(_causal(model), inputs["input_ids"], inputs["shift_labels"])
        return losses_N.sum() / num_items_in_batch  # pyright: ignore[reportOperatorIssue]

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Nothing for the trainer's own mean; (B, 3) of `loss.evaluate_texts`, and labels (B,)."""
        inputs = self._prepare_inputs(inputs)
        with self._cast():
            sums_B3 = evaluate_texts(_causal(model), inputs["input_ids"], inputs["shift_labels"], self.job.options)
        return None, sums_B3, inputs["outcome"]


def _causal(model):
    """The model without peft's shell; its layers keep their adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def make_trainer(model, job: Job, shown: Sequence[Text], every: int, work: Path) -> TextTrainer:
    """The trainer of a model on the texts `shown`, in their order, with a checkpoint in `work` every so many steps.

    The job's pilot texts are evaluated as often where its `patience` is set; without its `options` by loss alone.
    """
    settings = job.hyperparameters
    uses_pilot = settings.patience is not None
    pilot = list(zip(job.pilot, job.labels, strict=True))
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=math.ceil(len(shown) / settings.batch),
        per_device_train_batch_size=settings.micro_batch_size,
        per_device_eval_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.batch // settings.micro_batch_size,
        learning_rate=settings.learning_rate,
        optim="adamw_torch",
        seed=settings.seed,
        train_sampling_strategy="sequential",
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        eval_strategy="steps" if uses_pilot else "no",
        eval_steps=every if uses_pilot else None,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=uses_pilot,
        metric_for_best_model=settings.monitor if uses_pilot else None,  # one that ends in "loss" is to fall
        restore_callback_states_from_checkpoint=True,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        use_cpu=job.device == "cpu",
        dataloader_pin_memory=job.device != "cpu",
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
    )
    trainer = TextTrainer(
        model,
        arguments,
        job,
        train_dataset=[(text, 0) for text in shown],
        eval_dataset=pilot if uses_pilot else None,
        data_collator=_collate,
        compute_metrics=partial(_pilot_metrics, with_auroc=bool(job.options)) if uses_pilot else None,
        callbacks=[Watch(), *([EarlyStoppingCallback(settings.patience)] if settings.patience is not None else [])],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def rate(step: int, steps: int, warmup_ratio: float) -> float:
    """The learning rate over its peak at step 0 .. steps - 1: linear rise, then linear fall, never 0."""
    rising = max(1, math.ceil(warmup_ratio * steps))
    return min((step + 1) / rising, (steps - step) / (steps - rising + 1))


def _collate(rows: list[tuple[Text, int]]) -> dict[str, torch.Tensor]:
    ids_BL, targets_BL = inputs_and_targets([text for text, _ in rows])
    # The trainer counts `shift_labels` where it finds `labels`.
    return {
        "input_ids": ids_BL,
        "labels": targets_BL,
        "shift_labels": targets_BL,
        "outcome": torch.tensor([label for _, label in rows]),
    }


def _pilot_metrics(evaluated, *, with_auroc: bool) -> dict[str, float]:
    sums, counts, margin = np.asarray(evaluated.predictions, dtype=np.float64).T
    metrics = {"loss": sums.sum() / counts.sum()}
    return metrics | ({"auroc": float(auroc(margin, evaluated.label_ids))} if with_auroc else {})


class Watch(TrainerCallback, ExportableState):
    """Progress on the screen, the cost, and the end of a process whose starter has ended."""

    def __init__(self) -> None:
        self._parent, self.cost, self._bar = os.getppid(), {}, progress(show=False)
        self._meter: Meter | None = None

    def _read_cost(self) -> dict[str, Any]:
        return self.cost if self._meter is None else self._meter.read()

    def state(self) -> dict[str, Any]:
        """The part that a checkpoint keeps."""
        return {"args": {}, "attributes": {"cost": self._read_cost()}}

    def on_train_begin(self, args, state, control, **named) -> None:
        """Start the meter once the model is loaded."""
        self._meter = Meter(self.cost)
        self._bar = progress(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args, state, control, **named) -> None:
        """Evaluate pilot after the last step too; exit where the starting process has ended: the checkpoint stays."""
        if os.getppid() != self._parent:
            os._exit(1)
        self.cost = self._read_cost()
        self._bar.update()
        if state.global_step == state.max_steps:
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def on_log(self, args, state, control, logs=None, **named) -> None:
        """UserError where the loss is not finite."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise UserError(
                f"the training's loss is {loss} at step {state.global_step}. Set finetune.learning_rate lower."
            )

    def on_train_end(self, args, state, control, **named) -> None:
        """Stop the meter."""
        self.cost = self._read_cost()
        self._bar.close()
