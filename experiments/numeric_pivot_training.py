"""Train the default pivot: SmolLM2 taught numeric reasoning on generated questions, shipped as a low-rank adapter.

   python -m experiments.numeric_pivot_training full --base FOLDER --work WORK   # all matrices, embeddings frozen
   python -m experiments.numeric_pivot_training cut --base FOLDER --work WORK    # to low rank, then a little training
   python -m experiments.numeric_pivot --adapter WORK/adapter                  # held-out accuracy, model card

With --shuffled in both steps the answers are random: a control that is trained on the same questions and learns nothing
about numbers from them (see conf/models/smollm2_135m_shuffled.yaml). --steps bounds a step's training.

No patient and no clinical outcome is involved: see `patientdx.tasks.numeric_generator`.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm, trange

from patientdx.lm.batching import padded
from patientdx.tasks.numeric_generator import Question, conversation
from patientdx.training.loss import hidden_at

SEED = 20260
TOKENS_A_STEP = 2048
BYTES = 7_900_000  # the adapter's size in the repository
# One stage after the other: on to the next once the mean accuracy of ten steps reaches `until`, or at the step `by`
# (a share of all) at the latest. Numbers come before lists: with all kinds at once the loss stayed random.
EASY = {"panels": 0.75, "short": ("comparison", "range"), "marked": 1.0, "inline": 1.0, "easy": True}
FIRST = {"panels": 0.7, "short": ("comparison", "range"), "marked": 1.0, "inline": 0.5}
THEN = {"panels": 0.8, "short": ("comparison", "range", "arithmetic", "units", "trend"), "marked": 0.2}
FULL = {
    "steps": 480, "lr": 3e-4, "warmup_steps": 15,
    "stages": ({"until": 0.9, "by": 0.3, **EASY}, {"until": 0.9, "by": 0.6, **FIRST}, THEN),
}  # fmt: skip
CUT = {"steps": 70, "lr": 5e-4, "warmup_steps": 5, "stages": (THEN,)}


class Curriculum:
    """The stage that the training is in."""

    def __init__(self, plan: dict) -> None:
        self.plan, self.stage, self.recent = plan, 0, deque(maxlen=10)

    def learnt(self, step: int, accuracy: float) -> bool:
        """Note a step's accuracy; True if the next stage begins."""
        self.recent.append(accuracy)
        now = self.plan["stages"][self.stage]
        if self.stage + 1 == len(self.plan["stages"]):
            return False
        good = len(self.recent) == 10 and sum(self.recent) / 10 >= now["until"]
        if not good and step + 1 < now["by"] * self.plan["steps"]:
            return False
        self.stage += 1
        self.recent.clear()
        return True

    def conversation(self, rng: random.Random) -> list[Question]:
        """A chat of the present stage."""
        stage = self.plan["stages"][self.stage]
        return conversation(rng, **{key: value for key, value in stage.items() if key not in ("until", "by")})


def shuffled(turns: list[Question], coin: random.Random) -> list[Question]:
    """The same questions with random answers; of a reply of several lines, with a random answer in each line."""

    def reply(text: str) -> str:
        names = [line.rpartition(": ")[0] for line in text.split("\n")]
        return "\n".join(f"{name}: {'Yes' if coin.random() < 0.5 else 'No'}" for name in names)

    return [
        replace(turn, reply=reply(turn.reply)) if turn.reply else replace(turn, answer=coin.random() < 0.5)
        for turn in turns
    ]


def encode(tokenizer, turns: list[Question]) -> tuple[list[int], list[int]]:
    """Token ids of a chat, and the positions whose next token is an answer (yes or no in an assistant's turn)."""
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.prompt})
        messages.append({"role": "assistant", "content": turn.target})
    ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    opening = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    words = {tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No", " Yes", " No")}
    positions, answering = [], False
    for i in range(len(opening), len(ids)):
        if ids[i - len(opening) : i] == opening:
            answering = True
        elif ids[i] == tokenizer.eos_token_id:
            answering = False
        if answering and ids[i] in words:
            positions.append(i - 1)
    assert len(positions) == sum(turn.target.count("\n") + 1 for turn in turns), "the chat lacks an answer"
    return ids, positions


def batches(tokenizer, rng: random.Random, curriculum: Curriculum, coin: random.Random | None = None):
    """Batches of about TOKENS_A_STEP padded tokens: ids (B, L) int64, answer positions (N, 2), answer tokens (N,).

    Whatever is sent in starts over with chats of the curriculum's present stage. coin: draws the answers, if set.
    """
    pool: list[tuple[list[int], list[int]]] = []
    while True:
        rows: list[tuple[list[int], list[int]]] = []
        while True:
            while len(pool) < 64:  # chats of like length share a batch, so that little is padding
                turns = curriculum.conversation(rng)
                pool.append(encode(tokenizer, turns if coin is None else shuffled(turns, coin)))
            if not rows:
                rng.shuffle(pool)
                like = len(pool[0][0])
                pool.sort(key=lambda row: abs(len(row[0]) - like))
            longest = max([len(row[0]) for row in rows] + [len(pool[0][0])])
            if rows and longest * (len(rows) + 1) > TOKENS_A_STEP:
                break
            rows.append(pool.pop(0))
        ids_BL = padded([ids for ids, _ in rows], tokenizer.pad_token_id)
        positions = torch.tensor([(b, i) for b, (_, at) in enumerate(rows) for i in at])
        if (yield ids_BL, positions, ids_BL[positions[:, 0], positions[:, 1] + 1]):
            pool.clear()


def answer_loss(model, ids_BL: Tensor, positions: Tensor, answers: Tensor) -> tuple[Tensor, float]:
    """Cross entropy over the whole vocabulary at the answer positions only, and the share answered rightly.

    Padding is on the right and attention causal, so no mask is needed.
    """
    logits = model.lm_head(hidden_at(model, ids_BL, positions[:, 0], positions[:, 1])).float()
    loss = torch.nn.functional.cross_entropy(logits, answers)
    return loss, (logits.argmax(-1) == answers).float().mean().item()


def rate(step: int, plan: dict) -> float:
    """Linear warm-up, then linear decay to zero."""
    return plan["lr"] * min(
        (step + 1) / plan["warmup_steps"], (plan["steps"] - step) / (plan["steps"] - plan["warmup_steps"])
    )


class Training:
    """Float32 `masters` that are trained; `pull` takes their gradients from the model, `push` writes them into it."""

    def __init__(self, masters: list[Tensor], pull: Callable[[], None], push: Callable[[], None]) -> None:
        self.masters, self.pull, self.push = masters, pull, push


def train(
    model, tokenizer, training: Training, plan: dict, seed: int, log: Path, save: Callable[[], None], coin: bool = False
) -> None:
    """AdamW on the masters, a csv line a step in `log`; `save` is called every 30 steps and at the end."""
    optimizer = torch.optim.AdamW(training.masters, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    rng = random.Random(f"train {seed}")
    with log.open("w", newline="") as handle:
        out = csv.writer(handle)
        out.writerow(["step", "stage", "loss", "accuracy", "answers", "tokens", "seconds"])
        start, tokens, curriculum, next_stage = time.monotonic(), 0, Curriculum(plan), None
        source = batches(tokenizer, rng, curriculum, random.Random(f"coin {seed}") if coin else None)
        for step in trange(plan["steps"], mininterval=10):
            ids_BL, positions, answers = source.send(next_stage)
            for group in optimizer.param_groups:
                group["lr"] = rate(step, plan)
            loss, right = answer_loss(model, ids_BL, positions, answers)
            loss.backward()
            training.pull()
            torch.nn.utils.clip_grad_norm_(training.masters, 1.0)
            optimizer.step()
            with torch.no_grad():
                training.push()
            tokens += ids_BL.numel()
            spent = f"{time.monotonic() - start:.0f}"
            out.writerow([step, curriculum.stage, f"{loss.item():.4f}", f"{right:.3f}", len(answers), tokens, spent])
            handle.flush()
            if (step + 1) % 30 == 0 or step + 1 == plan["steps"]:
                save()
            # The first batch after `None` starts the generator; later ones clear its pool where a stage begins.
            next_stage = curriculum.learnt(step, right)


def load(base: Path) -> tuple:
    """Tokenizer, bfloat16 model, and its layers' matrices by name: the tensors that are trained."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).requires_grad_(False)
    matrices = {name: live for name, live in model.named_parameters() if ".layers." in name and live.dim() == 2}
    for live in matrices.values():
        live.requires_grad_(True)
    return AutoTokenizer.from_pretrained(base), model, matrices


def bounded(plan: dict, steps: int | None) -> dict:
    """The plan with so many steps; warm-up and stages keep their share."""
    if steps is None:
        return plan
    return plan | {"steps": steps, "warmup_steps": max(1, round(plan["warmup_steps"] * steps / plan["steps"]))}


def full(base: Path, work: Path, seed: int, *, coin: bool = False, steps: int | None = None) -> Path:
    """Train every matrix of the layers; the float32 result is written to `work`/full.pt. coin: random answers."""
    torch.manual_seed(seed)
    tokenizer, model, matrices = load(base)
    masters = {name: live.detach().float().clone() for name, live in matrices.items()}

    def pull() -> None:
        for name, live in matrices.items():
            masters[name].grad, live.grad = live.grad.float(), None

    def push() -> None:
        for name, live in matrices.items():
            live.copy_(masters[name])

    def save() -> None:
        torch.save(masters, work / "full.partial")
        (work / "full.partial").rename(work / "full.pt")

    plan = bounded(FULL, steps)
    train(model, tokenizer, Training(list(masters.values()), pull, push), plan, seed, work / "full.csv", save, coin)
    return work / "full.pt"


def factorise(base: dict[str, Tensor], trained: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Each difference as (A [r, in], B [out, r]) float32; ranks share BYTES so that most of the energy is kept.

    A singular value s of an (out, in) matrix saves s² of squared error for out + in stored numbers, so values are
    taken in the order of s² / (out + in). Matrices that get none are left out. Source: Eckart and Young (1936).
    """
    parts, offers = {}, []
    for name, theta in tqdm(trained.items(), desc="svd"):
        u, s, vt = torch.linalg.svd(theta - base[name].float(), full_matrices=False)
        parts[name] = (u, s, vt)
        offers += [(float(value**2) / sum(theta.shape), name) for value in s]
    room, ranks = BYTES // 2, dict.fromkeys(trained, 0)  # two bytes a number
    for _, name in sorted(offers, reverse=True):
        if sum(trained[name].shape) > room:
            break
        room -= sum(trained[name].shape)
        ranks[name] += 1
    factors = {}
    for name, (u, s, vt) in parts.items():
        if r := ranks[name]:
            root = s[:r].sqrt()
            factors[name] = ((root[:, None] * vt[:r]).contiguous(), (u[:, :r] * root).contiguous())
    return factors


def cut(base: Path, work: Path, seed: int, *, coin: bool = False, steps: int | None = None) -> Path:
    """Cut `work`/full.pt to low rank, train the factors a little, and write a peft folder to `work`/adapter.

    The gradient of a factor follows from that of the matrix, W = W0 + B A: dA = Bᵀ dW and dB = dW Aᵀ.
    """
    torch.manual_seed(seed)
    tokenizer, model, matrices = load(base)
    start = {name: live.detach().clone() for name, live in matrices.items()}
    factors = factorise(start, torch.load(work / "full.pt", weights_only=True))
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

    def save() -> None:
        write_adapter(factors, work / "adapter")

    plan = bounded(CUT, steps)
    train(model, tokenizer, Training(masters, pull, push), plan, seed + 1, work / "cut.csv", save, coin)
    return work / "adapter"


def write_adapter(factors: dict[str, tuple[Tensor, Tensor]], folder: Path) -> None:
    """A LoRA folder in peft's layout, bfloat16; every scale alpha / r is 1."""
    from safetensors.torch import save_file

    tensors, ranks = {}, {}
    for name, (a, b) in factors.items():
        module = name.removesuffix(".weight")
        ranks[module] = a.shape[0]
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.bfloat16().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.bfloat16().contiguous()
    r = max(set(ranks.values()), key=list(ranks.values()).count)
    pattern = {module: rank for module, rank in ranks.items() if rank != r}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": r, "lora_alpha": r, "rank_pattern": pattern, "alpha_pattern": pattern,
        "target_modules": sorted(ranks), "lora_dropout": 0.0, "bias": "none", "inference_mode": True,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Run one step of the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("full", "cut"))
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model (Hugging Face layout)")
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate files and the result")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, help="of the optimiser, at least 2; without it as the pivot was trained")
    parser.add_argument("--shuffled", action="store_true", help="random answers: the control")
    args = parser.parse_args()
    if args.steps is not None and args.steps < 2:
        parser.error(f"--steps {args.steps}: give at least 2")
    args.work.mkdir(parents=True, exist_ok=True)
    run = {"full": full, "cut": cut}[args.step]
    print(run(args.base, args.work, args.seed, coin=args.shuffled, steps=args.steps))


if __name__ == "__main__":
    main()
