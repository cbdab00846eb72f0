"""The reader of result folders: a run, and the finished runs of a study. No model is loaded, no id is decoded."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from patientdx.core.errors import UserError
from patientdx.core.functions import dotted
from patientdx.core.paths import expanded
from patientdx.core.regular_files import is_regular
from patientdx.core.tables import Row

if TYPE_CHECKING:
    import numpy as np

    from patientdx.metrics.specification import Metric

_ORDER = {"base": 0, "merged": 1, "pivot": 2}
# Keys with a column of their own, and those that name where a run was made: no part of a variant's name.
_NOT_IN_NAMES = (
    "name", "output", "cache", "chunks", "machine", "lambda", "tracking", "device", "model", "parents", "baselines",
    "save", "save_dtype", "dry_run", "experiment", "prompt_variants", "clinical", "splits", "search", "privacy",
    "memory_limit", "task.cache", "task.seed", "task.threads", "task.memory_limit", "task._target_", "task.name",
    "task.probes", "task.metrics", "scoring.batch_tokens", "merge._target_", "merge.name", "thresholds",
    "subgroups",
)  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """One model on one split, in the order of the hashed ids: id (n,), hashed patient (n,) and, by metric, its inputs.

    `inputs` holds (score or answer, label or correct answer), (n,) each, by the metric that takes them; those of a
    yes/no task, probability and label, are under None and serve every metric.
    """

    id: np.ndarray
    subject: np.ndarray
    inputs: Mapping[str | None, tuple[np.ndarray, np.ndarray]]

    def of(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Score and label, as the metric takes them."""
        return self.inputs[metric if metric in self.inputs else None]

    def is_paired_with(self, other: Predictions, metric: str) -> bool:
        """Whether both models answered the same rows with the same labels."""
        return self.id.tolist() == other.id.tolist() and self.of(metric)[1].tolist() == other.of(metric)[1].tolist()


@dataclass(frozen=True)
class Run:
    """One result folder. Results that the run did not write are None or empty."""

    folder: Path
    overrides: tuple[str, ...] | None = None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: the rows and the run's fingerprint. UserError where the folder is not as its run left it."""
        from patientdx.evaluation.seal import read_sealed

        return read_sealed(self.folder)

    @property
    def rows(self) -> list[Row]:
        """One row a model and split, as in `patientdx.reporting`; the first is of the model that the run is about."""
        return self.metrics["rows"]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed config."""
        path = self.folder / "config.yaml"
        return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if is_regular(path) else {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Parents, merge, task, scoring, versions and seconds."""
        return self.result("provenance") or {}

    def result(self, name: str) -> dict[str, Any] | None:
        """The content of `<name>.json`: the result of an analysis, `search` or `provenance`."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if is_regular(path) else None

    @cached_property
    def clinical(self) -> dict[str, Any] | None:
        """The result of the clinical evaluation."""
        return self.result("clinical")

    @cached_property
    def paired(self) -> dict[str, Any] | None:
        """The comparisons of models whose answers are right or wrong."""
        return self.result("paired")

    @cached_property
    def search(self) -> dict[str, Any] | None:
        """The record of the search for λ."""
        return self.result("search")

    @cached_property
    def cohort(self) -> list[dict[str, str]]:
        """The attrition table."""
        return self._rows("cohort.csv")

    @cached_property
    def readings(self) -> list[dict[str, str]]:
        """What was charted of each reading, dropped as impossible, and missing; [] where it was not counted."""
        return self._rows("readings.csv")

    def _rows(self, name: str) -> list[dict[str, str]]:
        path = self.folder / name
        if not is_regular(path):
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def date(self) -> str:
        """The day on which it was finished, by the time of its metrics.json: as in 2026-11-30, UTC."""
        seconds = (self.folder / "metrics.json").stat().st_mtime
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()

    @property
    def prompt(self) -> str | None:
        """What a model was asked about one record of the synthetic hospital; None of other data."""
        path = self.folder / "prompt.txt"
        return path.read_text(encoding="utf-8") if is_regular(path) else None

    @cached_property
    def command(self) -> tuple[str, ...] | None:
        """The overrides of its job in the sweep, else those of its command; None where they were not kept."""
        kept = None if self.overrides is not None else self.result("command")
        return self.overrides if kept is None else tuple(kept["overrides"])

    @property
    def bootstrap(self) -> dict[str, Any]:
        """The arguments of its intervals: resamples, level and seed."""
        config = self.config.get("bootstrap", {})
        return {"resamples": config.get("resamples", 2000), "level": config.get("level", 0.95),
                "seed": self.config.get("seed", 0)}  # fmt: skip

    @cached_property
    def metric_functions(self) -> dict[str, Metric]:
        """The task's metrics that were computed (BERTScore may not be), by their name in the rows."""
        metrics = self.config.get("task", {}).get("metrics", {})
        return {name: dotted(target) for name, target in metrics.items() if name in self.rows[0]}

    def higher_is_better(self, metric: str) -> bool | None:
        """Whether more of the metric is better; None where neither is. True for a metric that the run does not name."""
        from patientdx.metrics.specification import metric_spec

        function = self.metric_functions.get(metric)
        return True if function is None else metric_spec(function).greater_is_better

    def patients(self, split: str) -> set[str]:
        """The hashed patients of a split, or whatever else its rows are grouped by."""
        return {patient for (_, name), part in self.predictions.items() if name == split for patient in part.subject}

    @cached_property
    def predictions(self) -> dict[tuple[str, str], Predictions]:
        """The predictions by role and split; empty where there is no file of them."""
        import numpy as np
        import pyarrow.parquet as pq
        from pyarrow.dataset import field

        path = self.folder / "predictions.parquet"
        if not is_regular(path):
            return {}
        names = pq.read_schema(path).names
        pairs: dict[str | None, tuple[str, str]] = {None: ("probability", "label")} if "probability" in names else {}
        pairs |= {name.removesuffix("_right"): (name.removesuffix("_right"), name) for name in names
                  if name.endswith("_right")}  # fmt: skip
        read_columns = ["id", "subject", "split", "role", *(column for pair in pairs.values() for column in pair)]
        table = pq.read_table(path, columns=read_columns)
        predictions = {}
        for role, split in sorted({(row["role"], row["split"]) for row in self.rows}):
            part = table.filter((field("role") == role) & (field("split") == split)).sort_by("id")
            columns = {name: np.asarray(part[name].to_pylist()) for name in read_columns}
            if part.num_rows:
                inputs = {metric: (columns[score], columns[label]) for metric, (score, label) in pairs.items()}
                predictions[role, split] = Predictions(columns["id"], columns["subject"], inputs)
        return predictions


@dataclass(frozen=True)
class Study:
    """Finished runs, jobs of a sweep that did not finish (number and message), and how many runs are from before it."""

    folder: Path
    runs: tuple[Run, ...]
    unfinished: tuple[tuple[int, str], ...] = ()
    earlier: int = 0

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.resolve().name

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, parents once, in the order of a table.

        Rows have two more keys: `variant`, the arguments of the method that differ between its runs (`density=0.2`),
        and `setting`, all else that differs; both are empty where nothing does.
        """
        variants = _variants(self.runs)
        rows: dict[tuple, Row] = {}
        for run in self.runs:
            variant, setting = variants[run.folder]
            for row in run.rows:
                names = {"variant": variant if row["role"] == "merged" else "", "setting": setting}
                key = (
                    row["fingerprint"],
                    *(row[name] for name in ("role", "method", "base", "pivot")),
                    *names.values(),
                )
                rows.setdefault(key, row | names)
        # A tabular model has no parents, and comes with the last pair.
        last = max(((row["base"], row["pivot"]) for row in rows.values() if row["base"]), default=("", ""))
        return sorted(rows.values(), key=lambda row: _order(row, last))

    def run_of(self, row: Row) -> Run:
        """The run that holds a row's predictions; a merged model's own run."""
        return next(run for run in self.runs if any(_same(row, other) for other in run.rows))


def sweep_records(folder: Path) -> dict[int, dict[str, Any]]:
    """What the last sweep in a study's folder left of each of its jobs, by number: `folder`, `refused` or `failed`.

    Empty without a sweep. A job whose process died left nothing and is in here with {}.
    """
    from patientdx.evaluation.store import read_sealed_json

    paths = [path for path in (folder / "sweep").glob("*.json") if path.stem.isdigit()]
    records = {int(path.stem): read_sealed_json(path) or {"failed": "its record is damaged"} for path in paths}
    count = folder / "sweep" / "jobs.txt"
    jobs = int(count.read_text(encoding="utf-8")) if is_regular(count) else 0
    return {job: records.get(job, {}) for job in sorted({*records, *range(jobs)})}


def read(folder: Path) -> Study:
    """The last sweep in a study's folder, every finished run where no sweep ended there, or the run of that folder.

    Raises UserError where no finished run is found.
    """
    folder = expanded(folder)
    if is_regular(folder / "metrics.json"):
        return Study(folder, (Run(folder),))
    finished = sorted(path.parent for path in folder.glob("*/metrics.json"))
    if not finished:
        raise UserError(
            f"{folder} holds no finished run: a report needs metrics.json in it (one run) or in folders below it (a "
            "study). Run one first, as in: python run.py name=mine; its folder is then outputs/mine."
        )
    swept: dict[Path, Run] = {}
    unfinished = []
    for job, record in sweep_records(folder).items():
        path = folder / record.get("folder", "")
        if "folder" in record and path in finished:
            overrides = record.get("overrides")
            swept[path] = Run(path, None if overrides is None else tuple(overrides))
            continue
        died = "its process died without a message" if not record else "its results are gone"
        unfinished.append((job, without_paths(str(record.get("refused") or record.get("failed") or died))))
    runs = tuple(swept.values() or map(Run, finished))
    return Study(folder, runs, tuple(unfinished), len(finished) - len(runs))


def without_paths(text: str) -> str:
    """The text with PATH instead of every path, so that a report does not show where it ran."""
    return re.sub(r"(?<![\w:/])(?:~|\.{0,2})/[^\s'\",;:\])]*", "PATH", text)


def _same(row: Row, other: Row) -> bool:
    return all(row[name] == other[name] for name in ("fingerprint", "role", "method", "lambda", "base", "pivot"))


def _order(row: Row, last: tuple[str, str]) -> tuple:
    return (
        row["task"],
        row["setting"],
        *((row["base"], row["pivot"]) if row["base"] else last),
        row["split"],
        _ORDER.get(row["role"], 3),
        row["method"] or "",
        row["variant"],
        row["lambda"] or 0.0,
    )


def _variants(runs: Iterable[Run]) -> dict[Path, tuple[str, str]]:
    """For each run what differs from the other runs of its method, and what else from those of its task and parents."""
    runs = list(runs)
    configs = {run.folder: _flat(run.config) for run in runs}
    first = {run.folder: run.rows[0] for run in runs}
    variants = {}
    for run in runs:
        row = first[run.folder]
        related = [
            folder for folder, other in first.items() if all(other[k] == row[k] for k in ("task", "base", "pivot"))
        ]
        of_method = [configs[folder] for folder in related if first[folder]["method"] == row["method"]]
        merge = _differing(configs[run.folder], of_method, "merge.")
        setting = _differing(configs[run.folder], [configs[folder] for folder in related], "")
        variants[run.folder] = (merge, setting)
    return variants


def _differing(config: Mapping[str, Any], others: Sequence[Mapping[str, Any]], prefix: str) -> str:
    """`key=value` of the keys with that prefix (or of all but the merge's) that differ among some configs."""
    shown = []
    for key in sorted({key for other in others for key in other}):
        named = any(key == name or key.startswith(f"{name}.") for name in _NOT_IN_NAMES)
        if named or not (key.startswith(prefix) if prefix else not key.startswith("merge.")):
            continue
        value, values = str(config.get(key)), sorted({str(other.get(key)) for other in others})
        if len(values) > 1:
            text = _last(value)
            same = [other for other in values if _last(other) == text]  # folders of one name in different places
            number = "" if len(same) == 1 else f" ({same.index(value) + 1})"
            shown.append(f"{key.removeprefix('merge.')}={text}{number}")
    return ", ".join(shown)


def _last(value: str) -> str:
    """The last part of a path, which tells two models apart and does not show where they are."""
    return Path(value).name if without_paths(value) == "PATH" else without_paths(value)


def _flat(node: Any, name: str = "") -> dict[str, Any]:
    """Dotted keys of a nested config; lists are values."""
    if not isinstance(node, Mapping):
        return {name: node}
    return {
        key: value for part, inner in node.items() for key, value in _flat(inner, f"{name}.{part}".strip(".")).items()
    }
