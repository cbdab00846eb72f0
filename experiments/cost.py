"""What each study took, and what it would take with other models: tokens, hours, memory.

    python -m experiments.cost                 # every study that has results below outputs
    python -m experiments.cost --output DIR --device H100 --utilisation 0.3

Measured: prompt tokens that language models read, the seconds of their answers, and what training took. For larger
models the hours of a GPU follow from the arithmetic that these tokens take and the share of the GPU's that a program
reaches: an estimate, and marked as one.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import RenderableType

from experiments.comparison import score_table
from experiments.reading import show, studies
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.evaluation.store import read_json
from patientdx.reporting.runs import Run, Study, read

MODELS = Path(__file__).resolve().parents[1] / "conf" / "models"
LARGER = {"7B": "mistral_7b_v0_1", "8B": "llama_3_1_8b"}
# Operations a second, as the maker states them for dense products in bfloat16 (A100 and H100 of the SXM form).
PEAK = {"A100": 312e12, "H100": 989e12}
DEVICE, UTILISATION = "A100", 0.4
_NONE = "–"
Key = tuple[str, str]  # of a speed: task and base


@dataclass(frozen=True)
class Cost:
    """answers: of language models, one a prompt; tokens: of those prompts; asking: seconds that all answers take, None
    where no run of any study asked one of the tasks; spent, training: seconds; billions: parameters of the base."""

    name: str
    answers: int
    tokens: float
    asking: float | None
    spent: float
    training: float
    training_memory: int
    billions: float | None

    @property
    def speed(self) -> float | None:
        """Prompt tokens a second, over all tasks."""
        return self.tokens / self.asking if self.asking else None

    @property
    def hours(self) -> float | None:
        """Answers and training, as if nothing of it had been at hand."""
        return None if self.asking is None else (self.asking + self.training) / 3600

    def gpu_hours(self, billions: float, device: str = DEVICE, utilisation: float = UTILISATION) -> float:
        """Hours of one GPU for all answers of a model of so many parameters, at this share of the GPU's peak.

        A token takes a multiplication and an addition a parameter; attention comes on top, a few percent of prompts of
        some thousand tokens. Training is not in it, nor is what a model generates.
        """
        return 2 * 1e9 * billions * self.tokens / (PEAK[device] * utilisation) / 3600


@dataclass(frozen=True)
class Asked:
    """What a study asked, by task and base: prompt tokens, and the tokens a second of each run that asked a model."""

    answers: int
    tokens: Mapping[Key, float]
    speeds: Mapping[Key, Sequence[float]]


def asked(study: Study) -> Asked:
    """Of the runs of the last sweep. Answers that several runs share count once, in the run that came to them first."""
    answers, seen = 0, set()
    tokens: dict[Key, float] = {}
    speeds: dict[Key, list[float]] = {}
    for run in study.runs:
        new = {row["fingerprint"]: row for row in run.rows if row["base"] is not None}
        own = sum(_answers(row) for name, row in new.items() if name not in seen)
        seen |= new.keys()
        key, read_here = (run.rows[0]["task"], run.rows[0]["base"]), own * _tokens(run)
        answers += own
        tokens[key] = tokens.get(key, 0.0) + read_here
        seconds = run.provenance.get("seconds", {}).get("scoring")
        if seconds and read_here:
            speeds.setdefault(key, []).append(read_here / seconds)
    return Asked(answers, {key: count for key, count in tokens.items() if count}, speeds)


def cost(study: Study, found: Asked, elsewhere: Mapping[Key, Sequence[float]]) -> Cost:
    """Of a study that asked `found`: each task at the median speed of its runs, or of those of other studies.

    Tasks differ by more than runs do. elsewhere: speeds of all studies.
    """
    known = {**elsewhere, **found.speeds}
    timed = bool(found.tokens) and found.tokens.keys() <= known.keys()
    training = {}
    for run in study.runs:
        trained = read_json(run.folder / "finetune.json")
        if trained is not None:
            training[trained["fingerprint"]] = trained
    return Cost(
        study.name, found.answers, sum(found.tokens.values()),
        sum(count / median(known[key]) for key, count in found.tokens.items()) if timed else None,
        sum(sum(run.provenance.get("seconds", {}).values()) for run in study.runs),
        sum(one["seconds"] for one in training.values()),
        max((one["peak_memory_bytes"] for one in training.values()), default=0),
        _billions(study.runs[0].config.get("base_model") or {}),
    )  # fmt: skip


def _answers(row: Mapping[str, Any]) -> int:
    """How often the model was asked: of a search once a candidate, not once a query."""
    return row.get("candidates") or row["n"]


def _tokens(run: Run) -> float:
    """Prompt tokens that one answer takes; what all prompts begin with is read once."""
    told = run.provenance.get("scoring") or {}
    return told["tokens"] / told["prompts"] - told.get("common_prefix", 0) if told.get("prompts") else 0.0


def _billions(model: Mapping[str, Any]) -> float | None:
    """Parameters in units of 1e9, from the yaml's size in bfloat16."""
    return None if model.get("memory_gb") is None else model["memory_gb"] / 2


def table(found: Sequence[Cost], device: str = DEVICE, utilisation: float = UTILISATION) -> Table:
    """One line a study. The last columns are estimates for larger models on that GPU."""
    sizes = larger()
    rows = []
    names = (
        "study",
        "answers",
        "tokens",
        "tokens/s",
        "training s",
        "spent s",
        "hours",
        *(f"{name} on {device}, estimate" for name in sizes),
    )
    for one in found:
        estimates = [_hours(one.gpu_hours(billions, device, utilisation)) for billions in sizes.values()]
        speed = _NONE if one.speed is None else f"{one.speed:,.0f}"
        training = f"{one.training:,.0f}" if one.training else _NONE
        told = [one.name, f"{one.answers:,}", f"{one.tokens:,.0f}", speed, training, f"{one.spent:,.0f}"]
        rows.append((*told, _hours(one.hours), *estimates))
    return score_table("", names, rows)


def larger() -> dict[str, float]:
    """Parameters of the larger models in units of 1e9, from their yamls."""
    told = {name: yaml.safe_load((MODELS / f"{stem}.yaml").read_text("utf-8")) for name, stem in LARGER.items()}
    return {name: _billions(node) for name, node in told.items()}


def notes(found: Sequence[Cost], device: str = DEVICE, utilisation: float = UTILISATION) -> Iterator[str]:
    """How the table was found, and what memory it takes."""
    yield (
        "Tokens: of the prompts that language models read, each answer once. Tokens a second: of prompts, while the "
        "seconds hold what was generated, too; each task at the median of its runs or, if the study found all scores "
        "at hand, of other studies' runs. What a run is the first of its study to show counts as worked out there: "
        "where another study left some of it, that run looks too fast. Spent: seconds of these runs, all told. Hours: "
        "of all answers at that speed, and of training, as if nothing had been at hand; what else spent tells of comes "
        "on top. –: no run of any study measured the speed of one of its tasks."
    )
    sizes = {"base of these runs": max((one.billions or 0.0 for one in found), default=0.0)} | larger()
    weights = ", ".join(f"{name} {2 * billions:.2g} GB" for name, billions in sizes.items())
    yield (
        f"Estimate: hours of one {device} at {utilisation:.0%} of its {PEAK[device] / 1e12:.0f} TFLOPS in bfloat16, "
        "two operations a parameter and prompt token, with the tokens of these runs; no larger model was run. "
        "Training, generated tokens and loading come on top. python -m experiments.benchmarks.scoring measures a GPU's "
        "own speed."
    )
    yield (
        f"Memory: the live model's weights in bfloat16, by parameters ({weights}), and what PyTorch and one prompt "
        "take; parents are mapped from disk and need none of their own."
    )
    peak = max((one.training_memory for one in found), default=0)
    if peak:
        yield f"Training took at most {peak / 1e9:.2f} GB, measured; in float32 it grows with the parameters."


def costs(output: Path) -> list[Cost]:
    """Of every study below `output` that has results."""
    found = []
    for name in (name for names in studies(output).values() for name in names):
        with contextlib.suppress(UserError):  # a sweep of which no run is left: its own script says so
            study = read(output / name)
            found.append((study, asked(study)))
    elsewhere: dict[Key, list[float]] = {}
    for _, one in found:
        for key, speeds in one.speeds.items():
            elsewhere.setdefault(key, []).extend(speeds)
    return [cost(study, one, elsewhere) for study, one in found]


def _hours(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{60 * value:.1f} min" if value < 1 else f"{value:,.1f} h"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 with one message where there is none to print."""
    asked = argparse.ArgumentParser(prog="python -m experiments.cost", description=__doc__.splitlines()[0])
    asked.add_argument("--output", type=Path, default=Path("outputs"), help="output= of the runs")
    asked.add_argument("--device", choices=PEAK, default=DEVICE, help="GPU of the estimates")
    asked.add_argument("--utilisation", type=float, default=UTILISATION, help="share of its peak, above 0 and up to 1")
    words = asked.parse_args(arguments)
    return show(lambda: contents(words.output.expanduser(), words.device, words.utilisation))


def contents(output: Path, device: str = DEVICE, utilisation: float = UTILISATION) -> Iterator[RenderableType]:
    """The table and its notes; UserError where no study has results, or the share of the GPU's peak is none."""
    if not 0 < utilisation <= 1:
        raise UserError(f"--utilisation {utilisation:g}: give a share above 0 and up to 1.")
    found = costs(output)
    if not found:
        raise UserError(f"no study below {output} has results. First, as in: python run.py experiment=lambda_curve")
    yield table(found, device, utilisation)
    yield from notes(found, device, utilisation)


if __name__ == "__main__":
    raise SystemExit(main())
