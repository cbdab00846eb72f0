"""Six ways to merge two medical models: accuracy by method and set, against linear averaging and what was published.

    python run.py experiment=hierarchical                          # run it, with data=<folder of the sets>
    python -m experiments.hierarchical                             # read it; a picture goes beside sweep.csv
    python -m experiments.hierarchical --metric acc_norm           # by options' length; run with task.answer=text
    python -m experiments.hierarchical --weights                   # and compare two merges weight by weight

A method that draws masks was run under several seeds; of a question that some of them have right the share counts.
Under a bootstrap by question those shares are paired with another model's answers.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.comparison import Line, change_text, comparison_table, score_table, source_notes
from experiments.hierarchical_checks import both_orders, identity, only_one_moved
from experiments.hierarchical_picture import draw
from experiments.published import Block, Cell, published
from experiments.reading import Content, command, folder, option, script
from experiments.study import Run, Study, last_sweep
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.evaluation.store import read_json
from patientdx.merge.schedule import label, schedule
from patientdx.metrics.accuracy import share
from patientdx.metrics.bootstrap import Interval, interval, paired_difference
from patientdx.metrics.paired import McNemar, mcnemar
from patientdx.reporting import runs as reports

SPLIT = "test"
NAMES = {
    "linear": "linear averaging", "task_arithmetic": "task arithmetic", "dare_ties": "DARE-TIES", "della": "DELLA",
    "breadcrumbs": "Breadcrumbs", "hierarchical": "hierarchical",
}  # fmt: skip
DRAWN = ("dare_linear", "dare_ties", "della", "della_linear")  # methods whose masks a seed draws
PRUNED_OR_ALIGNED = (*DRAWN, "breadcrumbs", "breadcrumbs_ties", "ties", "sce", "hierarchical")
WORDS = {  # what a number of a method is called in its title, where it is not the method's usual one
    ("form", "convex"): "convex", ("form", "scaled"): "scaled", ("compat", "mergekit"): "mergekit's reading",
    ("weighting", "literal"): "literal", ("weighting", "normalised"): "normalised",
    ("order", "pivot_first"): "pivot first", ("cosine", "aligned"): "w after alignment",
}  # fmt: skip
CAVEAT = (
    "Parents, prompts and (beside MedQA) sets need not be the paper's, so accuracies cannot be compared, only "
    "directions: whether averaging is beaten by what prunes or aligns."
)
_PER_TABLE = 4  # sets beside each other


@dataclass(frozen=True)
class Model:
    """One line: a parent, or a merge under one seed or several; `runs` has one run for each."""

    title: str
    role: str
    runs: tuple[Run, ...]
    metric: str

    @property
    def method(self) -> str | None:
        """The merge method; None for a parent."""
        return self.runs[0].config["merge"]["name"] if self.role == "merged" else None

    @cached_property
    def answers(self) -> list[reports.Answers]:
        """What was answered, a run each, in the order of the hashed ids."""
        return [reports.Run(run.folder).predictions[self.role, SPLIT] for run in self.runs]

    @cached_property
    def right(self) -> NDArray[np.float64]:
        """(draws, n): 1 where the answer is right."""
        pairs = [one.of(self.metric) for one in self.answers]
        return np.array([answer == label for answer, label in pairs], dtype=np.float64)

    def by_set(self) -> dict[str, tuple[int, list[dict[str, Any]]]]:
        """Of each set how many questions it has, and the estimate of each draw, as the runs left them."""
        found: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        for run in self.runs:
            groups = (read_json(run.folder / "groups.json") or {}).get("groups", {})
            for name, one in groups.get("set", {}).items():
                found.setdefault(name, (one["n"], []))[1].append(one["models"][self.role][self.metric])
        return found


def models(study: Study, metric: str) -> list[Model]:
    """Parents, then the merges in the order of the sweep, those that differ by the seed alone as one.

    UserError where a metric is not there, or the runs do not belong in one table.
    """
    _refuse_mixtures(study)
    if any(f"{metric}_ci_low" not in row for row in study.rows):
        raise UserError(f"{study.folder} has no metric {metric}: give one that the task's yaml names, as --metric acc.")
    first = study.runs[0]
    found = [Model(row["role"], row["role"], (first,), metric) for row in first.rows
             if row["role"] in ("base", "pivot") and row["split"] == SPLIT]  # fmt: skip
    draws: dict[str, dict[str, Run]] = {}
    for run in study.runs:
        made = json.dumps([run.config.get(key) for key in ("merge", "lambda", "ancestor", "tokenizer")], sort_keys=True)
        (row,) = (row for row in run.rows if row["role"] == "merged" and row["split"] == SPLIT)
        draws.setdefault(made, {}).setdefault(row["fingerprint"], run)
    merges = [tuple(one.values()) for one in draws.values()]
    for runs in merges:  # of one making only the masks' seed may tell two apart; else they answered other questions
        seeds = [run.config["seed"] for run in runs]
        if len(runs) > 1 and (runs[0].config["merge"]["name"] not in DRAWN or len(set(seeds)) < len(seeds)):
            raise _mixture(study)
    found += [Model(_title(runs[0], merges), "merged", runs, metric) for runs in merges]
    if len({one.title for one in found}) < len(found):  # of one title: another ancestor, or the like
        raise _mixture(study)
    return found


def _refuse_mixtures(study: Study) -> None:
    """One task, one pair of parents, one precision, and one answer of each parent."""
    seen: dict[str, set] = {}
    for row in study.rows:
        if row["split"] == SPLIT:
            seen.setdefault("setting", set()).add(tuple(row[name] for name in ("task", "base", "pivot", "dtype", "n")))
            if row["role"] != "merged":
                seen.setdefault(row["role"], set()).add(row["fingerprint"])
    if "setting" not in seen:
        raise UserError(f"{study.folder} has no scores on {SPLIT}: run it with splits=[{SPLIT}].")
    if any(len(one) > 1 for one in seen.values()):
        raise _mixture(study)


def _mixture(study: Study) -> UserError:
    return UserError(
        f"the last sweep in {study.folder} asked more than one question (another task, other questions, parents, "
        "ancestor or dtype): one table shows one. Sweep methods, their numbers and seeds only, and give another "
        "setting a name=… of its own."
    )


def _title(run: Run, merges: Sequence[tuple[Run, ...]]) -> str:
    """What a merge is called: method, λ where it is given, and the numbers that tell it from others of its method."""
    merge = run.config["merge"]
    words = [words for (key, value), words in WORDS.items() if merge.get(key) == value]
    same = [other[0].config["merge"] for other in merges if other[0].config["merge"]["name"] == merge["name"]]
    told = {key for key, _ in WORDS}
    words += [f"{key}={value}" for key, value in merge.items()
              if key not in told and any(other.get(key) != value for other in same)]  # fmt: skip
    place = run.config["lambda"]
    if place is not None and not (place == 1 and merge["name"] in (*DRAWN, "breadcrumbs")):
        words.append(f"λ={label(schedule(place))}")
    return ", ".join([NAMES.get(merge["name"], merge["name"]), *words])


@dataclass(frozen=True)
class Found:
    """A model's accuracy and its difference to linear averaging; McNemar's test of each draw of masks."""

    model: Model
    value: Interval
    over: Interval | None
    mcnemar: tuple[McNemar, ...]

    @property
    def above(self) -> bool:
        """Whether it is above linear averaging, by the interval and by every draw's test: few questions fool either."""
        return self.over is not None and self.over.low > 0 and self._tested

    @property
    def below(self) -> bool:
        """The same for below."""
        return self.over is not None and self.over.high < 0 and self._tested

    @property
    def _tested(self) -> bool:
        return all(test.p_value < 1 - self.over.level for test in self.mcnemar)


def measure(models: Sequence[Model], draws: Mapping[str, Any]) -> list[Found]:
    """Every model against linear averaging, on the same questions and resamples; UserError where that is not there."""
    linear = next((one for one in models if one.method == "linear"), None)
    if linear is None:
        raise UserError("the sweep has no merge=linear or merge=published/linear, which all others are set against.")
    found = []
    for one in models:
        if not all(answers.is_paired_with(linear.answers[0], one.metric) for answers in one.answers):
            raise UserError(f"{one.title} did not answer the same questions as linear averaging; run the sweep again.")
        mean, against, whole = one.right.mean(0), linear.right.mean(0), np.ones(one.right.shape[1])
        subject = one.answers[0].subject
        over, tests = None, ()
        if one is not linear:
            over = paired_difference(share, mean, against, whole, subject, **draws)
            tests = tuple(mcnemar(right, against) for right in one.right)
        found.append(Found(one, interval(share, mean, whole, subject, **draws), over, tests))
    return found


def overall(found: Sequence[Found], block: Block) -> Table:
    """Accuracy over all questions, which is the average of the sets weighted by their sizes."""
    names = ("", "draws", "accuracy", "minus linear's", "only it", "only linear", "McNemar p", "direction")
    rows = []
    for one in found:
        cells = ["–"] * 5
        if one.over is not None:
            sides = [_range([getattr(test, side) for test in one.mcnemar], "d") for side in ("only_a", "only_b")]
            p = _range([test.p_value for test in one.mcnemar], ".2g")
            cells = [
                change_text(one.over),
                *sides,
                p,
                _direction(one, block.cells.get(f"{one.model.method}_over_linear")),
            ]
        rows.append((one.model.title, str(len(one.model.runs)), _value(one.value), *cells))
    return score_table("All questions", names, rows)


def by_set(models: Sequence[Model]) -> Iterator[Table]:
    """Accuracy on each set, some sets beside each other; of several draws the means of values and of ends."""
    sets = models[0].by_set()
    names = list(sets)
    for start in range(0, len(names), _PER_TABLE):
        own = names[start : start + _PER_TABLE]
        heads = ("", *(f"{name.replace('_', ' ')}\nn {sets[name][0]}" for name in own))
        rows = []
        for model in models:
            held = model.by_set()
            rows.append((model.title, *(_mean(held[name][1]) for name in own)))
        yield score_table("", heads, rows)


def lines(models: Sequence[Model], found: Sequence[Found], block: Block) -> list[Line]:
    """MedQA, beside what was published: the first model of each method of the paper."""
    named = [name for name in block.cells if name.startswith("medqa_")]
    shown = []
    for name in named:
        method = name.removeprefix("medqa_")
        one = next((model for model in models if model.method == method), None)
        if one is None:
            shown.append(Line(f"{NAMES[method]}, MedQA", "not run", block.cells[name]))
            continue
        alone = one.runs[0].config["task"]["name"] == "medqa"
        ours = next((_value(other.value) for other in found if other.model is one), "") if alone else "no MedQA"
        held = one.by_set()
        ours = _mean(held["medqa"][1]) if "medqa" in held else ours
        shown.append(Line(f"{one.title}, MedQA", ours, block.cells[name]))
    return shown


def verdict(found: Sequence[Found]) -> str:
    """The authors' direction over all that prune or align: averaging is not beaten. One model counts once."""
    others: list[Found] = []
    for one in found:
        asked = one.over is not None and one.model.method in PRUNED_OR_ALIGNED
        if asked and not any(np.array_equal(one.model.right, other.model.right) for other in others):
            others.append(one)
    better, worse = [one for one in others if one.above], [one for one in others if one.below]
    said = "opposite" if better else "same" if worse else "not shown"
    names = "" if not better else f" ({', '.join(one.model.title for one in better)})"
    return (
        f"Of {len(others)} merges that prune or align {len(better)} are above linear averaging{names} and "
        f"{len(worse)} below, by interval and McNemar's test; the authors' direction (averaging is not beaten): {said}."
        " Merges of equal answers count once. Each comparison stands alone: nothing is corrected for their number."
    )


def _direction(found: Found, cell: Cell | None) -> str:
    """What ours says of the published direction; nothing where none was published."""
    if cell is None or cell.direction is None:
        return ""
    same, opposite = (found.above, found.below) if cell.direction > 0 else (found.below, found.above)
    return "same" if same else "opposite" if opposite else "unclear"


def _value(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _mean(estimates: Sequence[Mapping[str, Any]]) -> str:
    """Of several draws the mean of the values and of the ends of their intervals."""
    value, low, high = (
        None if any(one.get(key) is None for one in estimates) else float(np.mean([one[key] for one in estimates]))
        for key in ("value", "low", "high")
    )
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _range(values: Sequence[float], form: str) -> str:
    """One value, or the least and the largest of several."""
    ends = dict.fromkeys(format(one, form) for one in (min(values), max(values)))
    return " to ".join(ends)


def notes(study: Study, found: Sequence[Found]) -> Iterator[str]:
    """What the tables need beside them."""
    row = study.rows[0]
    yield CAVEAT
    yield (
        f"Ours: {row['task']}, base {row['base']}, pivot {row['pivot']}, {row['dtype']}, {found[0].model.metric}; "
        f"{SPLIT}: {found[0].value.n} questions; {found[0].value.level:.0%} intervals by question; "
        "differences are paired. Direction: whether the difference is on the side that was published; unclear where "
        "its interval holds 0 or McNemar's test (of any draw) says nothing."
    )
    limit = study.runs[0].config["task"].get("limit")
    if limit is not None:
        yield f"task.limit={limit}: a part of each set, so the average has other weights than the sets' sizes."
    several = [one for one in found if len(one.model.runs) > 1]
    if several:
        seeds = {one.model.title: one.model.right.mean(1) for one in several}
        told = (f"{title} {values.min():.3f} to {values.max():.3f}" for title, values in seeds.items())
        yield f"By seed of the masks: {'; '.join(told)}. On one set: means over the draws, of the intervals' ends too."
    few = [one.model.title for one in found if one.model.method in DRAWN and len(one.model.runs) < 3]
    if few:
        yield f"Fewer than 3 draws of masks: {', '.join(few)}. The whole study has 3."
    yield from only_one_moved([one.model.runs[0] for one in found if one.model.method == "hierarchical"])


def contents(args: Namespace) -> Iterator[Content]:
    """Tables, notes and the picture of the study that was args for."""
    study = last_sweep(folder(args), command(args), by=("fingerprint",))  # every merge is known by what it is made of
    every, block = models(study, args.metric), published("hierarchical")
    config = study.runs[0].config
    draws = {**config["bootstrap"], "seed": min(run.config["seed"] for run in study.runs)}
    found = measure(every, draws)
    yield overall(found, block)
    yield from by_set(every)
    cells = lines(every, found, block)
    yield comparison_table(cells)
    yield verdict(found)
    yield from both_orders(every, draws)
    yield from notes(study, found)
    averages = [(one.title, one.runs[0]) for one in every if one.method in ("linear", "task_arithmetic")]
    yield from identity(averages, SPLIT, weights=args.weights)
    yield from source_notes(block, cells)
    picture: Path = study.folder / "hierarchical.png"
    draw([(one.model.title, one.model.method, one.value, one.over) for one in found], picture)
    yield f"picture: {picture}"


main = script(
    "hierarchical",
    __doc__,
    contents,
    option("--metric", default="acc", help="acc, or acc_norm, which needs task.answer=text: letters are of one length"),
    option("--weights", action="store_true", help="also merge both averages and compare their weights"),
)

if __name__ == "__main__":
    raise SystemExit(main())
