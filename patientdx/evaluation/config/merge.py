"""The merged model: parents, their ancestor, method and λ; and where it is written."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Annotated, Any, Literal, cast

from omegaconf import OmegaConf
from pydantic import BeforeValidator, ValidationInfo, field_validator, model_validator

from patientdx.checkpoints.merge_plan import SUPPLIED
from patientdx.checkpoints.source import UNKNOWN, ModelSource, licence_of, name_of
from patientdx.core.errors import UserError
from patientdx.core.functions import Call, argument_errors, dotted
from patientdx.core.paths import CONF, expanded, plain_name
from patientdx.core.regular_files import is_regular
from patientdx.core.validation import ConfigErrors, Flag, Folder, Name, at_least
from patientdx.evaluation.config.section import MERGED, Loop, Section, as_call, group_name, key, model_key
from patientdx.merge.method import method_spec
from patientdx.merge.schedule import Schedule, schedule, values

MODELS = CONF / "models"
DType = Literal["bfloat16", "float16", "float32"]


def _model(node: Any, info: ValidationInfo | None) -> ModelSource:
    if isinstance(node, ModelSource):
        return node
    if not isinstance(node, dict):
        raise ValueError("give what a yaml of conf/models holds.")
    errors = list(argument_errors(ModelSource, node, ""))
    for name in ("source", "adapter", "revision", "gguf"):
        if isinstance(value := node.get(name), str) and (not value.strip() or "\0" in value):
            errors.append(f".{name}={value}: give a name that is not empty, or null.")
    try:
        plain_name(node.get("name") or "missing")  # a name that is missing has its error already
    except UserError as error:
        errors.append(f".name={node.get('name')}: {error}")
    if errors:
        raise ConfigErrors(errors)
    model = ModelSource(**node)
    card = MODELS / f"{model.name}.yaml"
    described = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(card))) if is_regular(card) else {}
    return _as_stated(model, described, "model" if info is None else info.field_name or "model")


def _as_stated(model: ModelSource, described: Mapping[str, Any], role: str) -> ModelSource:
    """The model, with name and licence as its own folder states them, where its yaml describes other weights."""
    source = described.get("source")
    if source is None or "${" in source or (source, described.get("adapter")) == (model.source, model.adapter):
        return model  # the yaml's own weights, or such as the user must supply, or the config fills in
    # The yaml's adapter on other weights states nothing of what the two make together.
    adapter = None if model.adapter == described.get("adapter") else model.adapter
    name = "" if model.adapter is not None and adapter is None else name_of(str(adapter or model.source))
    licence = licence_of(expanded(str(adapter or model.source)))
    if model.source == source and model.adapter is None:  # the yaml's weights without its adapter
        licence = model.licence
    return replace(model, name=name or f"{UNKNOWN}{role}", licence=licence)


def _further(nodes: Any) -> Any:
    if not isinstance(nodes, list | tuple):
        raise ValueError("give a list of folders or hub ids, as in extra_models=[/models/third].")
    return [
        {"name": expanded(node).resolve().name, "source": node} if isinstance(node, str) else node for node in nodes
    ]


Model = Annotated[ModelSource, BeforeValidator(_model)]


@dataclass(frozen=True)
class MergeSpec:
    """What a curve is made of, as a key: parents (base first), method, their common ancestor, vocabulary, seed.

    layers: how many the parents must have, where a mergekit recipe counts them. config_from: base or pivot, the parent
    whose configuration the model has; None where the parents' configurations must compute alike.
    """

    models: tuple[ModelSource, ...]
    call: Call
    ancestor: ModelSource | None = None
    tokenizer: str | None = None
    seed: int = 0
    layers: int | None = None
    config_from: str | None = None


class MergeConfig(Section):
    """The merged model. weight: λ, None for a method without.

    ancestor: of the parents, in a method that works on differences from it; from the config, or the one that the
    parents' yamls name. layers, config_from: as in `MergeSpec`. mergekit_config: the recipe that the commands
    have read.
    """

    name: Name = model_key("merge", "name", loop=Loop.CURVE)
    call: Annotated[Call, as_call("name", supplied=SUPPLIED)] = model_key("merge", loop=Loop.CURVE)
    base: Model = model_key("base_model", loop=Loop.LOAD)
    pivot: Model = model_key("pivot_model", loop=Loop.LOAD)
    extra: Annotated[tuple[Model, ...], BeforeValidator(_further)] = model_key("extra_models", loop=Loop.LOAD)
    ancestor: Model | None = model_key("ancestor", default=None, validate_default=True)
    tokenizer: Literal["base", "pivot", "union", None] = model_key("tokenizer", loop=Loop.LOAD)
    config_from: Literal["base", "pivot", None] = model_key("config_from", loop=Loop.LOAD, default=None)
    seed: Annotated[int, at_least(0)] = key("seed")
    layers: int | None = model_key("layers", default=None)
    mergekit_config: str | None = model_key("mergekit_config", loop=Loop.LOAD, default=None)
    weight: Schedule | None = model_key("lambda", loop=Loop.WEIGHT)

    @classmethod
    def is_absent(cls, plain: Mapping[str, Any]) -> bool:
        """Whether this configuration has no such section."""
        return group_name(plain, "model") != MERGED

    @property
    def spec(self) -> MergeSpec:
        """The key of the curve."""
        models = (self.base, self.pivot, *self.extra)
        return MergeSpec(models, self.call, self.ancestor, self.tokenizer, self.seed, self.layers, self.config_from)

    @field_validator("ancestor", mode="before")
    @classmethod
    def _check_ancestor(cls, value: Any, info: ValidationInfo) -> Any:
        valid = info.data
        if not {"name", "call", "base", "pivot", "extra"} <= valid.keys():
            return None  # the error is elsewhere
        parameter = inspect.signature(valid["call"].function).parameters.get("ancestor")
        if parameter is None or value is not None:
            return None if parameter is None else value
        models = (valid["base"], valid["pivot"], *valid["extra"])
        nodes = info.context["plain"] if info.context else {}
        yamls = [(nodes.get(key) or {}).get("name") for key in ("base_model", "pivot_model")]
        ancestor = _common_ancestor(models, yamls)
        if ancestor is None and parameter.default is inspect.Parameter.empty:
            names = ", ".join(f"{model.name}: {model.ancestor or 'unknown'}" for model in models)
            raise ConfigErrors([
                f"merge={valid['name']} works on differences from the parents' common ancestor, and they name no "
                f"common one ({names}): set base_model@ancestor=<its yaml>, or use a method without one (merge=slerp, "
                "linear)."
            ])  # fmt: skip
        return ancestor

    @field_validator("weight", mode="plain")
    @classmethod
    def _check_weight(cls, value: Any, info: ValidationInfo) -> Schedule | None:
        method = info.context["plain"]["merge"] if info.context else {}
        try:  # other arguments of the method may have errors: its range does not depend on them
            allowed = method_spec(dotted(method["_target_"])).lambda_range
        except (UserError, KeyError):
            return None
        if allowed is None:
            if value is not None:
                raise ConfigErrors([
                    f"={value}: merge={method.get('name')} has no λ. Leave lambda out, or use a method that has one "
                    "(merge=slerp, linear)."
                ])  # fmt: skip
            return None
        return _schedule(value, *allowed)

    @model_validator(mode="after")
    def _check_recipe(self) -> MergeConfig:
        if self.mergekit_config is not None and "layers" not in self.model_fields_set:
            raise ConfigErrors([
                f"mergekit_config={self.mergekit_config} was not read. Give it to a command that reads recipes: "
                "run.py, or python -m patientdx.cli compare."
            ])  # fmt: skip
        return self


class SaveConfig(Section):
    """Where the merged model is written (`folder`, None: nowhere), and how.

    dtype: of the stored weights, None for that of the base's files. patients: write it even if a parent was trained on
    patients' records. dry_run: only report what a merge would read, write and need.
    """

    folder: Folder | None = model_key("save")
    dtype: DType | None = model_key("save_dtype")
    patients: Flag = model_key("save_patients")
    dry_run: Flag = model_key("dry_run")


def _common_ancestor(models: Sequence[ModelSource], yamls: Sequence[str | None]) -> ModelSource | None:
    """The ancestor that all models name; one that names none may itself be that of the others.

    yamls: what the yamls of base and pivot are called, whatever name the weights have that a user gives for them.
    """
    names = {model.ancestor for model in models} - {None}
    called = [{model.name, yaml} for model, yaml in zip_longest(models, yamls)]
    if len(names) != 1 or not all(
        model.ancestor in names or words & names for model, words in zip(models, called, strict=True)
    ):
        return None
    (name,) = names
    card = MODELS / f"{name}.yaml"
    among = [model for model, words in zip(models, called, strict=True) if name in words]
    if among or not is_regular(card):
        return among[0] if among else None
    return _model(OmegaConf.to_container(OmegaConf.load(card)), None)


def _schedule(value: Any, low: float, high: float) -> Schedule:
    """λ as `merge.schedule` has it. Raises ConfigErrors for what is no number from `low` to `high`."""
    bounded = math.isfinite(high)
    ends = f"from {low:g} (base) to {high:g} (pivot)" if bounded else f"of at least {low:g}"
    try:
        weight = schedule(value)
    except ValueError:
        hint = " To sweep, add -m and write lambda=0.1,0.2,0.4." if isinstance(value, list) else ""
        if isinstance(value, str) and value.count(":") in (1, 2):
            hint = " For a range add -m and write 'lambda=range(0.1,0.51,0.1)': first, end, step; the end is left out."
        raise ConfigErrors([f"={value} is not a number. Give one {ends}.{hint}"]) from None
    errors = []
    for number in values(weight):
        if not math.isfinite(number):
            errors.append(f"={value} is not a number. Give one {ends}.")
        elif not low <= number <= high:
            meaning = ": 0 is the base model and 1 the pivot model" if bounded else ""
            errors.append(f"={number:g} is outside [{low:g}, {high:g}]{meaning}.")
    if errors:
        raise ConfigErrors(errors)
    return weight
