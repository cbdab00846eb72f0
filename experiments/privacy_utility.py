"""What differential privacy costs: ε against the AUROC that search=private is expected to reach.

    python run.py experiment=privacy_utility                        # run it
    python -m experiments.privacy_utility                           # read it; a picture goes beside sweep.csv
    python -m experiments.privacy_utility --epsilon 0.1 1 10 --max-stays 2

The chances of each λ under the exponential mechanism follow from the scores that the sweep kept, so the expectation is
exact and no model is run. The table is made of exact pilot scores: it is for the house, not for release.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.comparison import score_table
from experiments.figures import Panel, Series, save_figure
from experiments.reading import Content, command, folder, option, script
from experiments.study import Study, last_sweep, refuse_shared_patients
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.metrics.bootstrap import Bootstrap, spreads
from patientdx.metrics.jackknife import Jackknife
from patientdx.metrics.ranking import auroc
from patientdx.reporting import choose
from patientdx.reporting.chart_style import COLOURS
from patientdx.selection.private import doubled_pairs, exponents, first_stays, probabilities

EPSILONS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


@dataclass(frozen=True)
class Curve:
    """One method's grid: AUROC of each λ on pilot (stays that count) and on test, and what the mechanism needs of them.

    weights (K,) ascending; without: test AUROC of each λ without each patient.
    """

    method: str
    weights: tuple[float, ...]
    doubled: tuple[int, ...]
    stays: int
    events: int
    pilot: NDArray[np.float64]
    test: NDArray[np.float64]
    without: tuple[Jackknife, ...]
    best: int
    level: float

    def chances(self, epsilon: float, max_stays: int) -> NDArray[np.float64]:
        """(K,) probability of each λ."""
        return probabilities(exponents(self.doubled, self.stays, Fraction(str(epsilon)), max_stays))

    def loss(self, chances: NDArray[np.float64]) -> tuple[float, float, float]:
        """Test AUROC of the grid's λ less the expected one, with its interval by patient, paired; chances as given."""
        loss, best = float(self.test[self.best] - chances @ self.test), self.without[self.best]
        expected = chances @ np.array([jackknife.without for jackknife in self.without])
        return loss, *Jackknife(best.without - expected, best.deletion).difference(loss, self.level)[:2]


def curves(study: Study, max_stays: int) -> list[Curve]:
    """The grid of each method of a sweep. UserError where pilot or test scores are missing, or patients are in both."""
    refuse_shared_patients(study.runs[0], "pilot", "test")
    rows = [row for row in study.rows if row["role"] == "merged" and row["lambda"] is not None]
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        weights = tuple(sorted({row["lambda"] for row in rows if row["method"] == method}))
        if len(weights) < 2:
            raise UserError(f"the last sweep in {study.folder} has one λ of {method}: a choice needs two at least.")
        found.append(_curve(study, method, weights, max_stays))
    if not found:
        raise UserError(f"the last sweep in {study.folder} has no merged model with a λ.")
    return found


def _curve(study: Study, method: str, weights: tuple[float, ...], max_stays: int) -> Curve:
    runs = [study.run_of(method, weight) for weight in weights]
    answers = {split: [run.answers("merged", split) for run in runs] for split in ("pilot", "test")}
    for split, several in answers.items():
        if not several[0] or any({k: v[:2] for k, v in one.items()} != {k: v[:2] for k, v in several[0].items()}
                                 for one in several):  # fmt: skip
            raise UserError(f"the runs of {study.folder} did not answer the same {split} rows: run the sweep again.")
    patient, label, _ = zip(*answers["pilot"][0].values(), strict=True)
    counted = first_stays(patient, max_stays)
    label = np.array(label)[counted]
    score = np.array([[row[2] for row in one.values()] for one in answers["pilot"]])[:, counted]
    doubled = tuple(doubled_pairs(one, label) for one in score)
    events = int(label.sum())
    if events in (0, len(label)):
        raise UserError(f"of {len(label)} pilot stays that count {events} are events: an AUROC needs both outcomes.")
    config = runs[0].config
    test_patient, test_label, _ = zip(*answers["test"][0].values(), strict=True)
    bootstrap = Bootstrap(**config["bootstrap"], seed=config["seed"])
    without = [
        spreads({"": auroc}, [row[2] for row in one.values()], test_label, test_patient, bootstrap)[""]
        for one in answers["test"]
    ]
    merged = [row for row in study.rows if row["role"] == "merged" and row["method"] == method]
    tested = {row["lambda"]: row["auroc"] for row in merged if row["split"] == "test"}
    return Curve(
        method, weights, doubled, len(label), events,
        np.array(doubled) / (2 * events * (len(label) - events)), np.array([tested[weight] for weight in weights]),
        tuple(without), weights.index(choose(merged, "auroc")["lambda"]), config["bootstrap"]["level"],
    )  # fmt: skip


def table(curve: Curve, epsilons: Sequence[float], max_stays: int) -> Table:
    """One line an ε, between a blind draw and the grid."""
    even = np.full(len(curve.weights), 1 / len(curve.weights))
    rows = [("blind", "1", *_cells(curve, even))]
    for epsilon in epsilons:
        odds = f"{math.exp(epsilon):.3g}" if epsilon < 700 else "∞"
        rows.append((f"{epsilon:g}", odds, *_cells(curve, curve.chances(epsilon, max_stays))))
    certain = (np.arange(len(even)) == curve.best).astype(float)
    rows.append(("grid", "∞", *_cells(curve, certain)))
    return score_table(curve.method, ("ε", "odds ×", "pilot", "test", "loss to grid", "grid's λ"), rows)


def _cells(curve: Curve, chances: NDArray[np.float64]) -> tuple[str, str, str, str]:
    loss, low, high = curve.loss(chances)
    return (
        f"{chances @ curve.pilot:.3f}",
        f"{chances @ curve.test:.3f}",
        f"{loss:+.3f} [{low:+.3f}, {high:+.3f}]",
        f"{100 * chances[curve.best]:.0f} %",
    )


def draw(curve: Curve, max_stays: int, path: Path) -> None:
    """ε against the expected AUROC on pilot and test, between a blind draw and the grid, as a PNG."""
    splits = {"test": (curve.test, COLOURS[0]), "pilot": (curve.pilot, COLOURS[1])}
    epsilons = [float(epsilon) for epsilon in np.logspace(-2, 2, 121)]
    chances = [curve.chances(epsilon, max_stays) for epsilon in epsilons]
    series = [
        Series(name, [{"x": x, "y": float(chance @ values)} for x, chance in zip(epsilons, chances, strict=True)], tint)
        for name, (values, tint) in splits.items()
    ]
    panel = Panel(
        series, "ε of the draw of λ", "expected AUROC", title=f"{curve.method}: what privacy costs",
        x_scale={"type": "log"}, levels={float(values[curve.best]): tint for values, tint in splits.values()},
        points=False, width=520,
    )  # fmt: skip
    note = f"pilot: {curve.stays} stays that count, {curve.events} events; {len(curve.weights)} λ; dashed: search=grid"
    save_figure([panel], path, note=note)


def notes(found: Sequence[Curve], study: Study, max_stays: int) -> list[str]:
    """What the table needs beside it."""
    row = study.row("merged", "test")
    one = found[0]
    return [
        f"{row['task']}, base {row['base']}, pivot {row['pivot']}, {row['dtype']}. Pilot: {one.stays} stays of at most "
        f"{max_stays} a patient, {one.events} events; test: {row['n']} stays, {row['events']} events.",
        "Odds ×: one patient more or less, with all stays, changes the odds of no λ by more than this factor. Blind: "
        "every λ alike. Grid: the best of pilot, no privacy.",
        "Expected values are exact for these scores. Loss: test AUROC of the grid's λ less the expected one, paired "
        f"intervals by patient ({one.level:.0%}), the chances taken as they are.",
        "k times as many pilot patients with these same AUROCs act as an ε k times as large.",
        "Nothing was published to compare with: PatientDx chooses λ by the grid.",
        "The table shows exact pilot scores: it stays in the house.",
    ]


def contents(args: Namespace) -> Iterator[Content]:
    """A table and a picture for each method, and their notes."""
    if not all(0 < one < math.inf for one in args.epsilon) or args.max_stays < 1:
        raise UserError("--epsilon and --max-stays take numbers above 0.")
    study = last_sweep(folder(args), command(args))
    found = curves(study, args.max_stays)
    for curve in found:
        suffix = "" if len(found) == 1 else f"_{curve.method}"
        path = study.folder / f"privacy_utility{suffix}.png"
        draw(curve, args.max_stays, path)
        yield table(curve, sorted(args.epsilon), args.max_stays)
        yield f"picture: {path}"
    yield from notes(found, study, args.max_stays)


main = script(
    "privacy_utility",
    __doc__,
    contents,
    option("--epsilon", type=float, nargs="+", default=EPSILONS, help="the ε to show"),
    option("--max-stays", type=int, default=1, help="search.max_stays"),
)

if __name__ == "__main__":
    raise SystemExit(main())
