"""A MEDS folder on disk: that it is one, of the version read here, and what is in it."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from meds import held_out_split, subject_splits_filepath, train_split, tuning_split

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.regular_files import is_regular, regular_files
from patientdx.core.tables import repeated
from patientdx.records.tables import CREDENTIALED, REBUILT, open_demo

_log = logging.getLogger(__name__)

READ = "0.4"
_SPLITS = {train_split: "train", tuning_split: "pilot", held_out_split: "test"}
_REPACK_BYTES = 8_000_000  # no known file is larger, so larger ones need not be hashed to know
_KINDS = {
    "subject_id": ("an integer", pa.types.is_integer),
    "time": ("a timestamp", lambda kind: pa.types.is_timestamp(kind) and kind.tz is None),
    "code": ("a string", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    "numeric_value": ("a float", pa.types.is_floating),
}


@dataclass(frozen=True)
class MedsFolder:
    """Files below `root` in the order of their names, and the columns that they have between them.

    `value` is the column of numbers: numeric_value, or value in the demo's repack. `codes` is metadata/codes.parquet.
    `splits`: train, pilot or test of each patient, by metadata/subject_splits.parquet.
    """

    root: Path
    files: tuple[Path, ...]
    columns: frozenset[str]
    value: str = "numeric_value"
    codes: Path | None = None
    splits: Mapping[int, str] | None = None

    def provenance(self, digest_of: Callable[[Path], str]) -> dict[str, Any]:
        """Number of files, one sha256 over their names and contents (of one file: its own), and origin.

        Raises UserError where a file cannot be read.
        """
        files = [*self.files, *([self.codes] if self.codes else [])]
        try:
            digests = [digest_of(path) for path in files]
        except OSError as error:
            raise UserError(f"The MEDS folder {self.root} cannot be read: {error.strerror}.") from error
        lines = [
            f"{path.relative_to(self.root).as_posix()} {digest}" for path, digest in zip(files, digests, strict=True)
        ]
        digest = digests[0] if len(files) == 1 else hashlib.sha256("\n".join(lines).encode()).hexdigest()
        known = open_demo()["meds"]
        origin = REBUILT if all(digest in known for digest in digests) else CREDENTIALED
        name = files[0].name if len(files) == 1 else "data/**/*.parquet"
        return {"file": name, "files": len(self.files), "sha256": digest, "origin": origin}


def meds_folder(root: Path) -> MedsFolder:
    """The MEDS folder at `root`: data/**/*.parquet, metadata/dataset.json and, if it is there, metadata/codes.parquet.

    The one-file repack of the open demo, known by its hash, is taken as it is. Raises UserError on anything else, on
    another version than 0.4, and on files without MEDS's columns.

    Source: Medical Event Data Standard 0.4 (data and metadata schemas).
    """
    if not root.is_dir():
        raise UserError(f"task.mimic_root: there is no folder {root}.")
    repack = _known_repack(root)
    if repack is not None:
        return MedsFolder(root, (repack,), frozenset(("subject_id", "time", "code", "value")), value="value")
    _check_version(root)
    files = tuple(regular_files(root / "data", {".parquet"}))
    if not files:
        raise UserError(f"{root} is no MEDS folder: there is no parquet file in its data/.")
    names: set[str] = set()
    for path in files:
        names |= _columns(root, path)
    codes, splits = _codes(root / "metadata/codes.parquet"), _splits(root / subject_splits_filepath)
    return MedsFolder(root, files, frozenset(names), codes=codes, splits=splits)


def _known_repack(root: Path) -> Path | None:
    files = [file for file in root.glob("*.parquet") if is_regular(file)]
    if len(files) == 1 and files[0].stat().st_size <= _REPACK_BYTES and sha256(files[0]) in open_demo()["meds"]:
        return files[0]
    return None


def _check_version(root: Path) -> None:
    dataset = root / "metadata/dataset.json"
    is_regular(dataset)
    try:
        version = json.loads(dataset.read_text(encoding="utf-8")).get("meds_version")
    except FileNotFoundError:
        raise UserError(
            f"{root} is no MEDS folder: it has no metadata/dataset.json. A MEDS folder has data/ and metadata/ in it; "
            "for MIMIC-IV's own tables set task.source=mimic."
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{dataset} cannot be read ({type(error).__name__}), so its MEDS version is unknown."
        ) from error
    if not re.match(re.escape(READ) + r"(\.|$)", str(version)):
        version_text = "no MEDS version" if version is None else f"MEDS {version}"
        raise UserError(
            f"{dataset} says {version_text}; only {READ} is read. Make the folder anew with a current MIMIC-IV MEDS "
            "extraction, or set task.source=mimic and task.mimic_root to the tables."
        )


def _codes(path: Path) -> Path | None:
    """The descriptions of codes; None where there are none: MEDS leaves them open."""
    if not is_regular(path):
        return None
    return path if {"code", "description"} <= set(_schema(path).names) else None


def _splits(path: Path) -> dict[int, str] | None:
    """Our split of each patient; None without the file. Patients in splits of other names than MEDS's own are left out.

    Raises UserError where the file is not as MEDS has it, or a patient is in two splits.
    """
    if not is_regular(path):
        return None
    schema = pa.schema([("subject_id", pa.int64()), ("split", pa.string())])
    try:
        table = pyarrow.parquet.read_table(path, columns=schema.names).cast(schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{path} does not hold MEDS's columns subject_id and split ({type(error).__name__})."
        ) from error
    pairs = set(zip(*(table[name].to_pylist() for name in ("subject_id", "split")), strict=True))
    splits = {subject: _SPLITS[split] for subject, split in pairs if split in _SPLITS}
    if len({subject for subject, _ in pairs}) < len(pairs):
        raise UserError(f"{path} has patients in two splits: each must be in one.")
    if not splits:
        _log.warning("%s has none of the splits %s: splits are drawn by patient", path.name, ", ".join(_SPLITS))
    return splits or None


def _schema(path: Path) -> pa.Schema:
    try:
        return pyarrow.parquet.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = getattr(error, "strerror", None) or f"it is no intact parquet file ({type(error).__name__})"
        raise UserError(f"{path} cannot be read: {reason}.") from error


def _columns(root: Path, path: Path) -> set[str]:
    """Names of a file's columns. Raises UserError where one of MEDS's own is missing or of another type."""
    name = path.relative_to(root).as_posix()
    schema = _schema(path)
    errors = [f"no column {column}" for column in _KINDS if column not in schema.names]
    errors += [f"the column {column} more than once" for column in repeated(schema.names)]
    for column, (kind, fits) in _KINDS.items():
        if schema.names.count(column) == 1 and not fits(schema.field(column).type):
            errors.append(f"{column} is {schema.field(column).type}, not {kind}")
    if errors:
        raise UserError(f"{root} is not MEDS {READ}: {name} has {', '.join(errors)}.")
    return set(schema.names)
