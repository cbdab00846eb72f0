"""Hyperparameters of fine-tuning: the values of conf/finetune that the weights depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from patientdx.core.validation import Flag, Fraction, LayerNames, Positive, at_least


@dataclass(frozen=True)
class Hyperparameters:
    """AdamW (0.9, 0.999), no weight decay, gradients clipped at norm 1, linear warm-up and decay of the learning rate.

    Attributes:
        method: lora trains low-rank differences (Hu et al., ICLR 2022), full every weight.
        loss: cross entropy of the answer's token alone, or of every token of prompt and answer (record).
        epochs: how often each text is shown; a fraction is a part of a last pass.
        steps: of the optimiser, in place of `epochs`; None: as many as `epochs` takes.
        learning_rate: its peak.
        warmup_ratio: part of the steps in which it rises to its peak.
        batch: texts of one optimiser step.
        micro_batch_size: how many of them are in memory together; their gradients are summed. Divides `batch`.
        seed: of the order of the texts, LoRA's first factors and dropout.
        precision: of the matrix products. float32, or bfloat16 by autocast. Weights that are trained, gradients and
            optimiser are float32 either way; weights that LoRA leaves alone have this dtype. The configuration replaces
            auto by one of the two.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        patience: evaluations of the pilot split in a row without a better value, after which training stops and the
            best weights count; None: no evaluation, and the last weights count.
        monitor: which pilot value: loss (lower is better) or auroc.
        check_every: steps between two evaluations of pilot and two checkpoints; None: one pass over the texts.
        rank, alpha, dropout, targets: of LoRA; W becomes W + alpha / rank · B A in each linear layer whose name ends in
            one of `targets`. None for full.
    """

    method: Literal["lora", "full"]
    loss: Literal["answer", "record"]
    epochs: Positive
    steps: Annotated[int, at_least(1)] | None
    learning_rate: Positive
    warmup_ratio: Fraction
    batch: Annotated[int, at_least(1)]
    micro_batch_size: Annotated[int, at_least(1)]
    seed: Annotated[int, at_least(0)]
    precision: Literal["auto", "float32", "bfloat16"]
    gradient_checkpointing: Flag
    patience: Annotated[int, at_least(1)] | None
    monitor: Literal["loss", "auroc"]
    check_every: Annotated[int, at_least(1)] | None
    rank: Annotated[int, at_least(1)] | None = None
    alpha: Positive | None = None
    dropout: Fraction | None = None
    targets: LayerNames | None = None
