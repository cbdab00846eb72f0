"""Result folders of runs whose scores are made up, for the tables that read several tasks or several trainings."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from patientdx.call import dotted
from patientdx.metrics.bootstrap import intervals
from patientdx.results import write_json, write_run

RESAMPLES, LEVEL, SEED, ROWS = 200, 0.9, 3, 120
ACCURACY = {"accuracy": "patientdx.metrics.accuracy.accuracy_at_half"}
EXACT = {"exact_match": "patientdx.metrics.accuracy.accuracy"}


def one_run(study: Path, job: int, task: str, metrics: dict, models: list, *, shared=False, **config) -> Path:
    """A run and its pointer. models: (role, method, λ, share of rows that it gets right) on pilot and test.

    A model with a larger share has right what one with a smaller share has. shared: pilot and test have the same
    patients. config: what the composed config holds beside.
    """
    (name,) = metrics
    graded = metrics is EXACT
    rows, tables = [], []
    for role, method, weight, share in models:
        for split in ("pilot", "test"):
            random = np.random.default_rng(len(split) + len(task))
            easy, label = random.permutation(ROWS) / ROWS, random.integers(0, 2, ROWS)
            own = share[split] if isinstance(share, dict) else share
            right = (easy < own).astype(float)
            score, truth = (right, np.ones(ROWS)) if graded else (np.where(right == 1, label, 1 - label) * 1.0, label)
            patient = [f"{'' if shared else split}{i // 2}" for i in range(ROWS)]
            found = intervals({name: dotted(metrics[name])}, score, truth, patient, resamples=RESAMPLES, level=LEVEL,
                              seed=SEED)[name]  # fmt: skip
            rows.append({
                "task": task, "split": split, "method": method, "lambda": weight, "role": role, "base": "b",
                "pivot": "d", name: found.value, f"{name}_ci_low": found.low, f"{name}_ci_high": found.high, "n": ROWS,
                "dtype": "float32", "fingerprint": f"{task}{role}{method}{weight}{own}{split}",
            })  # fmt: skip
            columns = {"id": [f"{split}-{i}" for i in range(ROWS)], "subject": patient, "split": [split] * ROWS,
                       "role": [role] * ROWS}  # fmt: skip
            marks = {name: score, f"{name}_right": truth} if graded else {"label": truth, "probability": score}
            tables.append(pa.table(columns | marks))
    folder = study / f"{task}_{job}"
    write_run(
        folder,
        config={"seed": SEED, "bootstrap": {"resamples": RESAMPLES, "level": LEVEL}, "task": {"metrics": metrics}}
        | config,
        metrics={"fingerprint": "x", "rows": rows},
        predictions=pa.concat_tables(tables),
        provenance={"finetune": config.get("told")},
    )
    write_json({"folder": folder.name, "reused": False, "seconds": {}}, study / "sweep" / f"{job}.json")
    return folder
