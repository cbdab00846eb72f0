"""Functions named in a yaml: the real cause of what cannot be imported, and arguments of another type."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest

from patientdx.core.errors import UserError
from patientdx.core.functions import argument_errors, dotted


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ImportError("libtorch.so: failed to map segment from shared object"), "libtorch.so: failed to map segment"),
        (
            ModuleNotFoundError("No module named 'scipy.special'", name="scipy.special"),
            "needs the package scipy.special",
        ),
    ],
)
def test_what_fails_in_the_import_is_the_message(monkeypatch, cause, words):
    def fail(name):
        raise cause

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(UserError, match=words):
        dotted("patientdx.tasks.mortality.load")


def test_an_error_in_the_import_is_no_missing_name(monkeypatch):
    def fail(name):
        raise MemoryError

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MemoryError):
        dotted("patientdx.tasks.mortality.load")


@pytest.mark.parametrize("name", ["patientdx.nothing.f", "patientdx.core.nothing.f", "patientdx.core.errors.nothing"])
def test_what_is_not_there_does_not_exist(name):
    with pytest.raises(UserError, match=f"{name} does not exist"):
        dotted(name)


def function(
    a: Sequence[float], b: Mapping[str, int], c: Literal["x", "y"], d: Path | None, e: tuple[int, str]
) -> None:
    """Annotations of every kind."""


GOOD = {"a": [1, 2.5], "b": {"x": 1}, "c": "x", "d": None, "e": [1, "x"]}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("a", "1", "a list, each a number"),
        ("a", ["x"], "a list"),
        ("a", [True], "a list"),
        ("b", [1], "a mapping"),
        ("b", {"x": "1"}, "a mapping"),
        ("c", "z", "x or y"),
        ("d", 3, "a path or null"),
        ("e", [1], "a list"),
        ("e", ["x", 1], "a list"),
    ],
)
def test_an_argument_of_another_type(name, value, words):
    assert list(argument_errors(function, GOOD, "task")) == []
    (error,) = argument_errors(function, GOOD | {name: value}, "task")
    assert error.startswith(f"task.{name} must be {words}")
    assert error.endswith(f", got {value!r}.")
