"""Paths as a user writes them, and names that a disk takes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from patientdx.core.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parent  # where a relative path of a yaml starts, in a clone as in an installed package
# A wheel has the yamls inside the package; a clone, and an editable install of it, beside the package.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else REPOSITORY / "conf"
LONGEST_NAME = 160  # bytes; a disk takes 255, and locks, temporary files and hashes add to a name
RESERVED = frozenset({"scores", "trackio"})  # folders of <output> that are no study's


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` as the user's home. UserError for what names no file: empty, or of a user who is unknown."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    if not text.strip() or "\0" in text:
        raise UserError(f"{path!r} is no path of a file or folder.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text} begins with the home of a user whom this machine does not know.") from error


def cache_folder() -> Path:
    """Where what is made once is kept, for a command without cache=: PATIENTDX_CACHE, or its default."""
    return expanded(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx"))


def plain_name(value: Any) -> str:
    """A word that names a file or folder wherever it is put; UserError for anything else."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        raise UserError("give a word.")
    if value != value.strip() or value.startswith(".") or not value.isprintable() or set(value) & set("/\\"):
        raise UserError("a name has no / or \\, begins with no dot, and neither begins nor ends with a blank.")
    if len(value.encode()) > LONGEST_NAME:
        raise UserError(f"it takes {len(value.encode())} bytes. Give a name of at most {LONGEST_NAME}.")
    return value


def study_name(value: Any) -> str:
    """The name of a study: plain, and none that <output> itself has. UserError for another."""
    if plain_name(value) in RESERVED:
        raise UserError(f"<output>/{value} is not a study's folder. Give another name.")
    return value


def folder_path(value: Any) -> Path:
    """`expanded`, and UserError for what is no text."""
    if not isinstance(value, str | Path):
        raise UserError("give a folder.")
    return expanded(value)


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """The name itself, or its beginning and a digest of all of it where it takes more than `longest` bytes."""
    text = name.encode()
    if len(text) <= longest:
        return name
    digest = hashlib.sha256(text).hexdigest()[:12]
    return f"{text[: longest - 13].decode(errors='ignore')}-{digest}"
