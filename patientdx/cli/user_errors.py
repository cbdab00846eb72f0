"""What a user can mend of the errors of Hydra, of the disk and of packages that are not installed, in words."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from patientdx.core import extras
from patientdx.core.disk import disk_error
from patientdx.core.errors import UserError, meant
from patientdx.core.paths import CONF


def user_error(error: Exception, words: Sequence[str] | None = None) -> UserError | None:
    """What the user can mend of an error: a UserError itself, an override that cannot be, or a disk; None for another.

    words: the overrides; None: those of this program's command line.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, HydraException | OmegaConfBaseException):
        text = str(error).partition("\nConfig search path:")[0].strip()
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        word = getattr(error, "override", None)
        text = f"{word}: {text}" if word and word not in text else text
        return UserError(text + cause.partition("\n    full_key")[0] + _similar(error))
    frames = traceback.extract_tb(error.__traceback__)
    in_hydra = bool(frames) and Path(frames[-1].filename).is_relative_to(Path(hydra.__file__).parent)
    if in_hydra and isinstance(error, ValueError):
        return UserError("\n".join(_unnamed_choices(sys.argv[1:] if words is None else words)) or str(error))
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in extras.EXTRAS:
        return UserError(f"this needs {extras.advice(str(error.name))}")
    return disk_error(error) if isinstance(error, OSError) else None


def _similar(error: Exception) -> str:
    """The choice or the key that may be meant by what Hydra does not know, on a line of its own; else empty."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        question = meant(error.missing_cfg_file.rpartition("/")[2], error.options)
    elif key := re.match(r"Could not override '([\w.]+)'|.*No match in the defaults list", str(error)):
        group, _, name = (key[1] or str(getattr(error, "override", "")).lstrip("+~").partition("=")[0]).rpartition(".")
        question = meant(name, _keys(group))
    else:
        question = ""
    return f"\n{question.strip()}" if question else ""


def _keys(group: str) -> set[str]:
    """The keys of a group as its yamls have them; of no group: groups and the keys beside them."""
    if not group:
        return {str(key) for key in OmegaConf.load(CONF / "config.yaml")} | {path.name for path in CONF.iterdir()}
    nodes = [OmegaConf.load(path) for path in (CONF / group).glob("*.yaml")] if (CONF / group).is_dir() else []
    nodes.append(OmegaConf.load(CONF / "config.yaml"))
    keys: set[str] = set()
    for node in nodes:
        content: Any = OmegaConf.to_container(node)
        inner = content.get(group, content if node is not nodes[-1] else {}) if isinstance(content, dict) else {}
        keys |= set(map(str, inner)) if isinstance(inner, dict) else set()
    return keys


def _unnamed_choices(words: Sequence[str]) -> Iterator[str]:
    """The overrides that choose of a group by what is no name, as in task=3."""
    for word in words:
        group, sign, value = word.lstrip("+").partition("=")
        folder = CONF / group.partition("@")[0]
        if (
            sign
            and folder.is_dir()
            and not re.match(r"(?!(true|false|null|nan|inf)\b)[^\W\d]", value, re.ASCII | re.IGNORECASE)
        ):
            names = sorted(path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("_"))
            yield f"{word}: {group} is chosen by a name: {', '.join(names)}."
