"""Data sets of the hub as files on this machine: `hub:<owner>/<name>`, a folder or file in it, a revision of it.

Only files that a task can read are fetched, into the hub's own cache; code of a data set is neither fetched nor run.
"""

from __future__ import annotations

import re
from pathlib import Path

from patientdx.core.errors import UserError
from patientdx.core.regular_files import is_regular
from patientdx.tasks.item_files import PLAIN, SUFFIXES

PREFIX = "hub:"
FORM = "hub:<owner>/<name>[/<folder or file>][@<revision>]"
_ID = re.compile(r"hub:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<inside>[^@]*[^@/]))?/?(?:@(?P<revision>[\w./-]+))?")
# JSON files with metadata of a data set, without rows.
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")


def fetched(path: str, key: str) -> Path:
    """The folder of a data set of the hub, or the one file that is in it, from the local hub cache or fetched into it.

    key: the user's key that holds `path`. Raises UserError for a name in another form, for a data set that is not
    available, and for one without a file that can be read.
    """
    match = _ID.fullmatch(path)
    if match is None or ".." in path:
        raise UserError(f"{key}={path} names no data set of the hub: write {FORM}.")
    name, inside, revision = match["name"], match["inside"], match["revision"]
    folder = _snapshot(path, key, name, inside, revision)
    folder = folder if inside is None else folder / inside
    held = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if _readable(file))
    if not held:
        raise UserError(
            f"{key}={path} holds no file that can be read ({', '.join(SUFFIXES)}). Look at its files on the hub: those "
            f"in another place are {FORM}; what is an archive, or made by a script, must first be unpacked."
        )
    return held[0] if len(held) == 1 else folder


def origin(name: str, path: str | None, folder: Path) -> dict[str, dict[str, str]]:
    """For provenance: the data set of the hub that `name` came from, with the commit that was read; {} for local files.

    path, folder: the user's value, and what `fetched` returned for it.
    """
    if path is None or not path.startswith(PREFIX):
        return {}
    return {"hub": {name: f"{path.partition('@')[0]}@{_commit(folder) or path.partition('@')[2] or 'unknown'}"}}


def name_of(folder: Path) -> str:
    """A folder's name; of a snapshot of the hub, which is named by its commit, that of its data set."""
    if _commit(folder) == folder.name:
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


def _commit(folder: Path) -> str | None:
    """The commit of a path in the hub's cache: <data set>/snapshots/<commit>/…"""
    match = re.search(r"/datasets--[^/]+/snapshots/([^/]+)", folder.as_posix())
    return None if match is None else match[1]


def _readable(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.name not in _ABOUT and not file.is_dir() and is_regular(file)


def _snapshot(path: str, key: str, name: str, inside: str | None, revision: str | None) -> Path:
    """The folder of the data set's snapshot."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    suffixes = (*(suffix for suffix in SUFFIXES if suffix != ".gz"), *(f"{suffix}.gz" for suffix in PLAIN))
    kinds = [f"*{suffix}" for suffix in suffixes]
    patterns = kinds if inside is None else [inside, *(f"{inside}/{kind}" for kind in kinds)]
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise UserError(
            f"{key}={path}: {name} asks for consent to its terms: accept them on the data set's page, log in with "
            "`hf auth login`, and run again."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        what = f"no revision {revision} of {name}" if isinstance(error, RevisionNotFoundError) else f"no {name}"
        raise UserError(f"{key}={path}: there is {what} among the hub's data sets, or it is not public.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, EntryNotFoundError, RevisionResolutionError, OSError) as error:
        more = f" --revision {revision}" if revision else ""
        raise UserError(
            f"{key}={path}: {name} is not in the hub cache of this machine and cannot be fetched "
            f"({getattr(error, 'strerror', None) or type(error).__name__}). With a connection run "
            f"`hf download --repo-type dataset {name}{more}`, or give a local folder that holds it."
        ) from error
