"""transformers' Trainer as a comparator needs it: loss where it counts, looks at pilot, cost, an end for orphans."""

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
from tqdm import tqdm
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import EarlyStoppingCallback, ExportableState, PrinterCallback, TrainerCallback

from patientdx.core.errors import UserError
from patientdx.training.cost import Meter
from patientdx.training.hyperparameters import Hyperparameters
from patientdx.training.loss import look, padded, token_losses
from patientdx.training.texts import Text


class TextTrainer(Trainer):
    """The loss where it counts, and a look at pilot that costs one forward pass."""

    def __init__(
        self, *given: Any, precision: str, warmup_ratio: float, options: Sequence[Sequence[int]], **named: Any
    ) -> None:
        super().__init__(*given, **named)
        # A step's loss is the mean over all its targets, however many pieces it is worked out in.
        self.model_accepts_loss_kwargs = True
        self.precision, self.warmup_ratio, self.options = precision, warmup_ratio, options

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """See `rate`. The library's own schedule has a first step at rate 0: one of two, where there are few texts."""
        if self.lr_scheduler is None:
            shape = partial(rate, steps=num_training_steps, warmup_ratio=self.warmup_ratio)
            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, shape)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _cast(self):
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Summed cross entropy of these texts over the number of targets in the whole step."""
        with self._cast():
            losses_N, _ = token_losses(_causal(model), inputs["input_ids"], inputs["shift_labels"])
        return losses_N.sum() / num_items_in_batch

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Nothing for the trainer's own mean; (B, 3) of `loss.look`, and labels (B,)."""
        inputs = self._prepare_inputs(inputs)
        with self._cast():
            found_B3 = look(_causal(model), inputs["input_ids"], inputs["shift_labels"], self.options)
        return None, found_B3, inputs["outcome"]


def _causal(model):
    """The model without peft's shell; its layers keep their adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trainer_of(
    model,
    hyperparameters: Hyperparameters,
    shown: Sequence[Text],
    every: int,
    pilot: Sequence[tuple[Text, int]],
    options: Sequence[Sequence[int]],
    work: Path,
    device: str,
) -> TextTrainer:
    """The trainer of a model on the texts `shown`, in their order, with a checkpoint in `work` every so many steps.

    pilot: texts with their labels, looked at as often where `hyperparameters.patience` is given; without `options` by loss alone.
    """
    looks = hyperparameters.patience is not None
    steps = math.ceil(len(shown) / hyperparameters.batch)
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=hyperparameters.micro_batch_size,
        per_device_eval_batch_size=hyperparameters.micro_batch_size,
        gradient_accumulation_steps=hyperparameters.batch // hyperparameters.micro_batch_size,
        learning_rate=hyperparameters.learning_rate,
        optim="adamw_torch",
        seed=hyperparameters.seed,
        train_sampling_strategy="sequential",
        activation_checkpointing=hyperparameters.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if hyperparameters.gradient_checkpointing else None,
        eval_strategy="steps" if looks else "no",
        eval_steps=every if looks else None,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=looks,
        metric_for_best_model=hyperparameters.monitor if looks else None,  # one that ends in "loss" is to fall
        restore_callback_states_from_checkpoint=True,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        disable_tqdm=True,
        report_to="none",
        push_to_hub=False,
    )
    trainer = TextTrainer(
        model,
        arguments,
        train_dataset=[(one, 0) for one in shown],
        eval_dataset=list(pilot) if looks else None,
        data_collator=_collated,
        compute_metrics=partial(_pilot_metrics, ranked=bool(options)) if looks else None,
        callbacks=[Watch(), *([EarlyStoppingCallback(hyperparameters.patience)] if looks else [])],
        precision=hyperparameters.precision,
        warmup_ratio=hyperparameters.warmup_ratio,
        options=options,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def rate(step: int, steps: int, warmup_ratio: float) -> float:
    """Share of the peak learning rate at step 0 .. steps - 1: linear rise, then linear fall, never 0."""
    rising = max(1, math.ceil(warmup_ratio * steps))
    return min((step + 1) / rising, (steps - step) / (steps - rising + 1))


def _collated(rows: list[tuple[Text, int]]) -> dict[str, torch.Tensor]:
    ids_BL, targets_BL = padded([one for one, _ in rows])
    # The trainer counts `shift_labels` where it finds `labels`.
    return {
        "input_ids": ids_BL,
        "labels": targets_BL,
        "shift_labels": targets_BL,
        "outcome": torch.tensor([label for _, label in rows]),
    }


def _pilot_metrics(found, *, ranked: bool) -> dict[str, float]:
    sums, counts, margin = np.asarray(found.predictions, dtype=np.float64).T
    loss = {"loss": sums.sum() / counts.sum()}
    return loss | ({"auroc": auroc(margin, np.asarray(found.label_ids))} if ranked else {})


def auroc(margin: np.ndarray, label: np.ndarray) -> float:
    """Share of pairs of a positive and a negative in which the positive has the larger margin; ties count half."""
    difference = margin[label == 1][:, None] - margin[label == 0]
    return float((np.sign(difference) + 1).mean() / 2)


class Watch(TrainerCallback, ExportableState):
    """Progress on the screen, the cost, and an end where no one waits for the result any more."""

    def __init__(self) -> None:
        self._parent, self.cost, self._meter, self._bar = os.getppid(), {}, None, None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"args": {}, "attributes": {"cost": self.cost if self._meter is None else self._meter.read()}}

    def on_train_begin(self, args, state, control, **given) -> None:
        """The clock starts once the model is there."""
        self._meter = Meter(self.cost)
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step", disable=None)

    def on_step_end(self, args, state, control, **given) -> None:
        """Look at pilot at the very end too; stop where the starting process is gone, to go on from the checkpoint."""
        if os.getppid() != self._parent:
            os._exit(1)
        self.cost = self._meter.read()
        self._bar.update()
        if state.global_step == state.max_steps:
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def on_log(self, args, state, control, logs=None, **given) -> None:
        """UserError where the loss is no number."""
        if "loss" in logs and not math.isfinite(logs["loss"]):
            raise UserError(
                f"the training's loss is {logs['loss']} at step {state.global_step}. Set finetune.learning_rate lower."
            )

    def on_train_end(self, args, state, control, **given) -> None:
        """The clock stops."""
        self.cost = self._meter.read()
        self._bar.close()
