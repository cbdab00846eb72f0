"""The claims of the three papers, each answered by a paired interval against a smallest effect that was fixed before.

    python -m experiments.pivots                             # makes the default pair's pivot of noise
    python run.py experiment=claims                          # run it
    python -m experiments.claims                             # read it, and the other studies of the same output=
    python -m experiments.claims --output DIR --name NAME    # read one run with output=DIR name=NAME

`claims.yaml` holds the claims. A claim of superiority is shown where every interval lies above 0, and refuted where one
lies below the smallest effect that would matter; a claim that nothing is lost is shown where every interval lies above
minus that effect, and refuted where one lies below. λ is chosen on the pilot split and reported on the test split.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments import fewshot, forgetting, leakage, transfer
from experiments.comparison import change_text, score_table
from experiments.published import published
from experiments.reading import Content, by_name, command, folder, script
from experiments.study import PILOT, TEST, Row, Run, Study, difference, last_sweep
from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import Interval
from patientdx.metrics.calibration import brier
from patientdx.metrics.ranking import auroc

CLAIMS = Path(__file__).with_name("claims.yaml")
METHOD, RIVAL = "slerp", "linear"
Evidence = list[tuple[str, Interval]]
"""What is compared, and by how much it is on the claim's side."""


@dataclass(frozen=True)
class Claim:
    """One entry of `claims.yaml`, whose head explains the fields."""

    claim: str
    study: str
    compare: str
    smallest: float
    no_worse: bool
    published: str | None

    @property
    def cell(self) -> str:
        """What was published of it, as text."""
        if self.published is None:
            return "–"
        stem, name = self.published.split(".")
        return published(stem).cells[name].text


def claims(path: Path = CLAIMS) -> dict[str, Claim]:
    """All claims by their short names."""
    return {name: Claim(**fields) for name, fields in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def verdict(claim: Claim, evidence: Evidence) -> str:
    """Whether the intervals show the claim, refute it, or leave it open."""
    lows, highs = ([getattr(interval, end) for _, interval in evidence] for end in ("low", "high"))
    bound = -claim.smallest if claim.no_worse else 0.0
    if all(low > bound for low in lows):
        small = not claim.no_worse and min(highs) < claim.smallest
        return "shown, and smaller than what matters" if small else "shown"
    refuting = bound if claim.no_worse else claim.smallest
    return "refuted" if any(high < refuting for high in highs) else "not shown"


def _change(a: tuple[Run, str], b: tuple[Run, str], metric: Callable = auroc) -> Interval:
    return difference(metric, a, b, TEST)


def _merge(study: Study, method: str) -> tuple[Row, tuple[Run, str]]:
    """The merge of a method at the λ chosen on pilot: its row on test, and its run with its role there."""
    row = study.best(method)
    return row, (study.run_of(method, row["lambda"]), "merged")


def _first(study: Study) -> Study:
    """The runs with the first pivot of the sweep, for which the others stand in."""
    return next(iter(study.parts("pivot").values()))


def over_parents(study: Study) -> Evidence:
    """The merge less each parent."""
    row, merge = _merge(_first(study), METHOD)
    return [(f"{METHOD} λ={row['lambda']:g} − {role}", _change(merge, (merge[0], role))) for role in ("base", "pivot")]


def slerp_over_linear(study: Study) -> Evidence:
    """The merge by SLERP less that by linear averaging, each at its own λ."""
    (first, merge), (second, rival) = (_merge(_first(study), method) for method in (METHOD, RIVAL))
    return [(f"{METHOD} λ={first['lambda']:g} − {RIVAL} λ={second['lambda']:g}", _change(merge, rival))]


def over_other_pivots(study: Study) -> Evidence:
    """The merge with the first pivot less that with each other, and less the base, which has none."""
    parts = study.parts("pivot")
    if len(parts) < 2:
        raise UserError(f"the last sweep in {study.folder} has one pivot: sweep others too, as in pivot_model=a,b.")
    _, merge = _merge(_first(study), METHOD)
    others = {pivot: _merge(part, METHOD)[1] for pivot, part in list(parts.items())[1:]}
    pairs = {"without a pivot": (merge[0], "base")} | {f"with {pivot}": other for pivot, other in others.items()}
    return [(f"with {next(iter(parts))} − {name}", _change(merge, other)) for name, other in pairs.items()]


def over_best_on_test(study: Study) -> Evidence:
    """The λ chosen on pilot less the λ that is best on test, which knows the answers: 0 at most."""
    part = _first(study)
    row, merge = _merge(part, METHOD)
    rows = [one for one in part.rows if (one["role"], one["method"], one["split"]) == ("merged", METHOD, TEST)]
    best = max(rows, key=lambda one: (one["auroc"], -one["lambda"]))
    rival = (part.run_of(METHOD, best["lambda"]), "merged")
    return [(f"λ={row['lambda']:g} − λ={best['lambda']:g}, best on test", _change(merge, rival))]


def calibration_inside(study: Study) -> Evidence:
    """The Brier score of each parent less that of the λ between them that has the lowest on pilot."""
    part = _first(study)
    rows = [one for one in part.rows if (one["role"], one["method"], one["split"]) == ("merged", METHOD, PILOT)]
    inner = sorted({one["lambda"] for one in rows} - {0.0, 1.0})
    if not inner:
        raise UserError(f"the last sweep in {study.folder} has no {METHOD} at a λ between 0 and 1.")

    def on_pilot(weight: float) -> float:
        answers = part.run_of(METHOD, weight).answers("merged", PILOT).values()
        return float(brier([score for *_, score in answers], [label for _, label, _ in answers]))

    weight = min(inner, key=on_pilot)
    run = part.run_of(METHOD, weight)
    roles = ("base", "pivot")
    return [(f"{role} − {METHOD} λ={weight:g}, Brier", _change((run, role), (run, "merged"), brier)) for role in roles]


def over_own_lambda(study: Study) -> Evidence:
    """On each task that did not choose λ: that λ less the task's own."""
    moved = transfer.transfers(study).get(METHOD)
    if moved is None:
        raise UserError(f"the last sweep in {study.folder} has no merge={METHOD}.")
    return [(f"{one.task}: λ={one.transferred['lambda']:g} − own", one.over_own) for one in moved[1:]]


def over_domain_model(study: Study) -> Evidence:
    """On each general task: the merge less the domain model."""
    curves = forgetting.curves(study)
    method = METHOD if METHOD in curves.methods else next(iter(curves.methods))
    merge = curves.chosen(method)
    changes = [(task, curves.change(task, merge, curves.domain_model)) for task in curves.general]
    return [(f"{task}: {merge.name} − domain model", change) for task, change in changes]


def over_base_on_many(study: Study) -> Evidence:
    """Each merge on few examples less the base on many."""
    return [
        (f"{one.name}@{one.merged} − base@{one.base}", one.interval) for one in fewshot.verdicts(fewshot.curves(study))
    ]


def less_than_finetuned(study: Study) -> Evidence:
    """AUC of membership inference of each fine-tuned model that is no worse than the merge, less the merge's.

    The two are set apart by the ends of both intervals, which is wider than a paired interval would be.
    """
    models = leakage.models(study)
    merge = next((one for one in models if one.row["role"] == "merged" and one.row["method"] == METHOD), None)
    learnt = [one for one in models if one.fine_tuned and merge and one.row["auroc"] >= merge.row["auroc"]]
    if merge is None or not learnt:
        raise UserError("no fine-tuned model of the study reaches the AUROC of its merge, so none is comparable.")
    evidence = []
    own = merge.leaked["mia"][leakage.ATTACK]["auc"]
    for one in learnt:
        other = one.leaked["mia"][leakage.ATTACK]["auc"]
        ends = other["value"] - own["value"], other["low"] - own["high"], other["high"] - own["low"]
        row = merge.row
        interval = Interval(*ends, row["n"], row["events"], row["patients"], study.runs[0].config["bootstrap"]["level"])
        evidence.append((f"{one.name} − {merge.name}, AUC of the attack", interval))
    return evidence


COMPARISONS: dict[str, Callable[[Study], Evidence]] = {
    compare.__name__: compare
    for compare in (
        over_parents, slerp_over_linear, over_other_pivots, over_best_on_test, calibration_inside, over_own_lambda,
        over_domain_model, over_base_on_many, less_than_finetuned,
    )
}  # fmt: skip


def _sweep(stem: str, args: Namespace) -> Study:
    """The last sweep of a study of the same output, this one under its own name."""
    own = stem == args.stem
    where = folder(args) if own else args.output.expanduser() / stem
    # Runs of several pivots, or tasks, are one sweep here: each comparison takes its part of it.
    return last_sweep(where, command(args) if own else by_name(stem, stem), by=("task", "pivot"))


def contents(args: Namespace) -> Iterator[Content]:
    """One table of all claims, what is lacking, and what its words mean."""
    studies = {args.stem: _sweep(args.stem, args)}
    rows, lacking = [], []
    for claim in claims().values():
        smallest = f"{-claim.smallest:g}" if claim.no_worse else f"{claim.smallest:g}"
        try:
            if claim.study not in studies:
                studies[claim.study] = _sweep(claim.study, args)
            evidence = COMPARISONS[claim.compare](studies[claim.study])
        except UserError as error:
            rows.append((claim.claim, "", smallest, "not answered", claim.cell))
            lacking.append(f"{claim.claim}: {' '.join(str(error).split())}")
            continue
        rows.append((claim.claim, "", smallest, verdict(claim, evidence), claim.cell))
        rows += [(f"  {name}", change_text(interval), "", "", "") for name, interval in evidence]
    yield score_table("Claims of the papers", ("", "difference", "that matters", "verdict", "published"), rows)
    yield from lacking
    yield (
        "Differences are paired, above 0 on the claim's side, with intervals by patient; λ is chosen on pilot and "
        "reported on test. Shown: every interval lies above 0 (of a claim that nothing is lost: above minus what "
        "matters). Refuted: one lies below what matters. What matters was fixed beforehand (claims.yaml)."
    )
    yield "Each claim's test stands alone: nothing is corrected for their number."


main = script("claims", __doc__, contents)

if __name__ == "__main__":
    raise SystemExit(main())
