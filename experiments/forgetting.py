"""Merging against forgetting: a domain model merged back with its base, what it keeps of the domain and wins back.

    python -m experiments.domain_model                         # first: the domain model
    python run.py experiment=forgetting                        # run it
    python -m experiments.forgetting                           # read it; a picture goes beside sweep.csv
    python -m experiments.forgetting --output DIR --name NAME  # read one run with output=DIR name=NAME
    python -m experiments.forgetting --name forgetting_dialogue  # clinical dialogue against IFEval and GSM8K

Each task by its first metric; its other metrics stand in a table of their own. What a model forgot is F = the base's
score less its own, on a task of another domain. λ is chosen on the pilot split, for each method, and reported on test.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.comparison import Line, change_text, comparison_table, score_table, score_text, source_notes
from experiments.forgetting_picture import draw
from experiments.published import Block, published
from experiments.reading import Content, command, folder, option, script
from experiments.study import PILOT, TEST, Row, Run, Study, difference, drawn, last_sweep, refuse_shared_patients
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.metrics.bootstrap import Interval

PICTURE = "forgetting.png"


@dataclass(frozen=True)
class Model:
    """One model on every task: its rows by (task, split), and by task the run that scored it."""

    role: str
    method: str | None
    weight: float
    rows: Mapping[tuple[str, str], Row]
    runs: Mapping[str, Run]

    @property
    def name(self) -> str:
        """As the tables call it."""
        return {"base": "base", "pivot": "domain model"}.get(self.role) or f"{self.method} λ={self.weight:g}"


@dataclass(frozen=True)
class Share:
    """A share of a difference, with the percentile interval of its resamples."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """In whole percents."""
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


@dataclass(frozen=True)
class Curves:
    """The study: a metric for each task, the domain's first; parents, and each method's models by rising λ."""

    folder: Path
    metrics: Mapping[str, str]
    base: Model
    domain_model: Model
    methods: Mapping[str, tuple[Model, ...]]

    @property
    def domain(self) -> str:
        """The task of the domain."""
        return next(iter(self.metrics))

    @property
    def general(self) -> tuple[str, ...]:
        """The other tasks."""
        return tuple(self.metrics)[1:]

    @property
    def models(self) -> Iterator[Model]:
        """All, parents first."""
        yield from self.parents
        yield from (model for models in self.methods.values() for model in models)

    @property
    def parents(self) -> tuple[Model, Model]:
        """Base and domain model."""
        return self.base, self.domain_model

    @property
    def beyond(self) -> tuple[str, ...]:
        """The tasks of which neither parent's score on pilot is known to a factor of two: one answer would decide."""
        rows = {task: [(one.rows[task, PILOT], name) for one in self.parents] for task, name in self.metrics.items()}
        return tuple(
            task for task, found in rows.items()
            if not any((row.get(f"{name}_ci_high") or np.inf) < 2 * row[name] for row, name in found)
        )  # fmt: skip

    def score(self, model: Model, task: str, split: str) -> float:
        """The model's value of the task's metric."""
        return model.rows[task, split][self.metrics[task]]

    def change(self, task: str, a: Model, b: Model) -> Interval:
        """The score of a less that of b on test, paired."""
        return difference(self.metrics[task], (a.runs[task], a.role), (b.runs[task], b.role), TEST)

    def share(self, task: str, model: Model, none: Model, whole: Model) -> Share:
        """How far the model's score on test is on the way from that of `none` to that of `whole`."""
        three = drawn(self.metrics[task], [(one.runs[task], one.role) for one in (model, none, whole)], TEST)
        (own, owns), (start, starts), (end, ends) = three
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = (owns - starts) / (ends - starts)
        level = model.runs[task].config["bootstrap"]["level"]
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(ratios[np.isfinite(ratios)], tails)  # a resample without a gain has no share of it
        return Share((own - start) / (end - start), float(low), float(high))

    def chosen(self, method: str) -> Model:
        """The λ of the method with the highest mean, on pilot, of the domain's score and of the general ones' mean.

        Each score is a share of the better parent's, so that scales of different lengths count alike; a task that
        neither parent is shown to do at all has no share and is left out. Ties go to the smaller λ.
        """
        return max(self.methods[method], key=lambda model: (self.kept(model), -model.weight))

    def kept(self, model: Model) -> float:
        """That mean."""
        beyond = self.beyond
        share = {
            task: self.score(model, task, PILOT) / max(self.score(one, task, PILOT) for one in self.parents)
            for task in self.metrics
            if task not in beyond
        }
        groups = [[share[task] for task in tasks if task in share] for tasks in ((self.domain,), self.general)]
        return float(np.mean([np.mean(group) for group in groups if group] or [0.0]))


def curves(study: Study, domain: str | None = None) -> Curves:
    """The study as curves. UserError where it lacks a task, a split or a λ, or patients are in both splits."""
    parts, config = study.parts("task"), study.runs[0].config
    domain = domain or config.get("domain")
    if domain not in parts or len(parts) < 2:
        raise UserError(
            f"the last sweep in {study.folder} asked {', '.join(parts)}; a trade-off needs the domain's task "
            f"({domain}) and another. Sweep both, as in task=dialogue_to_section,ifeval domain=dialogue_to_section."
        )
    ordered = {task: parts[task] for task in sorted(parts, key=lambda task: task != domain)}
    metrics = {task: next(iter(part.runs[0].config["task"]["metrics"])) for task, part in ordered.items()}
    for part in ordered.values():
        refuse_shared_patients(part.runs[0], PILOT, TEST)
    of = {task: sorted({_key(row) for row in part.rows if row["role"] == "merged"}) for task, part in ordered.items()}
    if len({tuple(points) for points in of.values()}) > 1:
        raise UserError(f"the tasks of the last sweep in {study.folder} have other models each: a table has no gaps.")
    points = [point for point in of[domain] if point[1] is not None]
    if len({weight for _, weight in points}) < 2:
        raise UserError(f"the last sweep in {study.folder} has fewer than two λ: there is no curve.")
    merged = [_model(ordered, "merged", method, weight) for method, weight in points]
    methods = dict.fromkeys(method for method, _ in points)
    return Curves(
        study.folder, metrics, _model(ordered, "base", None, 0.0), _model(ordered, "pivot", None, 1.0),
        {method: tuple(one for one in merged if one.method == method) for method in methods},
    )  # fmt: skip


def _key(row: Row) -> tuple[str, float | None]:
    return row["method"], row["lambda"]


def _model(parts: Mapping[str, Study], role: str, method: str | None, weight: float) -> Model:
    rows, runs = {}, {}
    for task, part in parts.items():
        if role == "merged":
            runs[task] = part.run_of(method, weight)
        else:
            runs[task] = next((run for run in part.runs if any(row["role"] == role for row in run.rows)), part.runs[0])
        own = Study(part.folder, (runs[task],))
        rows |= {(task, split): own.row(role, split) for split in (PILOT, TEST)}
    return Model(role, method, weight, rows, runs)


def table(found: Curves) -> Table:
    """Every model: the domain's score, the general ones, and what it forgot of each; * is λ chosen on pilot."""
    rows = []
    names = [f"{task} {metric}" for task, metric in found.metrics.items()]
    chosen = [found.chosen(method) for method in found.methods]
    for model in found.models:
        scores = [score_text(model.rows[task, TEST], metric) for task, metric in found.metrics.items()]
        lost = [
            "–" if model is found.base else change_text(found.change(task, found.base, model)) for task in found.general
        ]
        rows.append((model.name + " *" * any(model is one for one in chosen), *scores, *lost))
    names = ("", *names, *(f"F, {task}" for task in found.general))
    return score_table(f"Scores on {TEST}, and F", names, rows)


def lines(found: Curves, block: Block) -> Iterator[Line]:
    """What was gained, forgotten, kept and won back, beside what was published."""
    yield _line("domain gained", found.change(found.domain, found.domain_model, found.base), block, "domain_gain")
    for task in found.general:
        yield _line(f"forgotten, {task}", found.change(task, found.base, found.domain_model), block, "forgotten")
    for method in found.methods:
        model = found.chosen(method)
        yield _line(f"{model.name}: domain over base", found.change(found.domain, model, found.base), block, "kept")
        for task in found.general:
            won = found.change(task, model, found.domain_model)
            yield _line(f"{model.name}: won back, {task}", won, block, "won_back")


def _line(name: str, found: Interval, block: Block, cell: str) -> Line:
    return Line(name, change_text(found), block.cells[cell], found)


def others(found: Curves) -> Iterator[Table]:
    """Of each task that has several metrics all of them, for the parents and the λ chosen on pilot."""
    models = [*found.parents, *(found.chosen(method) for method in found.methods)]
    for task in found.metrics:
        rows = [model.rows[task, TEST] for model in models]
        names = [name.removesuffix("_ci_low") for name in rows[0] if name.endswith("_ci_low")]
        names = [name for name in names if all(row.get(f"{name}_ci_low") is not None for row in rows)]
        written = all("ended" in row for row in rows)
        if len(names) < 2 and not written:
            continue
        cells = [(name, *(score_text(row, name) for row in rows)) for name in names]
        if written:  # an answer that was cut off can fail an instruction, or lack its number, for that alone
            cells.append(("ended by itself", *(f"{row['ended']:.2f}" for row in rows)))
            cells.append(("tokens, mean", *(f"{row['mean_tokens']:.0f}" for row in rows)))
        yield score_table(f"{task}: all metrics", ("", *(model.name for model in models)), cells)


def answer(found: Curves) -> Iterator[str]:
    """Whether there was anything to forget, and whether merging back is worth it: shares only of what is shown."""
    gained = found.change(found.domain, found.domain_model, found.base)
    if gained.low <= 0:
        yield (
            f"The domain model is not shown to be better in its domain ({change_text(gained)}): there is no gain that "
            "a merge could keep, and no share of it."
        )
    for task in found.general:
        lost = found.change(task, found.base, found.domain_model)
        if lost.low <= 0:
            yield (
                f"{task}: no forgetting is shown (F {change_text(lost)}), so there is nothing that a merge is to win "
                "back, and no share of it."
            )
        for method in found.methods if gained.low > 0 and lost.low > 0 else ():
            model = found.chosen(method)
            if model.weight in (0.0, 1.0):
                yield f"{task}: {model.name} is a parent; of {method} no merge between did better on pilot."
                continue
            kept = found.share(found.domain, model, found.base, found.domain_model)
            won = found.share(task, model, found.domain_model, found.base)
            yield (
                f"{task}: {model.name} keeps {kept.text} of what the domain gained and wins back {won.text} of what "
                "was forgotten."
            )


def notes(found: Curves, block: Block, said: Sequence[Line]) -> Iterator[str]:
    """What the tables need beside them."""
    row, config = found.base.rows[found.domain, TEST], found.base.runs[found.domain].config
    rows = ", ".join(f"{task} {found.base.rows[task, TEST]['n']}" for task in found.metrics)
    length = {task: run.config["task"].get("new_tokens") for task, run in found.base.runs.items()}
    beyond = found.beyond
    told = ", ".join(f"{task} {most}" for task, most in length.items() if most is not None)
    yield (
        f"Ours: base {row['base']}, domain model {row['pivot']}, {row['dtype']}; {TEST} rows: {rows}; "
        f"{config['bootstrap']['level']:.0%} intervals by patient, shares of differences by bootstrap. F: the "
        "base's score less the model's." + (f" Most new tokens: {told}." if told else "")
    )
    yield (
        "* λ chosen on pilot by the mean of the domain's score and the general ones', each as a share of the better "
        "parent's."
        + (f" Neither parent's is known to a factor of two in {', '.join(beyond)}, which has no say." if beyond else "")
    )
    yield "Direction: whether our interval is on the side that the paper reports; unclear where it holds 0."
    yield from source_notes(block, said)


def contents(args: Namespace) -> Iterator[Content]:
    """The tables, the picture and the notes."""
    study = last_sweep(folder(args), command(args), by=("task",))
    found, block = curves(study, args.domain), published("forgetting")
    said = list(lines(found, block))
    path = study.folder / PICTURE
    draw(found, path)
    yield table(found)
    yield from others(found)
    yield comparison_table(said, title="Against forgetting")
    yield from answer(found)
    yield f"picture: {path}"
    yield from notes(found, block, said)


main = script(
    "forgetting", __doc__, contents, option("--domain", help="the task of the domain, if another than the study's own")
)

if __name__ == "__main__":
    raise SystemExit(main())
