"""How a run is asked to find λ: the `search` group of the config."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patientdx.core.functions import Call, checked
from patientdx.evaluation.config import checks
from patientdx.merge.method import method_spec

FIXED = "fixed"
SUPPLIED = ("pilot", "seed")  # what a strategy may name beside its own numbers
CHOSEN_ON = "pilot"


@dataclass(frozen=True)
class SearchConfig:
    """A strategy with its numbers; where λ of the merge method may lie; and what was found, once it is."""

    name: str
    call: Call
    low: float
    high: float
    record: dict[str, Any] | None = None

    @property
    def releases_scores(self) -> bool:
        """Whether what the pilot patients' scores say may be told beside the choice."""
        return getattr(sys.modules[self.call.function.__module__], "RELEASES_SCORES", True)

    @property
    def seeded(self) -> bool:
        """Whether the strategy is given the run's seed."""
        return "seed" in inspect.signature(self.call.function).parameters


def request(
    config: Mapping[str, Any], merge: Call, splits: Sequence[str], overrides: Sequence[str], errors: list[str]
) -> SearchConfig | None:
    """The search of a whole config as plain values, None for a λ as given; what is wrong with it goes to `faults`.

    merge: the method whose λ is searched; splits: what is scored for the report; overrides: what the command says.
    """
    node = dict(config.get("search") or {"name": FIXED})
    name = checks.given(node, "search", "name", errors)
    if name in (None, FIXED):
        errors += [f"search.{key}: search=fixed takes λ as given, and no numbers." for key in node]
        return None
    call = checked(node, "search", SUPPLIED, errors)
    errors += _beside(name, config, splits, overrides)
    if not call.target or not merge.target:
        return None
    low, high = method_spec(merge.function).lambda_range or (None, None)
    if low is None:
        errors.append(
            f"search={name}: merge={merge.function.__name__} has no λ to search. Use search=fixed, or a method that "
            "has one (merge=slerp, linear)."
        )
        return None
    found = SearchConfig(name, call, low, high)
    if not any(fault.startswith("search.") for fault in errors):  # every number is there, and of its type
        errors += sys.modules[call.function.__module__].check(low, high, merge, **call.keywords)
    if not found.releases_scores and CHOSEN_ON in splits:
        errors.append(
            f"splits={list(splits)}: search={name} keeps the pilot patients' scores to itself, and numbers of the "
            "pilot split would tell them. Leave splits out, or give it without pilot."
        )
    return found


def _beside(name: str, config: Mapping[str, Any], splits: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """What in the rest of the config speaks against a search."""
    asked, found = f"search={name}", []
    if any(one.lstrip("+~").partition("=")[0] == "lambda" for one in overrides):
        found.append(f"{asked} finds λ, and the command gives lambda as well. Leave lambda out, or use search=fixed.")
    if config["mergekit_config"] is not None:
        found.append(
            f"{asked} finds λ, and a mergekit recipe gives it. Leave mergekit_config out, or use search=fixed."
        )
    if splits and splits[-1] == CHOSEN_ON:
        found.append(
            f"splits={list(splits)}: {asked} chooses λ on pilot, and the best of several noisy numbers is too good to "
            "be reported. Put another split last, as in splits=[pilot,test]."
        )
    if config["task"].get("name") == "none":
        found.append(f"{asked} chooses λ by scores, and task=none has none. Choose a task, or use search=fixed.")
    elif not config["task"].get("metrics"):
        found.append(f"{asked} chooses λ by the task's first metric, and task.metrics names none. Name one there.")
    if config["model"].get("name") != "merged":
        found.append(f"{asked}: model={config['model'].get('name')} has no λ. Use model=merged, or search=fixed.")
    if config["save"] is not None or config["dry_run"]:
        found.append(
            f"{asked}: save and dry_run are about one λ, which is not known yet. Search first, then give what was "
            "found: search=fixed lambda=<it> save=<folder>."
        )
    return found
