"""Tasks as their yaml in conf/task configures them, for the tests of tasks."""

import functools
import json
from pathlib import Path
from typing import Any

from command_line import composed
from omegaconf import OmegaConf

from patientdx.core.functions import dotted
from patientdx.records.cohort import Outcome
from patientdx.tasks.example import TaskData
from patientdx.tasks.outcomes import OUTCOMES

CONF = Path(__file__).parents[1] / "conf"
NAMES = sorted(path.stem for path in (CONF / "task").glob("*.yaml") if path.stem[0] != "_" and path.stem != "none")


@functools.cache
def _composed(name: str) -> str:
    config = OmegaConf.to_container(composed(f"task={name}"), resolve=True)
    return json.dumps(config["task"])


def node(name: str) -> dict[str, Any]:
    """The composed yaml of a task."""
    return json.loads(_composed(name))


def task(name: str, **keys: Any) -> Any:
    """The configured task with other values of some keys."""
    config = node(name)
    target = dotted(config.pop("_target_"))
    for key in ("name", "kind", "metrics"):
        config.pop(key)
    return target(**config | keys)


def load(name: str, **keys: Any) -> TaskData:
    """The loaded task with other values of some keys."""
    return task(name, **keys).load()


def outcome(name: str, **keys: Any) -> Outcome:
    """The SQL of a clinical outcome, with safe switches."""
    entry = OUTCOMES[name]
    defaults = {"death": "deathtime", "diagnoses": "none", "window_hours": 24, "gap_hours": 0}
    return entry.define(defaults | dict(entry.parameters) | keys)[0]
