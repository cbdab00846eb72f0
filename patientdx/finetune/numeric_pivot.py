"""Train the default pivot: SmolLM2 taught numeric reasoning on generated questions, shipped as a low-rank adapter.

    python -m patientdx.finetune.numeric_pivot full    # all layer weights, embeddings frozen
    python -m patientdx.finetune.numeric_pivot cut     # SVD to low rank, then a short training of the factors
    python -m patientdx.finetune.numeric_pivot card    # held-out accuracy of base and pivot, model card, picture

Each step says where it wrote. No patient and no clinical outcome is involved: see `numeric_questions`.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from patientdx.finetune.numeric_questions import Question, conversation

SEED = 20260
TOKENS_A_STEP = 3072
BYTES = 7_900_000  # the adapter's size in the repository
FIRST = {"panels": 0.7, "short": ("comparison", "range"), "marked": 1.0}
THEN = {"panels": 0.8, "short": ("comparison", "range", "arithmetic", "units", "trend"), "marked": 0.25}
FULL = {"steps": 300, "lr": 3e-4, "warm_up": 15, "short_only": 0.3, "first": FIRST, "then": THEN}
CUT = {"steps": 60, "lr": 5e-4, "warm_up": 5, "short_only": 0.0, "first": FIRST, "then": THEN}


def encode(tokenizer, turns: list[Question]) -> tuple[list[int], list[int]]:
    """Token ids of a chat, and the positions whose next token is an answer (yes or no in an assistant's turn)."""
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.prompt})
        messages.append({"role": "assistant", "content": turn.target})
    ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    opening = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    words = {tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No", " Yes", " No")}
    places, answering = [], False
    for i in range(len(opening), len(ids)):
        if ids[i - len(opening) : i] == opening:
            answering = True
        elif ids[i] == tokenizer.eos_token_id:
            answering = False
        if answering and ids[i] in words:
            places.append(i - 1)
    assert len(places) == sum(turn.target.count("\n") + 1 for turn in turns), (
        "an answer was not found in the chat"
    )
    return ids, places


def batches(tokenizer, rng: random.Random, steps: int, plan: dict):
    """Batches of about TOKENS_A_STEP padded tokens: ids (B, L) int64, answer places (N, 2), answer tokens (N,)."""
    pool: list[tuple[list[int], list[int]]] = []
    for step in range(steps):
        first = step < plan["short_only"] * steps
        rows: list[tuple[list[int], list[int]]] = []
        while True:
            while len(pool) < 64:  # chats of like length share a batch, so that little is padding
                stage = plan["first" if first else "then"]
                pool.append(encode(tokenizer, conversation(rng, **stage)))
            if not rows:
                rng.shuffle(pool)
                pivot = len(pool[0][0])
                pool.sort(key=lambda row: abs(len(row[0]) - pivot))
            longest = max([len(row[0]) for row in rows] + [len(pool[0][0])])
            if rows and longest * (len(rows) + 1) > TOKENS_A_STEP:
                break
            rows.append(pool.pop(0))
        width = max(len(ids) for ids, _ in rows)
        ids_BL = torch.full((len(rows), width), tokenizer.pad_token_id)
        for b, (ids, _) in enumerate(rows):
            ids_BL[b, : len(ids)] = torch.tensor(ids)
        places = torch.tensor([(b, i) for b, (_, at) in enumerate(rows) for i in at])
        yield ids_BL, places, ids_BL[places[:, 0], places[:, 1] + 1]


def answer_loss(model, ids_BL: Tensor, places: Tensor, answers: Tensor) -> tuple[Tensor, float]:
    """Cross entropy over the whole vocabulary at the answer positions only, and the share answered rightly.

    The head sees one 2-D matrix of hidden states: a 3-D product would copy it for every row. Padding is on the
    right and attention causal, so no mask is needed.
    """
    hidden_BLD = model.model(input_ids=ids_BL, use_cache=False).last_hidden_state
    logits = torch.nn.functional.linear(hidden_BLD[places[:, 0], places[:, 1]], model.lm_head.weight).float()
    loss = torch.nn.functional.cross_entropy(logits, answers)
    return loss, (logits.argmax(-1) == answers).float().mean().item()


def rate(step: int, plan: dict) -> float:
    """Linear warm-up, then linear decay to zero."""
    return plan["lr"] * min(
        (step + 1) / plan["warm_up"], (plan["steps"] - step) / (plan["steps"] - plan["warm_up"])
    )


def train(
    model, tokenizer, pairs: list[tuple[Tensor, Tensor]], plan: dict, seed: int, log: Path, save
) -> None:
    """AdamW on float32 masters beside the model's own tensors; `pairs` are (live, master), `save(step)` keeps them."""
    optimizer = torch.optim.AdamW([m for _, m in pairs], betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    rng = random.Random(f"train {seed}")
    with log.open("w", newline="") as handle:
        out = csv.writer(handle)
        out.writerow(["step", "loss", "accuracy", "answers", "tokens", "seconds"])
        start, seen = time.monotonic(), 0
        bar = tqdm(batches(tokenizer, rng, plan["steps"], plan), total=plan["steps"], mininterval=10)
        for step, (ids_BL, places, answers) in enumerate(bar):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, plan)
            loss, right = answer_loss(model, ids_BL, places, answers)
            loss.backward()
            for live, master in pairs:
                master.grad, live.grad = live.grad.float(), None
            torch.nn.utils.clip_grad_norm_([m for _, m in pairs], 1.0)
            optimizer.step()
            with torch.no_grad():
                for live, master in pairs:
                    live.copy_(master)
            seen += ids_BL.numel()
            row = [
                step,
                f"{loss.item():.4f}",
                f"{right:.3f}",
                len(answers),
                seen,
                f"{time.monotonic() - start:.0f}",
            ]
            out.writerow(row)
            handle.flush()
            if (step + 1) % 30 == 0 or step + 1 == plan["steps"]:
                save(step)


def full(base: Path, work: Path, seed: int) -> Path:
    """Train every layer weight; the result is written to `work`/full as a bfloat16 checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model.requires_grad_(False)
    pairs = []
    for name, live in model.named_parameters():
        if ".layers." in name and live.dim() == 2:
            live.requires_grad_(True)
            pairs.append((live, live.detach().float().clone()))
    work.mkdir(parents=True, exist_ok=True)

    def save(step: int) -> None:
        named = {id(live): master for live, master in pairs}
        torch.save(
            {n: named[id(p)] for n, p in model.named_parameters() if id(p) in named}, work / "full.partial"
        )
        (work / "full.partial").rename(work / "full.pt")

    train(model, tokenizer, pairs, FULL, seed, work / "full.csv", save)
    return work / "full.pt"


def main() -> None:
    """Run one step of the training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("full", "cut", "card"))
    parser.add_argument(
        "--base", type=Path, required=True, help="folder of the base model (Hugging Face layout)"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "numeric_adapter")
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()
    print({"full": full}[asked.step](asked.base, asked.work, asked.seed))


if __name__ == "__main__":
    main()
