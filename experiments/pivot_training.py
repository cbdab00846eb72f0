"""Train a pivot: SmolLM2 taught from generated questions, shipped as a low-rank adapter.

    python -m experiments.pivot_training full --pivot numeric --base DIR --work WORK   # all matrices of the layers
    python -m experiments.pivot_training cut --pivot numeric --base DIR --work WORK    # low rank, a few steps more
    python -m experiments.pivot_card --adapter WORK/adapter --work WORK   # held-out accuracy, model card

--pivot names a plan of `pivot_plans`. With --shuffled in both steps the pivot is a control: of a numeric pivot random
answers, of the biomedical one facts dealt anew among their subjects (see conf/models/smollm2_135m_shuffled.yaml). A
training that was stopped goes on from its last checkpoint by the same command, to the same result.

No patient and no clinical outcome is involved: see `patientdx.tasks.numeric_generator` and `biomedical_generator`.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange

from experiments.low_rank import differences, factorise, write_adapter
from experiments.pivot_chats import Batches
from experiments.pivot_plans import PLANS, Curriculum, bounded, rate
from patientdx.core.errors import UserError
from patientdx.lm.load import default_dtype
from patientdx.tasks.generated_questions import GENERATORS
from patientdx.training.loss import hidden_at

SEED = 20260
MEGABYTES = 7.9  # of the adapter in the repository
EVERY = 30  # steps between two checkpoints
COLUMNS = ("step", "stage", "loss", "accuracy", "answers", "tokens", "seconds")


@dataclass(frozen=True)
class Options:
    """What a training is made of, beside its plan."""

    base: Path
    work: Path
    pivot: str = "numeric"
    seed: int = SEED
    shuffled: bool = False
    steps: int | None = None
    tokens: int | None = None
    lr: float | None = None
    megabytes: float = MEGABYTES
    start: Path | None = None
    dtype: str = "auto"
    every: int = EVERY

    def plan(self, stage: str) -> dict:
        """The plan of the step `full` or `cut`."""
        return bounded(PLANS[self.pivot][stage], steps=self.steps, tokens=self.tokens, lr=self.lr)

    def settings(self, stage: str) -> dict:
        """What the result depends on; a training goes on only under the same."""
        generator = GENERATORS[PLANS[self.pivot]["generator"]]
        settings = {
            "pivot": self.pivot, "questions": generator.VERSION, "base": self.base.name, "seed": self.seed,
            "shuffled": self.shuffled, "start": self.start and self.start.name, "dtype": self.computed_dtype(),
            "megabytes": self.megabytes if stage == "cut" else None, "plan": self.plan(stage),
        }  # fmt: skip
        return json.loads(json.dumps(settings))

    def computed_dtype(self) -> str:
        """The dtype of the model: `dtype`, or what the processor computes in."""
        return default_dtype("cpu") if self.dtype == "auto" else self.dtype


class Training:
    """Float32 `masters` that are trained; `pull` takes their gradients from the model, `push` writes them into it."""

    def __init__(self, masters: list[Tensor], pull: Callable[[], None], push: Callable[[], None]) -> None:
        self.masters, self.pull, self.push = masters, pull, push


def answer_loss(model, ids_BL: Tensor, positions: Tensor, answers: Tensor) -> tuple[Tensor, float]:
    """Cross entropy over the whole vocabulary at the answer positions only, and the share answered rightly.

    Padding is on the right and attention causal, so no mask is needed.
    """
    logits = model.lm_head(hidden_at(model, ids_BL, positions[:, 0], positions[:, 1])).float()
    loss = torch.nn.functional.cross_entropy(logits, answers)
    return loss, (logits.argmax(-1) == answers).float().mean().item()


class Run:
    """The state of a training between two steps: all that the next step depends on, and its log."""

    def __init__(self, tokenizer, training: Training, options: Options, stage: str) -> None:
        plan = options.plan(stage)
        converse = GENERATORS[PLANS[options.pivot]["generator"]].conversation
        seed = options.seed + (stage == "cut")
        self.training, self.settings = training, options.settings(stage)
        self.checkpoint, self.log = options.work / f"{stage}.checkpoint", options.work / f"{stage}.csv"
        self.curriculum = Curriculum(plan, converse, options.seed if options.shuffled else None)
        self.batches = Batches(tokenizer, random.Random(f"train {seed}"), self.curriculum)
        self.optimizer = torch.optim.AdamW(training.masters, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.step, self.tokens, self.seconds = 0, 0, 0.0

    def save(self) -> None:
        """Write everything to the checkpoint, which replaces the one before."""
        partial = self.checkpoint.with_suffix(".partial")
        state = {
            "settings": self.settings, "step": self.step, "tokens": self.tokens, "seconds": self.seconds,
            "masters": self.training.masters, "optimizer": self.optimizer.state_dict(),
            "rng": self.batches.rng.getstate(), "pool": self.batches.pool,
            "stage": self.curriculum.stage, "recent": list(self.curriculum.recent),
        }  # fmt: skip
        torch.save(state, partial)
        partial.rename(self.checkpoint)

    @torch.no_grad()
    def resume(self) -> None:
        """Take up the checkpoint, if there is one; the log is cut to its steps."""
        lines = []
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            for master, saved in zip(self.training.masters, state["masters"], strict=True):
                master.copy_(saved)
            self.training.push()
            self.optimizer.load_state_dict(state["optimizer"])
            self.batches.rng.setstate(state["rng"])
            self.batches.pool = state["pool"]
            self.curriculum.stage = state["stage"]
            self.curriculum.recent.extend(state["recent"])
            self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
            with self.log.open(newline="") as handle:
                lines = list(csv.reader(handle))[1 : self.step + 1]
        with self.log.open("w", newline="") as handle:
            csv.writer(handle).writerows([COLUMNS, *lines])


def train(model, run: Run, every: int) -> None:
    """AdamW on the masters from the step that the run is at, a csv line a step, a checkpoint every `every` steps."""
    plan, training = run.curriculum.plan, run.training
    run.resume()
    start = time.monotonic() - run.seconds
    with run.log.open("a", newline="") as handle:
        for step in trange(run.step, plan["steps"], mininterval=10):
            ids_BL, positions, answers = run.batches.draw()
            for group in run.optimizer.param_groups:
                group["lr"] = rate(step, plan)
            loss, right = answer_loss(model, ids_BL, positions, answers)
            loss.backward()
            training.pull()
            torch.nn.utils.clip_grad_norm_(training.masters, 1.0)
            run.optimizer.step()
            with torch.no_grad():
                training.push()
            run.step, run.tokens, run.seconds = step + 1, run.tokens + ids_BL.numel(), time.monotonic() - start
            counted = [len(answers), run.tokens, f"{run.seconds:.0f}"]
            csv.writer(handle).writerow([step, run.curriculum.stage, f"{loss.item():.4f}", f"{right:.3f}", *counted])
            handle.flush()
            if run.curriculum.learnt(step, right):
                run.batches.pool.clear()  # the next chats are of the next stage
            if run.step % every == 0:
                run.save()


def load(options: Options) -> tuple:
    """Tokenizer, model, and its layers' matrices by name: the tensors that are trained."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = getattr(torch, options.computed_dtype())
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=dtype).requires_grad_(False)
    matrices = {name: live for name, live in model.named_parameters() if ".layers." in name and live.dim() == 2}
    for live in matrices.values():
        live.requires_grad_(True)
    return AutoTokenizer.from_pretrained(options.base), model, matrices


def begin(options: Options, stage: str) -> bool:
    """Write the settings of a step into the folder; False if it is done. UserError for what cannot be."""
    if not (options.base / "config.json").exists():
        raise UserError(f"--base {options.base} has no config.json: give the folder of the base model.")
    if options.start and not (options.start / "adapter_model.safetensors").exists():
        raise UserError(f"--start {options.start} has no adapter_model.safetensors: give the folder of an adapter.")
    settings = options.settings(stage)
    _refuse_others(options.work / f"{stage}.json", settings, settings)
    if stage == "cut":
        if not (options.work / "full.pt").exists():
            raise UserError(f"{options.work} has no full.pt: run the step full first.")
        _refuse_others(options.work / "full.json", settings, ("pivot", "questions", "base", "seed", "shuffled"))
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / f"{stage}.json").write_text(json.dumps(settings, indent=2) + "\n")
    result = options.work / ("full.pt" if stage == "full" else "adapter/adapter_config.json")
    return not result.exists()


def _refuse_others(path: Path, settings: dict, keys: Iterable[str]) -> None:
    there = json.loads(path.read_text()) if path.exists() else settings
    if other := [key for key in keys if there.get(key) != settings[key]]:
        told = ", ".join(f"{key} {there.get(key)!r} there, {settings[key]!r} here" for key in other)
        raise UserError(f"{path} is of another training ({told}). Give another --work, or the options of that one.")


def full(options: Options) -> Path:
    """Train every matrix of the layers; the float32 result is written to `work`/full.pt."""
    file = options.work / "full.pt"
    if not begin(options, "full"):
        return file
    torch.manual_seed(options.seed)
    tokenizer, model, matrices = load(options)
    masters = {name: live.detach().float().clone() for name, live in matrices.items()}
    for name, difference in (differences(options.start) if options.start else {}).items():
        masters[name] += difference

    def pull() -> None:
        for name, live in matrices.items():
            masters[name].grad, live.grad = live.grad.float(), None

    def push() -> None:
        for name, live in matrices.items():
            live.copy_(masters[name])

    with torch.no_grad():
        push()
    run = Run(tokenizer, Training(list(masters.values()), pull, push), options, "full")
    train(model, run, options.every)
    torch.save(masters, options.work / "full.partial")
    (options.work / "full.partial").rename(file)
    run.checkpoint.unlink(missing_ok=True)
    return file


def cut(options: Options) -> Path:
    """Cut `work`/full.pt to low rank, train the factors a little, and write a peft folder to `work`/adapter.

    The gradient of a factor follows from that of the matrix, W = W0 + B A: dA = Bᵀ dW and dB = dW Aᵀ.
    """
    folder = options.work / "adapter"
    if not begin(options, "cut"):
        return folder
    torch.manual_seed(options.seed)
    tokenizer, model, matrices = load(options)
    start = {name: live.detach().clone() for name, live in matrices.items()}
    factors = factorise(start, torch.load(options.work / "full.pt", weights_only=True), int(options.megabytes * 1e6))
    for name in set(matrices) - set(factors):
        matrices[name].requires_grad_(False)

    def pull() -> None:
        for name, (a, b) in factors.items():
            grad, matrices[name].grad = matrices[name].grad.float(), None
            a.grad, b.grad = b.T @ grad, grad @ a.T

    def push() -> None:
        for name, (a, b) in factors.items():
            # As the adapter is stored: factors in bfloat16.
            matrices[name].copy_(start[name].float() + b.bfloat16().float() @ a.bfloat16().float())

    with torch.no_grad():
        push()
    masters = [factor for pair in factors.values() for factor in pair]
    run = Run(tokenizer, Training(masters, pull, push), options, "cut")
    train(model, run, options.every)
    write_adapter(factors, folder)
    run.checkpoint.unlink(missing_ok=True)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Run one step of the training."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pivot_training", description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=("full", "cut"))
    parser.add_argument("--pivot", choices=tuple(PLANS), required=True, help="the plan and the generator")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model (Hugging Face layout)")
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate files and the result")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, help="of the optimiser, at least 2; without it as planned")
    parser.add_argument("--tokens", type=int, help="of a step, about; without it as planned")
    parser.add_argument("--lr", type=float, help="highest learning rate; without it as planned")
    parser.add_argument("--megabytes", type=float, default=MEGABYTES, help="of the adapter, for cut")
    parser.add_argument("--start", type=Path, help="folder of an adapter from which full goes on")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--every", type=int, default=EVERY, help="steps between two checkpoints")
    parser.add_argument("--shuffled", action="store_true", help="random answers or shuffled facts: the control")
    words = vars(parser.parse_args(arguments))
    stage = words.pop("stage")
    for name, least in (("steps", 2), ("tokens", 1), ("every", 1), ("lr", 0), ("megabytes", 0)):
        if words[name] is not None and words[name] < least:
            parser.error(f"--{name} {words[name]}: give at least {least}")
    try:
        print({"full": full, "cut": cut}[stage](Options(**words)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
