"""python -m patientdx.cli certify <merged folder> [--study <result folder>] [--parent <name>=<folder> ...]

Writes certificate.json and certificate.html into the merged folder: what is known of the model before its release. With
--check <certificate.json> it writes nothing and reports whether the certificate is unchanged and belongs to the folder.
Exit status: 0 if all is well, 1 if the weights or the certificate are not what they state, 2 if that is not known.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.checkpoints.identity import derivation
from patientdx.checkpoints.manifest import read_record, summary
from patientdx.checkpoints.patient_mark import marked
from patientdx.checkpoints.source import LOCAL_FOLDER, is_local, open_checkpoint
from patientdx.cli.verify import (
    CANNOT_TELL,
    CERTIFICATE,
    DIFFERS,
    IDENTICAL,
    parent_folders,
    parser,
    print_status,
    source_of,
    verify,
)
from patientdx.core.atomic_io import write_atomically
from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.paths import cache_folder
from patientdx.core.regular_files import is_regular
from patientdx.reporting import certificate as certify_page
from patientdx.reporting.certificate_study import findings

FORMAT = "patientdx certificate 1"
FILE, PAGE = CERTIFICATE
STATUS = {IDENTICAL: "identical", DIFFERS: "differs", CANNOT_TELL: "cannot tell"}
SIGNATURE = "sha256"
_SOURCES = ("source", "adapter")  # of a model in the record; either may be a path
_PATH = re.compile(r"(?<![\w<>.])(?:/|~/)[^\s:,;()'\"]+")


def certificate(
    folder: Path, study: Path | None, parents: Mapping[str, Path], cache: Path, threads: int | None = None
) -> dict[str, Any]:
    """What is known of a merged folder, as plain values, signed by its own hash (see `digest`).

    study: the result folder of the run that scored this model; what was not measured is marked as absent.
    parents, cache, threads: see `verify`. It holds no time, no path of a machine, nothing of a single patient, and
    nothing of a pilot from which λ was drawn privately. Raises UserError where the folder has no record, or the study
    is about another model.
    """
    record = read_record(folder)
    sections = findings(study, record)
    status, words = _proof(folder, parents, cache, threads)
    content = {
        "format": FORMAT,
        "model": {
            "title": summary(record),
            "files": files(folder),
            "tensors": len(record["tensors"]),
            "holds_patients": marked(folder),
        },
        "proof": {"status": STATUS[status], "words": words},
        "parents": [_parent(model, parents, cache, status == IDENTICAL) for model in record["models"]],
        "recipe": {key: record[key] for key in ("method", "arguments", "lambda", "seed", "dtype", "tokenizer", "code")},
        "versions": record["versions"],
        **vars(sections),
    }
    return content | {SIGNATURE: digest(content)}


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256, 64 hex digits, of a certificate without its own hash.

    Hashed are the UTF-8 bytes of its JSON with sorted keys, no blanks, and no escapes where none are needed.
    """
    rest = {key: value for key, value in content.items() if key != SIGNATURE}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by its name, but for a certificate's own."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: sha256(path) for name, path in names.items() if name not in (FILE, PAGE)}


def check(file: Path, folder: Path) -> tuple[int, str]:
    """Exit status and one sentence: whether a certificate is unchanged and belongs to the folder."""
    is_regular(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return CANNOT_TELL, f"cannot tell: {file} has another certificate format than this version reads."
        stated, actual, listed = content[SIGNATURE], digest(content), content["model"]["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return CANNOT_TELL, f"cannot tell: {file} is not a readable certificate ({type(error).__name__})."
    if actual != stated:
        return DIFFERS, f"{file} was changed: its content has the hash {actual}, and it states {stated}."
    here = files(folder) if folder.is_dir() else {}
    for name in sorted(listed.keys() | here.keys()):
        if listed.get(name) != here.get(name):
            how = "is absent" if name not in here else "was changed" if name in listed else "is not in the certificate"
            return DIFFERS, f"{file} is not the certificate of {folder}: {name} {how}."
    page = file.with_name(PAGE)
    if is_regular(page) and page.read_text(encoding="utf-8") != certify_page.page(content):
        return DIFFERS, f"{page} is not the page of {file.name}: it was changed, or another version made it."
    proof = content["proof"]["status"]
    words = f"{file} is unchanged, and {folder} is the folder it was made for: {len(listed)} files, SHA-256 {actual}"
    if content["model"].get("holds_patients"):
        return DIFFERS, f"{words}. But a parent was trained on patients' records: do not release it."
    if proof != STATUS[IDENTICAL]:
        return DIFFERS, f"{words}. But the weights were not shown to be what their record says: {proof}."
    return IDENTICAL, words


def write(content: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """certificate.json and certificate.html in a folder; returns both."""
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    page = certify_page.page(content)
    for name, written in ((FILE, text), (PAGE, page)):
        try:
            write_atomically(folder / name, lambda path, written=written: path.write_text(written, encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{folder / name} cannot be written: {error.strerror}. Name a folder with --output."
            ) from error
    return folder / FILE, folder / PAGE


def _proof(folder: Path, parents: Mapping[str, Path], cache: Path, threads: int | None) -> tuple[int, str]:
    """The result of `verify`, in words that name no path of this machine."""
    try:
        status, words = verify(folder, parents, cache, threads)
    except UserError as error:
        status, words = CANNOT_TELL, str(error)
    for path in (folder.resolve(), folder.absolute(), folder):
        words = words.replace(str(path), "the folder")
    for source in [*parents.values(), *(model[key] for model in read_record(folder)["models"] for key in _SOURCES)]:
        words = words.replace(str(source), "<path>") if is_local(source) else words
    words = _PATH.sub("<path>", words)
    return status, words[:1].upper() + words[1:]


def _parent(model: Mapping[str, Any], parents: Mapping[str, Path], cache: Path, is_proved: bool) -> dict[str, Any]:
    """A parent without paths of this machine; its content hash identifies the model.

    files: SHA-256 of each of its weight files, as a hub shows them, where the proof has read them. located: whether it
    was located by its recorded source, or whoever certifies named a folder.
    """
    shown = {key: model.get(key) for key in ("role", "name", "sha256", "licence", "revision", "source", "adapter")}
    shown = {key: LOCAL_FOLDER if is_local(value) else value for key, value in shown.items()}
    weights: dict[str, str] = {}
    if is_proved:
        _, paths = derivation(open_checkpoint(source_of(model, parents), cache))
        weights = {path.name: sha256(path) for path in paths}
    named = model["name"] in parents or model["role"] in parents
    return shown | {"files": weights, "located": "by whoever certifies" if named else "by its source"}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    known = parser("certify", __doc__)
    known.add_argument("--study", type=Path, help="the result folder of the run that scored this model")
    known.add_argument("--check", type=Path, metavar="FILE", help="a certificate.json to check; nothing is written")
    known.add_argument("--output", type=Path, help="where the certificate goes; otherwise into the folder")
    args = known.parse_args(argv)

    def command() -> tuple[int, str]:
        if args.check is not None:
            return check(args.check, args.folder)
        folders = parent_folders(args.parent)
        content = certificate(args.folder, args.study, folders, cache_folder(), args.threads)
        status = next(key for key, word in STATUS.items() if word == content["proof"]["status"])
        status = DIFFERS if content["model"]["holds_patients"] else status
        written = write(content, args.output or args.folder)
        return status, "\n".join([content["proof"]["words"], *(f"written: {file}" for file in written)])

    return print_status(command)


if __name__ == "__main__":
    sys.exit(main())
