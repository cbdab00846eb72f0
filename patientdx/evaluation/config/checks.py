"""Checks of a config's plain values: each returns its value, and tells `faults` where that will not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def given(node: dict[str, Any], where: str, key: str, errors: list[str]) -> Any:
    """What `node` holds under `key`, taken out of it."""
    if node.get(key) is None:
        errors.append(f"{where}.{key} is missing.")
    return node.pop(key, None)


def folder(value: Any, where: str, errors: list[str]) -> Path:
    """A folder."""
    if not isinstance(value, str):
        errors.append(f"{where}={value}: give a folder.")
        return Path()
    return Path(value).expanduser()


def one_of(value: Any, where: str, allowed: tuple[str, ...], errors: list[str]) -> str:
    """One of the words allowed."""
    if value not in allowed:
        errors.append(f"{where}={value}: it is one of {', '.join(one or 'null' for one in allowed)}.")
    return value


def yes_no(value: Any, where: str, errors: list[str]) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        errors.append(f"{where}={value}: it is true or false.")
    return value


def whole(value: Any, where: str, least: int, errors: list[str], *, null: bool = False) -> int | None:
    """A whole number of at least `least`; with `null`, or None."""
    if null and value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        errors.append(f"{where}={value}: give a whole number of at least {least}.")
    return value


def between(value: Any, where: str, errors: list[str]) -> float:
    """A number between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        errors.append(f"{where}={value}: give a number between 0 and 1.")
    return value
