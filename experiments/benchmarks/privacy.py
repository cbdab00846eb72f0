"""Losses for the leakage test and membership inference against one plain forward pass over the same tokens.

    python -m experiments.benchmarks.privacy
    python -m experiments.benchmarks.privacy --records 24 --tokens 500 --rounds 3

Same token ids, same model object, one thread, one process, ways in random order, CPU seconds of the process. Plain
is `model(ids).logits`, one record at a time, in the model's dtype; ours gives every token's loss, the mean and variance
of log p over the vocabulary, Min-K% and Min-K%++, with the head in float32. A second part measures what each takes in
memory beside its model, for a vocabulary and one four times as large, each in a process of its own (Linux).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path
from statistics import median
from typing import Any

import torch

from experiments.benchmarks import harness
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.logprobs import log_probabilities, token_losses
from patientdx.privacy.attacks import min_k, min_k_pp

TARGET = 1.3
_WIDTH, _VOCABULARY = 576, 49152  # of the default model


def main() -> None:
    """Time both ways, measure their memory, print tables and one JSON line."""
    args = _arguments()
    torch.set_num_threads(1)
    folder = harness.default_model(args.cache)
    ids = _records(folder, args)
    result: dict[str, Any] = {"records": len(ids), "tokens": sum(map(len, ids)), "times": {}, "memory": {}}
    for dtype in args.dtypes:
        model = load_model(folder, dtype=getattr(torch, dtype), device=torch.device("cpu"))
        result["times"][dtype] = _timed(model, ids, args.rounds)
    for way in ("ours", "full softmax"):
        result["memory"][way] = [_peak(way, args.tokens, size) for size in (_VOCABULARY, 4 * _VOCABULARY)]
    _show(result)
    print(json.dumps(result))
    if args.check and any(times["ratio"] > TARGET for times in result["times"].values()):
        raise SystemExit(f"more than {TARGET} times one plain forward pass")


def _arguments() -> argparse.Namespace:
    parser = harness.parser(__doc__)
    parser.add_argument("--records", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=500, help="of each record; longer texts are cut to that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--check", action="store_true", help=f"fail above {TARGET} times")
    parser.add_argument("--cache", type=Path, default=harness.CACHE)
    return parser.parse_args()


def _records(folder: Path, args: argparse.Namespace) -> list[list[int]]:
    """Records of the synthetic hospital by the longest template, cut to --tokens; the longest first."""
    tokenizer = load_tokenizer(folder)
    hospital = {"stays": max(240, 2 * args.records), "seed": 0}
    data = harness.mortality_task(args.cache, template="narrative/1", synthetic=hospital).load()
    rows = [tokenizer(example.context)["input_ids"][: args.tokens] for example in data.examples]
    return sorted(rows, key=len, reverse=True)[: args.records]


def _timed(model: torch.nn.Module, ids: list[list[int]], rounds: int) -> dict[str, Any]:
    """Median CPU seconds of each way, and the ratio of ours to the plain forward pass."""

    @torch.inference_mode()
    def plain() -> None:
        for row in ids:
            model(input_ids=torch.tensor([row]), use_cache=False)

    def ours() -> None:
        for losses in token_losses(model, ids, batch_tokens=1)[1]:
            min_k(losses.nll, 20)
            min_k_pp(losses.nll, losses.mean, losses.variance, 20)

    ways = {"plain": plain, "ours": ours}
    harness.measure(ways, 1)  # warms up
    seconds = harness.measure(ways, rounds)
    medians = {name: median(clocks["cpu"]) for name, clocks in seconds.items()}
    return medians | harness.ratio_of_medians(seconds, "ours", "plain")


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
    log_probabilities(hidden[:2], head, target[:2])  # loads what is loaded on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is in use now
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


def _show(result: dict[str, Any]) -> None:
    title = f"{result['records']} records, {result['tokens']} tokens, CPU seconds (median)"
    times = [
        (dtype, f"{time['plain']:.2f}", f"{time['ours']:.2f}", f"{time['ratio']:.2f}",
         "{:.2f} to {:.2f}".format(*time["ratio_rounds"])) for dtype, time in result["times"].items()
    ]  # fmt: skip
    columns = ("dtype", "plain forward", "losses and moments", "ratio", "over the rounds")
    memory = [(way, *(f"{peak:.0f}" for peak in peaks)) for way, peaks in result["memory"].items()]
    sizes = [f"V = {size}" for size in (_VOCABULARY, 4 * _VOCABULARY)]
    harness.show(
        harness.table(title, columns, times, 1),
        harness.table("MB beside the model", ("way", *sizes), memory, 1, harness.machine("1 thread")),
    )


if __name__ == "__main__":
    main()
