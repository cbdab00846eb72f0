"""What follows from the scores: the clinical evaluation, prompt variants, measures of leakage."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from patientdx.core.validation import Flag, Positive, at_least, number
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


def _crossed(value: Any) -> Any:
    listed = isinstance(value, list | tuple) and all(isinstance(pair, list | tuple) for pair in value)
    if not listed or any(len(pair) != 2 or len(set(pair)) != 2 for pair in value):
        raise ValueError("give pairs of different groupings, as in [[sex,race]]; [] for none.")
    return tuple(tuple(map(str, pair)) for pair in value)


Sensitivity = Annotated[float, number("give a fraction above 0, up to 1.", lambda value: 0 < value <= 1)]


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
    parent: Literal["base", "pivot"] = key("privacy", "parent", default="pivot")
    parent_file: str | None = key("privacy", "parent_file", default=None)

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


class ThresholdsConfig(Section):
    """How the threshold of alerts is chosen on pilot; both rules null: Youden's index. stays_per_day: scored a day."""

    loop: ClassVar[Loop] = Loop.SCORES

    target_sensitivity: Sensitivity | None = key("thresholds", "target_sensitivity")
    alerts_per_day: Positive | None = key("thresholds", "alerts_per_day")
    stays_per_day: Positive | None = key("thresholds", "stays_per_day")


class SubgroupsConfig(Section):
    """The smallest groups that results are shown for, and pairs of groupings that are crossed."""

    loop: ClassVar[Loop] = Loop.SCORES

    min_events: Annotated[int, at_least(0)] = key("subgroups", "min_events")
    min_rows: Annotated[int, at_least(1)] = key("subgroups", "min_rows")
    intersections: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_crossed)] = key("subgroups", "intersections")


class AnalysesConfig(Section):
    """Which analyses follow. Each leaves itself out where the task has not what it needs."""

    clinical: Flag = key("clinical", loop=Loop.SCORES)
    thresholds: ThresholdsConfig
    subgroups: SubgroupsConfig
    prompt_variants: Flag = model_key("prompt_variants", loop=Loop.SCORES)
    privacy: PrivacyConfig
