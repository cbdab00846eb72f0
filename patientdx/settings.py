"""The typed view of the composed config: checked as a whole, before a byte of weights is read.

The only place that spells `cfg["lambda"]`: below here it is `weight`, the position on the curve.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import sys
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from patientdx.call import Call, dotted, fits, words
from patientdx.checkpoint.locate import REPOSITORY, ModelSource
from patientdx.checkpoint.recipe import SUPPLIED
from patientdx.merge.schedule import Schedule, schedule, values
from patientdx.mergekit_config.recipe import read_recipe
from patientdx.refusal import Refusal

log = logging.getLogger(__name__)

DTYPES = ("bfloat16", "float16", "float32")
SPLITS = ("train", "pilot", "test")
KINDS = ("choice",)
TOKENIZERS = (None, "base", "pivot", "union")
_SECTIONS = ("base_model", "pivot_model", "merge", "task", "scoring", "bootstrap", "tracking")


@dataclass(frozen=True)
class Ingredients:
    """What a curve is made of, as a key: parents (base first), their common ancestor, method, vocabulary, seed.

    layers: how many the parents must have, where a recipe counts them.
    """

    models: tuple[ModelSource, ...]
    merge: Call
    ancestor: ModelSource | None = None
    tokenizer: str | None = None
    seed: int = 0
    layers: int | None = None


@dataclass(frozen=True)
class Settings:
    """One run. `weight` is λ, None for a method without; `composed` is the resolved config, for the record.

    `save` is the folder that the merged model is written to; without a task (`task_name` is None) nothing is scored.
    """

    name: str
    seed: int
    weight: Schedule | None
    base: ModelSource
    pivot: ModelSource
    extra: tuple[ModelSource, ...]
    ancestor: ModelSource | None
    tokenizer: str | None
    layers: int | None
    merge_name: str
    merge: Call
    save: Path | None
    save_dtype: str | None
    dry_run: bool
    task_name: str | None
    kind: str | None
    task: Call | None
    metrics: tuple[tuple[str, str], ...]
    parents: bool
    splits: tuple[str, ...]
    device: str
    device_map: str | None
    dtype: str
    max_tokens: int
    batch_tokens: int | None
    resamples: int
    level: float
    output: Path
    cache: Path
    tracking: dict[str, Any]
    composed: dict[str, Any]

    @property
    def ingredients(self) -> Ingredients:
        """What the merged model's curve is made of."""
        models = (self.base, self.pivot, *self.extra)
        return Ingredients(models, self.merge, self.ancestor, self.tokenizer, self.seed, self.layers)


def parse(cfg: DictConfig, *, sweep: bool = False) -> Settings:
    """Settings of a composed config; one Refusal listing every fault found.

    sweep: the run is one of several, among which λ is chosen, so that pilot is scored beside test.
    """
    faults: list[str] = []
    plain, layers = _composed(cfg)
    merge, scoring, bootstrap = (dict(plain[key]) for key in ("merge", "scoring", "bootstrap"))
    task = dict(plain["task"]) if plain["task"].get("name") != "none" else {}
    metrics = task.pop("metrics", None) or {}
    names = {"merge": _given(merge, "merge", "name", faults)}
    if task:
        names["task"] = _given(task, "task", "name", faults)
    elif plain["save"] is None and not plain["dry_run"]:
        faults.append("task=none leaves nothing to do: choose a task, or add save=<folder> or dry_run=true.")
    # The cache is one place for all that a run keeps: a task gets it spelled out.
    cache = _path(plain["cache"], "cache", faults)
    if "cache" in task:
        task["cache"] = str(cache)
    base = _model(plain["base_model"], "base_model", faults)
    pivot = _model(plain["pivot_model"], "pivot_model", faults)
    extra = _extra(plain["extra_models"], faults)
    call = _call(merge, "merge", SUPPLIED, faults)
    settings = Settings(
        name=str(plain["name"]),
        seed=_whole(plain["seed"], "seed", 0, faults),
        weight=_weight(plain["lambda"], names["merge"], call, faults),
        base=base,
        pivot=pivot,
        extra=extra,
        ancestor=_ancestor(plain.get("ancestor"), (base, pivot, *extra), call, names["merge"], faults),
        tokenizer=_one_of(plain["tokenizer"], "tokenizer", TOKENIZERS, faults),
        layers=layers,
        merge_name=names["merge"],
        merge=call,
        save=None if plain["save"] is None else _path(plain["save"], "save", faults),
        save_dtype=_one_of(plain["save_dtype"], "save_dtype", (None, *DTYPES), faults),
        dry_run=_yes_no(plain["dry_run"], "dry_run", faults),
        task_name=names.get("task"),
        kind=_one_of(task.pop("kind", None), "task.kind", KINDS, faults) if task else None,
        task=_call(task, "task", (), faults) if task else None,
        metrics=tuple((label, _metric(label, target, faults)) for label, target in metrics.items()),
        parents=_yes_no(plain["parents"], "parents", faults),
        splits=_splits(plain["splits"], sweep, faults),
        device=_one_of(plain["device"], "device", ("auto", "cpu"), faults),
        device_map=plain["device_map"],
        dtype=_one_of(plain["dtype"], "dtype", DTYPES, faults),
        max_tokens=_whole(scoring["max_tokens"], "scoring.max_tokens", 16, faults),
        batch_tokens=_whole(scoring["batch_tokens"], "scoring.batch_tokens", 1, faults, null=True),
        resamples=_whole(bootstrap["resamples"], "bootstrap.resamples", 100, faults),
        level=_between(bootstrap["level"], "bootstrap.level", faults),
        output=_path(plain["output"], "output", faults),
        cache=cache,
        tracking=dict(plain["tracking"]),
        composed=plain,
    )
    if faults:
        count = "1 problem" if len(faults) == 1 else f"{len(faults)} problems"
        raise Refusal(f"{count} in this configuration\n" + "\n".join(f"  {fault}" for fault in faults))
    return settings


def _composed(cfg: DictConfig) -> tuple[dict[str, Any], int | None]:
    """The config as plain values, a mergekit recipe in it already read; and how many layers that recipe counts."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise Refusal(f"this configuration cannot be resolved: {str(error).splitlines()[0]}") from None
    absent = [name for name in _SECTIONS if not isinstance(plain.get(name), dict)]
    if absent:
        raise Refusal(f"this configuration has no {', '.join(absent)}: choose one, as in merge=slerp.")
    if plain["mergekit_config"] is None:
        return plain, None
    found = read_recipe(Path(str(plain["mergekit_config"])).expanduser())
    for note in found.notes:
        log.info("%s: %s", plain["mergekit_config"], note)
    return plain | found.config(), found.layers


def _call(node: dict[str, Any], where: str, supplied: tuple[str, ...], faults: list[str]) -> Call:
    target = _given(node, where, "_target_", faults)
    if target is None:
        return Call("", "{}")
    try:
        function = dotted(target)
    except Refusal as fault:
        faults.append(f"{where}._target_: {fault}")
        return Call("", "{}")
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    known = [name for name in parameters if name not in supplied]
    for name, value in node.items():
        if name not in known:
            faults.append(
                f"{where}.{name}: {function.__name__} has no such parameter; it takes {', '.join(known) or 'none'}."
            )
        elif not fits(value, hints.get(name)):
            faults.append(f"{where}.{name} must be {words(hints[name])}, got {value!r}.")
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in node:
            faults.append(f"{where}.{name} is missing: {function.__name__} needs it.")
    return Call(target, json.dumps(node, sort_keys=True))


def _weight(value: Any, method: str, call: Call, faults: list[str]) -> Schedule | None:
    if not call.target:
        return None  # reported with the method itself
    allowed = getattr(sys.modules[call.function.__module__], "LAMBDA", None)
    if allowed is None:
        if value is not None:
            faults.append(
                f"lambda={value}: merge={method} has no λ. Leave lambda out, or use a method that has one "
                "(merge=slerp, linear)."
            )
        return None
    low, high = allowed
    ends = f"from {low:g} (base) to {high:g} (pivot)" if math.isfinite(high) else f"of at least {low:g}"
    try:
        given = schedule(value)
    except ValueError:
        hint = " To sweep, add -m and write lambda=0.1,0.2,0.4." if isinstance(value, list) else ""
        faults.append(f"lambda={value} is not a number. Give one {ends}.{hint}")
        return None
    for number in values(given):
        if not math.isfinite(number):
            faults.append(f"lambda={value} is not a number. Give one {ends}.")
        elif not low <= number <= high:
            meaning = ": 0 is the base model and 1 the pivot model" if math.isfinite(high) else ""
            faults.append(f"lambda={number:g} is outside [{low:g}, {high:g}]{meaning}.")
    return given


def _extra(nodes: Any, faults: list[str]) -> tuple[ModelSource, ...]:
    """Further parents: folders or hub ids, or what a model's yaml holds."""
    if not isinstance(nodes, list):
        faults.append(f"extra_models={nodes}: give a list of folders or hub ids, as in extra_models=[/models/third].")
        return ()
    plain = [{"name": Path(node).name, "source": node} if isinstance(node, str) else node for node in nodes]
    return tuple(_model(dict(node or {}), f"extra_models[{i}]", faults) for i, node in enumerate(plain))


def _ancestor(
    node: Any, models: tuple[ModelSource, ...], call: Call, method: str, faults: list[str]
) -> ModelSource | None:
    """The parents' common ancestor for a method that asks for it: as given, or one that they name themselves."""
    asked = inspect.signature(call.function).parameters.get("ancestor") if call.target else None
    if asked is None:
        return None
    if node is not None:
        return _model(dict(node), "ancestor", faults)
    named = {model.name: model for model in models}
    wanted = {model.ancestor for model in models} - {None}
    # A parent that names none may itself be the others' ancestor.
    if len(wanted) == 1 and all(model.ancestor in wanted or model.name in wanted for model in models):
        (name,) = wanted
        if name in named:
            return named[name]
        known = REPOSITORY / "conf" / "base_model" / f"{name}.yaml"
        if known.is_file():
            return _model(OmegaConf.to_container(OmegaConf.load(known)), f"base_model@ancestor={name}", faults)
    if asked.default is inspect.Parameter.empty:
        told = ", ".join(f"{model.name}: {model.ancestor or 'unknown'}" for model in models)
        faults.append(
            f"merge={method} works on differences from the parents' common ancestor, and they name no common one "
            f"({told}): set base_model@ancestor=<its yaml>, or use a method without one (merge=slerp, linear)."
        )
    return None


def _model(node: dict[str, Any], where: str, faults: list[str]) -> ModelSource:
    known = [field.name for field in fields(ModelSource)]
    unknown = sorted(set(node) - set(known))
    if unknown:
        faults.append(f"{where} has no key {', '.join(unknown)}; it takes {', '.join(known)}.")
    hints = typing.get_type_hints(ModelSource)
    for key in known:
        if key in node and not fits(node[key], hints[key]):
            faults.append(f"{where}.{key} must be {words(hints[key])}, got {node[key]!r}.")
    for key in ("name", "source"):
        if key not in node:
            faults.append(f"{where}.{key} is missing.")
    return ModelSource(**{"name": "", "source": None} | {key: value for key, value in node.items() if key in known})


def _metric(label: str, target: str, faults: list[str]) -> str:
    try:
        dotted(target)
    except Refusal as fault:
        faults.append(f"task.metrics.{label}: {fault}")
    return target


def _splits(value: Any, sweep: bool, faults: list[str]) -> tuple[str, ...]:
    if value is None:
        return ("pilot", "test") if sweep else ("test",)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or any(name not in SPLITS for name in names):
        faults.append(f"splits={value}: give one or more of {', '.join(SPLITS)}.")
        return ()
    return tuple(dict.fromkeys(names))


def _given(node: dict[str, Any], where: str, key: str, faults: list[str]) -> Any:
    if node.get(key) is None:
        faults.append(f"{where}.{key} is missing.")
    return node.pop(key, None)


def _path(value: Any, where: str, faults: list[str]) -> Path:
    if not isinstance(value, str):
        faults.append(f"{where}={value}: give a folder.")
        return Path()
    return Path(value).expanduser()


def _one_of(value: Any, where: str, allowed: tuple[str, ...], faults: list[str]) -> str:
    if value not in allowed:
        faults.append(f"{where}={value}: it is one of {', '.join(one or 'null' for one in allowed)}.")
    return value


def _yes_no(value: Any, where: str, faults: list[str]) -> bool:
    if not isinstance(value, bool):
        faults.append(f"{where}={value}: it is true or false.")
    return value


def _whole(value: Any, where: str, least: int, faults: list[str], *, null: bool = False) -> int | None:
    if null and value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        faults.append(f"{where}={value}: give a whole number of at least {least}.")
    return value


def _between(value: Any, where: str, faults: list[str]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        faults.append(f"{where}={value}: give a number between 0 and 1.")
    return value
