"""The answer of `identify`: a verdict in sentences, a table of hypotheses, and files with a line a tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patientdx.cli.identify_bits import decided_by_bits, equivalent
from patientdx.cli.identify_search import Explanation, Measured, representatives
from patientdx.core.atomic_io import write_atomically
from patientdx.core.tables import ABSENT, Cell, Column, Table, make_table, plain, word, write_csv
from patientdx.merge.identification import ALLOWED, DETERMINED, fit_copy, span_squares, weight_error
from patientdx.merge.schedule import layer_of
from patientdx.reporting.angles import kind_of

EXPLAINED, UNEXPLAINED = 0, 1
_SHOWN = 6
_MOST = 0.99  # of the bits: our arithmetic in all but details


@dataclass(frozen=True)
class Findings:
    """All that was measured. models: names of candidates, then of the ancestor if it is none of them.

    rows: tensors in which candidates differ, or all tensors where none do; explanations: best first.
    shared: tensors that are the same in all candidates. skipped: names of tensors that were not compared, by reason.
    """

    merged: str
    models: tuple[str, ...]
    rows: tuple[Measured, ...]
    explanations: tuple[Explanation, ...]
    shared: tuple[Measured, ...]
    skipped: Mapping[str, Sequence[str]]

    @property
    def best(self) -> Explanation:
        """The first explanation."""
        return self.explanations[0]

    @property
    def is_explained(self) -> bool:
        """Whether the best hypothesis accounts for every sampled tensor."""
        return self.best.explained == len(self.rows) and not self.foreign

    @property
    def foreign(self) -> list[str]:
        """Tensors that are the same in all candidates, and different in the merged model."""
        excesses = {row.name: row.excess(fit_copy(row.factor, 0).squares) for row in self.shared}
        return [name for name, excess in excesses.items() if excess > ALLOWED]

    @property
    def exit_code(self) -> int:
        """0 where a hypothesis explains the merged model, else 1."""
        return EXPLAINED if self.is_explained else UNEXPLAINED


def verdict(findings: Findings) -> list[str]:
    """What the numbers say, in sentences."""
    sentences = _explained(findings) if findings.is_explained else _unexplained(findings)
    twins = _twins(findings)
    for first, same in twins.items():
        names = _listed([findings.models[model] for model in same])
        sentences.append(
            f"{names} and {findings.models[first]} are identical in every sampled tensor: which of them was merged is "
            f"undetermined, and {findings.models[first]} stands for all of them."
        )
    return sentences


def _explained(findings: Findings) -> list[str]:
    best, merged = findings.best, findings.merged
    if best.hypothesis.method == "copy":
        name = findings.models[best.hypothesis.parents[0]]
        sentences = [
            f"{merged} is {name} itself (λ=0 of a merge from it, λ=1 of a merge to it): "
            f"{_agreement(best, findings)}, in {_tensors(len(findings.rows))}."
        ]
        if all(row.is_shared for row in findings.rows):
            sentences.append("All candidates are the same in these tensors, so that method and λ are undetermined.")
        return sentences
    sentences = [
        f"{merged} is explained by {_named(best, findings)}: in {_tensors(len(findings.rows))} the residual is at most "
        f"{best.excess:.2g} times the rounding expected in {_dtypes(findings)} (accepted: {ALLOWED:g}), and "
        f"{_agreement(best, findings)}."
    ]
    spread = [] if best.values else [summary for summary in best.weights if not math.isnan(summary.median)]
    for summary in spread:
        sentences.append(
            f"λ is not the same in all tensors: from {summary.low:.4g} to {summary.high:.4g}, "
            f"median {summary.median:.4g}."
        )
    if all(math.isnan(summary.median) for summary in best.weights):
        sentences.append("λ is undetermined: the parents are the same in every sampled tensor.")
    if sum(best.bits) < _MOST * _total(findings):
        sentences.append("The other elements differ by rounding: other arithmetic, or a change too small to be seen.")
    sentences += _orientation(best, findings)
    sentences += [
        f"{_named(item, findings)} explains it as well: the sampled tensors do not distinguish them."
        for item in equivalent(findings.explanations, _total(findings))
    ]
    sentences += [
        f"{_named(item, findings)} has as small a residual, but only {_agreement(item, findings)}."
        for item in decided_by_bits(findings.explanations, _total(findings))
    ]
    return sentences


def _orientation(best: Explanation, findings: Findings) -> list[str]:
    """Whose share λ is, for two parents, and that base and pivot can be exchanged."""
    if best.hypothesis.method not in ("linear", "slerp") or len(best.hypothesis.parents) != 2:
        return []
    if not best.values:
        return []
    value, (base, pivot) = best.values[0], best.hypothesis.pair
    names = findings.models
    mirrored = best.hypothesis.__class__(best.hypothesis.method, (pivot, base)).named(names, [f"{1 - value:.6g}"])
    return [
        f"λ is the share of {names[pivot]}; {mirrored} is the same model, and weights do not say which was called base."
    ]


def _unexplained(findings: Findings) -> list[str]:
    best, rows = findings.best, findings.rows
    sentences = [
        f"None of these candidates explains {findings.merged}: best is {_named(best, findings)}, with a residual of "
        f"{best.residual:.2g} of the weights, up to {best.excess:.3g} times the rounding expected in "
        f"{_dtypes(findings)} (accepted: {ALLOWED:g}); it explains {best.explained} of {_tensors(len(rows))}."
    ]
    if best.explained:
        names = [row.name for row, fit in zip(rows, best.fits, strict=True) if not row.explains(best.hypothesis, fit)]
        sentences += [f"It does not explain {_listed(names)}."] if names else []
    if findings.foreign:
        sentences.append(
            f"All candidates are the same in {_listed(findings.foreign)}, and {findings.merged} differs there."
        )
    if best.explained < len(rows):
        free = max(row.excess(span_squares(row.factor), len(findings.models)) for row in rows)
        sentences.append(
            f"The best sum of all candidates, with free coefficients in each tensor, leaves up to {free:.3g} times the "
            + (
                "rounding: a parent is not among the candidates, the model was trained after the merge, or the method "
                "drops or selects elements (TIES, DARE and others are not tested)."
                if free > ALLOWED
                else "rounding: these are the parents, and the method is none of linear, SLERP and task arithmetic "
                "of up to three models."
            )
        )
    return sentences


def _twins(findings: Findings) -> dict[int, list[int]]:
    """First candidates to later ones that are the same in every row."""
    twins: dict[int, list[int]] = {}
    for model, first in enumerate(representatives(findings.rows, len(findings.models))):
        if first != model:
            twins.setdefault(first, []).append(model)
    return twins


def table(findings: Findings) -> Table:
    """The best hypotheses, with λ, residual, tensors explained and bits that agree."""
    lines = []
    for item in findings.explanations[:_SHOWN]:
        lines.append(
            [
                word(item.hypothesis.named(findings.models)),
                Cell(", ".join(_number(summary.median) for summary in item.weights) or ABSENT),
                Cell(", ".join(_number(summary.high - summary.low) for summary in item.weights) or ABSENT),
                plain(item.residual, 2, "e"),
                plain(item.excess, 3, "g"),
                Cell(f"{item.explained}/{len(findings.rows)}", item.explained),
                Cell(_share(sum(item.bits), _total(findings)), sum(item.bits) / _total(findings))
                if item.bits
                else Cell(ABSENT),
            ]
        )
    columns = [
        Column("hypothesis", "left"), Column("λ"), Column("spread"), Column("residual"), Column("×rounding"),
        Column("tensors"), Column("bits"),
    ]  # fmt: skip
    notes = [
        "λ: median over tensors, weighted by how exactly each determines it",
        f"spread: largest minus smallest λ of the tensors that determine it to {DETERMINED:g}",
        "residual: of all sampled elements, relative to their length",
        f"×rounding: largest residual of a tensor over the rounding expected; tensors: explained, up to {ALLOWED:g}",
        "bits: sampled elements that our own merge gives bit for bit",
        *(
            f"not compared, {reason}: {len(names)} tensors ({_listed(names)})"
            for reason, names in findings.skipped.items()
        ),
        *([f"the same in all candidates: {_tensors(len(findings.shared))}"] if findings.shared else []),
    ]
    return make_table("hypotheses", f"What {findings.merged} may be", columns, lines, notes=notes)


def records(findings: Findings, explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """A line for each explanation and tensor, with every digit; NaN and what was not computed are None."""
    lines = []
    for item in explanations:
        for at, (row, fit) in enumerate(zip(findings.rows, item.fits, strict=True)):
            noise = max(row.rounding.stored, fit.squares) / row.elements
            errors = [
                weight_error(weight, unit, noise, row.elements)
                for weight, unit in zip(fit.weights, fit.errors, strict=True)
            ]
            lines.append(
                {
                    "hypothesis": item.hypothesis.named(findings.models),
                    "tensor": row.name,
                    "layer": layer_of(row.name),
                    "kind": kind_of(row.name),
                    "elements": row.elements,
                    "lambda": _joined(fit.weights),
                    "lambda_error": _joined(errors),
                    "residual": math.sqrt(fit.squares) / row.length if row.length else 0.0,
                    "times_rounding": row.excess(fit.squares, fit.parameters),
                    "explained": row.explains(item.hypothesis, fit),
                    "bits_equal": item.bits[at] / row.elements if item.bits else None,
                    **{f"coefficient_{name}": x for name, x in zip(findings.models, fit.coefficients, strict=True)},
                }
            )
    return lines


def write(findings: Findings, path: Path) -> None:
    """Every hypothesis and sampled tensor: a .csv of `records`, or a .json that has the verdict beside them."""
    lines = records(findings, findings.explanations)
    if path.suffix == ".csv":
        write_csv(lines, path)
        return
    content = {
        "merged": findings.merged,
        "models": list(findings.models),
        "explained": findings.is_explained,
        "verdict": verdict(findings),
        "skipped": {reason: list(names) for reason, names in findings.skipped.items()},
        "same_in_all_candidates": [row.name for row in findings.shared],
        "tensors": lines,
    }
    text = json.dumps(content, ensure_ascii=False, indent=1)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _named(item: Explanation, findings: Findings) -> str:
    values = item.values or [summary.median for summary in item.weights]
    return item.hypothesis.named(findings.models, [_number(value) for value in values])


def _number(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value + 0.0:.4f}"


def _joined(values: Sequence[float]) -> float | str | None:
    known = [value if math.isfinite(value) else None for value in values]
    return known[0] if len(known) == 1 else " ".join(str(value) for value in known) or None


def _share(part: int, total: int) -> str:
    # 100% is said of all only.
    return f"{math.floor(10000 * part / total) / 100:.2f}%" if total else ABSENT


def _total(findings: Findings) -> int:
    return sum(row.elements for row in findings.rows)


def _agreement(item: Explanation, findings: Findings) -> str:
    share = _share(sum(item.bits), _total(findings))
    return f"{share} of {_total(findings):,}".replace(",", " ") + " sampled elements agree bit for bit"


def _tensors(number: int) -> str:
    return f"{number} sampled tensor{'s' * (number != 1)}"


def _dtypes(findings: Findings) -> str:
    return " and ".join(sorted({str(row.rounding.dtype).removeprefix("torch.") for row in findings.rows}))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
