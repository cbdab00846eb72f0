"""Safetensors files written tensor by tensor, so that memory holds one tensor and not the model."""

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from patientdx.checkpoint.read import DTYPES, TensorHeader

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(file: Path, headers: Sequence[TensorHeader], tensor_of: Callable[[str], Tensor]) -> None:
    """Write one safetensors file with the tensors of ``headers``, in that order.

    Args:
        file: the file to make; written in place, so give a temporary name where that matters.
        headers: name, shape and dtype of every tensor; their file and place are not looked at.
        tensor_of: gives the tensor of a name, asked once per tensor in order; its shape and dtype must be the
            header's.
    """
    entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without a format
    end = 0
    for header in headers:
        start, end = end, end + header.nbytes
        entries[header.name] = {
            "dtype": _NAMES[header.dtype],
            "shape": list(header.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # keeps every tensor of 8-byte elements aligned in the mapped file
    with file.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)))
        handle.write(text)
        for header in headers:
            tensor = tensor_of(header.name)
            if tuple(tensor.shape) != header.shape or tensor.dtype != header.dtype:
                raise ValueError(f"{header.name}: {tensor.dtype} {list(tensor.shape)} is not what the header promises")
            handle.write(memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
