"""Kinds of tasks and analyses, found by listing their folders: a new one is one file.

This module imports none of them, so that the configuration can look at a kind, and a kind at the configuration.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, Protocol, cast

KINDS, ANALYSES = "patientdx.evaluation.kinds", "patientdx.evaluation.analyses"
ATTRIBUTES = {KINDS: "KIND", ANALYSES: "ANALYSIS"}


class KindTraits(Protocol):
    """What a configuration is checked by; `patientdx.evaluation.kinds.Kind` explains it."""

    name: str
    gives_probability: bool
    trainable: bool


def members(package: str) -> tuple[str, ...]:
    """The names of the members of a folder: the modules with a `KIND` or an `ANALYSIS`."""
    names = sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__))
    return tuple(name for name in names if hasattr(import_module(f"{package}.{name}"), ATTRIBUTES[package]))


def member(package: str, name: str) -> Any:
    """The member of that name: `KIND` or `ANALYSIS` of its file."""
    return getattr(import_module(f"{package}.{name}"), ATTRIBUTES[package])


def kind_names() -> tuple[str, ...]:
    """The names of all kinds."""
    return members(KINDS)


def kind_traits(name: str) -> KindTraits:
    """The kind of that name."""
    return cast(KindTraits, member(KINDS, name))
