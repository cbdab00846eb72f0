"""The figures of a report's page: charts with a caption, a key and a text alternative, by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from patientdx.core.tables import Row, as_number, format_estimate, format_interval, metric_title
from patientdx.reporting import charts, lambda_charts
from patientdx.reporting.angles import ORDER, angles
from patientdx.reporting.chart_style import PARENTS, Look, method_look, svg_element, swatch
from patientdx.reporting.charts import OUTSIDE
from patientdx.reporting.groups import PILOT, Group
from patientdx.reporting.lambda_charts import series

_POSITIONS = ("x", "y", "value")  # fields of a chart that its axes name
_NOT_SHOWN = ("description", "ring", "step", "shown")  # of the data of a chart, in its rows
KINDS = {"raw": "As predicted", "logistic": "Recalibrated on pilot (logistic)"}


@dataclass(frozen=True)
class Figure:
    """A chart with its caption, its text alternative `summary`, and the looks that its key explains.

    name: its own in the report. size: half, wide (the full width) or third of a page.
    """

    name: str
    chart: Any
    caption: str
    summary: str
    looks: Mapping[str, Look] = field(default_factory=dict)
    size: str = "half"

    @property
    def svg(self) -> str:
        """The rendered chart as an element of a page."""
        return svg_element(self.chart, self.name, self.summary)

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """A sample (an SVG element) and the name of each series."""
        return tuple((swatch(look), name) for name, look in self.looks.items())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the chart shows, a mapping for each mark, by the titles of its axes; λ as it was measured."""
        parts = list(_parts(self.chart.to_dict()))
        axes = [part["encoding"][axis] for axis in ("x", "y") for part in parts if axis in part.get("encoding", {})]
        names = {axis["field"]: axis["title"] for axis in axes if axis.get("title") and axis["field"] in _POSITIONS}
        names |= {"x2": f"{names.get('x')}, to"}
        made: dict[tuple, dict[str, Any]] = {}
        for row in (row for part in parts for row in part.get("data", {}).get("values", ())):
            if "piece" in row or len(row) < 3:  # a line between marks, a level, a diagonal
                continue
            left_out = {*_NOT_SHOWN, *(["x"] if "lambda" in row else [])}
            shown = {names.get(key, key): value for key, value in row.items() if key not in left_out}
            made.setdefault(tuple(shown.items()), shown)
        return list(made.values())


def figures(group: Group, prefix: str) -> dict[str, list[Figure]]:
    """The figures of a group by section of the page; `prefix` separates their ids from those of other groups."""
    made = _Figures(group, prefix)
    return {
        "curve": made.lambda_curves(),
        "methods": made.forests(),
        "discrimination": made.discrimination(),
        "calibration": made.calibration(),
        "decision": made.decision(),
        "distribution": made.distributions(),
        "answering": made.answers(),
        "angles": made.angle_map(),
        "search": made.searches(),
    }


@dataclass(frozen=True)
class _Figures:
    """The figures of one group."""

    group: Group
    prefix: str

    def lambda_curves(self) -> list[Figure]:
        """Each metric against λ, pilot beside the reported split on one scale."""
        splits = (PILOT, self.group.reported)
        rows = [row for row in self.group.rows if row["split"] in splits]
        made = []
        for metric in self.group.metrics:
            made += self._curves(f"lambda-{metric}", metric, lambda_charts.on_curve(rows, metric), self._rings)
        return made

    def answers(self) -> list[Figure]:
        """Probability on yes and no against λ."""
        rows = [row for row in self.group.rows if row["split"] == self.group.reported]
        rows = lambda_charts.on_curve(rows, "abstention_mass")
        caption = f"Probability on yes and no together, mean on {self.group.reported}"
        return self._curves(
            "mass", "abstention_mass", rows, self._rings, title="probability on yes and no", caption=caption
        )

    def searches(self) -> list[Figure]:
        """The value on pilot of each candidate of a search that is on the curve."""
        made = []
        for index, model in enumerate(model for model in self.group.models if model.run.search):
            record = model.run.search or {}
            metric, split, method = record["metric"], record["split"], model.row["method"]
            rows = [row for row in self.group.rows if row["split"] == split and row["role"] in PARENTS]
            rows += [
                {"role": "merged", "method": method, "lambda": weight, "split": split, metric: value}
                for trial in record["candidates"]
                if (weight := as_number(trial["lambda"])) is not None
                and (value := as_number(trial["value"])) is not None
            ]  # fmt: skip
            looks, rings = {**self._looks, method: method_look(0)}, {method: model.row["lambda"]}
            rows = lambda_charts.on_curve(rows, metric)
            made += self._curves(
                f"search-{index}", metric, rows, rings, looks=looks, caption=f"Candidates of {model.name}"
            )
        return made

    def _curves(
        self, name: str, metric: str, rows: Sequence[Row], rings: Mapping[str, float], *,
        title: str | None = None, caption: str | None = None, looks: Mapping[str, Look] | None = None,
    ) -> list[Figure]:  # fmt: skip
        looks, title = looks or self._looks, title or metric_title(metric)
        made = []
        for split, chart in lambda_charts.panels(rows, metric, looks, rings, title=title).items():
            members = [row for row in rows if row["split"] == split]
            use = "" if not rings else ", where λ is chosen" if split == PILOT else ", reported"
            summary = f"{title} on {split} against λ. " + "; ".join(_curve_parts(members, metric)) + "."
            key = lambda_charts.key_looks(members, metric, looks, rings)
            text = caption or f"{title} on {split}{use}"
            made.append(self._figure(f"{name}-{split}", chart, text, summary, key))
        return made

    def forests(self) -> list[Figure]:
        """Chosen models beside parents and tabular models, a figure a metric."""
        made = []
        rows = [model.row for model in self.group.models] + self.group.others()
        names = [model.name for model in self.group.models] + [row["role"] for row in self.group.others()]
        for metric in self.group.metrics:
            data = [
                {"name": name, "value": row[metric], "low": as_number(row.get(f"{metric}_ci_low")),
                 "high": as_number(row.get(f"{metric}_ci_high"))}
                for name, row in zip(names, rows, strict=True) if as_number(row.get(metric)) is not None
            ]  # fmt: skip
            if data:
                values = (f"{row['name']} {format_interval(row['value'], row['low'], row['high'], 3)}" for row in data)
                chart = charts.forest(data, metric, self._looks, chance=lambda_charts.chance(metric, rows))
                caption = f"{metric_title(metric)} on {self.group.reported}"
                made.append(self._figure(f"forest-{metric}", chart, caption, f"{caption}: {'; '.join(values)}."))
        return made

    def discrimination(self) -> list[Figure]:
        """ROC, and precision against recall."""
        results = self._results(lambda result: result["discrimination"])
        level = self.group.others()[0].get("prevalence") if self.group.others() else None
        made = []
        for name, (metric, title) in {"roc": ("auroc", "ROC"), "pr": ("auprc", "Precision and recall")}.items():
            if results:
                texts = {
                    model: f"{model}: {metric_title(metric)} {format_estimate(result[metric], 3)}"
                    for model, result in results.items()
                }
                chart = charts.discrimination(name, results, self._looks, descriptions=texts, prevalence=level)
                caption, summary = f"{title} on {self.group.reported}", "; ".join(texts.values()) + "."
                made.append(self._figure(name, chart, caption, summary, self._line_key(results)))
        return made

    def calibration(self) -> list[Figure]:
        """Calibration in bins, as predicted and recalibrated."""
        made = []
        for kind, caption in KINDS.items():
            bins = self._results(lambda result, kind=kind: result["calibration"].get(kind, {}).get("curve"))
            if bins:
                summary = f"{caption}: observed rate against predicted probability of {', '.join(bins)}."
                chart, key = charts.calibration(bins, self._looks), self._line_key(bins)
                made.append(self._figure(f"calibration-{kind}", chart, caption, summary, key))
        return made

    def decision(self) -> list[Figure]:
        """Decision curves, as predicted and recalibrated."""
        made = []
        for kind, caption in KINDS.items():
            lines = self._results(lambda result, kind=kind: result["decision_curve"].get(kind))
            if lines:
                summary = f"{caption}: net benefit of {', '.join(lines)}, of treating all and of treating none."
                key = self._line_key(lines) | charts.TREATED
                chart = charts.decision(lines, self._looks)
                made.append(self._figure(f"decision-{kind}", chart, caption, summary, key))
        return made

    def distributions(self) -> list[Figure]:
        """The predicted probabilities of stays with and without the event, a figure a model."""
        made = []
        for index, (name, histogram) in enumerate(self._results(lambda result: result["distribution"]).items()):
            edges = histogram["edges"]
            summary = f"{name}: predicted probabilities from {edges[0]:.3f} to {edges[-1]:.3f}."
            chart, key = charts.distribution(histogram), charts.OUTCOMES
            made.append(self._figure(f"distribution-{index}", chart, name, summary, key, "third"))
        return made

    def angle_map(self) -> list[Figure]:
        """Angle between the parents by layer and kind of tensor."""
        cells: dict[tuple[str, str], float] = {}
        for angle in angles(self.group):
            cell = (OUTSIDE if angle.layer is None else str(angle.layer), angle.kind)
            cells[cell] = max(cells.get(cell, 0.0), angle.degrees)
        if not cells:
            return []
        data = [{"layer": layer, "kind": kind, "value": value} for (layer, kind), value in cells.items()]
        summary = (f"Angle between base and pivot in degrees, {min(cells.values()):.3f} to {max(cells.values()):.3f}, "
                   "by layer and kind of tensor.")  # fmt: skip
        caption = "Angle between base and pivot; the largest where a layer has more than one tensor of a kind"
        chart = charts.layer_map(data, ORDER, legend="degrees")
        return [self._figure("angles", chart, caption, summary, size="wide")]

    def _figure(
        self, name: str, chart: Any, caption: str, summary: str, looks: Mapping[str, Look] | None = None,
        size: str = "half",
    ) -> Figure:  # fmt: skip
        return Figure(f"{self.prefix}-{name}", chart, caption, summary, looks or {}, size)

    def _results(self, part: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
        """That part of the clinical evaluation of each model that has it."""
        entries = self.group.entries("clinical", lambda result: result["models"])
        parts = {entry.name: part(entry.result["models"][entry.role]) for entry in entries}
        return {name: value for name, value in parts.items() if value}

    @cached_property
    def _looks(self) -> dict[str, Look]:
        """The look of each method, chosen model, parent and tabular model: the same in every chart."""
        looks = lambda_charts.curve_looks(self.group.rows)
        looks |= {model.name: looks[series(model.row)] for model in self.group.models}
        others = list(dict.fromkeys(row["role"] for row in self.group.rows if row["role"] != "merged"))
        return looks | charts.other_looks(others)

    def _line_key(self, names: Iterable[str]) -> dict[str, Look]:
        """The key of curves, which have no markers."""
        return {name: self._looks[name]._replace(shape=None) for name in names}

    @cached_property
    def _rings(self) -> dict[str, float]:
        """λ of each method that chose one on pilot."""
        return {series(model.row): model.row["lambda"] for model in self.group.models if model.is_chosen}


def _parts(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield spec
    for part in spec.get("layer", ()):
        yield from _parts(part)


def _curve_parts(rows: Sequence[Row], metric: str) -> Iterator[str]:
    for role in ("base", "pivot"):
        yield from (f"{role} {row[metric]:.3f}" for row in rows if row["role"] == role)
    for name in dict.fromkeys(series(row) for row in rows if row["role"] == "merged"):
        values = [row[metric] for row in rows if row["role"] == "merged" and series(row) == name]
        yield f"{name} from {min(values):.3f} to {max(values):.3f} over {len(values)} λ"
