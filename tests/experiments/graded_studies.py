"""Result folders of runs whose scores are made up, for the tables that read several tasks or several trainings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from result_folders import write_run

from patientdx.core.functions import dotted
from patientdx.evaluation.store import write_sealed_json
from patientdx.metrics.bootstrap import intervals

RESAMPLES, LEVEL, SEED, ROWS = 200, 0.9, 3, 120
ACCURACY = {"accuracy": "patientdx.metrics.accuracy.accuracy_at_half"}
EXACT = {"exact_match": "patientdx.metrics.accuracy.accuracy"}


def one_run(study: Path, job: int, task: str, metrics: dict, models: list, *, shared=False, **config) -> Path:
    """A run and its pointer. models: (role, method, λ, share of rows that it gets right) on pilot and test.

    A model with a larger share has right what one with a smaller share has; by each metric after the first a model has
    a twentieth of the rows more right. shared: pilot and test have the same patients. config: what the composed config
    holds beside.
    """
    rows, tables = [], []
    for role, method, weight, share in models:
        for split in ("pilot", "test"):
            own = share[split] if isinstance(share, dict) else share
            row = {
                "task": task, "split": split, "method": method, "lambda": weight, "role": role, "base": "b",
                "pivot": "d", "n": ROWS, "dtype": "float32",
                "fingerprint": f"{task}{role}{method}{weight}{own}{split}",
            }  # fmt: skip
            patient = [f"{'' if shared else split}{i // 2}" for i in range(ROWS)]
            columns = {"id": [f"{split}-{i}" for i in range(ROWS)], "subject": patient, "split": [split] * ROWS,
                       "role": [role] * ROWS}  # fmt: skip
            for place, (name, metric) in enumerate(metrics.items()):
                score, truth, marks = _answered(name, own + place / 20, len(split) + len(task), metrics is ACCURACY)
                found = intervals({name: dotted(metric)}, score, truth, patient, resamples=RESAMPLES, level=LEVEL,
                                  seed=SEED)[name]  # fmt: skip
                row |= {name: found.value, f"{name}_ci_low": found.low, f"{name}_ci_high": found.high}
                columns |= marks
            rows.append(row)
            tables.append(pa.table(columns))
    folder = study / f"{task}_{job}"
    write_run(
        folder,
        config={"seed": SEED, "bootstrap": {"resamples": RESAMPLES, "level": LEVEL}, "task": {"metrics": metrics}}
        | config,
        metrics={"fingerprint": "x", "rows": rows},
        predictions=pa.concat_tables(tables),
        provenance={"finetune": config.get("told")},
    )
    write_sealed_json({"folder": folder.name, "reused": False, "seconds": {}}, study / "sweep" / f"{job}.json")
    return folder


def _answered(name: str, share: float, seed: int, yes_or_no: bool) -> tuple[np.ndarray, np.ndarray, dict]:
    """Score and truth of each row, and the columns that hold them."""
    random = np.random.default_rng(seed)
    easy, label = random.permutation(ROWS) / ROWS, random.integers(0, 2, ROWS)
    right = (easy < round(share, 9)).astype(float)
    if yes_or_no:
        score = np.where(right == 1, label, 1 - label) * 1.0
        return score, label, {"label": label, "probability": score}
    return right, np.ones(ROWS), {name: right, f"{name}_right": np.ones(ROWS)}
