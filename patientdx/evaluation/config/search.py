"""How λ is searched: conf/search."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import model_validator

from patientdx.checkpoints.merge_plan import SUPPLIED
from patientdx.core.functions import Call
from patientdx.core.validation import ConfigErrors
from patientdx.evaluation.config.section import Loop, Section, as_call, group_name, model_key
from patientdx.merge.method import method_spec

FIXED = "fixed"
PRIVATE = "private"  # does not publish the scores of the pilot patients
CHOSEN_ON = "pilot"


class SearchConfig(Section):
    """A strategy with its numbers, and the merge method whose λ it chooses."""

    name: str = model_key("search", "name", loop=Loop.SCORES)
    call: Annotated[Call, as_call("name", supplied=("pilot", "seed"))] = model_key("search", loop=Loop.SCORES)
    merge: Annotated[Call, as_call("name", supplied=SUPPLIED)] = model_key("merge", loop=Loop.CURVE)

    @classmethod
    def is_absent(cls, plain: Mapping[str, Any]) -> bool:
        """Whether this configuration has no such section."""
        return group_name(plain, "search") == FIXED

    @property
    def low(self) -> float:
        """The least λ of the merge method."""
        return self._range[0]

    @property
    def high(self) -> float:
        """The largest λ of the merge method."""
        return self._range[1]

    @property
    def releases_scores(self) -> bool:
        """Whether the scores of the pilot patients may be published beside the choice."""
        return getattr(sys.modules[self.call.function.__module__], "RELEASES_SCORES", True)

    @property
    def seeded(self) -> bool:
        """Whether the strategy takes the run's seed."""
        return "seed" in inspect.signature(self.call.function).parameters

    @property
    def _range(self) -> tuple[float, float]:
        return method_spec(self.merge.function).lambda_range or (0.0, 0.0)

    @model_validator(mode="after")
    def _check_numbers(self) -> SearchConfig:
        method = self.merge.function
        if method_spec(method).lambda_range is None:
            raise ConfigErrors([
                f"search={self.name}: merge={method.__name__} has no λ to search. Use search=fixed, or a method "
                "that has one (merge=slerp, linear)."
            ])  # fmt: skip
        module = sys.modules[self.call.function.__module__]
        if errors := module.check(self.low, self.high, self.merge, **self.call.keywords):
            raise ConfigErrors(errors)
        return self
