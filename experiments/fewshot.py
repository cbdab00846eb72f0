"""Few-shot: base, domain model and their merges fine-tuned on k examples; is a merge on few as good as base on many?

    python -m experiments.domain_model                                  # first: the domain model
    python run.py experiment=fewshot                                    # equal epochs
    python run.py experiment=fewshot finetune.examples=16,64 finetune.steps=96 name=fewshot_steps     # equal steps
    python run.py experiment=fewshot merge=linear,slerp name=fewshot_merges                           # two merges
    python -m experiments.fewshot                                       # read both; a picture goes beside sweep.csv
    python -m experiments.fewshot --output DIR --name NAME              # read output=DIR name=NAME (and NAME_steps)

The k are nested: the first 16 of 64 are the 16. k = 0 is the model as it is. Merges by several methods or λ are a curve
and a test each. The margin, the two k and the level are the study's own (`non_inferiority` in its overlay), as they
stood when it was run.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments.comparison import Line, change_text, comparison_table, score_table, score_text, source_notes
from experiments.fewshot_picture import draw
from experiments.published import Block, published
from experiments.reading import Content, command, folder, option, script
from experiments.study import TEST, Row, Run, Study, difference, last_sweep
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.metrics.bootstrap import Interval

ROLES = {"base": "base", "pivot": "domain model", "merged": "merged"}
PICTURE = "fewshot.png"
EPOCHS, STEPS = "equal epochs", "equal steps"
SECOND = "_steps"  # what the second run's name ends in


@dataclass(frozen=True)
class Start:
    """What is fine-tuned: a parent, by its role alone, or the merge of a method at λ."""

    role: str
    method: str | None = None
    weight: float | None = None


BASE = Start("base")


@dataclass(frozen=True)
class Point:
    """A start fine-tuned on `examples` (0: not): its row on test, its run and its role there, and steps of training."""

    start: Start
    examples: int
    row: Row
    run: Run
    role: str
    steps: int | None


@dataclass(frozen=True)
class Curves:
    """Learning curves under one rule, by (start, k); `metric` is the task's first."""

    rule: str
    metric: str
    points: Mapping[tuple[Start, int], Point]

    @property
    def examples(self) -> list[int]:
        """Every k, rising."""
        return sorted({examples for _, examples in self.points})

    @property
    def starts(self) -> list[Start]:
        """The starts that are there, base first; merges in the order of the sweep."""
        there = dict.fromkeys(start for start, _ in self.points)
        return [start for role in ROLES for start in there if start.role == role]

    @property
    def merges(self) -> list[Start]:
        """Those of them that are merges."""
        return [start for start in self.starts if start.role == "merged"]

    def title(self, start: Start) -> str:
        """What a start is called: a merge by its method and λ where there are several."""
        if start.role != "merged" or len(self.merges) < 2:
            return ROLES[start.role]
        return f"{start.method} λ={start.weight:g}"

    def change(self, a: Point, b: Point, level: float | None = None) -> Interval:
        """The score of a less that of b on test, paired."""
        return difference(self.metric, (a.run, a.role), (b.run, b.role), TEST, level=level)


@dataclass(frozen=True)
class Verdict:
    """Whether a merge, called `name`, on few examples is no worse than the base on many, by more than the margin."""

    name: str
    merged: int
    base: int
    margin: float
    level: float
    interval: Interval
    bound: float

    @property
    def shown(self) -> bool:
        """The bound lies above minus the margin."""
        return self.bound > -self.margin

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        said = "is non-inferior to" if self.shown else "is not shown to be non-inferior to"
        return (
            f"{self.name}@{self.merged} {said} base@{self.base}: difference {change_text(self.interval)}, one-sided "
            f"{self.level:.0%} bound {self.bound:+.3f}, margin {-self.margin:+.3f} fixed beforehand."
        )


def curves(study: Study, rule: str = EPOCHS) -> Curves:
    """The learning curves of a study. UserError where its runs differ in more than start and number of examples."""
    metric = next(iter(study.runs[0].config["task"]["metrics"]))
    found: dict[tuple[Start, int], Point] = {}
    same = {}
    for run in study.runs:
        asked = dict(run.config["finetune"])
        of, examples = asked.pop("init_from", None), asked.pop("examples", None)
        if of is None or examples is None:
            raise UserError(
                f"{run.folder} fine-tuned nothing on so many examples: run the study with finetune.examples=…"
            )
        if same.setdefault("finetune", asked) != asked:
            raise UserError(
                f"the last sweep in {study.folder} trained in more than one way: one table shows one. Give every other "
                "number of conf/finetune a study of its own with name=…"
            )
        rows = {row["role"]: row for row in run.rows if row["split"] == TEST}
        own = {role: _start(role, rows[role]) for role in ROLES if role in rows}
        for role, start in own.items():
            found.setdefault((start, 0), Point(start, 0, rows[role], run, role, None))
        if "finetuned" in rows and of in own:
            found[own[of], examples] = Point(own[of], examples, rows["finetuned"], run, "finetuned", _steps(run))
    if not any(examples for _, examples in found):
        raise UserError(f"the last sweep in {study.folder} has no score of a fine-tuned model on {TEST}.")
    return Curves(rule, metric, found)


def _start(role: str, row: Row) -> Start:
    return Start(role, row["method"], row["lambda"]) if role == "merged" else Start(role)


def _steps(run: Run) -> int | None:
    told = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8")).get("finetune") or {}
    return (told.get("training") or {}).get("steps")


def with_equal_steps(first: Curves, second: Study) -> Curves:
    """The second run's curves, with the first's untouched models and those that happened to have as many steps.

    UserError where the second run's models did not all have the same number of steps, or another task.
    """
    own = curves(second, STEPS)
    steps = {point.steps for point in own.points.values() if point.examples}
    if len(steps) > 1 or None in steps:
        raise UserError(f"{second.folder} has trainings of {sorted(map(str, steps))} steps: give finetune.steps=… .")
    if _question(own) != _question(first):
        raise UserError(
            f"{second.folder} asked other rows than the first run, or other models: run both with the same task, "
            "parents and merges."
        )
    lent = {key: point for key, point in first.points.items() if not point.examples or {point.steps} == steps}
    return Curves(STEPS, own.metric, lent | own.points)


def _question(found: Curves) -> set[tuple]:
    """What the untouched models' scores depend on."""
    return {(key, point.row["fingerprint"]) for key, point in found.points.items() if not point.examples}


def verdicts(found: Curves) -> list[Verdict]:
    """The test of non-inferiority that the study's config asks for, of each merge: a paired bootstrap, one-sided.

    UserError where a model or the margin is missing, or runs name several.
    """
    asked = [point.run.config.get("non_inferiority") for point in found.points.values()]
    if asked[0] is None or any(one != asked[0] for one in asked):
        raise UserError(
            "the runs of this study name no margin, or several; a run that was there keeps its own. "
            "Ask for another (non_inferiority.margin=…) in a study of its own, with name=…"
        )
    few, many, margin, level = (asked[0][key] for key in ("merged", "base", "margin", "level"))
    merges = found.merges or [Start("merged")]
    wanted = [*((start, few) for start in merges), (BASE, many)]
    absent = [f"{found.title(start)}@{examples}" for start, examples in wanted if (start, examples) not in found.points]
    if absent:
        raise UserError(
            f"the study has no {' and no '.join(absent)}, which the test of non-inferiority compares. Run it with "
            "finetune.init_from=base,merged and those numbers of examples; or name two that it has, in a study of its "
            "own, since a run that was there keeps its test: non_inferiority.merged=… non_inferiority.base=… name=…"
        )
    told = []
    for start in merges:
        pair = found.points[start, few], found.points[BASE, many]
        bound = found.change(*pair, level=2 * level - 1).low  # of a two-sided interval that leaves out both tails
        told.append(Verdict(found.title(start), few, many, margin, level, found.change(*pair), bound))
    return told


def table(found: Curves) -> Table:
    """One line a number of examples, one column a start."""
    title = f"{found.metric} on {TEST}, {found.rule}"
    rows = []
    for examples in found.examples:
        own = [found.points.get((start, examples)) for start in found.starts]
        steps = dict.fromkeys(str(point.steps) for point in own if point is not None and point.steps is not None)
        cells = ["–" if point is None else score_text(point.row, found.metric) for point in own]
        rows.append((str(examples), " or ".join(steps) or "–", *cells))
    return score_table(title, ("examples", "steps", *map(found.title, found.starts)), rows)


def lines(said: Sequence[Verdict], block: Block) -> Iterator[Line]:
    """Ours beside published, merge after merge."""
    yield Line("examples, merged", str(said[0].merged), block.cells["merged_examples"])
    yield Line("on par with the base on", str(said[0].base), block.cells["base_examples"])
    for one in said:
        name = f"{one.name}@{one.merged} − base@{one.base}"
        yield Line(name, change_text(one.interval), block.cells["merged_less_base"], one.interval)
        bound = f"{one.bound:+.3f} ({'non-inferior' if one.shown else 'not shown'})"
        yield Line(f"bound, margin {-one.margin:+.3f}", bound, block.cells["bound"])


def notes(found: Sequence[Curves], block: Block, said: Sequence[Line]) -> Iterator[str]:
    """What the tables need beside them."""
    first = found[0]
    point = next(iter(first.points.values()))
    row, config = point.row, point.run.config
    merges = " and ".join(f"{one.method} λ={one.weight:g}" for one in first.merges)
    made = f", merged: {merges}" if merges else ""
    count = f"{row['n']} rows" + (f", {row['events']} events" if row.get("events") is not None else "")
    tuned = config["finetune"]
    yield (
        f"Ours: {row['task']}, base {row['base']}, domain model {row['pivot']}{made}, {row['dtype']}; {TEST}: {count}; "
        f"{tuned['name']}, {tuned['epochs']:g} epochs, seed {tuned['seed']}; {config['bootstrap']['level']:.0%} "
        "intervals by patient, differences paired."
    )
    yield "Nested: the examples of a smaller k are among those of a larger one. One draw and one seed; see seed=."
    if len(found) == 1:
        yield "Equal epochs alone: fewer examples also had fewer steps. The second run, see --help, gives all as many."
    yield from source_notes(block, said)


def contents(args: Namespace) -> Iterator[Content]:
    """The tables, the picture and the notes."""
    whole = args.name.removesuffix(SECOND)
    if whole != args.name and (folder(args).with_name(whole) / "sweep").is_dir():
        raise UserError(f"{args.name} is the second run of {whole} and stands in its table: --name {whole}")
    first = last_sweep(folder(args), command(args))
    found = [curves(first)]
    second = folder(args).with_name(args.steps_name or args.name + SECOND)
    if args.steps_name or (second / "sweep").is_dir():
        again = f"{command(args)} finetune.steps=… name={second.name}"
        found.append(with_equal_steps(found[0], last_sweep(second, again)))
    block, said = published("fewshot"), [verdicts(one) for one in found]
    told = list(lines(said[0], block))
    path = first.folder / PICTURE
    draw(found, path)
    for one in found:
        yield table(one)
    yield comparison_table(told, title=f"Non-inferiority, {EPOCHS}")
    for one, own in zip(found, said, strict=True):
        yield from (f"{one.rule}: {verdict.words}" for verdict in own)
        many = own[0].base
        learnt = one.change(one.points[BASE, many], one.points[BASE, 0])
        if learnt.low <= 0:  # without that a margin can be kept by models that learnt nothing
            said_of_it = f"But base@{many} is not shown to be better than base@0 ({change_text(learnt)})"
            yield f"{said_of_it}: to be as good says little."
    if len(said[0]) > 1:
        yield "Each merge's test stands alone: nothing is corrected for their number."
    yield f"picture: {path}"
    yield from notes(found, block, told)


main = script(
    "fewshot",
    __doc__,
    contents,
    option("--steps-name", help="name= of the second run, with equal steps (<name>_steps, if it is there)"),
)

if __name__ == "__main__":
    raise SystemExit(main())
