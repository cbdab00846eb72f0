"""A mergekit recipe file translated into this repository's configuration; all errors are reported at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from patientdx.checkpoints.source import ModelSource
from patientdx.cli.mergekit.methods import METHODS, Method
from patientdx.cli.mergekit.numbers import Numbers, Slice, Weight
from patientdx.core.errors import UserError
from patientdx.core.functions import dotted
from patientdx.core.paths import expanded, short_name
from patientdx.core.regular_files import is_regular
from patientdx.merge.method import method_spec
from patientdx.merge.schedule import schedule, values

_ABSENT = {
    "passthrough": "it copies, stacks or scales layers, and here every layer of the result is a merge of that layer",
    "arcee_fusion": "it takes quantiles of a random sample, and there is no such method here",
    "ram": "there is no such method here",
    "ramplus_tl": "there is no such method here",
}
_KEYS = ("merge_method", "models", "slices", "modules", "parameters", "base_model", "dtype", "out_dtype")
_KEYS += ("tokenizer_source", "tokenizer", "chat_template")
_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class MergekitRecipe:
    """A recipe in this repository's words.

    method: stem of conf/merge. parents: base first. ancestor: what differences are taken from, or None. weight: λ as
    `merge.schedule.schedule` takes it, None for a method without. arguments: the method's own numbers. dtype: of the
    stored result, None for that of the parents. tokenizer: None, base, pivot or union. layers: how many layers the
    parents must have, None where the recipe does not count them. notes: what mergekit ignores, and so do we; and what
    cannot be equal.
    """

    method: str
    parents: tuple[ModelSource, ...]
    ancestor: ModelSource | None
    weight: Weight | None
    arguments: dict[str, Any]
    dtype: str | None
    tokenizer: str | None
    layers: int | None
    notes: tuple[str, ...]

    def config(self) -> dict[str, Any]:
        """The keys of the composed config that the recipe decides; dtypes only where it says one."""
        base, pivot, *extra = (asdict(parent) for parent in self.parents)
        decided = {
            "base_model": base,
            "pivot_model": pivot,
            "extra_models": extra,
            "ancestor": None if self.ancestor is None else asdict(self.ancestor),
            "merge": {"name": self.method, "_target_": _target(self.method), **self.arguments},
            "lambda": self.weight,
            "tokenizer": self.tokenizer,
        }
        return decided if self.dtype is None else decided | {"dtype": self.dtype, "save_dtype": self.dtype}


def read_recipe(file: Path) -> MergekitRecipe:
    """The recipe in `file`, as mergekit 0.1.5 would take it.

    Parents come base first: mergekit's base_model where the method joins it, as do slerp (t=0), nearswap, linear and
    karcher, and for sums of task vectors, where it is the ancestor too and so adds nothing. t, lambda, or the weights
    of an interpolation become λ; other weights stay weights. Where a method has `compat` it is mergekit's. Slices that
    together are the whole model in order become λ for each layer; the final norm and the head then go by their names
    in the Llama family.

    Raises:
        UserError: the file is no recipe; or it asks for things that cannot be done here, all of which are named.
    """
    content = _load(file)
    errors: list[str] = []
    notes = [f"{key}: mergekit passes over this key" for key in content if key not in _KEYS]
    method = str(content.get("merge_method") or "")
    if method not in METHODS:
        reason = _ABSENT.get(method, "mergekit 0.1.5 has no such method") if method else "it is missing"
        errors.append(
            f"merge_method{f' {method}' if method else ''}: {reason}; there are {', '.join(sorted(METHODS))}."
        )
    if content.get("chat_template"):
        errors.append("chat_template: the result keeps the one of its tokenizer; change it in the saved folder.")
    base = _reference(content.get("base_model"), "base_model", errors)
    slices = _slices(content, base, errors)
    listed = list(dict.fromkeys(reference for part in slices for reference in part.sources))
    numbers = Numbers(slices, _mapping(content.get("parameters"), "parameters", errors), base, errors, notes)
    parents, ancestor, weight, arguments = listed, None, None, {}
    if method in METHODS and slices:
        parents, ancestor, weight, arguments = Method(method, base, listed, numbers).mapped()
        _check_weight(method, weight, errors)
    sources = _sources(dict.fromkeys([*parents, *([ancestor] if ancestor else [])]), errors)
    dtype, tokenizer = _dtype(content, errors), _tokenizer(content, parents, base, errors)
    if errors:
        count = "something" if len(errors) == 1 else f"{len(errors)} things"
        raise UserError(f"{file} asks for {count} that cannot be done here:\n- " + "\n- ".join(errors))
    if method.startswith(("dare", "della")):
        notes.append(f"{method}: the masks are drawn by our seed, not by mergekit's")
    parts = tuple(sources[reference] for reference in parents), sources[ancestor] if ancestor else None
    return MergekitRecipe(method, *parts, weight, arguments, dtype, tokenizer, numbers.layers, tuple(notes))


def _load(file: Path) -> dict[str, Any]:
    is_regular(file)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"mergekit_config={file} cannot be read ({error.strerror}): give a recipe of mergekit."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        many = "expected a single document" in str(error)
        reason = "it holds several recipes: give one in a file" if many else str(error).replace("\n", " ")
        raise UserError(f"mergekit_config={file} is not a recipe of mergekit: {reason}.") from error
    if not isinstance(content, dict):
        raise UserError(f"mergekit_config={file} is not a recipe of mergekit: it holds no mapping with a merge_method.")
    return content


def _slices(content: dict[str, Any], base: str | None, errors: list[str]) -> list[Slice]:
    """The recipe's slices, first layer first; `models` are one slice of all layers. Those without a fault."""
    keys = [key for key in ("models", "slices", "modules") if content.get(key)]
    if content.get("modules"):
        errors.append("modules: only models of one part are merged here; write models or slices.")
    if len(keys) != 1:
        errors.append(f"{', '.join(keys) or 'models'}: a recipe has either models or slices; give one of them.")
    if keys == ["models"]:
        return [Slice(_models(content["models"], "models", errors), None, {})]
    if keys != ["slices"]:
        return []
    slices: list[Slice] = []
    stacked, end = [], 0
    for number, part in enumerate(_list(content["slices"], "slices", errors)):
        where = f"slices[{number}]"
        entries = _list(part.get("sources"), f"{where}.sources", errors)
        sources = _models(entries, f"{where}.sources", errors)
        ranges: list[Any] = [entry.get("layer_range") for entry in entries]
        if part.get("residual_weight") is not None:
            errors.append(f"{where}.residual_weight: it is not done here; leave it out.")
        if part.get("base_model") and _reference(part["base_model"], f"{where}.base_model", errors) != base:
            errors.append(f"{where}.base_model: every slice has the recipe's own here; leave it out.")
        if base and base not in sources:
            errors.append(f"{where}.sources: base_model {base} is not among them; list it with its layers.")
        if slices and list(sources) != list(slices[0].sources):
            errors.append(f"{where}.sources: other models than in slices[0]; give all slices the same, in one order.")
        if all(_is_range(entry) and entry[0] == end and entry == ranges[0] for entry in ranges):
            start, end = end, ranges[0][1]
            parameters = _mapping(part.get("parameters"), f"{where}.parameters", errors)
            slices.append(Slice(sources, (start, end), parameters))
        else:
            stacked.append(f"{where}.layer_range {', '.join(map(str, ranges))}")
    if stacked:
        more = f" and {len(stacked) - 1} more" if len(stacked) > 1 else ""
        errors.append(
            f"{stacked[0]}{more}: layers are not stacked, left out or moved here; let each slice begin where the one "
            f"before ends, the first at layer 0, with the same layers of every model."
        )
    return slices


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value) and value[0] < value[1]


def _models(entries: Any, where: str, errors: list[str]) -> dict[str, dict[str, Any]]:
    """Parameters by model, in order."""
    parameters: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(_list(entries, where, errors)):
        reference = _reference(entry.get("model"), f"{where}[{number}].model", errors)
        if reference in parameters:
            errors.append(f"{where}[{number}].model: {reference} is listed twice; add up its weights.")
        elif reference:
            parameters[reference] = _mapping(entry.get("parameters"), f"{where}[{number}].parameters", errors)
        elif "model" not in entry:
            errors.append(f"{where}[{number}].model is missing.")
    return parameters


def _list(value: Any, where: str, errors: list[str]) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return value
    errors.append(f"{where}: give a list of entries with model.")
    return []


def _mapping(value: Any, where: str, errors: list[str]) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        errors.append(f"{where}: give names with values.")
    return value if isinstance(value, dict) else {}


def _reference(value: Any, where: str, errors: list[str]) -> str | None:
    """A model as mergekit writes it: <folder or hub id>[@revision][+<adapter>[@revision]]."""
    if value is None:
        return None
    if not isinstance(value, str) or value.count("+") > 1 or any(part.count("@") > 1 for part in value.split("+")):
        errors.append(f"{where}: {value} is not read here; write <folder or hub id>@<revision>+<folder of a LoRA>.")
        return None
    return value


def _sources(references: Iterable[str], errors: list[str]) -> dict[str, ModelSource]:
    """Each model with a name of its own, made from the last part of its place."""
    sources: dict[str, ModelSource] = {}
    for reference in references:
        model_part, _, adapter = reference.partition("+")
        path, _, revision = model_part.partition("@")
        parts = [Path(part.partition("@")[0]).name for part in (model_part, adapter) if part]
        name = plain = short_name(re.sub(r"[^\w.-]", "_", "_".join(parts)).lstrip(".") or "model", 100)
        count = 1
        while name in {model.name for model in sources.values()}:
            count += 1
            name = f"{plain}_{count}"
        folder = None
        if adapter:
            folder = expanded(adapter).absolute()
            if not folder.is_dir():
                repository, _, revision_part = adapter.partition("@")
                fetch = f"hf download {repository}" + (f" --revision {revision_part}" if revision_part else "")
                errors.append(f"{reference}: a LoRA is read from a folder here; get it with `{fetch}` and write that.")
        sources[reference] = ModelSource(name, path, revision or None, None if folder is None else str(folder))
    return sources


def _dtype(content: dict[str, Any], errors: list[str]) -> str | None:
    """Of the stored result. mergekit's dtype is also that of its arithmetic, which is float64 here."""
    dtype = None
    for key in ("dtype", "out_dtype"):
        value = content.get(key)
        plain = str(value).removeprefix("torch.") if value else None
        if value and plain not in _DTYPES:
            errors.append(f"{key}: {value} is not written here; choose {', '.join(_DTYPES)}.")
        dtype = plain or dtype
    return dtype


def _tokenizer(content: dict[str, Any], parents: Sequence[str], base: str | None, errors: list[str]) -> str | None:
    source = content.get("tokenizer_source")
    value = content.get("tokenizer")
    if value is not None:
        value = _mapping(value, "tokenizer", errors)
        source = value.get("source", "union")
        for key in ("tokens", "pad_to_multiple_of"):
            if value.get(key) is not None:
                errors.append(f"tokenizer.{key}: it is not done here; leave it out.")
    if source is None or source == "union" or not parents:
        return source
    model = (base or (parents[0] if parents else None)) if source == "base" else source
    if model in parents[:2]:
        return ("base", "pivot")[parents.index(model)]
    errors.append(
        f"tokenizer: {source} is neither the first parent nor the second here ({', '.join(parents[:2])}); choose one "
        "of these, or union."
    )
    return None


def _check_weight(method: str, weight: Weight | None, errors: list[str]) -> None:
    allowed = method_spec(dotted(_target(method))).lambda_range
    if weight is None or allowed is None:
        return
    low, high = allowed
    for number in values(schedule(weight)):
        if not math.isfinite(number) or not low <= number <= high:
            errors.append(f"parameters: {number:g} becomes λ, and {method} goes from {low:g} to {high:g} here.")
            return


def _target(method: str) -> str:
    return f"patientdx.merge.{method}.{method}"
