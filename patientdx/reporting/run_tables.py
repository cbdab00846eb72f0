"""The tables of one run on the terminal, and the files of its clinical evaluation, from its result folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patientdx.core.atomic_io import write_atomically
from patientdx.core.tables import Table
from patientdx.evaluation.analyses import all_tables, clinical_tables, comparison_tables
from patientdx.evaluation.analyses.entries import Comparison, Entry
from patientdx.reporting import pictures, tables, terminal
from patientdx.reporting.groups import groups
from patientdx.reporting.headline import headline
from patientdx.reporting.runs import Run, Study
from patientdx.reporting.search_tables import search_table

if TYPE_CHECKING:
    from rich.console import Console


def show_run(folder: Path, console: Console | None = None) -> None:
    """Print the tables of a result folder and its headline; write clinical.txt and the pictures of a clinical
    evaluation into it."""
    run = Run(Path(folder))
    terminal.show(*run_tables(run), console=console)
    terminal.say(*headlines(Study(run.folder, (run,))), console=console)
    if run.clinical is not None:
        text = terminal.text(*clinical_text_tables(run), width=100)
        write_atomically(run.folder / "clinical.txt", lambda temporary: temporary.write_text(text, encoding="utf-8"))
        pictures.clinical(run.clinical, run.folder)


def headlines(study: Study) -> list[str]:
    """The sentences of every group of a study, with its title where there are several."""
    parts = groups(study)
    return [f"{part.title}: {line}" if len(parts) > 1 else line for part in parts for line in headline(part).lines]


def run_tables(run: Run) -> list[Table]:
    """Cohort, models, search, a short form of each analysis, and the comparisons of a task of questions."""
    made = [tables.cohort(run.cohort)] if run.cohort else []
    made += [tables.readings(run.readings)] if run.readings else []
    made.append(tables.models(run.rows))
    made += [] if run.search is None else [search_table(run.search)]
    for analysis in all_tables():
        result = run.result(analysis.name)
        made += [] if result is None else analysis.overview(_entries(result, analysis.roles(result)))
    return [*made, *_comparisons(run)]


def clinical_text_tables(run: Run) -> list[Table]:
    """All tables of a clinical evaluation with its comparisons."""
    if run.clinical is None:
        return []
    made = clinical_tables.tables(_entries(run.clinical, run.clinical["models"]))
    comparisons = comparison_tables.comparisons(comparison_tables.of_clinical(run.clinical, {}))
    return [*made, *([comparisons] if comparisons else [])]


def _entries(result: Mapping[str, Any], roles: Iterable[str]) -> Sequence[Entry]:
    return [Entry(role, role, result) for role in roles]


def _comparisons(run: Run) -> list[Table]:
    """Paired comparisons of a task of questions; those of a clinical evaluation stand in clinical.txt."""
    if run.paired is None:
        return []
    pairs: list[Comparison] = list(comparison_tables.of_questions(run.paired, {}))
    table = comparison_tables.comparisons(pairs, notes=comparison_tables.dependence(run.paired))
    return [] if table is None else [table]
