"""Result folders as a run leaves them, from made-up contents."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from patientdx.evaluation.seal import METRICS, seal_folder
from patientdx.evaluation.store import write_json, write_parquet, write_text


def write_run(
    folder: Path, *, config: Mapping[str, Any], metrics: Mapping[str, Any], predictions: pa.Table,
    provenance: Mapping[str, Any], **analyses: Mapping[str, Any],
) -> None:  # fmt: skip
    """One result folder; `analyses` by name, a file each."""
    write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), folder / "config.yaml")
    write_parquet(predictions, folder / "predictions.parquet")
    write_json(dict(provenance), folder / "provenance.json")
    for name, content in analyses.items():
        write_json(content, folder / f"{name}.json")
    reseal(folder, metrics)


def reseal(folder: Path, metrics: Mapping[str, Any] | None = None) -> None:
    """Seal the folder as a run does, after a change that is meant; `metrics` are fingerprint and rows, by default those
    that are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = json.loads((folder / METRICS).read_text(encoding="utf-8")) if metrics is None else metrics
    seal_folder(folder, {key: content[key] for key in ("fingerprint", "rows") if key in content})
