"""The report as one HTML page that needs nothing beside it: charts as SVG, tables that sort, no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patientdx.core.atomic_io import write_atomically
from patientdx.core.paths import expanded
from patientdx.core.tables import Table, metric_cell, metric_title
from patientdx.reporting import provenance
from patientdx.reporting.analyses import group_tables
from patientdx.reporting.chart_style import dark_style
from patientdx.reporting.figures import Figure, figures
from patientdx.reporting.groups import Group, groups
from patientdx.reporting.headline import headline
from patientdx.reporting.runs import Study, read
from patientdx.reporting.seeds import over_seeds

_PAGE = Path(__file__).parent / "page"
# Sections in the order of the page, by the `section` of their tables and figures: title and first sentence.
_SECTIONS = {
    "curve": (
        "λ curve",
        "From the base (λ = 0) to the pivot (λ = 1), with {level:.0%} intervals by patient. Marks are what was "
        "measured; a line joins λ that are at most 0.1 apart.",
    ),
    "methods": ("Methods compared", ""),
    "models": ("All models", ""),
    "discrimination": ("Discrimination", ""),
    "calibration": ("Calibration", "On the dotted diagonal the observed rate equals the predicted probability."),
    "decision": ("Decision curve and threshold", ""),
    "distribution": ("Predicted probabilities", ""),
    "subgroups": ("Subgroups", ""),
    "answering": ("Answers", "A merged model that no longer answers yes or no gives them little probability."),
    "angles": ("Angles between the parents", ""),
    "search": ("Search for λ", ""),
    "privacy": ("Leakage", ""),
    "provenance": ("Where the numbers come from", ""),
}


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    id: str
    title: str
    intro: str
    figures: Sequence[Figure]
    tables: Sequence[Table]


@dataclass(frozen=True)
class Part:
    """The part of the page on one group."""

    id: str
    title: str
    results: Sequence[dict[str, str]]
    sections: Sequence[Section]


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a study or of one run, atomically; returns its path.

    It is made of what `runs.read` returns, and the same files give the same bytes. Raises UserError where no run is
    finished, and OSError where the page cannot be written.
    """
    folder = expanded(folder)
    text = page(read(folder))
    path = folder / "report.html"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def page(study: Study) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    # Everything is escaped but what is made here: the style, the script, and charts whose text Vega has escaped.
    templates = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters["minus"] = lambda text: re.sub(r"(?<![\w.])-(?=\d)", "−", text)
    templates.filters["safe"] = Markup
    lines, parts = provenance.command(study), groups(study)
    return templates.get_template("page.html").render(
        name=study.name,
        title=_title(study),
        lead=_lead(study),
        conclusion=_conclusion(parts),
        prompt=next((run.prompt for run in study.runs if run.prompt), None),
        unfinished=_unfinished(study),
        single=len(study.runs) == 1,
        groups=[_part(group, f"g{index}") for index, group in enumerate(parts, start=1)],
        command=lines,
        hidden=any("PATH" in line for line in lines),
        seeds=over_seeds(study),
        runs=provenance.runs(study),
        style=Markup((_PAGE / "page.css").read_text(encoding="utf-8") + dark_style()),
        script=Markup((_PAGE / "page.js").read_text(encoding="utf-8")),
    )


def _title(study: Study) -> str:
    """Tasks and parents."""
    tasks = " and ".join(dict.fromkeys(row["task"] for row in study.rows))
    pairs = list(dict.fromkeys(f"{row['base']} and {row['pivot']}" for row in study.rows if row["base"]))
    return tasks if not pairs else f"{tasks}: {pairs[0] if len(pairs) == 1 else f'{len(pairs)} pairs of parents'}"


def _conclusion(parts: Sequence[Group]) -> list[tuple[str, str]]:
    """The kind (verdict or caution) and the text of each sentence that a reader must know before the numbers."""
    lines = []
    for group in parts:
        start, sentences = f"{group.title}: " if len(parts) > 1 else "", headline(group)
        lines += [("verdict", f"{start}{line}") for line in sentences.verdicts]
        lines += [("caution", f"{start}{line}") for line in (*sentences.warnings, *_cautions(group))]
    return lines


def _lead(study: Study) -> str:
    data = sorted({row["data"] for row in study.rows})
    models = len({(row["method"], row["variant"], row["lambda"]) for row in study.rows if row["role"] == "merged"})
    days = sorted({run.date for run in study.runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    counts = f"{_many(len(study.runs), 'run')}, {_many(models, 'merged model')}"
    return f"Study {study.name}, {when}. {counts}; data: {' and '.join(data)}."


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _unfinished(study: Study) -> list[str]:
    """What the page does not show."""
    lines = [f"Run {job} of the sweep is not in this report: {message}" for job, message in study.unfinished]
    if study.earlier:
        lines.append(f"{_many(study.earlier, 'finished run')} in the folder from before the last sweep "
                     f"{'is' if study.earlier == 1 else 'are'} not in this report.")  # fmt: skip
    return lines


def _part(group: Group, name: str) -> Part:
    metric = group.metrics[0]
    results = [
        {"name": model.name, "why": f"{metric_title(metric)} on {group.reported}; {model.why}",
         "value": metric_cell(model.row, metric).text}
        for model in group.models
    ]  # fmt: skip
    tables, drawings = group_tables(group), figures(group, name)
    sections = []
    for key in dict.fromkeys((*_SECTIONS, *(table.section for table in tables), *drawings)):
        title, intro = _SECTIONS.get(key, (key.replace("_", " ").capitalize() or "Results", ""))
        members = [table for table in tables if table.section == key]
        if members or drawings.get(key):
            intro = intro.format(level=group.level)
            sections.append(Section(f"{name}-{key}", title, intro, drawings.get(key, []), members))
    return Part(name, group.title, results, sections)


def _cautions(group: Group) -> list[str]:
    """What else a reader must know before the numbers."""
    lines = []
    if group.has_unchosen:
        lines.append("λ was not chosen on a pilot split: the best of these is the best of several noisy values.")
    results = [model.run.clinical for model in group.models if model.run.clinical]
    shared = {result["patients_in_both"] for result in results} - {0, None}
    if shared:
        lines.append(f"{max(shared)} patients are in the pilot and in the {group.reported} split: the choice on pilot "
                     "used their records.")  # fmt: skip
    return lines
