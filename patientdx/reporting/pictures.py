"""Pictures as files, as runs and sweeps write them: the charts of the page with a title and a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError
from patientdx.core.tables import Row, format_estimate, metric_title, write_csv
from patientdx.reporting import charts, lambda_charts
from patientdx.reporting.chart_style import GREY, INK, Look, method_look, write_chart
from patientdx.reporting.figures import KINDS, figures
from patientdx.reporting.groups import groups, sizes
from patientdx.reporting.runs import Study

_SAMPLE, _LINE = 34, 20  # units: length of a sample in the key, height of its lines
_LETTER, _WIDTH = 7.2, 860  # units: width of a letter of the key, and of its lines


def lambda_curve(
    rows: Sequence[Row], path: Path, *, metric: str = "auroc", task: str | None = None, chosen: float | None = None
) -> None:
    """Write the metric against λ, a panel a split and a series a method, from the base (0) to the pivot (1).

    Intervals are bars, a dashed line is chance (0.5 for AUROC, the prevalence for AUPRC), rings mark the λ `chosen` on
    pilot. Rows without a single λ are left out. Raises UserError for rows of more than one task when `task` names none,
    and when there is nothing to draw.
    """
    rows = lambda_charts.on_curve(rows, metric)
    tasks = sorted({str(row.get("task")) for row in rows})
    if task is None and len(tasks) > 1:
        raise UserError(f"a λ curve shows one task; these rows hold {', '.join(tasks)}: name one of them")
    rows = [row for row in rows if task in (None, row.get("task"))]
    looks = lambda_charts.curve_looks(rows)
    rings = dict.fromkeys(looks, chosen) if chosen is not None else {}
    panels = lambda_charts.panels(rows, metric, looks, rings)
    if not panels:
        of_task = f" for the task {task}" if task else ""
        raise UserError(f"there is no merged model with a single λ and a value of {metric}{of_task} to draw")
    title = ", ".join(filter(None, (rows[0].get("task"), f"{metric_title(metric)} from base to pivot")))
    keys = [lambda_charts.key_looks([row for row in rows if str(row.get("split")) == split], metric, looks, rings)
            for split in panels]  # fmt: skip
    subtitles = {split: " ".join(sizes(row for row in rows if str(row.get("split")) == split)) for split in panels}
    drawn = {f"{split}": panel.properties(title=subtitles[split]) for split, panel in panels.items()}
    _write(list(drawn.values()), {name: look for key in keys for name, look in key.items()}, path, title)


def write_figures(study: Study, suffix: str) -> list[Path]:
    """Write each chart of a study's page into its folder `charts`, and what it shows as csv beside it; their paths.

    suffix: svg, pdf or png.
    """
    import altair as alt

    folder, parts = study.folder / "charts", groups(study)
    folder.mkdir(exist_ok=True)
    paths = []
    for index, group in enumerate(parts, start=1):
        for figure in (figure for made in figures(group, f"g{index}").values() for figure in made):
            name = figure.name if len(parts) > 1 else figure.name.partition("-")[2]
            path = folder / f"{name}.{suffix}"
            chart = figure.chart.properties(title=figure.caption)
            chart.padding = alt.Undefined  # which a chart of the page may have, and a part of a picture not
            _write([chart], figure.looks, path)
            write_csv(figure.rows, path.with_suffix(".csv"))
            paths += [path, path.with_suffix(".csv")]
    return paths


def clinical(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write four PNGs of a clinical evaluation: calibration, decision_curve, roc_pr and distribution; their paths.

    All models are in each; the distribution has a panel a model.
    """
    models = result["models"]
    others = [role for role in models if role != "merged"]
    looks = {role: method_look(0) for role in models if role == "merged"} | charts.other_looks(others)
    lines = {role: looks[role]._replace(shape=None) for role in models}
    kinds = [kind for kind in KINDS if any(kind in model["decision_curve"] for model in models.values())]
    calibrations, decisions = [], []
    for kind in kinds:
        bins = {role: model["calibration"][kind].get("curve") for role, model in models.items()}
        curves = {role: model["decision_curve"].get(kind) for role, model in models.items()}
        calibration = charts.calibration({role: value for role, value in bins.items() if value}, looks)
        decision = charts.decision({role: value for role, value in curves.items() if value}, looks)
        calibrations.append(calibration.properties(title=KINDS[kind]))
        decisions.append(decision.properties(title=KINDS[kind]))
    prevalence = result["cohorts"][result["reported"]]["prevalence"]
    parts = {role: model["discrimination"] for role, model in models.items()}
    pairs = {"roc": ("auroc", "ROC"), "pr": ("auprc", "Precision and recall")}
    curves = []
    for name, (metric, title) in pairs.items():
        texts = {
            role: f"{role}: {metric_title(metric)} {format_estimate(part[metric], 3)}" for role, part in parts.items()
        }
        chart = charts.discrimination(name, parts, looks, descriptions=texts, prevalence=prevalence)
        curves.append(chart.properties(title=title))
    histograms = [charts.distribution(model["distribution"]).properties(title=role) for role, model in models.items()]
    pictures = {
        "calibration": (calibrations, lines),
        "decision_curve": (decisions, lines | charts.TREATED),
        "roc_pr": (curves, lines),
        "distribution": (histograms, charts.OUTCOMES),
    }
    paths = [folder / f"{name}.png" for name in pictures]
    for path, (panels, key) in zip(paths, pictures.values(), strict=True):
        _write(panels, key, path)
    return paths


def layer_maps(
    maps: Sequence[tuple[str, Sequence[Mapping[str, Any]], str, str]], order: Sequence[str], path: Path, *,
    title: str, note: str,
) -> None:  # fmt: skip
    """Write maps of layers and kinds of tensor below each other, (title, cells, legend, colours), on log scales."""
    import altair as alt

    panels = [
        charts.layer_map(cells, order, legend=legend, scheme=scheme, log=True).properties(title=label)
        for label, cells, legend, scheme in maps
    ]
    chart = alt.vconcat(*panels).resolve_scale(color="independent")
    write_chart(chart.properties(title=alt.TitleParams(title, subtitle=note)), path)


def _write(panels: Sequence[Any], key: Mapping[str, Look], path: Path, title: str | None = None) -> None:
    """The panels, two in a line, above their key."""
    # Joined as Vega-Lite has them: Altair would copy every panel several times, which takes
    # seconds. Altair validated the parts when they were made.
    specs = [chart.to_dict(validate=False, context={"top_level": False}) for chart in panels]
    lines = [{"hconcat": specs[start : start + 2], "spacing": 30} for start in range(0, len(specs), 2)]
    below = [_key(key).to_dict(validate=False, context={"top_level": False})] if key else []
    joined = {"vconcat": [*lines, *below], "spacing": 14}
    write_chart(joined if title is None else joined | {"title": title}, path)


def _key(looks: Mapping[str, Look]) -> Any:
    """A sample and the name of each series, in lines below a picture."""
    import altair as alt

    samples, x, y = [], 0.0, 10.0
    for name, look in looks.items():
        size = _SAMPLE + 8 + _LETTER * len(name) + 22
        if x and x + size > _WIDTH:
            x, y = 0.0, y + _LINE
        samples.append({
            "name": name, "y": y, "start": x, "middle": x + _SAMPLE / 2, "end": x + _SAMPLE, "text": x + _SAMPLE + 8,
            "colour": look.colour, "dash": look.dash and list(look.dash), "shape": look.shape,
        })  # fmt: skip
        x += size
    # One layer a kind of mark: Altair copies every layer several times. What the rows hold are pixels and looks.
    as_is: dict[str, Any] = {"scale": None, "legend": None}
    at_y, colour = alt.Y("y:Q", scale=None, axis=None), alt.Color("colour:N", **as_is)
    start, middle, text = (alt.X(f"{field}:Q", scale=None, axis=None) for field in ("start", "middle", "text"))
    lines = charts.data_of(samples, lambda row: row["dash"]).mark_rule(strokeWidth=2)
    filled = charts.data_of(samples, lambda row: row["shape"] not in (None, "ring"))
    rings = charts.data_of(samples, lambda row: row["shape"] == "ring")
    names = charts.data_of(samples).mark_text(align="left", baseline="middle", color=INK)
    layers = [
        lines.encode(start, alt.X2("end:Q"), at_y, colour, alt.StrokeDash("dash:N", **as_is)),
        filled.mark_point(filled=True, size=70, opacity=1).encode(middle, at_y, colour, alt.Shape("shape:N", **as_is)),
        rings.mark_point(shape="circle", filled=False, size=150, opacity=1, color=GREY, strokeWidth=1.6).encode(
            middle, at_y
        ),
        names.encode(text, at_y, text="name:N"),
    ]
    layers = [layer for layer in layers if layer.data.values]
    return alt.layer(*layers).properties(width=_WIDTH if y > _LINE else x, height=y + 10)
