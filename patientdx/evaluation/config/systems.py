"""What a run scores: the merged model or a tabular one alone, the parents, tabular models and severity scores."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from pydantic import ValidationInfo, field_validator

from patientdx.core.functions import Call
from patientdx.core.paths import CONF
from patientdx.core.validation import ConfigErrors, Flag, Name
from patientdx.evaluation.config.section import MERGED, Loop, Section, group_name, key, model_key, to_call

# Beside a merged model where the config names none. The tuned ones are fitted some fifty times, so they are named.
BASELINES = ("tabular_gbm", "tabular_logistic", "sofa", "oasis", "news2")
ALL = "all"
_CARDS = CONF / "model"
_SEEDED = ("seed",)  # what the pipeline gives a tabular model beside its yaml


class SystemsConfig(Section):
    """What is scored. `model` is merged, or the name of a tabular model, which is then scored tabular.

    tabular: what makes that tabular model; None for a merged one. baselines: name and call of each tabular model to
    fit, `model` among them. needs_features: tabular models were named, so that a task without features is refused.
    parents: score the base and the pivot too.
    """

    model: Name = key("model", "name")
    tabular: Call | None = key("model")
    baselines: tuple[tuple[str, Call], ...] = key("baselines", loop=Loop.SCORES)
    needs_features: bool = key("baselines", loop=Loop.SCORES)
    parents: Flag = model_key("parents", loop=Loop.SCORES)

    @field_validator("tabular", mode="before")
    @classmethod
    def _check_tabular(cls, node: Any, info: ValidationInfo) -> Call | None:
        if info.data.get("model", MERGED) != MERGED:
            return to_call(node, ("name",), _SEEDED)
        keys = [name for name in node if name != "name"]
        if keys and "model" in info.data:
            raise ConfigErrors(f".{name}: model=merged takes no keys; those of the merge are merge's." for name in keys)
        return None

    @field_validator("baselines", mode="before")
    @classmethod
    def _check_baselines(cls, value: Any, info: ValidationInfo) -> Any:
        tabular = info.data.get("tabular")
        calls = {} if tabular is None else {info.data["model"]: tabular}
        if value is None:
            # Without a task nothing is fitted, and scikit-learn need not be loaded.
            scored = group_name((info.context or {}).get("plain", {}), "task") != "none"
            value = BASELINES if scored and info.data.get("model") == MERGED else ()
        known = sorted(path.stem for path in _CARDS.glob("*.yaml") if path.stem != MERGED)
        names = (known if value == ALL else [value]) if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or any(name not in known for name in names):
            raise ValueError(f"give a list of {', '.join(known)}, all, or [] for none.")
        for name in names:
            if name not in calls:
                node = OmegaConf.to_container(OmegaConf.load(_CARDS / f"{name}.yaml"))
                calls[name] = to_call(node, ("name",), _SEEDED, f"conf/model/{name}.yaml")
        return tuple(calls.items())

    @field_validator("needs_features", mode="before")
    @classmethod
    def _check_needs_features(cls, value: Any, info: ValidationInfo) -> bool:
        return value is not None or info.data.get("model") != MERGED
