"""Where a run is recorded: conf/tracking."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, model_validator

from patientdx.core import extras
from patientdx.core.validation import ConfigErrors
from patientdx.evaluation.config.section import Loop, Section, key

_NOT_IN_A_PROJECT = re.compile(r"[/\\#?%:\x00-\x1f]")


def _project(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 128 or _NOT_IN_A_PROJECT.search(value):
        raise ValueError("it cannot be a project's name. Give 1 to 128 characters without / \\ # ? % :")
    return value


def _tags(value: Any) -> tuple[str, ...]:
    tags = [value] if isinstance(value, str | int | float) else value or ()
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str | int | float) for tag in tags):
        raise ValueError("give a list of words, as in tracking.tags=[first,second].")
    words = tuple(map(str, tags))
    if not all(word.strip() for word in words):
        raise ValueError("a tag is empty, and W&B takes none. Leave it out, or give a word.")
    return words


class TrackingConfig(Section):
    """Which tracker records the run.

    predictions: whether the scores of single examples, under hashed ids, go into a run of W&B: `open` if the data are,
    `always`, `never`. Label and score of a patient are data about that patient whatever the id is.
    """

    loop: ClassVar[Loop] = Loop.SCORES

    mode: Literal["offline", "online", "trackio", "none"] = key("tracking", "mode", default="offline")
    project: Annotated[str, BeforeValidator(_project)] = key("tracking", "project", default="patientdx")
    entity: str | None = key("tracking", "entity", default=None)
    tags: Annotated[tuple[str, ...], BeforeValidator(_tags)] = key("tracking", "tags", default=())
    predictions: Literal["open", "always", "never"] = key("tracking", "predictions", default="open")

    @model_validator(mode="after")
    def _check_installed(self) -> TrackingConfig:
        if self.mode == "trackio" and (absent := extras.absence(["trackio"])):
            raise ConfigErrors([f"tracking=trackio needs {absent} Or use tracking=wandb_offline or tracking=none."])
        return self
