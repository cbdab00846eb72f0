"""What the pilot value of a chosen λ is worth: as it stands and corrected, minus the truth, in simulation.

python -m experiments.benchmarks.selection_bias
python -m experiments.benchmarks.selection_bias --patients 52 --strategies grid racing --seeds 20

The models are those of `experiments.benchmarks.search_toys`, whose true AUROC is known. A line is the mean over seeds
with its standard error. `among the rest` corrects among the candidates that were scored on all rows, whatever was
dropped: what a race could show, and does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from experiments.benchmarks import harness
from experiments.benchmarks.search import STRATEGIES, choice_by
from experiments.benchmarks.search_toys import SHAPES, STEPS, toy
from patientdx.metrics.ranking import auroc
from patientdx.metrics.selection_bias import winner
from patientdx.selection.pilot import Pilot, order_key

COLUMNS = ("value", "corrected", "among the rest")
_RESAMPLES = 300


def errors(strategy: str, shape: str, patients: int, seed: int) -> tuple[float, ...]:
    """Each of `COLUMNS` minus the truth for one toy; NaN where no corrected value is shown."""
    data = toy(shape, patients, seed)

    def scores(candidate, rows):
        return data.pilot[round(candidate.weight * (STEPS - 1))][rows]

    pilot = Pilot(data.label, data.subject, auroc, scores)
    choice = choice_by(strategy, pilot, STEPS, seed)
    ordered = sorted((trial.candidate for trial in choice.trials), key=order_key)
    known, chosen = np.array([pilot.known(candidate) for candidate in ordered]), ordered.index(choice.chosen)
    complete = ~np.isnan(known).any(axis=1)
    rest = known[complete], int(complete[:chosen].sum())
    truth = data.area[round(choice.chosen.weight * (STEPS - 1))]
    made = [
        winner(auroc, scored, data.label, data.subject, chosen=number, resamples=_RESAMPLES, seed=seed)
        for scored, number in ((known, chosen), rest)
    ]
    corrected = (np.nan if one["corrected"] is None else one["corrected"] for one in made)
    return tuple(value - truth for value in (made[0]["value"], *corrected))


def lines(strategies: Sequence[str], sizes: Sequence[int], seeds: int) -> Iterator[tuple[str, ...]]:
    """A line a size, strategy and shape, and one for all shapes."""
    for patients in sizes:
        for strategy in strategies:
            found = {
                shape: np.array([errors(strategy, shape, patients, seed) for seed in range(seeds)])
                for shape in tqdm(SHAPES, desc=f"{strategy}, {patients} patients")
            }
            for shape, values in {**found, "all": np.concatenate(list(found.values()))}.items():
                yield str(patients), strategy, shape, *map(_mean, values.T)


def _mean(values: np.ndarray) -> str:
    usable = values[~np.isnan(values)]
    if not usable.size:
        return "not shown"
    return f"{usable.mean():+.3f} ± {usable.std() / np.sqrt(usable.size):.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--strategies", nargs="+", choices=("grid", *STRATEGIES), default=("grid", "bayes", "racing"))
    parser.add_argument("--patients", nargs="+", type=int, default=(52, 300))
    parser.add_argument("--seeds", type=int, default=40)
    args = parser.parse_args(arguments)
    rows = list(lines(args.strategies, args.patients, args.seeds))
    columns = ("patients", "strategy", "shape", *COLUMNS)
    harness.show(harness.table("AUROC on pilot minus the truth", columns, rows, 3))


if __name__ == "__main__":
    harness.run(main)
