"""A checkpoint folder opened by its headers alone; tensors are mapped from the file when asked for."""

import errno
import json
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from patientdx.checkpoints.config_numbers import check_config
from patientdx.core.errors import UserError
from patientdx.core.json_files import read_object
from patientdx.core.regular_files import is_regular, refuse_irregular

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # as transformers finds weights
MODEL_ENDINGS = (".json", ".jinja", ".safetensors", ".model", ".txt", ".py")  # of files that models are made of
_LONGEST_HEADER = 100_000_000  # the format's own limit: a longer one is a damaged length field


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors header says of one tensor; ``start`` counts bytes from the beginning of ``file``."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    start: int
    nbytes: int


class Checkpoint:
    """A Hugging Face folder with safetensors weights in one file or in shards.

    Opening reads ``config.json`` and the headers, no weights. ``tensors`` maps each name to its header, in
    the order of the files.

    Raises:
        UserError: no such folder or no configuration in it; no safetensors; a header or a shard that is
            damaged, truncated or absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"There is no checkpoint folder {self.folder}: give the folder that holds config.json.")
        refuse_irregular(self.folder, MODEL_ENDINGS)
        _refuse_adapter_beside(self.folder)
        self.config: dict = _config_of(self.folder)
        self.tensors: dict[str, TensorHeader] = {}
        listed = _listed_shards(self.folder)
        for file in sorted(set(listed.values())) if listed else _unlisted_files(self.folder):
            for header in read_header(file):
                if listed.get(header.name, file) == file:
                    self.tensors[header.name] = header
        absent = [name for name in listed if name not in self.tensors]
        if absent:
            raise UserError(
                f"The index of {self.folder} names {len(absent)} tensors that its shards do not hold "
                f"({', '.join(absent[:3])}): download the folder again."
            )
        check_config(self.config, [header.shape for header in self.tensors.values()], self.folder / "config.json")
        self._storages: dict[Path, torch.UntypedStorage] = {}

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the embedding; if the configuration is silent, the tensors tell."""
        return bool(self.config.get("tie_word_embeddings", "lm_head.weight" not in self.tensors))

    def read(self, name: str) -> Tensor:
        """The tensor with its stored shape and dtype, as a view of the mapped file: nothing is copied.

        It is shared by all who ask for the same name: read it, do not write into it.

        Raises:
            KeyError: there is no such tensor.
        """
        header = self.tensors[name]
        raw = self.read_bytes(name)
        if header.start % header.dtype.itemsize:
            raw = raw.clone()  # other writers may leave tensors unaligned; only an aligned buffer can be viewed
        return raw.view(header.dtype).view(header.shape)

    def read_bytes(self, name: str) -> Tensor:
        """The tensor's stored bytes [nbytes], uint8, as a view of the mapped file."""
        header = self.tensors[name]
        storage = self._storages.get(header.file)
        if storage is None:
            # shared=False maps the file privately: a stray write could never reach the disk.
            size = header.file.stat().st_size
            storage = cast(
                torch.UntypedStorage, torch.UntypedStorage.from_file(str(header.file), shared=False, nbytes=size)
            )
            self._storages[header.file] = storage
        return torch.empty(0, dtype=torch.uint8).set_(storage, header.start, (header.nbytes,), (1,))


def read_header(file: Path) -> list[TensorHeader]:
    """The headers of one safetensors file, in the order of their bytes.

    Raises:
        UserError: the file is absent, truncated or damaged; the message names the bytes expected and found.
    """
    if not is_regular(file):
        raise UserError(f"{file} is absent, though the checkpoint needs it: download the folder again.")
    size = file.stat().st_size
    if not os.access(file, os.R_OK):
        raise UserError(f"{file} cannot be read ({os.strerror(errno.EACCES)}): give yourself the permission.")
    with file.open("rb") as handle:
        prefix = handle.read(8)
        if len(prefix) < 8:
            raise _damaged(file, f"a safetensors file begins with 8 bytes of length, this one has {size} bytes")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(_LONGEST_HEADER, size - 8):
            raise _damaged(file, "the header is longer than the file or than the format allows")
        text = handle.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        headers = [_header_of(file, name, entry, 8 + length) for name, entry in entries.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise _damaged(file, f"its header of {length} bytes is not the JSON of a safetensors file") from error
    headers.sort(key=lambda header: header.start)
    end = max((header.start + header.nbytes for header in headers), default=8 + length)
    if end > size:
        raise _damaged(file, f"its header promises {end} bytes, the file has {size}")
    return headers


def _header_of(file: Path, name: str, entry: dict, data_start: int) -> TensorHeader:
    if entry["dtype"] not in DTYPES:
        raise UserError(f"{file} stores {name} as {entry['dtype']}; readable are {', '.join(DTYPES)}.")
    dtype = DTYPES[entry["dtype"]]
    shape = tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if any(type(number) is not int for number in (first, last, *shape)) or min(shape, default=0) < 0:
        raise ValueError("an offset or a length is no whole number")
    count = 1
    for length in shape:
        count *= length
    if last - first != count * dtype.itemsize:
        expected = count * dtype.itemsize
        raise _damaged(file, f"{name} of shape {list(shape)} takes {expected} bytes, its header gives {last - first}")
    return TensorHeader(name, shape, dtype, file, data_start + first, last - first)


def _config_of(folder: Path) -> dict:
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(
                f"{folder} is a LoRA adapter, not a model: set source to the model it was trained on "
                f"and adapter={folder}."
            )
        raise UserError(f"{folder} has no config.json: give a Hugging Face model folder.")
    return read_object(file)


def _refuse_adapter_beside(folder: Path) -> None:
    """UserError for a model with an adapter in its own folder, which transformers applies without a word."""
    if (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds a model and an adapter (adapter_config.json), and transformers would load the two as one. "
            "Move the adapter to a folder of its own and set adapter to that folder, or delete it."
        )


def _listed_shards(folder: Path) -> dict[str, Path]:
    """Tensor name to shard, from the index; empty when the folder has a single file and no index."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    try:
        weight_map = read_object(index)["weight_map"]
        shards = {str(name): str(file) for name, file in weight_map.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is not a safetensors index: download the folder again.") from error
    files = set(shards.values())
    outside = sorted(file for file in files if Path(file).name != file or not file.endswith(".safetensors"))
    if outside:
        raise UserError(
            f"{index} names {outside[0]!r}, which is no safetensors file of the same folder. Put all shards beside the "
            "index, and name them in it without a path."
        )
    absent = sorted(file for file in files if not (folder / file).is_file())
    if absent:
        raise UserError(
            f"{index} names {len(absent)} of {len(files)} shards that are not there "
            f"({', '.join(absent[:3])}): download the folder again."
        )
    # transformers takes model.safetensors although there is an index, and ignores shards that no index lists.
    others = sorted(path.name for path in folder.glob("model*.safetensors") if path.name not in files)
    if others:
        raise UserError(
            f"{folder} has {INDEX} and beside its shards {', '.join(others[:3])}: it is not clear which are the "
            "weights. Delete those that are not."
        )
    return {name: folder / file for name, file in shards.items()}


def _unlisted_files(folder: Path) -> list[Path]:
    """The one file of a folder without an index."""
    files = sorted(folder.glob("*.safetensors"))
    single = folder / SINGLE
    if single in files:
        others = [path.name for path in files if path != single and path.name.startswith("model")]
        if others:
            raise UserError(
                f"{folder} has {SINGLE} and beside it {', '.join(others[:3])}, but no {INDEX}: it is not clear which "
                "are the weights. Delete those that are not."
            )
        return [single]
    if len(files) > 1:
        raise UserError(
            f"{folder} has {len(files)} safetensors files and no {INDEX} to say which tensor is in which: download "
            "the folder again."
        )
    if files:
        raise UserError(
            f"{folder} has its weights in {files[0].name}, a name under which transformers does not find them: rename "
            f"the file to {SINGLE}."
        )
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    convert = (
        "convert it once and give the new folder: "
        'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        "[K.from_pretrained('{}').save_pretrained('NEW') for K in (M, T)]\""
    )
    if pickles:
        raise UserError(
            f"{folder} has its weights as pickle ({pickles[0]}), which can run code when it is opened, so it "
            f"is not read. If you trust it, {convert.format(folder)}"
        )
    raise UserError(
        f"{folder} has no *.safetensors file. If the model is published as pickle (*.bin) only and you trust "
        f"it, {convert.format('ITS FOLDER OR HUB ID')}"
    )


def _damaged(file: Path, fault: str) -> UserError:
    return UserError(f"{file} is truncated or damaged: {fault}. Download or write it again.")
