"""The tables of the stays themselves, from the `description` of a clinical evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patientdx.core.tables import Cell, Table, make_table, plain, word
from patientdx.metrics.sample_size import ENOUGH, HALF_WIDTH, RATIO

_SECTION = "discrimination"
_HIDDEN = "suppressed"


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Table 1 by split and outcome, missingness by split, and the sample size; [] for results of before them."""
    part = result.get("description")
    return [] if part is None else [_table_one(part), _missing(part), _sample_size(part, result)]


def _table_one(part: Mapping[str, Any]) -> Table:
    shown = [f"{column['split']}, {'event' if column['event'] else 'none'}" for column in part["columns"]]
    rows = [[word("stays"), word(""), *(word(str(column["n"])) for column in part["columns"])]]
    rows += [[word(name), word("median"), *map(_quartiles, cells)] for name, cells in part["numbers"].items()]
    rows += [
        [word(grouping), word(group), *map(_share, cells)]
        for grouping, groups in part["groups"].items() for group, cells in groups.items()
    ]  # fmt: skip
    notes = ["median [quartiles] of the means over the window; stays and their share of the column",
             "suppressed: too few stays, or another group could be worked out"]  # fmt: skip
    notes += [f"{split}: years {first} to {last}" for split, (first, last) in part["years"].items()]
    notes += ["years are those of the source, which de-identification may have shifted"] if part["years"] else []
    title = "Characteristics by split and outcome"
    return make_table("table_one", title, ["variable", "", *shown], rows, notes=notes, section=_SECTION, keys=2)


def _quartiles(cell: Mapping[str, Any]) -> Cell:
    if _HIDDEN in cell:
        return word(_HIDDEN)
    return Cell(f"{cell['median']:.4g} [{cell['low']:.4g}, {cell['high']:.4g}]", cell["median"])


def _share(cell: Mapping[str, Any]) -> Cell:
    return word(_HIDDEN) if _HIDDEN in cell else Cell(f"{cell['n']} ({cell['share']:.0%})", cell["n"])


def _missing(part: Mapping[str, Any]) -> Table:
    splits = list(dict.fromkeys(column["split"] for column in part["columns"]))
    rows = [
        [word(name), *(plain(100 * of_split[split], 1) if split in of_split else word("") for split in splits)]
        for name, of_split in part["missing"].items()
    ]
    columns = ["variable", *(f"{split}, %" for split in splits)]
    notes = ["share of stays without a value in the window"] if rows else []
    return make_table("missing", "Missing values", columns, rows, notes=notes, section=_SECTION)


def _sample_size(part: Mapping[str, Any], result: Mapping[str, Any]) -> Table:
    size = part["sample_size"]
    cells = [plain(size["half_width"]), *(word(str(size[key])) for key in ("rows_for_auroc", "rows_for_ratio"))]
    rows = [[word(result["reported"]), word(str(size["n"])), word(str(size["events"])), *cells]]
    enough = "reached" if size["enough"] else "not reached: read the intervals, not the values"
    notes = [f"expected of an AUROC of {size['auroc']:g}; the usual least of {ENOUGH} events and others is {enough}"]
    columns = ["split", "stays", "events", "± of AUROC", f"stays for ± {HALF_WIDTH:g}", f"for O/E within {RATIO:.0%}"]
    return make_table("sample_size", "Sample size", columns, rows, notes=notes, section=_SECTION)
