"""Losses for the leakage test and membership inference against one plain forward pass over the same tokens.

    python -m experiments.benchmarks.privacy
    python -m experiments.benchmarks.privacy --records 24 --tokens 500 --rounds 3

Same token ids, same model object, one thread, one process, ways in alternating order, CPU seconds of the process. Plain
is `model(ids).logits`, one record at a time, in the model's dtype; ours gives every token's loss, the mean and variance
of log p over the vocabulary, Min-K% and Min-K%++, with the head in float32. A second part measures what each takes in
memory beside its model, for a vocabulary and one four times as large, each in a process of its own (Linux).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.machine import machine
from patientdx.checkpoints.source import REPOSITORY, ModelSource, locate
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.logprobs import log_probabilities, token_losses
from patientdx.privacy.attacks import min_k, min_k_pp
from patientdx.tasks.clinical import ClinicalTask

TARGET = 1.3
_WIDTH, _VOCABULARY = 576, 49152  # of the default model


def main() -> None:
    """Times both ways, measures their memory, prints a table and one JSON line."""
    asked = _arguments()
    torch.set_num_threads(1)
    source = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf" / "base_model" / "smollm2_135m_instruct.yaml"))
    folder = locate(ModelSource(**source), asked.cache)
    ids = _records(folder, asked)
    found = {"records": len(ids), "tokens": sum(map(len, ids)), "times": {}, "memory": {}}
    for dtype in asked.dtypes:
        model = load_model(folder, dtype=getattr(torch, dtype), device=torch.device("cpu"))
        found["times"][dtype] = _timed(model, ids, asked.rounds)
    for way in ("ours", "full softmax"):
        found["memory"][way] = [_peak(way, asked.tokens, size) for size in (_VOCABULARY, 4 * _VOCABULARY)]
    _show(found)
    print(json.dumps(found))
    if asked.check and any(one["ratio"] > TARGET for one in found["times"].values()):
        raise SystemExit(f"more than {TARGET} times one plain forward pass")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=500, help="of each record; longer texts are cut to that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--check", action="store_true", help=f"fail above {TARGET} times")
    parser.add_argument(
        "--cache", type=Path, default=Path(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx")).expanduser()
    )
    return parser.parse_args()


def _records(folder: Path, asked: argparse.Namespace) -> list[list[int]]:
    """Records of the synthetic hospital, in the words of the longest template, cut to the tokens asked for."""
    tokenizer = load_tokenizer(folder)
    hospital = {"stays": max(240, 2 * asked.records), "seed": 0}
    data = ClinicalTask(
        outcome="mortality", window_hours=48, gap_hours=6, cache=asked.cache, template="narrative", synthetic=hospital
    ).load()
    rows = [tokenizer(example.context)["input_ids"][: asked.tokens] for example in data.examples]
    return sorted(rows, key=len, reverse=True)[: asked.records]


def _timed(model, ids: list[list[int]], rounds: int) -> dict[str, float | list[float]]:
    """CPU seconds of each way in each round, and the ratio of their medians."""

    @torch.inference_mode()
    def plain() -> None:
        for row in ids:
            model(input_ids=torch.tensor([row]), use_cache=False)

    def ours() -> None:
        for one in token_losses(model, ids, batch_tokens=1)[1]:
            min_k(one.nll, 20)
            min_k_pp(one.nll, one.mean, one.variance, 20)

    ways: dict[str, Callable[[], None]] = {"plain": plain, "ours": ours}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in sorted(ways, reverse=number % 2 == 0):
            start = time.process_time()
            ways[name]()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    each = [ours / plain for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)]
    middle = {name: median(one) for name, one in seconds.items()}
    return middle | {"ratio": middle["ours"] / middle["plain"], "ratio_rounds": [min(each), max(each)]}


def _peak(way: str, tokens: int, vocabulary: int) -> float:
    """MB that one record of `tokens` takes at its peak beside hidden states and head."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_walk, (way, tokens, vocabulary))


@torch.inference_mode()
def _walk(way: str, tokens: int, vocabulary: int) -> float:
    torch.set_num_threads(1)
    head = torch.nn.Linear(_WIDTH, vocabulary, bias=False, dtype=torch.bfloat16)
    hidden, target = torch.randn(tokens, _WIDTH), torch.zeros(tokens, dtype=torch.long)
    log_probabilities(hidden[:2], head, target[:2])  # what is loaded on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is held now
    before = _status("VmRSS")
    if way == "ours":
        log_probabilities(hidden, head, target)
    else:
        log_p = torch.log_softmax(torch.nn.functional.linear(hidden, head.weight.float()), -1)
        (log_p.exp() * log_p).sum(-1)
    return _status("VmHWM") - before


def _status(name: str) -> float:
    """MB that the kernel counts for this process under `name`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def _show(found: dict) -> None:
    console = Console(width=100)
    title = f"{found['records']} records, {found['tokens']} tokens, CPU seconds (median)"
    times = Table(
        "dtype", "plain forward", "losses and moments", "ratio", "over the rounds", box=SIMPLE_HEAD, title=title
    )
    for dtype, one in found["times"].items():
        low, high = one["ratio_rounds"]
        row = f"{one['plain']:.2f}", f"{one['ours']:.2f}", f"{one['ratio']:.2f}", f"{low:.2f} to {high:.2f}"
        times.add_row(dtype, *row)
    console.print(times)
    memory = Table("way", f"V = {_VOCABULARY}", f"V = {4 * _VOCABULARY}", box=SIMPLE_HEAD, title="MB beside the model")
    for way, both in found["memory"].items():
        memory.add_row(way, *(f"{one:.0f}" for one in both))
    console.print(memory)
    console.print(machine("1 thread"))


if __name__ == "__main__":
    main()
