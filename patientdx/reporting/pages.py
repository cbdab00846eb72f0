"""The report as one HTML page that needs nothing beside it: charts as drawings, tables that sort, no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from patientdx.core.atomic_io import write_atomically
from patientdx.core.tables import Table, metric_title
from patientdx.reporting import angles, answering, leakage_sheets, provenance, searches, tables
from patientdx.reporting.chart_style import dark_style
from patientdx.reporting.figures import Figure, Figures
from patientdx.reporting.groups import Group, groups
from patientdx.reporting.runs import Study, read

_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own."""

    id: str
    title: str
    intro: str
    figures: list[Figure]
    sheets: list[Table]


@dataclass(frozen=True)
class Part:
    """All that the page has to say of one group."""

    id: str
    title: str
    answers: list[dict[str, str]]
    cautions: list[str]
    sections: list[Section]


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a study or of one run, whole or not at all; returns its path.

    It is made of what `runs.read` finds there, and the same files give the same bytes. Raises UserError where no run is
    finished, and OSError where the page cannot be written.
    """
    folder = Path(folder).expanduser()
    text = page(read(folder))
    path = folder / "report.html"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return path


def page(study: Study) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    # Everything is escaped but what is made here: the style, the script, and drawings whose words Vega has escaped.
    world = Environment(loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    world.filters["minus"] = lambda text: text.replace("-", "−")
    parts = [_part(group, f"g{index}") for index, group in enumerate(groups(study), start=1)]
    for one in parts:
        for section in one.sections:
            section.figures[:] = [
                replace(one, svg=Markup(one.svg), key=tuple((Markup(sample), name) for sample, name in one.key))
                for one in section.figures
            ]
    lines = provenance.command(study)
    return world.get_template("page.html").render(
        title=study.name,
        lead=_lead(study),
        unfinished=_unfinished(study),
        single=len(study.runs) == 1,
        groups=parts,
        command=lines,
        hidden=any("PATH" in line for line in lines),
        runs=provenance.runs(study),
        style=Markup((_PAGE / "page.css").read_text(encoding="utf-8") + dark_style()),
        script=Markup((_PAGE / "page.js").read_text(encoding="utf-8")),
    )


def _lead(study: Study) -> str:
    data = sorted({row["data"] for row in study.rows})
    models = len({(row["method"], row["variant"], row["lambda"]) for row in study.rows if row["role"] == "merged"})
    return f"{_many(len(study.runs), 'run')}, {_many(models, 'merged model')}; data: {' and '.join(data)}."


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _unfinished(study: Study) -> list[str]:
    """What the page does not show."""
    lines = [f"Run {job} of the sweep is not in this report: {said}" for job, said in study.unfinished]
    if study.others:
        lines.append(f"{_many(study.others, 'finished run')} in the folder from before the last sweep "
                     f"{'is' if study.others == 1 else 'are'} not in this report.")  # fmt: skip
    return lines


def _part(group: Group, name: str) -> Part:
    metric = group.metrics[0]
    comparisons = tables.comparisons(group)
    answers = [
        {"name": one.name, "why": f"{metric_title(metric)} on {group.reported}; {one.why}",
         "value": tables.metric_cell(one.row, metric).text}
        for one in group.chosen
    ]  # fmt: skip
    figures = Figures(group, name)
    found = []
    for key, title, intro, drawings, sheets in _contents(group, figures, comparisons):
        made = [sheet for sheet in sheets if sheet is not None]
        shown = drawings()
        if made or shown:
            found.append(Section(f"{name}-{key}", title, intro, shown, made))
    return Part(name, group.title, answers, _cautions(group), found)


Content = tuple[str, str, str, Callable[[], list[Figure]], list[Table | None]]


def _contents(group: Group, figures: Figures, comparisons: Table | None) -> list[Content]:
    """Key, title, first sentence, figures and tables of each section."""
    return [
        ("curve", "λ curve",
         f"From the base (λ = 0) to the pivot (λ = 1), with {group.level:.0%} intervals by patient bootstrap.",
         figures.lambda_curves, []),
        ("methods", "Methods beside each other", "", figures.forests, [tables.chosen(group), comparisons]),
        ("models", "All models", "", list, [tables.models(group)]),
        ("discrimination", "ROC, precision and recall", "", figures.discrimination, []),
        ("calibration", "Calibration", "The dotted diagonal is a model whose probabilities are right.",
         figures.calibration, [tables.fit(group), tables.calibration(group)]),
        ("decision", "Decision curve and threshold", "", figures.decision, [tables.threshold(group)]),
        ("distribution", "Predicted probabilities", "", figures.distributions, []),
        ("subgroups", "Subgroups", "", list, [tables.subgroups(group), tables.gaps(group), *answering.graded(group)]),
        ("answering", "Does it still answer?",
         "A merged model that no longer answers shows here first: probability leaves yes and no.",
         figures.answering, [answering.abstention(group), *answering.wordings(group)]),
        ("angles", "Angles between the parents", "", figures.angle_map, [angles.by_kind(group)]),
        ("search", "Search for λ", "", figures.searched, searches.searches(group)),
        ("privacy", "Leakage", "", list, [leakage_sheets.leakage(group), leakage_sheets.membership(group)]),
        ("origin", "Where the numbers come from", "", list,
         [provenance.cohort(group), provenance.parents(group), provenance.facts(group)]),
    ]  # fmt: skip


def _cautions(group: Group) -> list[str]:
    """What a reader must know before the numbers."""
    lines = []
    if any(one.why.startswith("not chosen") for one in group.chosen):
        lines.append("λ was not chosen on a pilot split: the best of these is the best of several noisy numbers.")
    shared = {one.run.clinical["patients_in_both"] for one in group.chosen if one.run.clinical} - {0, None}
    if shared:
        lines.append(f"{max(shared)} patients are in the pilot and in the {group.reported} split: what was chosen on "
                     "pilot has seen them.")  # fmt: skip
    return lines
