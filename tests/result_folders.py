"""Result folders as a run leaves them, from made-up contents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

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
    write_json({"schema": 2} | dict(metrics), folder / "metrics.json")
