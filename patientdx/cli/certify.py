"""python -m patientdx.cli certify <merged folder> [--study <result folder>] [--parent <name>=<folder> ...]

Writes certificate.json and certificate.html into the merged folder: what is known of the model before it leaves the
house. With --check <certificate.json> it writes nothing and says whether the certificate is whole and the folder the
one that it was made for. Ends with 0 if all is well, 1 if the weights or the certificate are not what they claim to be,
and 2 if that cannot be told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.checkpoints.manifest import read_record, summary
from patientdx.checkpoints.source import REPOSITORY
from patientdx.cli.verify import CANNOT_TELL, DIFFERS, IDENTICAL, verify
from patientdx.core.atomic_io import write_atomically
from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.reporting import certificate as certify_page
from patientdx.reporting.certificate_study import Findings, findings

FORMAT = "patientdx certificate 1"
FILE, PAGE = "certificate.json", "certificate.html"
STATUS = {IDENTICAL: "identical", DIFFERS: "differs", CANNOT_TELL: "cannot tell"}
SIGNATURE = "sha256"
_PLACES = ("source", "adapter")  # of a model in the record; either may be a path
_PATH = re.compile(r"(?<![\w<>.])(?:/|~/)[^\s:,;()'\"]+")


def certificate(
    folder: Path, study: Path | None, given: Mapping[str, Path], cache: Path, threads: int | None = None
) -> dict[str, Any]:
    """What is known of a merged folder, as plain values, signed by its own hash (see `digest`).

    study: the result folder of the run that scored this very model; what was not looked at is said to be absent.
    given, cache, threads: see `verify`. It holds no time, no path of a machine, nothing of a single patient, and
    nothing of a pilot from which λ was drawn privately. Raises UserError where the folder has no record, or the study is
    about another model.
    """
    record = read_record(folder)
    found = findings(study, record)
    status, said = _proof(folder, given, cache, threads)
    content = {
        "format": FORMAT,
        "model": {
            "title": summary(record),
            "files": files(folder),
            "tensors": len(record["tensors"]),
        },
        "proof": {"status": STATUS[status], "words": said},
        "parents": [_parent(model) for model in record["models"]],
        "recipe": {key: record[key] for key in ("method", "arguments", "lambda", "seed", "dtype", "tokenizer", "code")},
        "versions": record["versions"],
        **_told(found),
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
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: sha256(path) for name, path in names.items() if name not in (FILE, PAGE)}


def check(file: Path, folder: Path) -> tuple[int, str]:
    """Exit status and one sentence: whether a certificate is as it was written, and the folder the one it is for."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return CANNOT_TELL, f"cannot tell: {file} is a certificate of another format than this version reads."
        stated, own, listed = content[SIGNATURE], digest(content), content["model"]["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return CANNOT_TELL, f"cannot tell: {file} is no certificate that can be read ({type(error).__name__})."
    if own != stated:
        return DIFFERS, f"{file} was changed: its content has the hash {own}, and it states {stated}."
    here = files(folder) if folder.is_dir() else {}
    for name in sorted(listed.keys() | here.keys()):
        if listed.get(name) != here.get(name):
            how = "is absent" if name not in here else "was changed" if name in listed else "is not in the certificate"
            return DIFFERS, f"{file} is not the certificate of {folder}: {name} {how}."
    proof = content["proof"]["status"]
    words = f"{file} is whole, and {folder} is the folder it was made for: {len(listed)} files, SHA-256 {own}"
    if proof != STATUS[IDENTICAL]:
        return DIFFERS, f"{words}. But the weights were not shown to be what their record says: {proof}."
    return IDENTICAL, words


def write(content: Mapping[str, Any], place: Path) -> tuple[Path, Path]:
    """certificate.json and certificate.html in a folder; returns both."""
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    page = certify_page.page(content)
    for name, written in ((FILE, text), (PAGE, page)):
        try:
            write_atomically(place / name, lambda aside, written=written: aside.write_text(written, encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{place / name} cannot be written: {error.strerror}. Name a folder with --output."
            ) from error
    return place / FILE, place / PAGE


def _proof(folder: Path, given: Mapping[str, Path], cache: Path, threads: int | None) -> tuple[int, str]:
    """What `verify` finds, in words that name no place of this machine."""
    try:
        status, said = verify(folder, given, cache, threads)
    except UserError as fault:
        status, said = CANNOT_TELL, str(fault)
    for place in (folder.resolve(), folder.absolute(), folder):
        said = said.replace(str(place), "the folder")
    for place in [*given.values(), *(model[key] for model in read_record(folder)["models"] for key in _PLACES)]:
        said = said.replace(str(place), "<path>") if _is_place(place) else said
    said = _PATH.sub("<path>", said)
    return status, said[:1].upper() + said[1:]


def _parent(model: Mapping[str, Any]) -> dict[str, Any]:
    """Who a parent is: a place on this machine is left out, its content hash says which model it is."""
    shown = {key: model.get(key) for key in ("role", "name", "sha256", "licence", "revision", "source", "adapter")}
    return {key: certify_page.OWN_FOLDER if _is_place(value) else value for key, value in shown.items()}


def _is_place(source: str | Path | None) -> bool:
    """Whether a model's source is a path rather than a hub id, a file in a wheel or one of this repository."""
    path = str(source or "")
    return path.startswith(("/", "~", ".")) or (bool(path) and not (REPOSITORY / path).exists() and Path(path).exists())


def _told(found: Findings) -> dict[str, Any]:
    return {"study": found.study, "choice": found.choice, "leakage": found.leakage, "membership": found.membership}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser("python -m patientdx.cli certify", description=__doc__.split("\n\n")[1])
    parser.add_argument("folder", type=Path, help="a folder that a merge was saved in")
    parser.add_argument("--study", type=Path, help="the result folder of the run that scored this model")
    parser.add_argument("--check", type=Path, metavar="FILE", help="a certificate.json to check; nothing is written")
    parser.add_argument("--output", type=Path, help="where the certificate goes; otherwise into the folder")
    parser.add_argument("--parent", action="append", default=[], metavar="NAME=FOLDER", help="where a model is")
    parser.add_argument("--threads", type=int, help="threads to use; otherwise one for each core")
    asked = parser.parse_args(arguments)
    cache = Path(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx")).expanduser()
    try:
        if asked.check is not None:
            status, said = check(asked.check, asked.folder)
        else:
            given = dict(one.partition("=")[::2] for one in asked.parent)
            if not all(given.values()):
                raise UserError(f"--parent {' '.join(asked.parent)}: write it as name=folder.")
            folders = {name: Path(folder).expanduser() for name, folder in given.items()}
            content = certificate(asked.folder, asked.study, folders, cache, asked.threads)
            status = next(key for key, word in STATUS.items() if word == content["proof"]["status"])
            written = write(content, asked.output or asked.folder)
            said = "\n".join([content["proof"]["words"], *(f"written: {file}" for file in written)])
    except UserError as fault:
        status, said = CANNOT_TELL, f"cannot tell: {fault}"
    print(said, file=sys.stdout if status == IDENTICAL else sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
