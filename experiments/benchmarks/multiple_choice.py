"""Multiple choice against lm-evaluation-harness 0.4.13: prompts, log-likelihoods and answers, and CPU seconds.

The same texts, the same model object, one thread, one process; tokenising is timed on both sides. The harness lives in
an environment of its own (see scoring.py):

    python -m experiments.benchmarks.multiple_choice --lm-eval-python .venv-lm-eval/bin/python \\
        --medqa <test.jsonl> --medmcqa <test.jsonl> --pubmedqa <folder> --mmlu <folder>

This half makes the prompts; multiple_choice_lm_eval.py, started in that environment, scores and times them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from patientdx.checkpoints.source import REPOSITORY, ModelSource, locate
from patientdx.tasks.example import TaskData
from patientdx.tasks.multiple_choice import MultipleChoiceTask

TOLERANCE = 1e-3  # of a sum of log-probabilities in float32, in nats


def main() -> None:
    """Renders the prompts, has them scored and timed, prints agreement, ratio, machine and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm-eval-python", type=Path, required=True)
    for name in ("medqa", "medmcqa", "pubmedqa", "mmlu"):
        parser.add_argument(f"--{name}", required=True, help=f"file or folder of {name}")
    parser.add_argument("--items", type=int, default=24, help="of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="of lm-eval")
    parser.add_argument("--sets", nargs="*", help="of those in the table; all unless given")
    parser.add_argument("--cache", default=os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx"))
    asked = parser.parse_args()
    node = OmegaConf.load(REPOSITORY / "conf" / "base_model" / "smollm2_135m_instruct.yaml")
    folder = locate(ModelSource(**OmegaConf.to_container(node)), Path(asked.cache).expanduser())
    drawn = {"train": 0.1, "test": 0.9}
    sets = {
        "medqa, letter": MultipleChoiceTask(question_set="medqa", path=asked.medqa, limit=asked.items),
        "medmcqa, letter": MultipleChoiceTask(question_set="medmcqa", path=asked.medmcqa, limit=asked.items),
        "medmcqa, text": MultipleChoiceTask(
            question_set="medmcqa", path=asked.medmcqa, limit=asked.items, answer="text"
        ),
        "medqa, letter, 2 shots": MultipleChoiceTask(
            question_set="medqa", path=asked.medqa, limit=asked.items, shots=2, fractions=drawn
        ),
        "medqa, text, 2 shots": MultipleChoiceTask(
            question_set="medqa", path=asked.medqa, limit=asked.items, answer="text", shots=2, fractions=drawn
        ),
        "pubmedqa": MultipleChoiceTask(question_set="pubmedqa", path=asked.pubmedqa, limit=asked.items),
        "mmlu_medical, letter": MultipleChoiceTask(question_set="mmlu_medical", path=asked.mmlu, limit=asked.items),
    }
    job = {
        "model": str(folder),
        "sets": {name: items(task.load()) for name, task in sets.items() if not asked.sets or name in asked.sets},
        "rounds": asked.rounds,
        "batch_sizes": asked.batch_sizes,
    }
    found = _run(job, asked.lm_eval_python)
    _show(found)
    print(json.dumps(found))
    if any(
        one["difference"] > TOLERANCE or one["answers_differ"] or one["prompts_differ"]
        for one in found["sets"].values()
    ):
        raise SystemExit("not equal to lm-eval")


def items(data: TaskData) -> list[dict[str, Any]]:
    """The test questions as plain texts, in the order of the task."""
    return [
        {"parts": [one.prefix, one.context, one.suffix], "options": [text for (text,) in one.options], "right": one.gold}
        for one in data.examples if one.split == "test"
    ]  # fmt: skip


def _run(job: dict[str, Any], python: Path) -> dict[str, Any]:
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder, "job.json"), Path(folder, "result.json")
        asked.write_text(json.dumps(job))
        command = [python.absolute(), "-m", "experiments.benchmarks.multiple_choice_lm_eval", asked, found]
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | settings, check=True)
        return json.loads(found.read_text())


def _show(found: dict[str, Any]) -> None:
    heads = (
        "set",
        "items",
        "tokens",
        "options' tokens",
        "difference",
        "answers differ",
        "ours CPU s",
        "lm-eval CPU s",
        "x",
    )
    table = Table(*heads, box=SIMPLE_HEAD)
    mine = theirs = 0.0
    for name, one in found["sets"].items():
        best = min(one["seconds"]["lm-eval"].items(), key=lambda pair: pair[1])
        mine, theirs = mine + one["seconds"]["ours"], theirs + best[1]
        table.add_row(
            name, str(one["items"]), str(one["tokens"]), str(one["option_tokens"]), f"{one['difference']:.1e}",
            str(one["answers_differ"]), f"{one['seconds']['ours']:.2f}", f"{best[1]:.2f} (batch {best[0]})",
            f"{one['ratio']:.2f} ({one['ratio_rounds'][0]:.2f} to {one['ratio_rounds'][1]:.2f})",
        )  # fmt: skip
    table.add_row("all of them", *[""] * 5, f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.2f}")
    console = Console(width=130)
    console.print(table)
    console.print(
        "Medians of CPU seconds over the rounds, lm-eval at its best batch size. Difference: the largest of a sum of"
    )
    console.print(f"log-probabilities, float32. {found['machine']}")


if __name__ == "__main__":
    main()
