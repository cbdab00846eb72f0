"""Hyperparameters of fine-tuning: the values of conf/finetune that the weights depend on."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("lora", "full")
LOSSES = ("answer", "record")
MONITORS = ("loss", "auroc")
PRECISIONS = ("float32", "bfloat16")


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
            optimiser are float32 either way; weights that LoRA leaves alone have this dtype.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        patience: evaluations of the pilot split in a row without a better value, after which training stops and the
            best weights count; None: no evaluation, and the last weights count.
        monitor: which pilot value: loss (lower is better) or auroc.
        check_every: steps between two evaluations of pilot and two checkpoints; None: one pass over the texts.
        rank, alpha, dropout, targets: of LoRA; W becomes W + alpha / rank · B A in each linear layer whose name ends in
            one of `targets`. None for full.
    """

    method: str
    loss: str
    epochs: float
    steps: int | None
    learning_rate: float
    warmup_ratio: float
    batch: int
    micro_batch_size: int
    seed: int
    precision: str
    gradient_checkpointing: bool
    patience: int | None
    monitor: str
    check_every: int | None
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    targets: tuple[str, ...] | None = None
