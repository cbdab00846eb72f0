"""Where the files of a public data set are, and which split each of them holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.core.regular_files import is_regular, regular_files
from patientdx.tasks import hub_files
from patientdx.tasks.item_files import SPLIT_WORDS, SUFFIXES


def located(name: str, path: str | None, source: str, key: str = "task.path") -> Path:
    """The file or folder of the data set `name`, on this machine or fetched from the hub.

    path: the value of the user's key `key`. source: where the data set is available. Raises UserError where nothing is
    given or nothing exists.
    """
    if path is None:
        raise UserError(
            f"{key} is missing: {name} is read from a local file or folder, or from {hub_files.FORM}. {source}"
        )
    if path.startswith(hub_files.PREFIX):
        return hub_files.fetched(path, key)
    root = expanded(path)
    if not root.is_dir() and not is_regular(root):
        raise UserError(
            f"{path} does not exist. Give a local file or folder, or {hub_files.FORM}: nothing else is downloaded. "
            f"{source}"
        )
    return root


def split_files(
    root: Path, words: Mapping[str, str] = SPLIT_WORDS, excluded: Sequence[str] = ()
) -> list[tuple[Path, str, str]]:
    """(file, its name below `root`, its split) for each data file; a single file is the test split.

    In a folder a file's split is a word of its name, or else of its folder's name; other files are ignored, and so are
    those with a word of `excluded` in their names. Raises UserError where no file names its split.
    """
    if root.is_file():
        return [(root, root.name, "test")]
    files = []
    for file in regular_files(root, SUFFIXES):
        name = file.relative_to(root)
        parts = (file.stem, *reversed(name.parent.parts))
        in_name = [word for part in parts for word in re.split(r"[^a-z]+", part.lower())]
        split_words = [words[word] for word in in_name if word in words]
        if split_words and not set(in_name) & set(excluded):
            files.append((file, name.as_posix(), split_words[0]))
    if not files:
        raise UserError(
            f"{root} holds no file whose name says its split ({', '.join(words)}) and ends in {', '.join(SUFFIXES)}. "
            "Name the files so, or give one file as task.path: it is then the test split."
        )
    return files


def digests(root: Path) -> dict[str, str]:
    """sha256 (hex) of every data file at `root`, by its name there."""
    files = [root] if root.is_file() else regular_files(root, SUFFIXES)
    return {file.name if file == root else file.relative_to(root).as_posix(): sha256(file) for file in files}
