"""How far two models are from each other, tensor by tensor, before anything is merged.

python -m patientdx.cli.compare base_model=mistral_7b_instruct_v0_1 pivot_model=dart_math_mistral_7b_uniform
python -m patientdx.cli.compare base_model@ancestor=mistral_7b_v0_1       signs of the changes since a common ancestor

Takes what run.py takes; writes a table, tensors.csv and a picture to <output>/compare/<base>_<pivot>.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import REPOSITORY, ModelSource
from patientdx.core.atomic_io import write_atomically
from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import parse
from patientdx.evaluation.session import open_parents
from patientdx.evaluation.store import make_writable
from patientdx.merge.schedule import layer_of
from patientdx.merge.slerp import slerp
from patientdx.reporting import write_csv
from patientdx.reporting.angles import ORDER, kind_of

BLOCK = 1 << 14  # elements; a sum of more is split among threads, whose number would show in its last bits
COLLINEAR: float = inspect.signature(slerp).parameters["collinear"].default
_INK, _GREY, _SAME = "#333333", "#666666", "#E3E3E3"


@dataclass(frozen=True)
class Sums:
    """What is added up over the elements of one tensor, or of several: all measures follow from it.

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
    """One tensor: where it stands and what was measured. layer is None outside the layers."""

    name: str
    layer: int | None
    kind: str
    shape: tuple[int, ...]
    sums: Sums


_MAPS = (  # title, value of a square, what its unit is, colours
    ("direction: 1 − cosine", lambda sums: sums.turned, "1 − cosine (log)", "viridis"),
    ("relative distance", lambda sums: 100 * sums.distance, "|pivot − base| / |base|, % (log)", "plasma"),
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
    found = Sums(base.numel(), aa, bb, dd, conflicts, compared, 0)
    cosine = 1 - found.turned  # NaN for zeros, which SLERP joins by a line as well
    return found if abs(cosine) <= COLLINEAR else Sums(base.numel(), aa, bb, dd, conflicts, compared, base.numel())


def pooled(parts: Iterable[Sums]) -> Sums:
    """The sums of several tensors taken as one vector."""
    parts = list(parts)
    return Sums(*(sum(getattr(part, name) for part in parts) for name in Sums.__dataclass_fields__))


def cells(rows: Sequence[Row]) -> dict[tuple[int | None, str], Sums]:
    """The sums of each layer and kind that occur, layers first, kinds in the order of the table."""
    places = {(row.layer, row.kind) for row in rows}
    ordered = sorted(places, key=lambda at: (at[0] is None, at[0] or 0, ORDER.index(at[1])))
    return {at: pooled(row.sums for row in rows if (row.layer, row.kind) == at) for at in ordered}


def fit_global_thresholds(opened: Sequence[Checkpoint], names: Sequence[str]) -> Iterator[Row]:
    """Each tensor of base, pivot and, if it is there, their ancestor; a bar on a terminal says how far it is."""
    size = sum(checkpoint.tensors[name].nbytes for checkpoint in opened for name in names)
    with tqdm(total=size, unit="B", unit_scale=True, disable=None, leave=False, desc="compare") as bar:
        for name in names:
            sums = measure(*(checkpoint.read(name) for checkpoint in opened))
            yield Row(name, layer_of(name), kind_of(name), opened[0].tensors[name].shape, sums)
            bar.update(sum(checkpoint.tensors[name].nbytes for checkpoint in opened))


def tables(rows: Sequence[Row], title: str, signs: str) -> tuple[Table, Table]:
    """Every layer by kind of tensor, and all layers together by kind with a last line for the whole model."""
    by_place = cells(rows)
    long = _table(f"{title}, by layer", ("layer", "kind"))
    for (layer, kind), sums in by_place.items():
        long.add_row("–" if layer is None else str(layer), kind, *_figures(sums))
    short = _table(f"{title}, all layers", ("kind", "weights"))
    short.caption = (
        "norm ratio: |pivot| / |base|; relative distance: |pivot − base| / |base|\n"
        f"sign conflicts: opposite signs among {signs}, where neither is 0\n"
        f"SLERP = line: share of weights in tensors with |cosine| > {COLLINEAR:g}"
    )
    short.caption_justify = "left"
    for kind in ORDER:
        found = [sums for (_, other), sums in by_place.items() if other == kind]
        if found:
            short.add_row(kind, *_counted(pooled(found)))
    short.add_section()
    short.add_row("all", *_counted(pooled(by_place.values())))
    return long, short


def _table(title: str, labels: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for label in labels:
        table.add_column(label, no_wrap=True, justify="left" if label == "kind" else "right")
    for heading in ("cosine", "norm\nratio", "relative\ndistance", "sign\nconflicts", "SLERP\n= line"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _figures(sums: Sums) -> list[str]:
    values = (1 - sums.turned, sums.ratio, sums.distance, sums.conflict, sums.straight / sums.elements)
    forms = (".6f", ".4f", ".2%", ".2%", ".1%")
    return ["–" if math.isnan(value) else format(value, form) for value, form in zip(values, forms, strict=True)]


def _counted(sums: Sums) -> list[str]:
    return [f"{sums.elements:,}".replace(",", " "), *_figures(sums)]


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

    What is outside the layers stands at the right. Grey is no difference at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    by_place = cells(rows)
    layers = sorted({layer for layer, _ in by_place if layer is not None})
    kinds = [kind for kind in ORDER if any(at[1] == kind and at[0] is not None for at in by_place)]
    outside = [kind for kind in ("embedding", "norms", "head", "other") if (None, kind) in by_place]
    tall = max(len(kinds), len(outside))
    figure = Figure(figsize=(min(16.0, 4.8 + 0.25 * max(len(layers), 8)), 1.9 + 0.5 * tall), dpi=200)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, color=_INK)
    note = f"grey: no difference     SLERP is a straight line where 1 − cosine < {1 - COLLINEAR:.1g}"
    grid = figure.subplots(2, 2, width_ratios=[max(len(layers), 8), 1.1])
    for axes, (label, measure_of, unit, colours) in zip(grid, _MAPS, strict=True):
        values = {at: measure_of(sums) for at, sums in by_place.items()}
        norm = _log_scale(values.values())
        image = _map(axes[0], [[values.get((layer, kind)) for layer in layers] for kind in kinds], norm, colours)
        _label(axes[0], label, kinds, layers)
        _map(axes[1], [[values[None, kind]] for kind in outside] + [[None]] * (tall - len(outside)), norm, colours)
        _label(axes[1], "outside", ["last norm" if kind == "norms" else kind for kind in outside], [])
        axes[1].yaxis.tick_right()
        bar = figure.colorbar(image, ax=list(axes), pad=0.015, aspect=14)
        bar.set_label(unit, fontsize=9, color=_INK)
        bar.ax.tick_params(labelsize=8, colors=_INK)
        bar.ax.tick_params(which="minor", labelsize=7, colors=_GREY)
        if "%" in unit:
            within = (1, 2, 5) if norm.vmax < 300 * norm.vmin else (1,)
            steps = [step * 10.0**power for power in range(-9, 5) for step in within]
            bar.set_ticks([step for step in steps if norm.vmin <= step <= norm.vmax])
            bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
            bar.ax.minorticks_off()
        elif norm.vmin < 1 - COLLINEAR < norm.vmax:
            bar.ax.axhline(1 - COLLINEAR, color="white", linewidth=2.2)
            note += " (white line on its scale)"
    figure.supxlabel(note, x=0.01, ha="left", fontsize=9, color=_GREY)
    write_atomically(path, lambda aside: figure.savefig(aside, format="png", metadata={"Software": None}))


def _log_scale(values: Iterable[float]):
    """A log scale from the smallest to the largest positive value, at least a factor of 4 wide."""
    from matplotlib.colors import LogNorm

    shown = [value for value in values if value > 0] or [1e-4, 1.0]
    low, high = min(shown), max(shown)
    room = max(1.0, 2 * math.sqrt(low / high))
    return LogNorm(low / room, high * room)


def _map(axes, values: Sequence[Sequence[float | None]], norm, colours: str):
    """The values as coloured squares, first row on top; None and NaN stay white, 0 is grey."""
    from matplotlib.colors import ListedColormap
    from numpy import array, ma

    table = array(values, dtype=float)
    look = {"edgecolors": "white", "linewidth": 0.6}
    axes.pcolormesh(ma.masked_where(table != 0, table), cmap=ListedColormap([_SAME]), **look)
    image = axes.pcolormesh(ma.masked_where(~(table > 0), table), cmap=colours, norm=norm, **look)
    axes.invert_yaxis()
    return image


def _label(axes, title: str, down: Sequence[str], across: Sequence[int]) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, color=_INK)
    axes.set_yticks([place + 0.5 for place in range(len(down))], down, fontsize=8.5)
    every = next(step for step in (1, 2, 5, 10, 20, 50) if len(across) <= 40 * step)
    axes.set_xticks([place + 0.5 for place in range(0, len(across), every)], across[::every], fontsize=8)
    axes.tick_params(colors=_INK, length=0)
    if across:
        axes.set_xlabel("layer", fontsize=9, color=_INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def compare(overrides: Sequence[str]) -> tuple[list[Row], Path, str]:
    """Measure the models that the overrides choose and write both files: rows, their folder, what signs are of.

    Raises UserError for overrides that do not compose, models that do not fit, and a folder that cannot be written.
    """
    try:
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose("config", list(overrides))
    except HydraException as error:
        raise UserError(str(error)) from error
    config = parse(cfg)
    ancestor, node = config.merge.spec.ancestor, config.composed.get("ancestor")
    if ancestor is None and node is not None:  # given, though the merge method asks for none
        unknown = sorted(node.keys() - ModelSource.__dataclass_fields__.keys())
        if unknown:
            raise UserError(f"ancestor has no key {', '.join(unknown)}: give a yaml of conf/base_model.")
        ancestor = ModelSource(**node)
    folder = config.output / "compare" / f"{config.merge.base.name}_{config.merge.pivot.name}"
    make_writable(folder)
    opened = open_parents((config.merge.base, config.merge.pivot), config.cache, ancestor, config.merge.spec.tokenizer)
    rows = list(
        fit_global_thresholds([*opened.checkpoints, *([opened.ancestor] if opened.ancestor else [])], opened.names)
    )
    write_rows(rows, folder / "tensors.csv")
    heatmaps(rows, folder / "heatmap.png", f"{config.merge.base.name}  →  {config.merge.pivot.name}")
    signs = "the weights" if ancestor is None else f"the changes since {ancestor.name}"
    return rows, folder, signs


def main(arguments: Sequence[str]) -> int:
    """The command; exit code 2 where it is refused."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return 0
    try:
        rows, folder, signs = compare(arguments)
    except UserError as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        return 2
    for table in tables(rows, folder.name, signs):
        Console().print(table)
    Console(soft_wrap=True, highlight=False, markup=False).print(f"written: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
