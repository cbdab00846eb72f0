"""Search strategies against the full grid: forwards used, and AUROC lost on the pilot split and on test.

python -m experiments.benchmarks.search                          on toys with a planted best λ
python -m experiments.benchmarks.search pair                     on the default pair: 11 λ, scored once by the pipeline
python -m experiments.benchmarks.search pair merge=linear        on any other (words as for run.py)

Regret is the AUROC of the grid's choice minus that of the strategy's, on all pilot rows. The numbers of the strategies
are those of conf/search, which were set on the toys; on a pair λ is confined to the grid. Each seed is another toy,
or draws the pair's pilot patients again with replacement (seed 0: as they are), and orders the patients anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.benchmarks import harness
from experiments.benchmarks.harness import REPOSITORY
from experiments.benchmarks.search_toys import SHAPES, STEPS, toy
from patientdx.core.functions import dotted
from patientdx.metrics.ranking import auroc
from patientdx.selection.pilot import Choice, Pilot

GRID = tuple(i / 10 for i in range(11))
STRATEGIES = ("racing", "racing wilcoxon", "racing unlimited", "bayes")
CHANGED = {"racing wilcoxon": {"test": "wilcoxon"}, "racing unlimited": {"budget": None}}
SIZES = (70, 300)


@dataclass(frozen=True)
class Case:
    """Models along λ by their scores (models, n) on pilot and test; `steps` models from λ=0 to λ=1."""

    name: str
    seed: int
    steps: int
    pilot: NDArray[np.float64]
    label: NDArray[np.bool_]
    subject: NDArray[np.int64]
    test: NDArray[np.float64]
    test_label: NDArray[np.bool_]

    def at(self, weight: float) -> int:
        """The model at a λ."""
        return round(weight * (self.steps - 1))


def main(arguments: Sequence[str]) -> None:
    """Print the table; with --csv write every seed's numbers as well."""
    parser = harness.parser(__doc__)
    parser.add_argument("cases", nargs="?", choices=("toys", "pair"), default="toys")
    parser.add_argument("overrides", nargs="*", help="for the pair, as for run.py")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--csv", type=Path)
    args = parser.parse_intermixed_args(arguments)
    cases = toys(args.seeds) if args.cases == "toys" else drawn(pair(args.overrides), args.seeds)
    rows = [row for case in tqdm(list(cases), desc="cases") for row in compare(case, args.strategies)]
    show(rows)
    if args.csv is not None:
        harness.write_csv(rows, args.csv)


def toys(seeds: int) -> Iterator[Case]:
    """Every shape and size of toy, once a seed."""
    for shape in SHAPES:
        for patients in SIZES:
            for seed in range(seeds):
                data = toy(shape, patients, seed)
                rows = data.pilot, data.label, data.subject, data.test, data.test_label
                yield Case(f"{shape}, {patients} patients", seed, STEPS, *rows)


def pair(overrides: Sequence[str]) -> Case:
    """The scores of the grid's models, from the store, or computed by the pipeline."""
    # Not at the top: the toys need no model.
    from patientdx.evaluation.config.run_config import parse
    from patientdx.evaluation.runner import run
    from patientdx.evaluation.session import Session
    from patientdx.evaluation.store import Store

    session = Session()
    margins: dict[str, list[NDArray[np.float64]]] = {"pilot": [], "test": []}
    for weight in tqdm(GRID, desc="scores"):
        words = ["experiment=lambda_curve", "merge=slerp", "tracking=none", "clinical=false", *overrides]
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            config = parse(compose("config", [*words, f"lambda={weight}"]), sweep=True)
        result = run(session, config)
        for row in result.rows:
            if row["role"] == "merged":
                scores = Store(config.output / "scores").load(row["fingerprint"], row["n"])
                margins[row["split"]].append(scores[:, 0] - scores[:, 1])
    examples = session.task_data(config.task.call).examples
    labels = {split: np.array([e.label for e in examples if e.split == split], dtype=bool) for split in margins}
    subject = np.array([e.subject for e in examples if e.split == "pilot"])
    name = f"{config.merge.base.name} and {config.merge.pivot.name}, {config.merge.name}"
    pilot, test = (np.array(margins[split]) for split in ("pilot", "test"))
    patients = np.unique(subject, return_inverse=True)[1]
    return Case(name, 0, len(GRID), pilot, labels["pilot"], patients, test, labels["test"])


def drawn(case: Case, seeds: int) -> Iterator[Case]:
    """The pilot patients as they are, then drawn with replacement; a patient who is drawn twice becomes two."""
    rows_of = [np.flatnonzero(case.subject == patient) for patient in range(case.subject.max() + 1)]
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        patients = np.arange(len(rows_of)) if seed == 0 else random.integers(0, len(rows_of), len(rows_of))
        rows = np.concatenate([rows_of[patient] for patient in patients])
        subject = np.repeat(np.arange(len(patients)), [rows_of[patient].size for patient in patients])
        if 0 < case.label[rows].sum() < rows.size:
            yield Case(
                case.name, seed, case.steps, case.pilot[:, rows], case.label[rows], subject, case.test, case.test_label
            )


def compare(case: Case, strategies: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row per strategy: its share of the grid's forwards, and AUROC lost against the grid's choice."""
    on_pilot = [auroc(score, case.label) for score in case.pilot]
    on_test = [auroc(score, case.test_label) for score in case.test]
    grid = max((case.at(weight) for weight in GRID), key=lambda index: on_pilot[index])  # the first of the best
    for strategy in strategies:
        pilot = Pilot(
            case.label, case.subject, auroc, lambda candidate, rows: case.pilot[case.at(candidate.weight)][rows]
        )
        chosen = choice_by(strategy, pilot, case.steps, case.seed).chosen.weight
        yield {
            "case": case.name,
            "seed": case.seed,
            "strategy": strategy,
            "lambda": chosen,
            "grid_lambda": grid / (case.steps - 1),
            "share": pilot.forwards / (len(GRID) * pilot.n),
            "regret": on_pilot[grid] - on_pilot[case.at(chosen)],
            "test_regret": on_test[grid] - on_test[case.at(chosen)],
        }


def choice_by(strategy: str, pilot: Pilot, models: int, seed: int) -> Choice:
    """What the strategy chooses with the numbers of its yaml, among so many models along λ."""
    name = strategy.split()[0]
    node = yaml.safe_load((REPOSITORY / "conf" / "search" / f"{name}.yaml").read_text(encoding="utf-8"))
    numbers = {key: value for key, value in node.items() if key not in ("name", "_target_")}
    numbers |= CHANGED.get(strategy, {})
    if "step" in numbers:
        numbers["step"] = max(numbers["step"], 1 / (models - 1))  # no model lies between
    strategy_function = dotted(node["_target_"])
    seeded = {"seed": seed} if "seed" in signature(strategy_function).parameters else {}
    return strategy_function(pilot, **numbers, **seeded)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Medians, means and worst cases over the seeds, a line for each case and strategy, and for all cases together."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    lines = []
    for case in [*cases, *(["all"] if len(cases) > 1 else [])]:
        for strategy in dict.fromkeys(row["strategy"] for row in rows):
            part = [row for row in rows if row["strategy"] == strategy and case in (row["case"], "all")]
            share, regret, test = (np.array([row[k] for row in part]) for k in ("share", "regret", "test_regret"))
            numbers = (np.median(share), share.max(), np.median(regret), regret.mean(), regret.max(), test.mean())
            digits = (3, 3, 4, 4, 4, 4)
            texts = (f"{number:.{decimals}f}" for number, decimals in zip(numbers, digits, strict=True))
            lines.append((case, strategy, str(len(part)), *texts))
    columns = ("case", "strategy", "seeds", "share, median", "most", "regret, median", "mean", "most", "on test, mean")
    harness.show(harness.table("Share of the grid's forwards, and regret in AUROC", columns, lines, 2))


if __name__ == "__main__":
    main(sys.argv[1:])
