"""Search strategies against the full grid: forwards used, and AUROC lost on the pilot split and on test.

python -m experiments.benchmarks.search                          on toys with a planted best λ
python -m experiments.benchmarks.search pair                     on the default pair: 11 λ, scored once by the pipeline
python -m experiments.benchmarks.search pair merge=linear        on any other (words as for run.py)

Regret is the AUROC of the grid's choice less that of the strategy's, on all pilot rows. The numbers of the strategies
are those of conf/search, which were set on the toys; on a pair λ is confined to the grid. Each seed is a toy of its
own, or draws the pair's pilot patients again with replacement (seed 0: as they are), and orders the patients anew.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.benchmarks.search_toys import SHAPES, STEPS, toy
from patientdx.core.functions import dotted
from patientdx.metrics.ranking import auroc
from patientdx.selection.pilot import Candidate, Pilot

REPOSITORY = Path(__file__).parents[2]
GRID = tuple(i / 10 for i in range(11))
STRATEGIES = ("racing", "racing wilcoxon", "racing unlimited", "bayes")
CHANGED = {"racing wilcoxon": {"test": "wilcoxon"}, "racing unlimited": {"budget": None}}
SIZES = (70, 300)


@dataclass(frozen=True)
class Case:
    """Models along λ by their scores (models, n) on pilot and test; `steps` places from λ=0 to λ=1."""

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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("toys", "pair"), default="toys")
    parser.add_argument("overrides", nargs="*", help="for the pair, as for run.py")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--csv", type=Path)
    asked = parser.parse_intermixed_args(arguments)
    cases = toys(asked.seeds) if asked.what == "toys" else drawn(pair(asked.overrides), asked.seeds)
    rows = [one for case in tqdm(list(cases), desc="cases") for one in compared(case, asked.strategies)]
    show(rows)
    if asked.csv is not None:
        with asked.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def toys(seeds: int) -> Iterator[Case]:
    """Every shape and size of toy, once a seed."""
    for shape in SHAPES:
        for patients in SIZES:
            for seed in range(seeds):
                one = toy(shape, patients, seed)
                yield Case(
                    f"{shape}, {patients} patients", seed, STEPS,
                    one.pilot, one.label, one.subject, one.test, one.test_label,
                )  # fmt: skip


def pair(overrides: Sequence[str]) -> Case:
    """The scores of the grid's models, from the store, or worked out by the pipeline."""
    # Not at the top: the toys need no model.
    from patientdx.evaluation import session
    from patientdx.evaluation.config.run_config import parse
    from patientdx.evaluation.runner import run
    from patientdx.evaluation.store import Store

    found: dict[str, list[NDArray[np.float64]]] = {"pilot": [], "test": []}
    for weight in tqdm(GRID, desc="scores"):
        words = ["experiment=lambda_curve", "merge=slerp", "tracking=none", "clinical=false", *overrides]
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            config = parse(compose("config", [*words, f"lambda={weight}"]), sweep=True)
        outcome = run(config)
        for row in outcome.rows:
            if row["role"] == "merged":
                scores = Store(config.output / "scores").load(row["fingerprint"], row["n"])
                found[row["split"]].append(scores[:, 0] - scores[:, 1])
    examples = session.task_data(config.task.call).examples
    labels = {split: np.array([e.label for e in examples if e.split == split], dtype=bool) for split in found}
    subject = np.array([e.subject for e in examples if e.split == "pilot"])
    return Case(
        f"{config.merge.base.name} and {config.merge.pivot.name}, {config.method}", 0, len(GRID), np.array(found["pilot"]),
        labels["pilot"], np.unique(subject, return_inverse=True)[1], np.array(found["test"]), labels["test"],
    )  # fmt: skip


def drawn(case: Case, seeds: int) -> Iterator[Case]:
    """The pilot patients as they are, then drawn with replacement; who is drawn twice is two patients."""
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


def compared(case: Case, strategies: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row a strategy: its share of the grid's forwards, and AUROC lost against the grid's choice."""
    on_pilot = [auroc(score, case.label) for score in case.pilot]
    on_test = [auroc(score, case.test_label) for score in case.test]
    grid = max((case.at(weight) for weight in GRID), key=lambda place: on_pilot[place])  # the first of the best
    for strategy in strategies:
        pilot = Pilot(case.label, case.subject, auroc, lambda one, rows: case.pilot[case.at(one.weight)][rows])
        chosen = chosen_by(strategy, pilot, case).weight
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


def chosen_by(strategy: str, pilot: Pilot, case: Case) -> Candidate:
    """What the strategy chooses with the numbers of its yaml."""
    name = strategy.split()[0]
    node = yaml.safe_load((REPOSITORY / "conf" / "search" / f"{name}.yaml").read_text(encoding="utf-8"))
    numbers = {key: value for key, value in node.items() if key not in ("name", "_target_")}
    numbers |= CHANGED.get(strategy, {})
    if "step" in numbers:
        numbers["step"] = max(numbers["step"], 1 / (case.steps - 1))  # no model lies between
    return dotted(node["_target_"])(pilot, **numbers, seed=case.seed).chosen


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Medians, means and worst cases over the seeds, a line for each case and strategy, and for all cases of one."""
    print(f"{'':34}{'share of forwards':>20}{'regret on pilot':>26}{'on test':>9}")
    print(f"{'':34}{'median':>12}{'most':>8}{'median':>10}{'mean':>8}{'most':>8}{'mean':>9}")
    cases = list(dict.fromkeys(row["case"] for row in rows))
    for case in [*cases, *(["all"] if len(cases) > 1 else [])]:
        print(case)
        for strategy in dict.fromkeys(row["strategy"] for row in rows):
            these = [row for row in rows if row["strategy"] == strategy and case in (row["case"], "all")]
            share, regret, test = (np.array([row[k] for row in these]) for k in ("share", "regret", "test_regret"))
            print(
                f"  {strategy:22}{len(these):4} seeds{np.median(share):12.3f}{share.max():8.3f}"
                f"{np.median(regret):10.4f}{regret.mean():8.4f}{regret.max():8.4f}{test.mean():9.4f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
