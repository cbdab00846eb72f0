"""Publish a merged folder on the Hugging Face hub.

    python -m patientdx.cli push FOLDER ORG/NAME [--study RESULT] [--dry-run] [--public]

Sends what a merge wrote, and nothing else: weights, configuration, tokenizer, licences, provenance.json and the model
card, whose front matter names parents, licence and, with --study, the results of the run that scored this merge. The
card is also written into the folder. --dry-run shows what would be sent and sends nothing. A repository that is not
there is made, private unless --public is given.

A certificate in the folder is sent if it is one of the files that are sent. Refused are folders that are marked as
holding patients, that have a file that no merge wrote, and merges of folders of this machine, which nobody else could
verify. The token is that of `hf auth login` or HF_TOKEN, the hub that of HF_ENDPOINT.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patientdx.checkpoints.manifest import FILE, read_record, summary
from patientdx.checkpoints.patient_mark import MARK, marked
from patientdx.checkpoints.sidecar_files import CARD, model_card
from patientdx.checkpoints.source import HUB_ID, is_local
from patientdx.cli.ending import ended
from patientdx.cli.messages import argument_parser, print_output
from patientdx.cli.verify import CERTIFICATE
from patientdx.core.atomic_io import write_atomically
from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.paths import expanded
from patientdx.reporting.certificate_study import scores


def contents(folder: Path, study: Path | None) -> tuple[dict[str, Path | bytes], list[str]]:
    """What is sent by its name in the repository, a file or (the card) its bytes, and sentences that belong beside it.

    Raises UserError for a folder that must not be published, or whose files are not those that the merge wrote.
    """
    record = read_record(folder)
    if marked(folder):
        raise UserError(f"{folder} is marked as holding patients ({MARK}), and stays in the house: nothing was sent.")
    local = [
        model["name"] for model in record["models"] if is_local(model.get("source")) or is_local(model.get("adapter"))
    ]
    if local:
        raise UserError(
            f"{', '.join(local)}: read from a folder of this machine, which the weights' headers name, and which "
            "nobody else can verify. Merge again with a hub id (base_model=<org>/<name>) in place of the folder."
        )
    hashes = {**record["files"], **{name: shard["sha256"] for name, shard in record["shards"].items()}}
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if strange := sorted(present - {*hashes, FILE, CARD, *CERTIFICATE}):
        raise UserError(f"{folder} has files that no merge wrote: {', '.join(strange)}. Remove them.")
    if changed := [name for name in hashes if name not in present or sha256(folder / name) != hashes[name]]:
        raise UserError(f"{folder} is not as the merge left it: {', '.join(changed)}. Merge again, or run verify.")
    card = model_card(record, [] if study is None else scores(study, record))
    sent: dict[str, Path | bytes] = {name: folder / name for name in (*hashes, FILE)} | {CARD: card}
    notes = [] if study else ["the card has no results: --study=<result folder> adds those of the run that scored it"]
    notes += [f"{model['name']} states no licence" for model in record["models"] if not model.get("licence")]
    if present & set(CERTIFICATE):
        if _certified_files(folder) == {**hashes, FILE: sha256(folder / FILE), CARD: hashlib.sha256(card).hexdigest()}:
            sent |= {name: folder / name for name in CERTIFICATE if name in present}
        else:
            notes.append(f"{' and '.join(CERTIFICATE)} are of other files and are not sent: certify again after this")
    return sent, notes


def _certified_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that the certificate in a folder lists."""
    return json.loads((folder / CERTIFICATE[0]).read_text(encoding="utf-8"))["model"]["files"]


def push(folder: Path, repository: str, study: Path | None, *, dry_run: bool, public: bool) -> str:
    """Send the folder, or say what would be sent; returns what there is to say, in lines.

    Raises UserError for what `contents` refuses, and where the hub or the network does.
    """
    if not HUB_ID.fullmatch(repository):
        raise UserError(f"{repository} is no name of a repository: give <organisation or user>/<name>.")
    folder = expanded(folder)
    sent, notes = contents(folder, None if study is None else expanded(study))
    card = sent[CARD]
    assert isinstance(card, bytes)
    sizes = {name: len(item) if isinstance(item, bytes) else item.stat().st_size for name, item in sent.items()}
    lines = [f"{size:>15,}  {name}" for name, size in sorted(sizes.items())]
    lines += [f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files", *(f"note: {note}" for note in notes)]
    if dry_run:
        shown = card.decode().partition("\n# ")[0].strip()
        return "\n".join([*lines, f"{CARD} begins with", shown, f"nothing was sent to {repository}: a dry run"]) + "\n"
    write_atomically(folder / CARD, lambda path: path.write_bytes(card))
    address = _send(repository, sent, f"{summary(read_record(folder))}, by patientdx", public)
    return "\n".join([*lines, f"sent: {address}"]) + "\n"


def _send(repository: str, sent: Mapping[str, Path | bytes], message: str, public: bool) -> str:
    """One commit with all files; its address."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError  # pyright: ignore[reportPrivateImportUsage]

    api, files = HfApi(), [CommitOperationAdd(name, item) for name, item in sorted(sent.items())]
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        commit: Any = api.create_commit(repository, files, commit_message=message)
    except LocalTokenNotFoundError as error:
        raise UserError("the hub needs a token: `hf auth login`, or HF_TOKEN.") from error
    except HfHubHTTPError as error:
        reason = error.server_message or str(error).partition("\n")[0]
        raise UserError(f"the hub refused {repository}: {reason}") from error
    except (OSError, HTTPError) as error:
        raise UserError(f"the hub cannot be reached ({type(error).__name__}): nothing was published.") from error
    return str(commit.commit_url)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 2 where it is refused."""
    parser = argument_parser("push", __doc__)
    parser.add_argument("folder", type=Path, help="a folder that a merge was saved in")
    parser.add_argument("repository", metavar="org/name", help="where it goes")
    parser.add_argument("--study", type=Path, help="the result folder of the run that scored this model")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    args = parser.parse_args(argv)
    return print_output(
        lambda: push(args.folder, args.repository, args.study, dry_run=args.dry_run, public=args.public)
    )


if __name__ == "__main__":
    sys.exit(ended(main))
