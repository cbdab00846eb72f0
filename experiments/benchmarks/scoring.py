"""Yes/no scoring against lm-evaluation-harness at its best batch size and against a plain transformers forward.

Same token ids, same model object, same threads, one process, ways in alternating order; only scoring is timed. lm-eval
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
import os
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from patientdx.checkpoints.source import REPOSITORY, ModelSource, locate
from patientdx.core.errors import UserError
from patientdx.lm.load import load_tokenizer
from patientdx.lm.prompts import Prompts, tokenise
from patientdx.tasks.clinical import ClinicalTask
from patientdx.tasks.example import Example

OURS, PLAIN = (
    "ours",
    "transformers",
)  # as scoring_lm_eval names them; it cannot be imported here, without lm-eval
TOLERANCE = 1e-4  # of a margin in float32
INSTRUCTION = (
    "You read summaries of stays in an intensive care unit. Each holds the means of the first days' readings, each "
    "with its reference interval, and the treatments. Judge each patient by their own readings."
)


def main() -> None:
    """Renders the prompts, has them scored and timed, prints table, agreement, machine and one JSON line."""
    asked = _arguments()
    _check_environment(asked.lm_eval_python)
    sets, model = _prompt_sets(asked.prompts, asked.cache)
    job = {
        "model": str(model),
        "sets": {name: {"ids": found.ids, "options": found.options} for name, found in sets.items()},
        "dtypes": asked.dtypes,
        "batch_sizes": asked.batch_sizes,
        "rounds": asked.rounds,
        "threads": asked.threads,
        "seed": asked.seed,
    }
    measured = _run(job, asked.lm_eval_python, asked.threads)
    report = _report(sets, measured)
    _show(report, asked)
    print(json.dumps(report))
    if not all(found["agrees"] for found in report["agreement"].values()):
        raise SystemExit(f"margins differ by more than {TOLERANCE:g} in float32")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm-eval-python", type=Path, required=True, help="python of lm-eval's environment")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 16], help="of lm-eval")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--seed", type=int, default=0, help="of the order in each round")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx")).expanduser(),
    )
    return parser.parse_args()


def _check_environment(python: Path) -> None:
    code = "import importlib.metadata as m; print(*map(m.version, ('torch', 'transformers', 'lm_eval')))"
    recipe = "; ".join(line.strip() for line in __doc__.splitlines() if "venv-lm-eval" in line)
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{python} is no python with lm-eval in it. Make one: {recipe}") from error
    here = [version("torch"), version("transformers")]
    if [name.split("+")[0] for name in found[:2]] != [name.split("+")[0] for name in here]:
        raise UserError(f"{python} has torch and transformers {found[:2]}, but this environment has {here}.")


def _prompt_sets(n: int, cache: Path) -> tuple[dict[str, Prompts], Path]:
    """The first `n` test prompts of the mortality task, bare and behind an instruction with one worked train example.

    Only the first variant of each answer counts here, so that lm-eval is asked for just two continuations a prompt.
    """
    node = OmegaConf.load(REPOSITORY / "conf" / "base_model" / "smollm2_135m_instruct.yaml")
    folder = locate(ModelSource(**OmegaConf.to_container(node)), cache)
    task = ClinicalTask(outcome="mortality", window_hours=48, gap_hours=6, cache=cache).load()
    tests = [example for example in task.examples if example.split == "test"][:n]
    if len(tests) < n:
        raise UserError(f"--prompts {n}: the test split has {len(tests)} stays.")
    shown = next(example for example in task.examples if example.split == "train")
    sets = {
        "mortality": [(example.prefix, example.context, example.suffix) for example in tests],
        "one worked example": [(_worked(shown) + example.prefix, example.context, example.suffix) for example in tests],
    }
    tokenizer = load_tokenizer(folder)
    first = [variants[:1] for variants in tests[0].options]
    return {name: tokenise(tokenizer, parts, first) for name, parts in sets.items()}, folder


def _worked(example: Example) -> str:
    answer = example.options[1 - example.label][0]
    return f"{INSTRUCTION}\n\n{example.prefix}{example.context}{example.suffix}\n{answer}\n\n"


def _run(job: dict[str, Any], python: Path, threads: int) -> dict[str, Any]:
    """The result of scoring_lm_eval.py in the environment of `python`."""
    settings = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder, "job.json"), Path(folder, "result.json")
        asked.write_text(json.dumps(job))
        # Not resolved: a venv's python is a link, and what it links to knows nothing of the venv.
        command = [python.absolute(), "-m", "experiments.benchmarks.scoring_lm_eval", asked, found]
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | settings, check=True)
        return json.loads(found.read_text())


def _report(sets: dict[str, Prompts], measured: dict[str, Any]) -> dict[str, Any]:
    rows, agreement = [], {}
    for name, by_dtype in measured["results"].items():
        reference = by_dtype.get("float32")
        for dtype, found in by_dtype.items():
            seconds = found["seconds"]
            best = min((way for way in seconds if way.startswith("lm-eval")), key=lambda w: median(seconds[w]["cpu"]))
            fastest = min((w for w in seconds if w.startswith("lm-eval")), key=lambda w: median(seconds[w]["wall"]))
            each = [b / a for a, b in zip(seconds[OURS]["cpu"], seconds[best]["cpu"], strict=True)]
            rows.append({
                "set": name,
                "dtype": dtype,
                "prompts": len(sets[name].ids),
                "tokens": sum(map(len, sets[name].ids)),
                "prefix": found["prefix"],
                "cpu": {way: median(seconds[way]["cpu"]) for way in seconds},
                "wall": {way: median(seconds[way]["wall"]) for way in seconds},
                "best": {"cpu": best, "wall": fastest},
                "ratio_cpu": median(seconds[best]["cpu"]) / median(seconds[OURS]["cpu"]),
                "ratio_cpu_rounds": [min(each), max(each)],
                "ratio_wall": median(seconds[fastest]["wall"]) / median(seconds[OURS]["wall"]),
                "error": None if reference is None else _errors(found["margins"], reference["margins"]),
            })  # fmt: skip
        if reference is not None:
            gaps = {way: value for way, value in _gaps(reference["margins"]).items() if way != OURS}
            agreement[name] = {"largest_difference": gaps, "agrees": max(gaps.values()) <= TOLERANCE}
    return {"rows": rows, "agreement": agreement, "machine": measured["machine"]}


def _gaps(margins: dict[str, list[float]]) -> dict[str, float]:
    """Largest difference of each way's margins from ours."""
    return {way: _largest(values, margins[OURS]) for way, values in margins.items()}


def _errors(margins: dict[str, list[float]], reference: dict[str, list[float]]) -> dict[str, float]:
    """Largest difference of each way's margins from the plain forward in float32."""
    return {way: _largest(values, reference[PLAIN]) for way, values in margins.items()}


def _largest(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _show(report: dict[str, Any], asked: argparse.Namespace) -> None:
    console = Console(width=118)
    table = Table(box=SIMPLE_HEAD, title=f"Seconds for {asked.prompts} prompts, median of {asked.rounds} rounds")
    heads = ("prompts", "dtype", "way", "CPU s", "wall s", "x ours", "wall x", "margin error")
    for head in heads:
        table.add_column(head, justify="left" if head in heads[:3] else "right", no_wrap=True)
    for row in report["rows"]:
        named = row["set"]
        for way in sorted(row["cpu"], key=row["cpu"].get):
            best = " *" if way == row["best"]["cpu"] else ""
            table.add_row(
                named, row["dtype"], way + best, f"{row['cpu'][way]:.2f}", f"{row['wall'][way]:.2f}",
                f"{row['cpu'][way] / row['cpu'][OURS]:.2f}", f"{row['wall'][way] / row['wall'][OURS]:.2f}",
                "" if row["error"] is None else f"{row['error'][way]:.1e}",
            )  # fmt: skip
            named = ""
        table.add_section()
    console.print(table)
    console.print(
        "* lm-eval at its best batch size. x ours: CPU seconds over ours; wall x: wall seconds over ours. "
        "Margin error: the largest, from the plain forward in float32."
    )
    for row in report["rows"]:
        low, high = row["ratio_cpu_rounds"]
        console.print(
            f"{row['set']} ({row['tokens'] / row['prompts']:.0f} tokens a prompt, {row['prefix']} shared), "
            f"{row['dtype']}: ours is {row['ratio_cpu']:.2f} x as fast as lm-eval at its best batch size by CPU "
            f"seconds ({low:.2f} to {high:.2f} over the rounds), {row['ratio_wall']:.2f} x by wall."
        )
    for name, found in report["agreement"].items():
        worst = max(found["largest_difference"].values())
        said = "agree" if found["agrees"] else "DO NOT agree"
        console.print(f"{name}, float32: margins {said} to {TOLERANCE:g}; largest difference from ours {worst:.1e}.")
    facts = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    console.print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, {facts['vector_unit']}; "
        f"{versions}; load {facts['load_before']:.1f} before, {facts['load_after']:.1f} after."
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as refusal:
        raise SystemExit(str(refusal)) from None
