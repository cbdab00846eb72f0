"""The predictions of a finished run in the schema that MEDS' evaluation reads.

    python -m patientdx.cli predictions FOLDER RESULT [role=merged] [split=held_out]

RESULT is a result folder, or a study with one. FOLDER/predictions.parquet then has subject_id, prediction_time,
boolean_value, predicted_boolean_value and predicted_boolean_probability of one system (role: merged, base, pivot,
tabular_gbm, …) on one split (held_out or test, tuning or pilot). predicted_boolean_value is by the threshold that was
chosen on pilot, and empty where pilot was not scored.

The task is read again, since a result folder holds no id: the data must be what they were. The file holds ids and dates
of patients; keep it where the tables themselves may be kept.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from patientdx.cli.ending import ended
from patientdx.cli.messages import argument_parser, print_output
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.evaluation.config.task import TaskConfig
from patientdx.evaluation.seal import METRICS, read_sealed
from patientdx.evaluation.store import hashed, read_json
from patientdx.reporting.runs import Run
from patientdx.tasks.example import TaskData
from patientdx.tasks.meds_labels import SPLITS, labelled, write_tables

FILE = "predictions.parquet"
_DEFAULTS = {"role": "merged", "split": SPLITS["test"]}


def predictions(folder: Path, result: Path, role: str, split: str) -> list[str]:
    """Write the file; what there is to say of it, line by line.

    Raises UserError for a folder that holds no finished run, data that have changed, and a role or split that was not
    scored.
    """
    run = _run_folder(result)
    read_sealed(run)
    config = Run(run).config
    task = TaskConfig.model_validate(config, context={"plain": config})
    data = task.call().load()
    if ((read_json(run / "provenance.json") or {}).get("task") or {}).get("fingerprint") != data.fingerprint:
        raise UserError(f"{run}: its data are no longer what they were, so no prediction can be assigned to them.")
    name = {meds: ours for ours, meds in SPLITS.items()}.get(split, split)
    if name not in SPLITS:
        raise UserError(f"split={split}: it is one of {', '.join((*SPLITS.values(), *SPLITS))}.")
    threshold = _threshold(run, role)
    table = _table(pq.read_table(run / FILE), data, task.cache, role, name, threshold)
    (path,) = write_tables({FILE: table}, folder, open_data=data.open_data)
    terms = "open" if data.open_data else "credentialed: keep this file where the tables themselves may be kept"
    return [f"written: {path}", f"{len(table)} predictions of {role} on {split}. The data is {terms}."]


def _table(scored: pa.Table, data: TaskData, cache: Path, role: str, split: str, threshold: float | None) -> pa.Table:
    """The predictions of one role and split, in the order of the examples."""
    if "probability" not in scored.column_names:
        raise UserError(f"task={data.name} predicts no outcome; MEDS' schema here is that of yes/no tasks.")
    rows = [row for row in scored.to_pylist() if (row["role"], row["split"]) == (role, split)]
    if not rows:
        known = sorted({f"{row['role']} on {row['split']}" for row in scored.to_pylist()})
        raise UserError(f"{role} was not scored on {split}; there are {', '.join(known)}.")
    numbers = [number for number, example in enumerate(data.examples) if example.split == split]
    ids = hashed([data.examples[number].uid for number in numbers], open_data=data.open_data, cache=cache)
    of = {row["id"]: row["probability"] for row in rows}
    if set(ids) != set(of):
        raise UserError(
            "the ids of the predictions are not those of the examples here: they were hashed with the secret of "
            "another cache. Set PATIENTDX_CACHE to the cache of the run."
        )
    probability = [of[key] for key in ids]
    sure = [None if threshold is None else value >= threshold for value in probability]
    table = labelled(data, numbers)
    table = table.append_column("predicted_boolean_value", pa.array(sure, pa.bool_()))
    return table.append_column("predicted_boolean_probability", pa.array(probability, pa.float64()))


def _run_folder(path: Path) -> Path:
    """The result folder at a path, or the only one below it."""
    path = expanded(path)
    runs = [path] if (path / METRICS).is_file() else sorted(file.parent for file in path.glob(f"*/{METRICS}"))
    if len(runs) != 1:
        raise UserError(f"{path} holds {len(runs)} finished runs: name the result folder of one.")
    return runs[0]


def _threshold(run: Path, role: str) -> float | None:
    clinical: Mapping[str, Any] = read_json(run / "clinical.json") or {}
    return clinical.get("models", {}).get(role, {}).get("threshold", {}).get("value")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 where it is refused."""
    parser = argument_parser("predictions", __doc__)
    parser.add_argument("folder", type=Path, help="where to write; made where it is not there")
    parser.add_argument("result", type=Path, help="the result folder of a run, or a study with one run")
    parser.add_argument("words", nargs="*", metavar="word", help="role=<role>, split=<split>")
    args = parser.parse_args(argv)

    def output() -> str:
        words = {name: value for name, _, value in (word.partition("=") for word in args.words)}
        if unknown := sorted(set(words) - set(_DEFAULTS)):
            raise UserError(f"{', '.join(unknown)}: predictions takes role=<role> and split=<split>.")
        return "\n".join(predictions(args.folder, args.result, **_DEFAULTS | words)) + "\n"

    return print_output(output)


if __name__ == "__main__":
    sys.exit(ended(main))
