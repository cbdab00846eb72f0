"""Functions of patientdx and of plug-ins as a yaml names them; arguments are checked against their signatures."""

from __future__ import annotations

import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patientdx.core import extras, plugins
from patientdx.core.errors import UserError, meant

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}


@dataclass(frozen=True)
class Call:
    """A function with its keywords, hashable: `target` is a dotted name, `arguments` are JSON."""

    target: str
    arguments: str

    @property
    def identity(self) -> str:
        """What a result depends on of the function; see `plugins.identity`."""
        return plugins.identity(self.target)

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return dotted(self.target)

    @property
    def keywords(self) -> dict[str, Any]:
        """Its keywords."""
        return json.loads(self.arguments)

    def __call__(self, *positional: Any) -> Any:
        return self.function(*positional, **self.keywords)


def dotted(target: str) -> Any:
    """What a dotted name inside patientdx, or a package that declares plug-ins, stands for; UserError for another."""
    module, _, name = str(target).rpartition(".")
    root = module.partition(".")[0]
    if not module.startswith("patientdx.") and not (module and plugins.is_plugin(module)):
        others = "".join(f" or {package}" for package in plugins.packages())
        raise UserError(
            f"{target} is not inside patientdx{others}; no other function can be named in a yaml. docs/plugins.md says "
            "how another package declares its own."
        )
    try:
        imported = importlib.import_module(module)
        # What a module imports late, since it costs seconds, is checked here: a run would fail after its work.
        absent = extras.absence(getattr(imported, "REQUIRES", ()))
        if absent is not None:
            raise UserError(f"{module} needs {absent}")
        function = getattr(imported, name, None)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{module} needs {extras.advice(error.name or module)}") from error
        function = None
    except ImportError as error:
        raise UserError(f"{module} cannot be imported: {error}.") from error
    if function is None:
        raise UserError(f"{target} does not exist; name a function as {root}.<module>.<function>.")
    if not callable(function):
        raise UserError(f"{target} is no function; name a function as {root}.<module>.<function>.")
    return function


def checked(node: Mapping[str, Any], where: str, supplied: tuple[str, ...], errors: list[str]) -> Call:
    """The call that a yaml's node names at the key `where`; its errors are appended to `errors`.

    supplied: parameters that the pipeline gives, which no yaml may.
    """
    target = node.get("_target_")
    keywords = {name: value for name, value in node.items() if name != "_target_"}
    if target is None:
        errors.append(f"{where}._target_ is missing.")
        return Call("", "{}")
    try:
        function = dotted(target)
    except UserError as error:
        errors.append(f"{where}._target_: {error}")
        return Call("", "{}")
    errors += argument_errors(function, keywords, where, supplied)
    # Sorted at the top alone: the order of a nested mapping can mean something, as in task.sections.
    return Call(target, json.dumps(dict(sorted(keywords.items()))))


def argument_errors(
    function: Callable[..., Any], keywords: Mapping[str, Any], where: str, supplied: tuple[str, ...] = ()
) -> Iterator[str]:
    """What is wrong with the keywords of a function or dataclass at the key `where`; supplied: see `checked`."""
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    known = [name for name in parameters if name not in supplied]
    for name, value in keywords.items():
        if name not in known:
            takes = ", ".join(known) or "none"
            yield f"{where}.{name}: {function.__name__} has no such parameter; it takes {takes}.{meant(name, known)}"
        elif not _fits(value, hints.get(name)):
            yield f"{where}.{name} must be {_in_words(hints[name])}, got {value!r}."
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in keywords:
            yield f"{where}.{name} is missing: {function.__name__} needs it."


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from a yaml is of the type that a parameter's annotation names; true for other annotations."""
    options = _alternatives(hint)
    if len(options) > 1:
        return any(_fits(value, option) for option in options)
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint in _WORDS:
        number = hint is float and isinstance(value, int)
        return isinstance(value, bool) == (hint is bool) and (number or isinstance(value, hint))
    if origin is typing.Literal:
        return value in parts
    if isinstance(origin, type) and issubclass(origin, Path):
        return isinstance(value, str | Path)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(item, parts[1]) for item in value.values() if parts)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        listed = isinstance(value, list | tuple)
        if origin is not tuple or parts[1:] in ((), (Ellipsis,)):
            return listed and all(_fits(item, parts[0]) for item in value if parts)
        return listed and len(value) == len(parts) and all(map(_fits, value, parts))
    return True


def _in_words(hint: Any) -> str:
    """The types of an annotation: a whole number, true or false, ..."""
    words = []
    for option in _alternatives(hint):
        origin = typing.get_origin(option) or option
        if origin is typing.Literal:
            words += map(str, typing.get_args(option))
        elif option in _WORDS or not isinstance(origin, type):
            words.append(_WORDS.get(option, str(option)))
        elif issubclass(origin, Mapping):
            words.append("a mapping")
        else:
            parts = [part for part in typing.get_args(option) if part is not Ellipsis]
            words.append("a path" if origin is Path else f"a list, each {_in_words(parts[0])}" if parts else "a list")
    return " or ".join(words)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)
