"""Result folders as a sweep leaves them, of models whose scores know more or less of the label."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from result_folders import write_run

from patientdx.evaluation.store import write_sealed_json
from patientdx.metrics.bootstrap import intervals
from patientdx.metrics.ranking import auprc, auroc

RESAMPLES, LEVEL, SEED = 200, 0.9, 3
ROWS = {"pilot": 60, "test": 80}
LINES = {"tensors": 9, "straight_lines": 4}


def answers(split: str, strength: float) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Patients, labels and scores of one model: `strength` is how much the score knows of the label."""
    random = np.random.default_rng(len(split))
    label = (random.random(ROWS[split]) < 0.3).astype(int)
    score = random.normal(size=ROWS[split]) + strength * label
    patient = [f"{split}{i // 2}" for i in range(ROWS[split])]
    return patient, label, 1 / (1 + np.exp(-score))


def one_run(
    study: Path, job: int, method: str, weight: float, strengths: Mapping, *, dtype="float32", shared=False,
    task="mortality", pivot="p", base="b", angles: Sequence[float] = (), config: Mapping = {}, seconds: Mapping = {},
) -> Path:  # fmt: skip
    """A result folder of `strengths`, (role, split) -> strength, and its pointer. shared: patients in both splits."""
    rows, tables = [], []
    for (role, split), strength in strengths.items():
        patient, label, score = answers(split, strength)
        if shared and split == "test":
            patient[:6] = ["pilot0", "pilot0", "pilot1", "pilot1", "pilot2", "pilot2"]
        sure = {"resamples": RESAMPLES, "level": LEVEL, "seed": SEED}
        found = intervals({"auroc": auroc, "auprc": auprc}, score, label, patient, **sure)
        tabular = role.startswith("tabular")
        row = {
            "task": task, "split": split, "method": {"merged": method, "base": None, "pivot": None}.get(role, role),
            "lambda": {"base": 0.0, "pivot": 1.0, "merged": weight}.get(role), "role": role,
            "base": None if tabular else base, "pivot": None if tabular else pivot, "n": found["auroc"].n,
            "events": found["auroc"].events, "prevalence": found["auroc"].events / found["auroc"].n,
            "patients": found["auroc"].patients, "dtype": dtype,
            "fingerprint": f"{role}{strength}{split}{dtype}{task}{base}",
        }  # fmt: skip
        for name, one in found.items():
            row |= {name: one.value, f"{name}_ci_low": one.low, f"{name}_ci_high": one.high}
        rows.append(row)
        tables.append(pa.table({
            "id": [f"{split}-{i}" for i in range(len(label))], "subject": patient, "split": [split] * len(label),
            "role": [role] * len(label), "label": label.tolist(), "probability": score,
        }))  # fmt: skip
    folder = study / f"{task}_{method}_{pivot}_{base}_lambda={weight}_{dtype}"
    write_run(
        folder,
        config={"seed": SEED, "bootstrap": {"resamples": RESAMPLES, "level": LEVEL}} | dict(config),
        metrics={"fingerprint": "x", "rows": rows},
        predictions=pa.concat_tables(tables),
        provenance={
            "merge": {
                "summary": LINES if method == "slerp" else {},
                "tensors": {f"t{i}": {"angle_degrees": angle} for i, angle in enumerate(angles)},
            },
            "scoring": {"prompts": 10, "tokens": 1030, "common_prefix": 3},
            "seconds": dict(seconds),
        },
    )
    write_sealed_json({"folder": folder.name, "reused": False, "seconds": {}}, study / "sweep" / f"{job}.json")
    return folder


def strengths(pilot: float, test: float, splits=("pilot", "test"), parents=True) -> dict:
    """Of a merge, and of its parents, which are always the same."""
    merged = {"pilot": pilot, "test": test}
    given = {("merged", split): merged[split] for split in splits}
    if parents:
        given |= {("base", split): 0.2 for split in splits} | {("pivot", split): 0.6 for split in splits}
    return given
