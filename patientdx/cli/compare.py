"""Distances between two models, tensor by tensor, before anything is merged.

python -m patientdx.cli compare base_model=mistral_7b_instruct_v0_1 pivot_model=dart_math_mistral_7b_uniform
python -m patientdx.cli compare base_model@ancestor=mistral_7b_v0_1       signs of the changes since a common ancestor

Takes what run.py takes; writes a table, tensors.csv and a picture to <output>/compare/<base>_<pivot>.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from torch import Tensor

from patientdx.checkpoints.identity import Source
from patientdx.checkpoints.source import ModelSource
from patientdx.cli.compose import configuration
from patientdx.cli.messages import run_command
from patientdx.core.errors import UserError
from patientdx.core.progress import progress
from patientdx.core.tables import ABSENT, Cell, Table, count, make_table, word, write_csv
from patientdx.evaluation.session import open_parents
from patientdx.evaluation.store import make_writable
from patientdx.merge.schedule import layer_of
from patientdx.merge.slerp import slerp
from patientdx.reporting import pictures, show
from patientdx.reporting.angles import ORDER, kind_of
from patientdx.reporting.charts import OUTSIDE

BLOCK = 1 << 14  # elements; a sum of more is split among threads, whose number would show in its last bits
COLLINEAR: float = inspect.signature(slerp).parameters["collinear"].default


@dataclass(frozen=True)
class Sums:
    """Sums over the elements of one tensor or of several, from which all measures follow.

    aa, bb, dd: squared lengths of base, pivot and their difference. straight: elements of tensors that SLERP joins by a
    straight line. conflicts: elements of opposite sign, among the `compared`, where neither is 0.
    """

    elements: int
    aa: float
    bb: float
    dd: float
    conflicts: int
    compared: int
    straight: int

    @property
    def distance(self) -> float:
        """|pivot - base| / |base|; NaN for a base of zeros."""
        return math.sqrt(self.dd / self.aa) if self.aa else math.nan

    @property
    def ratio(self) -> float:
        """|pivot| / |base|; NaN for a base of zeros."""
        return math.sqrt(self.bb / self.aa) if self.aa else math.nan

    @property
    def turned(self) -> float:
        """1 - cosine, from the difference: exact also where the cosine is 1 to every digit. NaN for zeros."""
        a, b = math.sqrt(self.aa), math.sqrt(self.bb)
        return max(0.0, self.dd - (a - b) ** 2) / (2 * a * b) if a and b else math.nan

    @property
    def conflict(self) -> float:
        """Share of elements of opposite sign; NaN where none could be compared."""
        return self.conflicts / self.compared if self.compared else math.nan


@dataclass(frozen=True)
class Row:
    """One tensor: its name, layer (None outside the layers), kind, shape and sums."""

    name: str
    layer: int | None
    kind: str
    shape: tuple[int, ...]
    sums: Sums


_MAPS = (  # title, value of a square, legend, colours
    ("direction", lambda sums: sums.turned, "1 − cosine", "viridis"),
    ("relative distance: |pivot − base| / |base|", lambda sums: 100 * sums.distance, "%", "plasma"),
)


def measure(base: Tensor, pivot: Tensor, ancestor: Tensor | None = None) -> Sums:
    """The sums of two tensors of one shape and any dtype, block by block in float64.

    Signs are those of the differences from `ancestor`, of the weights themselves where there is none.
    """
    flat = [tensor.reshape(-1) for tensor in (base, pivot, ancestor) if tensor is not None]
    aa = bb = dd = 0.0
    conflicts = compared = 0
    for start in range(0, base.numel(), BLOCK):
        a, b, *origin = (tensor[start : start + BLOCK].double() for tensor in flat)
        lengths = [x.square().sum().item() for x in (a, b, b - a)]
        aa, bb, dd = aa + lengths[0], bb + lengths[1], dd + lengths[2]
        signs = (a - origin[0]).sign() * (b - origin[0]).sign() if origin else a.sign() * b.sign()
        conflicts += int((signs < 0).sum())
        compared += int(signs.count_nonzero())
    sums = Sums(base.numel(), aa, bb, dd, conflicts, compared, 0)
    cosine = 1 - sums.turned  # NaN for zeros, which SLERP joins by a line as well
    return sums if abs(cosine) <= COLLINEAR else replace(sums, straight=base.numel())


def pooled(parts: Iterable[Sums]) -> Sums:
    """The sums of several tensors taken as one vector."""
    parts = list(parts)
    return Sums(*(sum(getattr(part, name) for part in parts) for name in Sums.__dataclass_fields__))


def cells(rows: Sequence[Row]) -> dict[tuple[int | None, str], Sums]:
    """The sums of each layer and kind that occur, layers first, kinds in the order of the table."""
    present = {(row.layer, row.kind) for row in rows}
    ordered = sorted(present, key=lambda at: (at[0] is None, at[0] or 0, ORDER.index(at[1])))
    return {at: pooled(row.sums for row in rows if (row.layer, row.kind) == at) for at in ordered}


def measure_tensors(checkpoints: Sequence[Source], names: Sequence[str]) -> Iterator[Row]:
    """Each tensor of base, pivot and, if it is there, their ancestor; a bar on a terminal says how far it is."""
    size = sum(checkpoint.tensors[name].nbytes for checkpoint in checkpoints for name in names)
    with progress(total=size, unit="B", unit_scale=True, leave=False, desc="compare") as bar:
        for name in names:
            sums = measure(*(checkpoint.read(name) for checkpoint in checkpoints))
            yield Row(name, layer_of(name), kind_of(name), checkpoints[0].tensors[name].shape, sums)
            bar.update(sum(checkpoint.tensors[name].nbytes for checkpoint in checkpoints))


def tables(rows: Sequence[Row], title: str, signs: str) -> tuple[Table, Table]:
    """Every layer by kind of tensor, and all layers together by kind with a last line for the whole model."""
    by_cell = cells(rows)
    measures = ("cosine", "norm ratio", "relative distance", "sign conflicts", "SLERP = line")
    lines = [
        [word(ABSENT if layer is None else str(layer)), word(kind), *_measures(sums)]
        for (layer, kind), sums in by_cell.items()
    ]
    layers = make_table("layers", f"{title}, by layer", ["layer", "kind", *measures], lines, keys=2)
    lines = []
    for kind in ORDER:
        parts = [sums for (_, other), sums in by_cell.items() if other == kind]
        lines += [_line(kind, pooled(parts))] if parts else []
    notes = [
        "norm ratio: |pivot| / |base|; relative distance: |pivot − base| / |base|",
        f"sign conflicts: opposite signs among {signs}, where neither is 0",
        f"SLERP = line: share of weights in tensors with |cosine| > {COLLINEAR:g}",
    ]
    lines.append(_line("all", pooled(by_cell.values())))
    return layers, make_table("kinds", f"{title}, all layers", ["kind", "weights", *measures], lines, notes=notes)


def _line(kind: str, sums: Sums) -> list[Cell]:
    weights = replace(count(sums.elements), text=f"{sums.elements:,}".replace(",", " "))
    return [word(kind), weights, *_measures(sums)]


def _measures(sums: Sums) -> list[Cell]:
    values = (1 - sums.turned, sums.ratio, sums.distance, sums.conflict, sums.straight / sums.elements)
    forms = (".6f", ".4f", ".2%", ".2%", ".1%")
    return [
        Cell(ABSENT) if math.isnan(value) else Cell(format(value, form), value)
        for value, form in zip(values, forms, strict=True)
    ]


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """One line a tensor, every digit; shares are from 0 to 1."""

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    write_csv(
        [
            {
                "tensor": row.name,
                "layer": row.layer,
                "kind": row.kind,
                "shape": "x".join(map(str, row.shape)),
                "weights": row.sums.elements,
                "cosine": known(1 - row.sums.turned),
                "one_minus_cosine": known(row.sums.turned),
                "norm_base": math.sqrt(row.sums.aa),
                "norm_pivot": math.sqrt(row.sums.bb),
                "relative_norm": known(row.sums.ratio),
                "relative_distance": known(row.sums.distance),
                "sign_conflicts": known(row.sums.conflict),
                "signs_compared": row.sums.compared / row.sums.elements,
                "slerp_is_line": row.sums.straight == row.sums.elements,
            }
            for row in rows
        ],
        path,
    )


def heatmaps(rows: Sequence[Row], path: Path, title: str) -> None:
    """Two maps as one PNG, layers across and kinds down, on log scales: 1 - cosine, and the relative distance.

    What is outside the layers is at the right. Grey is no difference at all.
    """
    by_cell = cells(rows)
    maps = []
    for label, measure_of, legend, colours in _MAPS:
        values = {cell: measure_of(sums) for cell, sums in by_cell.items()}
        squares = [
            {"layer": OUTSIDE if layer is None else str(layer), "kind": kind, "value": value}
            for (layer, kind), value in values.items()
            if not math.isnan(value)
        ]
        maps.append((label, squares, legend, colours))
    note = f"grey: no difference; SLERP is a straight line where 1 − cosine < {1 - COLLINEAR:.1g}"
    pictures.layer_maps(maps, ORDER, path, title=title, note=note)


def compare(overrides: Sequence[str]) -> tuple[list[Row], Path, str]:
    """Measure the models of the overrides and write both files; returns rows, folder and whose signs are compared.

    Raises UserError for overrides that do not compose, models that do not fit, and a folder that cannot be written.
    """
    config = configuration(overrides)
    ancestor, node = config.merge_config.spec.ancestor, config.composed.get("ancestor")
    if ancestor is None and node is not None:  # configured, though the merge method takes none
        unknown = sorted(node.keys() - ModelSource.__dataclass_fields__.keys())
        if unknown:
            raise UserError(f"ancestor has no key {', '.join(unknown)}: give a yaml of conf/models.")
        ancestor = ModelSource(**node)
    folder = config.output / "compare" / f"{config.merge_config.base.name}_{config.merge_config.pivot.name}"
    make_writable(folder)
    pair = (config.merge_config.base, config.merge_config.pivot)
    merge_inputs = open_parents(pair, config.cache, ancestor, config.merge_config.spec.tokenizer)
    checkpoints = [*merge_inputs.checkpoints, *([merge_inputs.ancestor] if merge_inputs.ancestor else [])]
    rows = list(measure_tensors(checkpoints, merge_inputs.names))
    write_rows(rows, folder / "tensors.csv")
    heatmaps(rows, folder / "heatmap.png", f"{config.merge_config.base.name}  →  {config.merge_config.pivot.name}")
    signs = "the weights" if ancestor is None else f"the changes since {ancestor.name}"
    return rows, folder, signs


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 with one message where the models cannot be compared."""
    arguments = sys.argv[1:] if argv is None else list(argv)

    def command() -> int:
        rows, folder, signs = compare(arguments)
        show(*tables(rows, folder.name, signs))
        Console(soft_wrap=True, highlight=False, markup=False).print(f"written: {folder}")
        return 0

    return run_command(__doc__, arguments, command)


if __name__ == "__main__":
    sys.exit(main())
