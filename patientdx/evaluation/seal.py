"""The seal of a result folder: `metrics.json`, written last, lists the SHA-256 of all that a run left beside it.

It shows damage and edits by hand, not forgery: whoever can write the folder can compute the seal again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.evaluation.store import read_json, write_json

METRICS = "metrics.json"
SCHEMA = 3  # of a result folder
_DATA = {".json", ".jsonl", ".csv", ".parquet", ".yaml"}  # endings of the files that hold results
_LATER = {METRICS, "tracked.json"}


def seal_folder(folder: Path, content: Mapping[str, Any]) -> None:
    """Write metrics.json with `content` (`fingerprint`, `rows`), the schema, the hashes of all other files, the seal.

    Pictures, tables as text, logs and the tracker's record are not covered: they repeat what these files hold, or serve
    no number, and are written later.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in _DATA and path.name not in _LATER)
    files = {path.name: sha256(path) for path in paths if path.is_file() and not path.name.startswith(".")}
    sealed = {"schema": SCHEMA, **content, "files": files}
    write_json(sealed | {"seal": _seal(sealed)}, folder / METRICS)


def read_sealed(folder: Path) -> dict[str, Any]:
    """The content of metrics.json; UserError where it, or a file that it lists, is not as the run left it."""
    metrics = read_json(folder / METRICS)
    errors = damages(folder, metrics)
    if metrics is None or errors:
        raise UserError(
            f"{folder} is not as its run left it: {'; '.join(errors)}. Run the command of that folder again, which "
            "computes what is missing from the stored responses, or restore the folder."
        )
    return metrics


def damages(folder: Path, metrics: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with a result folder whose metrics.json holds `metrics`; empty where nothing is."""
    if metrics is None:
        return [f"{METRICS} cannot be read"]
    content = {key: value for key, value in metrics.items() if key != "seal"}
    if metrics.get("schema") != SCHEMA and metrics.get("seal") == _seal(content):
        return [f"{METRICS} has schema {metrics.get('schema')}, and this version reads {SCHEMA}"]
    if metrics.get("seal") != _seal(content) or not isinstance(metrics.get("files"), dict):
        return [f"{METRICS} was changed"]
    files = metrics["files"].items()
    missing = [f"{name} is missing" for name, _ in files if not (folder / name).is_file()]
    return missing or [f"{name} was changed" for name, digest in files if sha256(folder / name) != digest]


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
