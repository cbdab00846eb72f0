"""Shards, headers and offsets before there is a tensor; and the files that take the tensors in any order."""

import hashlib
import json
import os
import struct
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from patientdx.checkpoints.layout import PAGE, distribute, header_bytes, index, lay_out
from patientdx.checkpoints.reader import TensorHeader, read_header
from patientdx.checkpoints.writer import FORMAT, ShardFiles, raw

TENSORS = {
    "embedding": torch.randn(50, 8).bfloat16(),
    "count": torch.tensor(7),
    "norm": torch.randn(3).bfloat16(),
    "empty": torch.empty(0, 4),
    "exact": torch.randn(5, 2, dtype=torch.float64),
    "last": torch.randn(6, 8).bfloat16(),
}
HEADERS = [
    TensorHeader(name, tuple(tensor.shape), tensor.dtype, Path(), 0, tensor.nbytes) for name, tensor in TENSORS.items()
]


def written(folder, shards, names):
    with closing(ShardFiles(folder, shards)) as files:
        for name in names:
            data = raw(TENSORS[name])
            half = len(data) // 2
            files.put(name, half, data[half:])
            files.put(name, 0, data[:half])
        files.put_headers(FORMAT)
        files.sync()
        return {name: files.tensor_hash(name) for name in names}, {s.name: files.shard_hash(s.name) for s in shards}


def test_the_safetensors_library_reads_what_was_put_in_any_order(tmp_path):
    shards = lay_out(HEADERS, 1 << 20, FORMAT)
    assert [shard.name for shard in shards] == ["model.safetensors"]
    written(tmp_path, shards, [*reversed(TENSORS)])
    found = load_file(tmp_path / "model.safetensors")
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_offsets_are_as_foretold_and_aligned(tmp_path):
    (shard,) = lay_out(HEADERS, 1 << 20, FORMAT)
    written(tmp_path, [shard], TENSORS)
    file = tmp_path / shard.name
    assert file.stat().st_size == shard.nbytes
    assert [(one.name, one.start, one.nbytes) for one in read_header(file)] == [
        (one.name, one.start, one.nbytes) for one in shard.tensors
    ]
    assert shard.tensors[0].start % PAGE == 0
    assert all(one.start % one.dtype.itemsize == 0 for one in shard.tensors)


def test_shards_are_filled_in_order_and_a_large_tensor_has_its_own():
    shards = lay_out(HEADERS, 150, FORMAT)
    assert [[one.name for one in shard.tensors] for shard in shards] == [
        ["embedding"],  # 800 bytes, more than a shard takes
        ["count", "exact", "empty", "norm"],  # 8 + 6 + 0 + 80, elements of 8 bytes first
        ["last"],
    ]
    assert [shard.name for shard in shards] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    listed = json.loads(index(shards))
    assert listed["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    assert listed["weight_map"]["norm"] == "model-00002-of-00003.safetensors"
    assert index(lay_out(HEADERS, 1 << 20, FORMAT)) is None


def test_hashes_are_those_of_the_bytes_in_the_files(tmp_path):
    shards = lay_out(HEADERS, 150, FORMAT)
    tensors, files = written(tmp_path, shards, TENSORS)
    assert tensors == {name: hashlib.sha256(raw(tensor)).hexdigest() for name, tensor in TENSORS.items()}
    assert files == {shard.name: hashlib.sha256((tmp_path / shard.name).read_bytes()).hexdigest() for shard in shards}


def test_a_header_grows_with_its_metadata_only_by_pages():
    head, _ = header_bytes(HEADERS, Path("x"), FORMAT | {"hash": "0" * 64})
    other, _ = header_bytes(HEADERS, Path("x"), FORMAT | {"hash": "a" * 64})
    assert len(head) == len(other)
    assert len(head) % PAGE == 0
    assert struct.unpack("<Q", head[:8])[0] == len(head) - 8


def test_metadata_of_another_length_are_no_header_of_this_layout(tmp_path):
    files = ShardFiles(tmp_path, lay_out(HEADERS, 1 << 20, FORMAT))
    with closing(files), pytest.raises(ValueError, match=r"the metadata of model\.safetensors are longer or shorter"):
        files.put_headers(FORMAT | {"more": "x" * 2 * PAGE})


def test_every_shard_goes_to_one_process_and_the_loads_are_even():
    shards = lay_out(HEADERS, 1, FORMAT)
    for processes in (1, 2, 3, 9):
        shares = distribute(shards, processes)
        assert len(shares) == processes
        assert sorted(shard.name for share in shares for shard in share) == [shard.name for shard in shards]
    two = distribute(shards, 2)
    loads = [sum(shard.nbytes for shard in share) for share in two]
    assert max(loads) - min(loads) <= max(shard.nbytes for shard in shards)


def test_files_of_an_interrupted_merge_are_taken_up(tmp_path):
    shards = lay_out(HEADERS, 150, FORMAT)
    before, _ = written(tmp_path, shards, TENSORS)
    os.truncate(tmp_path / shards[2].name, 10)  # what a full disk may leave
    with closing(ShardFiles(tmp_path, shards)) as files:
        after = {name: files.tensor_hash(name) for name in TENSORS}
    assert [name for name in TENSORS if before[name] != after[name]] == ["last"]
