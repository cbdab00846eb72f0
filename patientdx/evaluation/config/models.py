"""The models that a config names: parents, and the ancestor they share. What will not do goes to `faults`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from patientdx.checkpoints.source import REPOSITORY, ModelSource
from patientdx.core.functions import Call, fits, words


def further(nodes: Any, errors: list[str]) -> tuple[ModelSource, ...]:
    """Further parents: folders or hub ids, or what a model's yaml holds."""
    if not isinstance(nodes, list):
        errors.append(f"extra_models={nodes}: give a list of folders or hub ids, as in extra_models=[/models/third].")
        return ()
    plain = [{"name": Path(node).name, "source": node} if isinstance(node, str) else node for node in nodes]
    return tuple(model(dict(node or {}), f"extra_models[{i}]", errors) for i, node in enumerate(plain))


def ancestor(
    node: Any, models: tuple[ModelSource, ...], call: Call, method: str, errors: list[str]
) -> ModelSource | None:
    """The parents' common ancestor for a method that asks for it: as given, or one that they name themselves."""
    asked = inspect.signature(call.function).parameters.get("ancestor") if call.target else None
    if asked is None:
        return None
    if node is not None:
        return model(dict(node), "ancestor", errors)
    named = {model.name: model for model in models}
    wanted = {model.ancestor for model in models} - {None}
    # A parent that names none may itself be the others' ancestor.
    if len(wanted) == 1 and all(model.ancestor in wanted or model.name in wanted for model in models):
        (name,) = wanted
        if name in named:
            return named[name]
        known = REPOSITORY / "conf" / "base_model" / f"{name}.yaml"
        if known.is_file():
            return model(OmegaConf.to_container(OmegaConf.load(known)), f"base_model@ancestor={name}", errors)
    if asked.default is inspect.Parameter.empty:
        told = ", ".join(f"{model.name}: {model.ancestor or 'unknown'}" for model in models)
        errors.append(
            f"merge={method} works on differences from the parents' common ancestor, and they name no common one "
            f"({told}): set base_model@ancestor=<its yaml>, or use a method without one (merge=slerp, linear)."
        )
    return None


def at_odds(plain: Mapping[str, Any], overrides: Sequence[str], errors: list[str]) -> None:
    """A fault where `pair=` named parents and a study's overlay put others in their place; the command itself may."""
    pair = plain.get("pair") or {}
    given = {word.lstrip("+").partition("=")[0].partition(".")[0] for word in overrides}
    for group in ("base_model", "pivot_model"):
        wanted, there = pair.get(group), plain[group].get("name")
        if "pair" in given and group not in given and wanted not in (None, there):
            errors.append(
                f"pair={pair.get('name')} asks for {group}={wanted}, but this study has {group}={there} in its "
                f"overlay. Say which: {group}={wanted}, or leave pair out."
            )


def model(node: dict[str, Any], where: str, errors: list[str]) -> ModelSource:
    """One model, from what its yaml holds."""
    known = [field.name for field in fields(ModelSource)]
    unknown = sorted(set(node) - set(known))
    if unknown:
        errors.append(f"{where} has no key {', '.join(unknown)}; it takes {', '.join(known)}.")
    hints = typing.get_type_hints(ModelSource)
    for key in known:
        if key in node and not fits(node[key], hints[key]):
            errors.append(f"{where}.{key} must be {words(hints[key])}, got {node[key]!r}.")
    for key in ("name", "source"):
        if key not in node:
            errors.append(f"{where}.{key} is missing.")
    return ModelSource(**{"name": "", "source": None} | {key: value for key, value in node.items() if key in known})
