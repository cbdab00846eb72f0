"""The typed view of the composed config: checked as a whole, before a byte of weights is read.

The only place that spells `cfg["lambda"]`: below here it is `weight`, the position on the curve.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from patientdx.checkpoint.locate import ModelSource
from patientdx.refusal import Refusal

DTYPES = ("bfloat16", "float16", "float32")
SPLITS = ("train", "pilot", "test")
KINDS = ("choice",)
_SECTIONS = ("base_model", "pivot_model", "merge", "task", "scoring", "bootstrap", "tracking")


@dataclass(frozen=True)
class Call:
    """A function of patientdx with its arguments, hashable: `target` is a dotted name, `arguments` are JSON."""

    target: str
    arguments: str

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return dotted(self.target)

    def __call__(self, *given: Any) -> Any:
        return self.function(*given, **json.loads(self.arguments))


@dataclass(frozen=True)
class Settings:
    """One run. `weight` is λ, None for a method without; `composed` is the resolved config, for the record."""

    name: str
    seed: int
    weight: float | None
    base: ModelSource
    pivot: ModelSource
    merge_name: str
    merge: Call
    task_name: str
    kind: str
    task: Call
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


def parse(cfg: DictConfig, *, sweep: bool = False) -> Settings:
    """Settings of a composed config; one Refusal listing every fault found.

    sweep: the run is one of several, among which λ is chosen, so that pilot is scored beside test.
    """
    faults: list[str] = []
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise Refusal(f"this configuration cannot be resolved: {str(error).splitlines()[0]}") from None
    absent = [name for name in _SECTIONS if not isinstance(plain.get(name), dict)]
    if absent:
        raise Refusal(f"this configuration has no {', '.join(absent)}: choose one, as in merge=slerp.")
    merge, task, scoring, bootstrap = (dict(plain[key]) for key in ("merge", "task", "scoring", "bootstrap"))
    metrics = task.pop("metrics", None) or {}
    names = {"merge": _given(merge, "merge", "name", faults), "task": _given(task, "task", "name", faults)}
    # The cache is one place for all that a run keeps: a task gets it spelled out.
    cache = _path(plain["cache"], "cache", faults)
    if "cache" in task:
        task["cache"] = str(cache)
    settings = Settings(
        name=str(plain["name"]),
        seed=_whole(plain["seed"], "seed", 0, faults),
        weight=_weight(plain["lambda"], names["merge"], merge.get("_target_"), faults),
        base=_model(plain["base_model"], "base_model", faults),
        pivot=_model(plain["pivot_model"], "pivot_model", faults),
        merge_name=names["merge"],
        merge=_call(merge, "merge", ("parents",), faults),
        task_name=names["task"],
        kind=_one_of(task.pop("kind", None), "task.kind", KINDS, faults),
        task=_call(task, "task", (), faults),
        metrics=tuple((label, _metric(label, target, faults)) for label, target in metrics.items()),
        parents=_yes_no(plain["parents"], "parents", faults),
        splits=_splits(plain["splits"], sweep, faults),
        device=_one_of(plain["device"], "device", ("auto", "cpu"), faults),
        device_map=plain["device_map"],
        dtype=_one_of(plain["dtype"], "dtype", DTYPES, faults),
        max_tokens=_whole(scoring["max_tokens"], "scoring.max_tokens", 16, faults),
        batch_tokens=None
        if scoring["batch_tokens"] is None
        else _whole(scoring["batch_tokens"], "scoring.batch_tokens", 1, faults),
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


def dotted(target: str) -> Any:
    """What a dotted name inside patientdx stands for; Refusal for anything else."""
    module, _, name = str(target).rpartition(".")
    if not module.startswith("patientdx."):
        raise Refusal(f"{target} is not inside patientdx; only its own functions can be named in a yaml.")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("patientdx"):
            raise  # the function's own file lacks a package: not the yaml's fault
        raise Refusal(f"{target} does not exist; name a function as patientdx.<module>.<function>.") from None
    if not callable(found):
        raise Refusal(f"{target} is no function; name a function as patientdx.<module>.<function>.")
    return found


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
        elif not _fits(value, hints.get(name)):
            faults.append(f"{where}.{name} must be {_words(hints[name])}, got {value!r}.")
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in node:
            faults.append(f"{where}.{name} is missing: {function.__name__} needs it.")
    return Call(target, json.dumps(node, sort_keys=True))


def _fits(value: Any, hint: Any) -> bool:
    options = _alternatives(hint)
    plain = [option for option in options if option in (int, float, bool, str, type(None))]
    if len(plain) < len(options):
        return True  # paths, sequences and mappings are checked by the function itself
    if isinstance(value, bool):
        return bool in plain
    return isinstance(value, tuple(plain)) or (float in plain and isinstance(value, int))


def _words(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        type(None): "null",
    }
    return " or ".join(names.get(option, str(option)) for option in _alternatives(hint))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _weight(value: Any, method: str, target: str | None, faults: list[str]) -> float | None:
    if target is None:
        return None  # reported with the method itself
    try:
        allowed = getattr(sys.modules[dotted(target).__module__], "LAMBDA", None)
    except Refusal:
        return None
    if allowed is None:
        if value is not None:
            faults.append(
                f"lambda={value}: merge={method} has no λ. Leave lambda out, or use a method that has one "
                "(merge=slerp, linear)."
            )
        return None
    low, high = allowed
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        hint = " To sweep, add -m and write lambda=0.1,0.2,0.4." if isinstance(value, list) else ""
        faults.append(f"lambda={value} is not a number. Give one from {low:g} (base) to {high:g} (pivot).{hint}")
        return None
    if not low <= value <= high:
        faults.append(f"lambda={value:g} is outside [{low:g}, {high:g}]: 0 is the base model and 1 the pivot model.")
        return None
    return float(value)


def _model(node: dict[str, Any], where: str, faults: list[str]) -> ModelSource:
    known = [field.name for field in fields(ModelSource)]
    unknown = sorted(set(node) - set(known))
    if unknown:
        faults.append(f"{where} has no key {', '.join(unknown)}; it takes {', '.join(known)}.")
    hints = typing.get_type_hints(ModelSource)
    for key in known:
        if key in node and not _fits(node[key], hints[key]):
            faults.append(f"{where}.{key} must be {_words(hints[key])}, got {node[key]!r}.")
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
        faults.append(f"{where}={value}: it is one of {', '.join(allowed)}.")
    return value


def _yes_no(value: Any, where: str, faults: list[str]) -> bool:
    if not isinstance(value, bool):
        faults.append(f"{where}={value}: it is true or false.")
    return value


def _whole(value: Any, where: str, least: int, faults: list[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        faults.append(f"{where}={value}: give a whole number of at least {least}.")
    return value


def _between(value: Any, where: str, faults: list[str]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        faults.append(f"{where}={value}: give a number between 0 and 1.")
    return value
