"""Whose weights some are: what was hashed here under its public name, so that no folder passes for another model."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from patientdx.checkpoints.identity import Source, weights_hash
from patientdx.checkpoints.lora import AdaptedCheckpoint
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import UNKNOWN, ModelSource, is_local
from patientdx.core.cache import write_json
from patientdx.core.errors import UserError

FOLDER = "known_models"  # of the cache
_log = logging.getLogger(__name__)


def check_name(model: ModelSource, source: Source, cache: Path) -> None:
    """UserError where a local folder holds weights that are known as a model of another name.

    Known are the weights of every model from a hub or a wheel that was checked here before: each check of one remembers
    it in the cache, where that can be written. A model without a name of its own ("unknown_base") claims nothing, and
    may be any. Reads the weights unless their hash is in the cache. source: the opened model; with another vocabulary
    it is not checked, because its weights are then others than the model's.
    """
    if not isinstance(source, Checkpoint | AdaptedCheckpoint):
        return
    digest = weights_hash(source, cache)
    file = cache / FOLDER / f"{digest}.json"
    known = _read(file)
    if not (is_local(model.source) or is_local(model.adapter)):
        entry = {"name": model.name, "source": model.source, "adapter": model.adapter, "revision": model.revision}
        if entry not in known:
            with suppress(UserError, OSError):  # a cache that cannot be written serves all the same
                write_json(file, {"models": [*known, entry], "seal": _seal(digest, [*known, entry])})
        return
    names = dict.fromkeys(entry["name"] for entry in known)
    if known and model.name not in names and not model.name.startswith(UNKNOWN):
        raise UserError(
            f"{model.name} ({model.adapter or model.source}) holds the weights of {' or '.join(names)}, as "
            f"{known[0]['adapter'] or known[0]['source']} has them. A model has one name and one licence: set its name "
            f"to {known[0]['name']}, choose that model itself, or give the folder that holds {model.name}."
        )


def _read(file: Path) -> list[dict[str, Any]]:
    """The entries of a file; none where it is absent or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["seal"] == _seal(file.stem, content["models"]):
            return content["models"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    _log.warning("%s is damaged and is not believed", file.name)
    return []


def _seal(digest: str, models: list[dict[str, Any]]) -> str:
    """What a damaged file does not reproduce."""
    return hashlib.sha256(f"{digest} {json.dumps(models, sort_keys=True)}".encode()).hexdigest()
