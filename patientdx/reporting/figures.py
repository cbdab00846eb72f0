"""Which charts stand in which part of a report, with their captions and what is read out in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from patientdx.core.tables import Row, as_number, format_estimate, format_interval, format_value, metric_title
from patientdx.reporting import charts, tables
from patientdx.reporting.angles import ORDER, angles
from patientdx.reporting.chart_style import (
    DASHES,
    EVENT,
    GREY,
    INK,
    OTHER,
    PALE,
    PARENTS,
    Look,
    drawn,
    method_look,
    swatch,
)
from patientdx.reporting.charts import OUTSIDE
from patientdx.reporting.groups import PILOT, Group


@dataclass(frozen=True)
class Figure:
    """A drawn chart: `svg` is the element itself, `key` a sample and a name of each series; `size` is half, wide (the
    whole width) or third."""

    svg: str
    caption: str
    key: tuple[tuple[str, str], ...] = ()
    size: str = "half"


@dataclass(frozen=True)
class Figures:
    """The figures of one group; `prefix` sets their ids apart from those of other groups."""

    group: Group
    prefix: str

    def lambda_curves(self) -> list[Figure]:
        """Each metric against λ, pilot beside the reported split on one scale."""
        found = []
        splits = [split for split in (PILOT, self.group.reported) if self._on_curve(split)]
        for metric in self.group.metrics:
            rows = {
                split: [r for r in self._on_curve(split) if as_number(r.get(metric)) is not None] for split in splits
            }
            if not any(row["role"] == "merged" for these in rows.values() for row in these):
                continue
            chances = {split: _chance(metric, these) for split, these in rows.items()}
            ends = _ends([row for these in rows.values() for row in these], metric)
            domain = _roomy([*ends, *(chance for chance in chances.values() if chance is not None)])
            for split, these in rows.items():
                chart = charts.lambda_curve(
                    these,
                    metric,
                    self._looks,
                    title=metric_title(metric),
                    domain=domain,
                    chance=chances[split],
                    chosen=self._rings,
                )
                where = "" if not self._rings else ", where λ is chosen" if split == PILOT else ", reported"
                caption, says = (
                    f"{metric_title(metric)} on {split}{where}",
                    _curve_says(these, metric, metric_title(metric), split),
                )
                key = self._curve_key(chances[split])
                found.append(self._figure(f"lambda-{metric}-{split}", chart, caption, says, key))
        return found

    def answering(self) -> list[Figure]:
        """Probability on yes and no against λ."""
        rows = [row for row in self._on_curve(self.group.reported) if row.get("abstention_mass") is not None]
        if not any(row["role"] == "merged" for row in rows):
            return []
        title = "probability on yes and no"
        chart = charts.lambda_curve(
            rows, "abstention_mass", self._looks, title=title, domain=[0, 1], chosen=self._rings
        )
        caption = f"Probability on yes and no together, mean on {self.group.reported}"
        says = _curve_says(rows, "abstention_mass", title, self.group.reported)
        return [self._figure("mass", chart, caption, says, self._curve_key(None))]

    def searched(self) -> list[Figure]:
        """What a search for λ found on pilot at each candidate that stands on the curve."""
        found = []
        for index, one in enumerate(one for one in self.group.chosen if one.run.search):
            made = one.run.search
            metric, split = made["metric"], made["split"]
            rows = [row for row in self._on_curve(split) if row["role"] in PARENTS]
            rows += [
                {"role": "merged", "method": one.row["method"], "lambda": place, "split": split, metric: value}
                for place, value in ((as_number(c["lambda"]), as_number(c["value"])) for c in made["candidates"])
                if place is not None and value is not None
            ]
            values = _ends(rows, metric)
            if not any(row["role"] == "merged" for row in rows):
                continue
            looks, title = {**self._looks, one.row["method"]: method_look(0)}, metric_title(metric)
            rings = {one.row["method"]: one.row["lambda"]}
            chart = charts.lambda_curve(rows, metric, looks, title=title, domain=_roomy(values), chosen=rings)
            says = _curve_says(rows, metric, title, split)
            found.append(
                self._figure(f"search-{index}", chart, f"Candidates of {one.name}", says, self._curve_key(None))
            )
        return found

    def forests(self) -> list[Figure]:
        """Chosen models beside parents and tabular models, a figure a metric."""
        found = []
        rows = [one.row for one in self.group.chosen] + self.group.others()
        names = [one.name for one in self.group.chosen] + [row["role"] for row in self.group.others()]
        for metric in self.group.metrics:
            data = [
                {"name": name, "value": row[metric], "low": as_number(row.get(f"{metric}_ci_low")),
                 "high": as_number(row.get(f"{metric}_ci_high"))}
                for name, row in zip(names, rows, strict=True) if as_number(row.get(metric)) is not None
            ]  # fmt: skip
            if data:
                says = "; ".join(
                    f"{one['name']} {format_interval(one['value'], one['low'], one['high'], 3)}" for one in data
                )
                chart = charts.forest(data, metric, self._looks, chance=_chance(metric, rows))
                caption = f"{metric_title(metric)} on {self.group.reported}"
                found.append(self._figure(f"forest-{metric}", chart, caption, f"{caption}: {says}."))
        return found

    def discrimination(self) -> list[Figure]:
        """ROC, and precision against recall."""
        lines = self._models(lambda one: one["discrimination"])
        if not lines:
            return []
        rows = {"roc": ("auroc", "1 − specificity", "sensitivity", "ROC"),
                "pr": ("auprc", "recall (sensitivity)", "precision (PPV)", "Precision and recall")}  # fmt: skip
        found = []
        for key, (metric, x, y, caption) in rows.items():
            says = {
                name: f"{name}: {metric_title(metric)} {format_estimate(one[metric], 3)}" for name, one in lines.items()
            }
            level = self.group.others()[0]["prevalence"] if key == "pr" and self.group.others() else None
            chart = charts.curves({name: one[key] for name, one in lines.items()}, self._looks, x=x, y=y, says=says,
                                  diagonal=key == "roc", level=level)  # fmt: skip
            told, names = "; ".join(says.values()) + ".", self._key(lines)
            found.append(self._figure(key, chart, f"{caption} on {self.group.reported}", told, names))
        return found

    def calibration(self) -> list[Figure]:
        """Calibration in bins, as predicted and recalibrated."""
        found = []
        for kind, caption in _KINDS.items():
            bins = self._models(lambda one, kind=kind: one["calibration"].get(kind, {}).get("curve"))
            if bins:
                says = f"{caption}: observed rate against predicted probability of {', '.join(bins)}."
                chart = charts.calibration(bins, self._looks)
                found.append(self._figure(f"calibration-{kind}", chart, caption, says, self._key(bins)))
        return found

    def decision(self) -> list[Figure]:
        """Decision curves, as predicted and recalibrated."""
        found = []
        for kind, caption in _KINDS.items():
            lines = self._models(lambda one, kind=kind: one["decision_curve"].get(kind))
            if lines:
                says = f"{caption}: net benefit of {', '.join(lines)}, of treating all and of treating none."
                looks = self._looks | _TREATED
                names = self._key(lines) + _key_of(_TREATED)
                found.append(self._figure(f"decision-{kind}", charts.decision(lines, looks), caption, says, names))
        return found

    def distributions(self) -> list[Figure]:
        """The predicted probabilities of those with and without the event, a figure a model."""
        found = []
        for index, (name, one) in enumerate(self._models(lambda one: one["distribution"]).items()):
            says = f"{name}: predicted probabilities from {one['edges'][0]:.3f} to {one['edges'][-1]:.3f}."
            chart, names = charts.distribution(one), _key_of(_OUTCOMES)
            found.append(self._figure(f"distribution-{index}", chart, name, says, names, "third"))
        return found

    def angle_map(self) -> list[Figure]:
        """Angle between the parents by layer and kind of tensor."""
        cells: dict[tuple, float] = {}
        for one in angles(self.group):
            place = (OUTSIDE if one.layer is None else str(one.layer), one.kind)
            cells[place] = max(cells.get(place, 0.0), one.degrees)
        if not cells:
            return []
        order = sorted(cells, key=lambda at: (at[0] == OUTSIDE, 0 if at[0] == OUTSIDE else int(at[0])))
        data = [{"layer": at[0], "kind": at[1], "degrees": cells[at]} for at in order]
        says = (f"Angle between base and pivot in degrees, {min(cells.values()):.3f} to {max(cells.values()):.3f}, by "
                "layer and kind of tensor.")  # fmt: skip
        kinds = [kind for kind in ORDER if any(at[1] == kind for at in cells)]
        caption = "Angle between base and pivot; the largest where a layer has several tensors of a kind"
        return [self._figure("angles", charts.angle_map(data, kinds), caption, says, size="wide")]

    def _figure(
        self, name: str, chart: Any, caption: str, says: str, key: tuple[tuple[str, str], ...] = (), size: str = "half"
    ) -> Figure:
        return Figure(drawn(chart, f"{self.prefix}-{name}", says), caption, key, size)

    def _models(self, part: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
        """That part of clinical.json of each model that has it."""
        found = {name: part(model) for name, model, _ in tables.evaluated(self.group)}
        return {name: one for name, one in found.items() if one}

    @cached_property
    def _looks(self) -> dict[str, Look]:
        """The look of each method, chosen model, parent and tabular model: the same in every chart."""
        methods = list(dict.fromkeys(charts.series(row) for row in self.group.rows if row["role"] == "merged"))
        looks = {name: method_look(index) for index, name in enumerate(methods)}
        looks |= {one.name: looks[charts.series(one.row)] for one in self.group.chosen}
        others = list(dict.fromkeys(row["role"] for row in self.group.rows if row["role"] != "merged"))
        for index, role in enumerate(sorted(others, key=lambda role: role not in PARENTS)):
            dash = DASHES[(index + 1) % len(DASHES)]
            parent = role in PARENTS
            looks[role] = Look(INK if parent else PALE, dash, PARENTS[role] if parent else "circle")
        return looks

    def _key(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """The key of curves, which have no markers."""
        return _key_of({name: self._looks[name]._replace(shape=None) for name in names})

    def _curve_key(self, chance: float | None) -> tuple[tuple[str, str], ...]:
        """The key of a λ curve."""
        rows = self._on_curve(self.group.reported)
        looks = {charts.series(row): self._looks[charts.series(row)] for row in rows if row["role"] == "merged"}
        looks |= {row["role"]: Look(INK, None, PARENTS[row["role"]]) for row in rows if row["role"] in PARENTS}
        looks |= {"chosen on pilot": Look(GREY, None, "ring")} if self._rings else {}
        looks |= {} if chance is None else {f"chance ({format_value(chance, '.3f')})": Look(GREY, DASHES[1])}
        return _key_of(looks)

    @cached_property
    def _rings(self) -> dict[str, float]:
        """λ of each method that chose one on pilot."""
        return {charts.series(one.row): one.row["lambda"] for one in self.group.chosen if one.picked}

    def _on_curve(self, split: str) -> list[Row]:
        """Rows of the split with a place on the curve."""
        ends = ("base", "pivot")
        rows = [row for row in self.group.rows if row["split"] == split]
        return [
            row
            for row in rows
            if row["role"] in ends or (row["role"] == "merged" and as_number(row["lambda"]) is not None)
        ]


_TREATED = {"treat all": Look(GREY, (2, 3)), "treat none": Look(INK, (1, 0))}
_OUTCOMES = {"no event": Look(OTHER, None, "square"), "event": Look(EVENT, None, "square")}
_KINDS = {"raw": "As predicted", "logistic": "Recalibrated on pilot (logistic)"}


def _key_of(looks: Mapping[str, Look]) -> tuple[tuple[str, str], ...]:
    return tuple((swatch(look), name) for name, look in looks.items())


def _chance(metric: str, rows: Sequence[Row]) -> float | None:
    if metric == "auroc":
        return 0.5
    return rows[0]["prevalence"] if metric == "auprc" else None


def _ends(rows: Sequence[Row], metric: str) -> list[float]:
    """Values and the ends of their intervals."""
    keys = (metric, f"{metric}_ci_low", f"{metric}_ci_high")
    return [value for row in rows for key in keys if (value := as_number(row.get(key))) is not None]


def _roomy(values: Sequence[float]) -> list[float]:
    room = 0.03 * (max(values) - min(values)) or 0.01
    return [min(values) - room, max(values) + room]


def _curve_says(rows: Sequence[Row], metric: str, title: str, split: str) -> str:
    return f"{title} on {split} against λ. " + "; ".join(_curve_parts(rows, metric)) + "."


def _curve_parts(rows: Sequence[Row], metric: str) -> Iterator[str]:
    for role in ("base", "pivot"):
        yield from (f"{role} {row[metric]:.3f}" for row in rows if row["role"] == role)
    for name in dict.fromkeys(charts.series(row) for row in rows if row["role"] == "merged"):
        own = [row for row in rows if row["role"] == "merged" and charts.series(row) == name]
        values = [row[metric] for row in own]
        yield f"{name} from {min(values):.3f} to {max(values):.3f} over {len(own)} λ"
