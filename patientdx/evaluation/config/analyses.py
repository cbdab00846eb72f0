"""What follows from the scores: the clinical evaluation, prompt variants, measures of leakage."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from patientdx.core.validation import Flag, at_least
from patientdx.evaluation.config.section import Loop, Section, key, model_key

_MEASURES = {"none": (), "dlt": ("dlt",), "mia": ("mia",), "all": ("dlt", "mia")}


def _percentage(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise ValueError("Min-K% takes a percentage above 0, up to 100.")
    return value


def _shadows(value: Any) -> Any:
    if type(value) is int and 0 < value < 4:
        raise ValueError("LiRA needs at least 4 shadow models, or 0 to leave it out.")
    return value


def _copies(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(type(number) is int and number >= 1 for number in value):
        raise ValueError("give numbers of copies of at least 1, as in [1,4,16]; [] for none.")
    return tuple(value)


class PrivacyConfig(Section):
    """Which measures of leakage are taken, with the keys of conf/privacy/*.yaml as all.yaml explains them."""

    loop: ClassVar[Loop] = Loop.SCORES

    name: Literal["none", "dlt", "mia", "all"] = key("privacy", "name", default="none")
    reference: Literal["fresh", "resampled", None] = key("privacy", "reference", default=None)
    k: Annotated[int | float, BeforeValidator(_percentage)] = key("privacy", "k", default=20.0)
    recall: Annotated[int, at_least(0)] = key("privacy", "recall", default=1)
    neighbours: Annotated[int, at_least(0)] = key("privacy", "neighbours", default=0)
    shadows: Annotated[int, BeforeValidator(_shadows), at_least(0)] = key("privacy", "shadows", default=0)
    canaries: Annotated[tuple[int, ...], BeforeValidator(_copies)] = key("privacy", "canaries", default=())
    canaries_each: Annotated[int, at_least(1)] = key("privacy", "canaries_each", default=4)
    candidates: Annotated[int, at_least(1)] = key("privacy", "candidates", default=255)
    extraction: Annotated[int, at_least(0)] = key("privacy", "extraction", default=0)

    @property
    def enabled(self) -> bool:
        """Whether any measure is taken."""
        return bool(_MEASURES[self.name])

    @property
    def dlt(self) -> bool:
        """Whether the leakage test is run."""
        return "dlt" in _MEASURES[self.name]

    @property
    def mia(self) -> bool:
        """Whether membership inference is run."""
        return "mia" in _MEASURES[self.name]


class AnalysesConfig(Section):
    """Which analyses follow. Each leaves itself out where the task has not what it needs."""

    clinical: Flag = key("clinical", loop=Loop.SCORES)
    prompt_variants: Flag = model_key("prompt_variants", loop=Loop.SCORES)
    privacy: PrivacyConfig
