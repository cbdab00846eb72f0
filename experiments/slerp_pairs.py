"""Does the gain of SLERP over linear grow with the angle between the parents? Pairs from near to far.

    python -m experiments.pivots                                # makes the default pivots
    python run.py experiment=slerp_pairs                        # run it
    python -m experiments.slerp_pairs                           # read it; a picture goes beside sweep.csv
    python -m experiments.slerp_pairs --output DIR --name NAME  # read one run with output=DIR name=NAME

λ is the one of the sweep; where that has several, each pair and method has its best on the pilot split.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.comparison import change_text, score_table, score_text, source_notes
from experiments.figures import Panel, Series, save_figure
from experiments.published import published
from experiments.reading import Content, command, folder, script
from experiments.study import TEST, Row, Run, Study, difference, last_sweep
from patientdx.core.errors import UserError
from patientdx.core.tables import Table
from patientdx.metrics.bootstrap import Interval, replicates
from patientdx.metrics.ranking import auroc
from patientdx.reporting.chart_style import COLOURS, GREY

_SAME = 1e-4  # degrees: equal tensors have angles up to about 1e-6 by rounding, those that differ thousandths and more


@dataclass(frozen=True)
class Pair:
    """One pair of parents. angle: mean over the tensors in which they differ, in degrees; lines: of how many tensors
    SLERP joined so many by the straight line. resampled (resamples,): the gain on the same draws for every pair."""

    pivot: str
    angle: float
    widest: float
    lines: tuple[int, int]
    slerp: Row
    linear: Row
    gain: Interval
    resampled: NDArray[np.float64]


def pairs(study: Study) -> list[Pair]:
    """Every pair of the sweep, the nearest first. UserError where one was not merged both ways."""
    found = [_pair(part, pivot) for pivot, part in study.parts("pivot").items()]
    if len(found) < 2:
        raise UserError(f"the last sweep in {study.folder} has one pivot: give several, as in pivot_model=a,b.")
    return sorted(found, key=lambda one: one.angle)


def _pair(part: Study, pivot: str) -> Pair:
    rows = {method: _row(part, method, pivot) for method in ("slerp", "linear")}
    runs = {method: part.run_of(method, row["lambda"]) for method, row in rows.items()}
    angles = _angles(runs["slerp"])
    slerp, linear = (_resampled(runs[method]) for method in ("slerp", "linear"))
    return Pair(
        pivot, float(np.mean(angles)) if len(angles) else 0.0, max(angles, default=0.0), runs["slerp"].straight_lines,
        rows["slerp"], rows["linear"], difference(auroc, (runs["slerp"], "merged"), (runs["linear"], "merged"), TEST),
        slerp - linear,
    )  # fmt: skip


def _row(part: Study, method: str, pivot: str) -> Row:
    """The merge's row on test: at the only λ, or at the one that is best on pilot."""
    rows = [row for row in part.rows if row["role"] == "merged" and row["method"] == method]
    if not rows:
        raise UserError(f"{pivot} was not merged by {method} in {part.folder}: sweep merge=slerp,linear.")
    if len({row["lambda"] for row in rows}) > 1:
        return part.best(method)
    return next(row for row in rows if row["split"] == TEST)


def _angles(run: Run) -> list[float]:
    """Degrees between the parents, of each tensor in which they differ by more than rounding."""
    told = json.loads((run.folder / "provenance.json").read_text(encoding="utf-8"))["merge"]["tensors"]
    return [facts["angle_degrees"] for facts in told.values() if facts["angle_degrees"] > _SAME]


def _resampled(run: Run) -> NDArray[np.float64]:
    """(resamples,) AUROC of the merged model on draws that are the same for all runs of the study."""
    patient, label, score = zip(*run.answers("merged", TEST).values(), strict=True)
    config = run.config
    resamples, seed = config["bootstrap"]["resamples"], config["seed"]
    return replicates({"": auroc}, score, label, patient, resamples=resamples, seed=seed)[""]


def slope(found: Sequence[Pair], level: float) -> tuple[float, float, float]:
    """Gain in AUROC a degree of mean angle, by least squares over the pairs, with its percentile interval.

    Every resample of patients has a slope of its own, through the gains of all pairs on it: what the pairs share, the
    patients, is in the interval. That the pairs are these and no others is not.
    """
    angles = np.array([one.angle for one in found])
    centred = angles - angles.mean()
    if not centred.any():
        raise UserError("all pairs are equally far apart: there is no slope of gain against angle.")
    shares = centred / (centred @ centred)
    drawn = shares @ np.array([one.resampled for one in found])
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(shares @ np.array([one.gain.value for one in found])), float(low), float(high)


def table(found: Sequence[Pair]) -> Table:
    """One line a pair."""
    names = ("pivot", "mean angle", "widest", "straight lines", "λ", "SLERP AUROC", "linear AUROC", "gain")
    rows = []
    for one in found:
        weights = dict.fromkeys(f"{row['lambda']:g}" for row in (one.slerp, one.linear))
        rows.append((
            one.pivot, f"{one.angle:.2f}°", f"{one.widest:.1f}°", f"{one.lines[0]} of {one.lines[1]}",
            ", ".join(weights), score_text(one.slerp), score_text(one.linear), change_text(one.gain),
        ))  # fmt: skip
    return score_table("", names, rows)


def draw(found: Sequence[Pair], level: float, path: Path) -> None:
    """Gain against mean angle with intervals, as a PNG."""
    points = [
        {"x": one.angle, "y": one.gain.value, "low": one.gain.low, "high": one.gain.high, "text": one.pivot}
        for one in found
    ]
    panel = Panel(
        [Series("gain", points, COLOURS[0], line=False)],
        "mean angle between the parents' tensors, degrees",
        "AUROC of SLERP minus that of linear",
        title="SLERP over linear",
        x_scale={"type": "symlog"},
        levels={0.0: GREY},
        width=520,
    )
    save_figure([panel], path, note=f"{level:.0%} intervals, paired")


def notes(study: Study, found: Sequence[Pair]) -> Iterator[str]:
    """What the table needs beside it."""
    level = study.runs[0].config["bootstrap"]["level"]
    value, low, high = slope(found, level)
    said = "it grows" if low > 0 else "it shrinks" if high < 0 else "not shown, the interval holds 0"
    yield f"Gain for each 10° of mean angle: {10 * value:+.4f} [{10 * low:+.4f}, {10 * high:+.4f}]: {said}."
    yield f"Ours: {study.described(TEST)}"
    yield (
        "Angle: mean over the tensors in which the parents differ; where all tensors took the straight line SLERP is "
        "the linear merge, and the gain 0 by construction. A far pivot may know nothing: look at the AUROC, too."
    )


def contents(args: Namespace) -> Iterator[Content]:
    """The table, its notes, the picture's place."""
    study, block = last_sweep(folder(args), command(args), by=("pivot",)), published("slerp_pairs")
    found = pairs(study)
    yield table(found)
    yield from notes(study, found)
    path = study.folder / "slerp_pairs.png"
    draw(found, study.runs[0].config["bootstrap"]["level"], path)
    yield f"picture: {path}"
    cell = block.cells["slerp_over_linear"]
    yield f"SLERP over linear: {cell.text} ({cell.source}); how far apart those parents were is not known."
    yield from source_notes(block, [])


main = script("slerp_pairs", __doc__, contents)

if __name__ == "__main__":
    raise SystemExit(main())
