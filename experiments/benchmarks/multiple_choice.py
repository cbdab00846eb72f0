"""Multiple choice against lm-evaluation-harness 0.4.13: prompts, log-likelihoods and answers, and CPU seconds.

The same texts, the same model object, one thread, one process; tokenising is timed on both sides. The harness lives in
an environment of its own (see scoring.py):

    python -m experiments.benchmarks.multiple_choice --lm-eval-python .venv-lm-eval/bin/python \\
        --medqa <test.jsonl> --medmcqa <test.jsonl> --pubmedqa <folder> --mmlu <folder>

This half makes the prompts; multiple_choice_lm_eval.py, started in that environment, scores and times them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.benchmarks import harness
from patientdx.tasks.example import TaskData
from patientdx.tasks.multiple_choice import MultipleChoiceTask

TOLERANCE = 1e-3  # of a sum of log-probabilities in float32, in nats


def main() -> None:
    """Render the prompts, score and time them in lm-eval's environment, print a table and one JSON line."""
    parser = harness.parser(__doc__)
    parser.add_argument("--lm-eval-python", type=Path, required=True)
    for name in ("medqa", "medmcqa", "pubmedqa", "mmlu"):
        parser.add_argument(f"--{name}", required=True, help=f"file or folder of {name}")
    parser.add_argument("--items", type=int, default=24, help="of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="of lm-eval")
    parser.add_argument("--sets", nargs="*", help="of those in the table; all unless given")
    parser.add_argument("--cache", type=Path, default=harness.CACHE)
    args = parser.parse_args()
    shots: dict[str, Any] = {"shots": 2, "fractions": {"train": 0.1, "test": 0.9}}

    def task(question_set: str, path: str, **options: Any) -> MultipleChoiceTask:
        return MultipleChoiceTask(question_set=question_set, path=path, limit=args.items, **options)

    sets = {
        "medqa, letter": task("medqa", args.medqa),
        "medmcqa, letter": task("medmcqa", args.medmcqa),
        "medmcqa, text": task("medmcqa", args.medmcqa, answer="text"),
        "medqa, letter, 2 shots": task("medqa", args.medqa, **shots),
        "medqa, text, 2 shots": task("medqa", args.medqa, answer="text", **shots),
        "pubmedqa": task("pubmedqa", args.pubmedqa),
        "mmlu_medical, letter": task("mmlu_medical", args.mmlu),
    }
    job = {
        "model": str(harness.default_model(args.cache.expanduser())),
        "sets": {name: items(task.load()) for name, task in sets.items() if not args.sets or name in args.sets},
        "rounds": args.rounds,
        "batch_sizes": args.batch_sizes,
    }
    report = harness.run_half("experiments.benchmarks.multiple_choice_lm_eval", job, args.lm_eval_python)
    _show(report)
    print(json.dumps(report))
    if any(
        result["difference"] > TOLERANCE or result["answers_differ"] or result["prompts_differ"]
        for result in report["sets"].values()
    ):
        raise SystemExit("not equal to lm-eval")


def items(data: TaskData) -> list[dict[str, Any]]:
    """The test questions as plain texts, in the order of the task."""
    return [
        {
            "parts": [example.prefix, example.context, example.suffix],
            "options": [text for (text,) in example.options],
            "right": example.gold,
        }
        for example in data.examples
        if example.split == "test"
    ]


def _show(report: dict[str, Any]) -> None:
    lines = []
    totals = {"ours": 0.0, "lm-eval": 0.0}
    for name, result in report["sets"].items():
        ours, (batch, best) = result["seconds"]["ours"], min(result["seconds"]["lm-eval"].items(), key=lambda b: b[1])
        totals = {"ours": totals["ours"] + ours, "lm-eval": totals["lm-eval"] + best}
        lines.append((
            name, str(result["items"]), str(result["tokens"]), str(result["option_tokens"]),
            f"{result['difference']:.1e}", str(result["answers_differ"]), f"{ours:.2f}", f"{best:.2f} ({batch})",
            "{:.2f} ({:.2f} to {:.2f})".format(result["ratio"], *result["ratio_rounds"]),
        ))  # fmt: skip
    seconds = [f"{total:.2f}" for total in totals.values()]
    lines.append(("all of them", *[""] * 5, *seconds, f"{totals['lm-eval'] / totals['ours']:.2f}"))
    columns = ("set", "items", "tokens", "options' tokens", "difference", "answers differ", "ours CPU s")
    columns += ("lm-eval CPU s", "x")
    notes = (
        "Medians of CPU seconds over the rounds, lm-eval at its best batch size (in brackets). Difference: the largest "
        "of a sum of log-probabilities, float32.",
        report["machine"],
    )
    harness.show(harness.table("Multiple choice beside lm-eval", columns, lines, 1, *notes), width=130)


if __name__ == "__main__":
    harness.run(main)
