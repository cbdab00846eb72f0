"""The finished runs of a study, or one of them alone, as they lie on disk. No model is loaded, no id is turned back."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from patientdx.core.errors import UserError
from patientdx.core.tables import Row

if TYPE_CHECKING:
    import numpy as np

_ORDER = {"base": 0, "merged": 1, "pivot": 2}
# What has a column of its own, or says where and on what the run was made: no part of a variant's name.
_TOLD = ("name", "output", "cache", "lambda", "tracking", "device", "model", "parents", "baselines", "save",
         "save_dtype", "dry_run", "experiment", "probes", "clinical", "splits", "search", "privacy", "memory_limit",
         "task.cache", "task.seed", "task.threads", "task.memory_limit", "task._target_", "task.name", "task.probes",
         "task.metrics", "scoring.batch_tokens", "merge._target_", "merge.name")  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """One model on one split, in the order of the hashed ids, (n,) each: id, hashed patient, and what was answered.

    `marks` has (answer, what is right) by the metric that takes them; of a yes/no task it is p(yes) and label under
    None, for every metric.
    """

    id: np.ndarray
    subject: np.ndarray
    marks: Mapping[str | None, tuple[np.ndarray, np.ndarray]]

    def of(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """What the metric takes: score and label."""
        return self.marks[metric if metric in self.marks else None]

    def fits(self, other: Answers, metric: str) -> bool:
        """Whether the other model was asked about the same stays, so that the two can be compared."""
        same = zip((self.id, self.of(metric)[1]), (other.id, other.of(metric)[1]), strict=True)
        return all(a.tolist() == b.tolist() for a, b in same)


@dataclass(frozen=True)
class Run:
    """One result folder. What a run did not write is None or empty."""

    folder: Path
    overrides: tuple[str, ...] | None = None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: the rows, the run's fingerprint, and the spread over wordings where it was asked for."""
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))

    @property
    def rows(self) -> list[Row]:
        """One row a model and split, as in `patientdx.reporting`."""
        return self.metrics["rows"]

    @property
    def own(self) -> Row:
        """A row of the model that the run is about."""
        return self.rows[0]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The composed config."""
        path = self.folder / "config.yaml"
        return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        return self._json("provenance.json") or {}

    @cached_property
    def clinical(self) -> dict[str, Any] | None:
        """What `patientdx.evaluation.clinical.evaluate` found."""
        return self._json("clinical.json")

    @cached_property
    def search(self) -> dict[str, Any] | None:
        """How λ was searched for."""
        return self._json("search.json")

    @cached_property
    def privacy(self) -> dict[str, Any] | None:
        """What was measured of leakage."""
        return self._json("privacy.json")

    @cached_property
    def cohort(self) -> list[dict[str, str]]:
        """The attrition table."""
        path = self.folder / "cohort.csv"
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @cached_property
    def command(self) -> tuple[str, ...] | None:
        """The overrides of its job in the sweep, else those that made it; None where they were not kept."""
        kept = None if self.overrides is not None else self._json("command.json")
        return self.overrides if kept is None else tuple(kept["overrides"])

    @cached_property
    def answers(self) -> dict[tuple[str, str], Answers]:
        """The predictions by role and split; empty where there is no file of them."""
        import numpy as np
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        path = self.folder / "predictions.parquet"
        if not path.exists():
            return {}
        names = pq.read_schema(path).names
        marks = {None: ("probability", "label")} if "probability" in names else {}
        marks |= {name.removesuffix("_right"): (name.removesuffix("_right"), name) for name in names
                  if name.endswith("_right")}  # fmt: skip
        wanted = ["id", "subject", "split", "role", *(column for pair in marks.values() for column in pair)]
        table = pq.read_table(path, columns=wanted)
        found = {}
        for role, split in sorted({(row["role"], row["split"]) for row in self.rows}):
            part = table.filter(pc.and_(pc.equal(table["role"], role), pc.equal(table["split"], split))).sort_by("id")
            columns = {name: np.asarray(part[name].to_pylist()) for name in wanted}
            if part.num_rows:
                own = {metric: (columns[score], columns[label]) for metric, (score, label) in marks.items()}
                found[role, split] = Answers(columns["id"], columns["subject"], own)
        return found

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@dataclass(frozen=True)
class Study:
    """Finished runs, those of a sweep that did not finish (number and message), and what else lies in the folder."""

    name: str
    runs: tuple[Run, ...]
    unfinished: tuple[tuple[int, str], ...] = ()
    others: int = 0

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, parents once, in the order of a table.

        Rows have two keys more: `variant`, the numbers of the method that differ between runs of it (`density=0.2`),
        and `setting`, whatever else differs; both are empty where nothing does.
        """
        variants = _variants(self.runs)
        rows: dict[tuple, Row] = {}
        for run in self.runs:
            of_merge, setting = variants[run.folder]
            for row in run.rows:
                own = {"variant": of_merge if row["role"] == "merged" else "", "setting": setting}
                key = (row["fingerprint"], *(row[name] for name in ("role", "method", "base", "pivot")), *own.values())
                rows.setdefault(key, row | own)
        # A tabular model has no parents, and stands with the last pair.
        last = max(((row["base"], row["pivot"]) for row in rows.values() if row["base"]), default=("", ""))
        return sorted(rows.values(), key=lambda row: _place(row, last))

    def run_of(self, row: Row) -> Run:
        """The run that holds a row's predictions; a merged model's own run."""
        same = [run for run in self.runs if any(_same(row, other) for other in run.rows)]
        return same[0]


def read(folder: Path) -> Study:
    """The last sweep in a study's folder, every finished run where no sweep ended there, or the run of that folder.

    Raises UserError where no finished run is found.
    """
    folder = Path(folder).expanduser()
    if (folder / "metrics.json").exists():
        return Study(folder.resolve().name, (Run(folder),))
    finished = sorted(path.parent for path in folder.glob("*/metrics.json"))
    pointers = sorted((path for path in (folder / "sweep").glob("*.json") if path.stem.isdigit()), key=_number)
    left = {_number(path): json.loads(path.read_text(encoding="utf-8")) for path in pointers}
    swept = {
        folder / one["folder"]: one.get("overrides")
        for one in left.values()
        if "folder" in one and folder / one["folder"] in finished
    }
    unfinished = [
        (job, without_paths(str(one.get("refused") or one.get("failed") or "its results are gone")))
        for job, one in left.items()
        if "folder" not in one or folder / one["folder"] not in finished
    ]
    asked = folder / "sweep" / "jobs.txt"  # a job without a file left no word: its process died
    jobs = int(asked.read_text(encoding="utf-8")) if asked.exists() else 0
    unfinished += [(job, "it left no word: its process died") for job in range(jobs) if job not in left]
    if not finished:
        raise UserError(
            f"{folder} holds no finished run: a report needs metrics.json in it (one run) or in folders below it (a "
            "study). Run one first, as in: python run.py name=mine; its folder is then outputs/mine."
        )
    runs = [Run(path, None if given is None else tuple(given)) for path, given in swept.items()] or map(Run, finished)
    runs = tuple(runs)
    return Study(folder.resolve().name, runs, tuple(sorted(unfinished)), len(finished) - len(runs))


def without_paths(text: str) -> str:
    """The text with PATH for each place on a machine: what a report is given away with says nothing of where it ran."""
    return re.sub(r"(?<![\w:/])(?:~|\.{0,2})/[^\s'\",;:\])]*", "PATH", text)


def _number(path: Path) -> int:
    return int(path.stem)


def _same(row: Row, other: Row) -> bool:
    return all(row[name] == other[name] for name in ("fingerprint", "role", "method", "lambda", "base", "pivot"))


def _place(row: Row, last: tuple[str, str]) -> tuple:
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
    """Of each run what differs from the other runs of its method, and what else from those of its task and parents."""
    runs = list(runs)
    flat = {run.folder: _flat(run.config) for run in runs}
    found = {}
    for run in runs:
        alike = [one for one in runs if all(one.own[key] == run.own[key] for key in ("task", "base", "pivot"))]
        of_method = [flat[one.folder] for one in alike if one.own["method"] == run.own["method"]]
        merge = _differing(flat[run.folder], of_method, "merge.")
        other = _differing(flat[run.folder], [flat[one.folder] for one in alike], "")
        found[run.folder] = (merge, other)
    return found


def _differing(own: Mapping[str, Any], among: list[Mapping[str, Any]], under: str) -> str:
    """`key=value` of the keys below `under` (or of all but the merge's) that are not the same among some configs."""
    keys = sorted({key for one in among for key in one})
    shown = []
    for key in keys:
        told = any(key == name or key.startswith(f"{name}.") for name in _TOLD)
        here = key.startswith(under) if under else not key.startswith("merge.")
        if not here or told:
            continue
        value, values = str(own.get(key)), sorted({str(one.get(key)) for one in among})
        if len(values) > 1:
            text = _last(value)
            same = [other for other in values if _last(other) == text]  # folders of one name in different places
            apart = "" if len(same) == 1 else f" ({same.index(value) + 1})"
            shown.append(f"{key.removeprefix('merge.')}={text}{apart}")
    return ", ".join(shown)


def _last(value: str) -> str:
    """Of a path its last part, which tells two models apart and says nothing of where they lie."""
    return Path(value).name if without_paths(value) == "PATH" else without_paths(value)


def _flat(node: Any, name: str = "") -> dict[str, Any]:
    """Dotted keys of a nested config; lists are values."""
    if not isinstance(node, Mapping):
        return {name: node}
    return {
        key: value for part, inner in node.items() for key, value in _flat(inner, f"{name}.{part}".strip(".")).items()
    }
