"""Yes/no scoring against lm-evaluation-harness at its best batch size and against a plain transformers forward.

Same token ids, same model object, same threads, one process, ways in random order; only scoring is timed. lm-eval
lives in an environment of its own, made once (torch first, the CPU build, so that no other one is fetched):

    python -m venv .venv-lm-eval
    .venv-lm-eval/bin/pip install torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
    .venv-lm-eval/bin/pip install lm-eval==0.4.13
    python -m experiments.benchmarks.scoring --lm-eval-python .venv-lm-eval/bin/python

This half makes the prompts; scoring_lm_eval.py, started in that environment, scores and times them.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks import harness
from patientdx.core.errors import UserError
from patientdx.lm.load import load_tokenizer
from patientdx.lm.prompts import Prompts, tokenise
from patientdx.tasks.example import Example

OURS, PLAIN = "ours", "transformers"  # as scoring_lm_eval names them; it cannot be imported here, without lm-eval
TOLERANCE = 1e-4  # of a margin in float32
INSTRUCTION = (
    "You read summaries of stays in an intensive care unit. Each holds the means of the first days' readings, each "
    "with its reference interval, and the treatments. Judge each patient by their own readings."
)


def main() -> None:
    """Make the prompts, time all ways in lm-eval's environment, print a table, sentences and one JSON line."""
    args = _arguments()
    expected = {name: version(name) for name in ("torch", "transformers")} | {"lm_eval": None}
    harness.check_environment(args.lm_eval_python, expected, __doc__)
    sets, model = _prompt_sets(args.prompts, args.cache)
    job = {
        "model": str(model),
        "sets": {name: {"ids": prompts.ids, "options": prompts.options} for name, prompts in sets.items()},
        **{key: getattr(args, key) for key in ("dtypes", "batch_sizes", "rounds", "threads", "seed")},
    }
    measured = harness.run_half("experiments.benchmarks.scoring_lm_eval", job, args.lm_eval_python, args.threads)
    report = _report(sets, measured)
    _show(report, args)
    print(json.dumps(report))
    if not all(gaps["agrees"] for gaps in report["agreement"].values()):
        raise SystemExit(f"margins differ by more than {TOLERANCE:g} in float32")


def _arguments() -> argparse.Namespace:
    parser = harness.parser(__doc__)
    parser.add_argument("--lm-eval-python", type=Path, required=True, help="python of lm-eval's environment")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 16], help="of lm-eval")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--seed", type=int, default=0, help="of the order in each round")
    parser.add_argument("--cache", type=Path, default=harness.CACHE)
    return parser.parse_args()


def _prompt_sets(count: int, cache: Path) -> tuple[dict[str, Prompts], Path]:
    """The first `count` test prompts of the mortality task, bare and after an instruction with one worked example.

    Only the first variant of each answer is used, so that lm-eval has just two continuations per prompt.
    """
    folder = harness.default_model(cache)
    task = harness.mortality_task(cache).load()
    tests = [example for example in task.examples if example.split == "test"][:count]
    if len(tests) < count:
        raise UserError(f"--prompts {count}: the test split has {len(tests)} stays.")
    worked = _worked(next(example for example in task.examples if example.split == "train"))
    tokenizer = load_tokenizer(folder)
    options = [variants[:1] for variants in tests[0].options]
    sets = {
        name: tokenise(tokenizer, [(start + test.prefix, test.context, test.suffix) for test in tests], options)
        for name, start in (("mortality", ""), ("one worked example", worked))
    }
    return sets, folder


def _worked(example: Example) -> str:
    answer = example.options[1 - example.label][0]
    return f"{INSTRUCTION}\n\n{example.prefix}{example.context}{example.suffix}\n{answer}\n\n"


def _report(sets: dict[str, Prompts], measured: dict[str, Any]) -> dict[str, Any]:
    rows, agreement = [], {}
    for name, by_dtype in measured["results"].items():
        reference = by_dtype.get("float32", {}).get("margins")
        for dtype, result in by_dtype.items():
            seconds = result["seconds"]
            batches = [way for way in seconds if way.startswith("lm-eval")]
            best = {clock: harness.fastest(seconds, batches, clock) for clock in ("cpu", "wall")}
            by_cpu = harness.ratio_of_medians(seconds, best["cpu"], OURS)
            rows.append({
                "set": name,
                "dtype": dtype,
                "prompts": len(sets[name].ids),
                "tokens": sum(map(len, sets[name].ids)),
                "prefix": result["prefix"],
                **{clock: {way: median(seconds[way][clock]) for way in seconds} for clock in ("cpu", "wall")},
                "best": best,
                "ratio_cpu": by_cpu["ratio"],
                "ratio_cpu_rounds": by_cpu["ratio_rounds"],
                "ratio_wall": harness.ratio_of_medians(seconds, best["wall"], OURS, "wall")["ratio"],
                "error": reference and _largest(result["margins"], reference[PLAIN]),
            })  # fmt: skip
        if reference is not None:
            gaps = {way: gap for way, gap in _largest(reference, reference[OURS]).items() if way != OURS}
            agreement[name] = {"largest_difference": gaps, "agrees": max(gaps.values()) <= TOLERANCE}
    return {"rows": rows, "agreement": agreement, "machine": measured["machine"]}


def _largest(margins: dict[str, list[float]], reference: list[float]) -> dict[str, float]:
    """Largest difference of each way's margins from the reference."""
    return {way: max(abs(a - b) for a, b in zip(values, reference, strict=True)) for way, values in margins.items()}


def _show(report: dict[str, Any], args: argparse.Namespace) -> None:
    lines, notes = [], []
    for row in report["rows"]:
        for way in sorted(row["cpu"], key=row["cpu"].get):
            best = " *" if way == row["best"]["cpu"] else ""
            lines.append((
                row["set"], row["dtype"], way + best, f"{row['cpu'][way]:.2f}", f"{row['wall'][way]:.2f}",
                f"{row['cpu'][way] / row['cpu'][OURS]:.2f}", f"{row['wall'][way] / row['wall'][OURS]:.2f}",
                "" if row["error"] is None else f"{row['error'][way]:.1e}",
            ))  # fmt: skip
        low, high = row["ratio_cpu_rounds"]
        notes.append(
            f"{row['set']} ({row['tokens'] / row['prompts']:.0f} tokens per prompt, {row['prefix']} shared), "
            f"{row['dtype']}: ours is {row['ratio_cpu']:.2f} x as fast as lm-eval at its best batch size by CPU "
            f"seconds ({low:.2f} to {high:.2f} over the rounds), {row['ratio_wall']:.2f} x by wall."
        )
    for name, gaps in report["agreement"].items():
        worst = max(gaps["largest_difference"].values())
        verdict = "agree" if gaps["agrees"] else "DO NOT agree"
        notes.append(f"{name}, float32: margins {verdict} to {TOLERANCE:g}; largest difference from ours {worst:.1e}.")
    stars = (
        "* lm-eval at its best batch size. x ours: CPU seconds over ours; wall x: wall seconds over ours. "
        "Margin error: the largest, from the plain forward in float32."
    )
    columns = ("prompts", "dtype", "way", "CPU s", "wall s", "x ours", "wall x", "margin error")
    title = f"Seconds for {args.prompts} prompts, median of {args.rounds} rounds"
    harness.show(harness.table(title, columns, lines, 3, stars, *notes, report["machine"]), width=118)


if __name__ == "__main__":
    harness.run(main)
