"""Tables of how much a score depends on the wording of the question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patientdx.core.tables import Cell, Table, estimate, format_value, make_table, plain, word
from patientdx.evaluation.analyses.entries import Entry


def roles(result: Mapping[str, Any]) -> Iterable[str]:
    """The role of the system in the result."""
    return (result["role"],)


def tables(entries: Sequence[Entry]) -> list[Table]:
    """A table a model, from what `patientdx.metrics.prompt_variants` returns: AUROC, difference, order of the stays."""
    made = []
    for entry in entries:
        result = entry.result
        rows = [[word("the task's question"), estimate(result["auroc"]), Cell(""), Cell(""), Cell("")]]
        ranks = dict(zip(result["spearman"]["names"], result["spearman"]["values"][0], strict=True))
        for name, variant in result["wordings"].items():
            disordered = variant["not_reversed" if variant["reverses"] else "not_kept"]
            cells = [word(f"{name} (inverted)" if variant["reverses"] else name), estimate(variant["auroc"])]
            cells += [estimate(variant["difference"]), plain(ranks.get(name)), plain(disordered.get("value"))]
            rows.append(cells)
        split = f"on {result['split']}; " if "split" in result else ""
        notes = [f"{split}AUROC spread {format_value(result['auroc_spread'], '.3f')} over all variants of the prompt"]
        columns = ["prompt", "AUROC", "difference", "rank correlation", "pairs out of order"]
        title = f"{entry.name} with other prompts"
        made.append(
            make_table("prompt_variants", title, columns, rows, notes=notes, subject=entry.name, section="answering")
        )
    return made
