"""Result folders of invented scores, as runs leave them: a report is made of files, and needs no model to be tried."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from result_folders import reseal

from patientdx.core.tables import write_csv
from patientdx.evaluation.store import fingerprint, write_json, write_parquet, write_sealed_json, write_text
from patientdx.metrics.bootstrap import intervals
from patientdx.metrics.clinical import Scored, evaluate
from patientdx.metrics.ranking import auprc, auroc

METRICS = {"auroc": auroc, "auprc": auprc}
SIZES = {"pilot": 120, "test": 180}
BOOTSTRAP = {"resamples": 60, "level": 0.95}


def _scores(split: str, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """p(yes), labels and patients of a split; the labels and what is hard about a stay are the same for every model."""
    random = np.random.default_rng(len(split))
    n = SIZES[split]
    label = (np.arange(n) % 4 == 0).astype(int)
    shared = random.normal(size=n)
    own = np.random.default_rng([seed, n]).normal(size=n)
    logit = strength * (2 * label - 1) + shared + 0.3 * own - 1
    return 1 / (1 + np.exp(-logit)), label, [f"{split}-{i // 2 if i < 20 else i}" for i in range(n)]


def _row(role: str, method: str | None, place: float | None, split: str, strength: float, names: Mapping) -> dict:
    probability, label, subject = _scores(split, strength, _seed(role, method, place))
    row = {"task": "mortality", "split": split, "method": method, "lambda": place, "role": role, **names}
    for name, one in intervals(METRICS, probability, label, subject, **BOOTSTRAP, seed=0).items():
        row |= {name: one.value, f"{name}_ci_low": one.low, f"{name}_ci_high": one.high}
    known = {"role": role, "split": split, "scores": probability.round(12).tolist()}
    return row | {
        "n": len(label), "events": int(label.sum()), "prevalence": float(label.mean()), "patients": len(set(subject)),
        "abstention_mass": 0.9, "distinct_scores": len(label), "dtype": "float32", "data": "open",
        "fingerprint": fingerprint(known),
    }  # fmt: skip


def _seed(role: str, method: str | None, place: float | None) -> int:
    return int(fingerprint({"role": role, "method": method, "place": place})[:6], 16)


def _provenance(method: str, place: float | None, open_data: bool) -> dict:
    tensors = {
        f"model.layers.{i}.self_attn.{k}_proj.weight": {"cosine": 0.9, "angle_degrees": 2.0 + i, "branch": "sphere"}
        for i in range(3)
        for k in "qk"
    } | {"model.norm.weight": {"cosine": 1.0, "angle_degrees": 0.01, "branch": "line"}}
    settings = {"question": "Does <it> & work?"}
    return {
        "parents": [{"name": "small", "sha256": "a" * 64, "licence": "apache-2.0"},
                    {"name": "small_numeric", "sha256": "b" * 64, "licence": None}],
        "merge": {"method": method, "lambda": place, "ancestor": None, "summary": {}, "tensors": tensors},
        "task": {"open_data": open_data, "fingerprint": "c" * 64, "source": ["made up"], "settings": settings},
        "scoring": {"dtype": "float32", "prompts": 300}, "seed": 0, "seconds": {"scoring": 1.5},
        "versions": {"python": "3.11"}, "baselines": [],
    }  # fmt: skip


def write_made_run(
    folder: Path,
    method: str,
    place: float | None,
    strength: float,
    *,
    splits: Sequence[str] = ("pilot", "test"),
    clinical: bool = False,
    arguments: Mapping | None = None,
    task: Mapping | None = None,
    open_data: bool = True,
) -> Path:
    """One run's folder: its merged model separates the outcomes by `strength`, the base by 0.2, the pivot by 0.5."""
    models = {"merged": (method, place, strength), "base": (None, 0.0, 0.2), "pivot": (None, 1.0, 0.5)}
    names = {"base": "small", "pivot": "small_numeric"}
    rows, parts, scored = [], [], {}
    for role, (name, at, force) in models.items():
        for split in splits:
            rows.append(_row(role, name, at, split, force, names))
            probability, label, subject = _scores(split, force, _seed(role, name, at))
            n = len(label)
            parts.append(pa.table({
                "id": [fingerprint({"stay": f"{split}{i}"})[:16] for i in range(n)],
                "subject": [fingerprint({"patient": one})[:16] for one in subject], "split": [split] * n,
                "role": [role] * n, "label": label, "probability": probability, "margin": probability,
                "mass": np.full(n, 0.9),
            }))  # fmt: skip
            scored[role, split] = Scored(probability, label, subject, np.full(n, 0.9))
    groups = {"sex": ["F" if i % 8 < 4 else "M" for i in range(SIZES["test"])],
              "ward": ["A" if i else "B" for i in range(SIZES["test"])]}  # fmt: skip
    config = {
        "name": folder.parent.name, "seed": 0, "lambda": place, "splits": list(splits), "dtype": "float32",
        "bootstrap": BOOTSTRAP, "merge": {"name": method, **(arguments or {})}, "output": "/home/someone/outputs",
        "task": {"name": "mortality", **(task or {}),
                 "metrics": {name: f"{one.__module__}.{name}" for name, one in METRICS.items()}},
    }  # fmt: skip
    if not open_data:
        rows = [row | {"data": "credentialed"} for row in rows]
    write_result(folder, config, rows, pa.concat_tables(parts), _provenance(method, place, open_data))
    write_csv([{"step": "all stays", "stays": 400, "patients": 380, "events": 90},
               {"step": "adults", "stays": 300, "patients": 280, "events": 75}], folder / "cohort.csv")  # fmt: skip
    if clinical:
        write_json(evaluate(scored, groups=groups, min_events=20, min_rows=10, **BOOTSTRAP), folder / "clinical.json")
    reseal(folder)
    return folder


def write_result(folder: Path, config: Mapping, rows: list, predictions: pa.Table, provenance: Mapping) -> None:
    """The files that every result folder has."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(yaml.safe_dump(config, sort_keys=False), folder / "config.yaml")
    write_parquet(predictions, folder / "predictions.parquet")
    write_json(provenance, folder / "provenance.json")
    reseal(folder, {"fingerprint": fingerprint({"folder": folder.name}), "rows": rows})


def write_sweep(study: Path, folders: Sequence[Path], overrides: Sequence[Sequence[str]] = ()) -> None:
    """The pointers of a sweep that ended, in that order."""
    for job, folder in enumerate(folders):
        content: dict = {"folder": folder.name, "reused": False, "seconds": {"scoring": 1.0}}
        content |= {"overrides": list(overrides[job])} if overrides else {}
        write_sealed_json(content, study / "sweep" / f"{job}.json")


def rows_in(folder: Path) -> list[dict]:
    """The rows of a result folder, with every digit."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["rows"]
