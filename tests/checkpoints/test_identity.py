"""Content hashes: what changes them, what does not, and that they are worked out once."""

import hashlib
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from patientdx.checkpoints import identity
from patientdx.checkpoints.identity import content_hash, folder_hash, weights_hash
from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.checksums import file_hash
from patientdx.core.errors import UserError


@pytest.fixture
def copy(tiny_base, tmp_path):
    """A copy of the tiny base that a test may change."""
    return shutil.copytree(tiny_base, tmp_path / "model")


def both(folder, cache):
    checkpoint = Checkpoint(folder)
    return weights_hash(checkpoint, cache), content_hash(checkpoint, cache)


def test_weights_hash_is_the_stated_digest(tiny_base, tmp_path):
    lines = []
    for name, tensor in sorted(load_file(tiny_base / "model.safetensors").items()):
        digest = hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()
        lines.append(f"{name} {tensor.dtype} {list(tensor.shape)} {digest}")
    expected = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert weights_hash(Checkpoint(tiny_base), tmp_path) == expected


def test_shards_do_not_count(tiny_base, make_tiny, tmp_path):
    sharded = make_tiny(shard_size="20KB")
    assert weights_hash(Checkpoint(sharded), tmp_path) == weights_hash(Checkpoint(tiny_base), tmp_path)


def test_one_changed_bit_counts(copy, tiny_base, tmp_path):
    with (copy / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        last = handle.read(1)
        handle.seek(-1, os.SEEK_END)
        handle.write(bytes([last[0] ^ 1]))
    old, new = both(tiny_base, tmp_path), both(copy, tmp_path)
    assert old[0] != new[0]
    assert old[1] != new[1]


def test_a_renamed_tensor_counts(copy, tiny_base, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.other.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, copy / "model.safetensors")
    assert both(copy, tmp_path)[0] != both(tiny_base, tmp_path)[0]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_configuration_tokenizer_and_template_count_in_the_content_only(copy, tiny_base, tmp_path, name):
    with (copy / name).open("a") as handle:
        handle.write("\n")
    old, new = both(tiny_base, tmp_path), both(copy, tmp_path)
    assert old[0] == new[0]
    assert old[1] != new[1]


def test_a_readme_does_not_count(copy, tiny_base, tmp_path):
    (copy / "README.md").write_text("words")
    assert both(copy, tmp_path) == both(tiny_base, tmp_path)


def test_the_second_time_nothing_is_hashed(tiny_base, tmp_path, monkeypatch):
    first = weights_hash(Checkpoint(tiny_base), tmp_path)
    monkeypatch.setattr(identity, "_weights_digest", lambda checkpoint: pytest.fail("hashed again"))
    assert weights_hash(Checkpoint(tiny_base), tmp_path) == first


def test_other_content_of_the_same_size_and_time_is_hashed_again(tmp_path):
    """As `rsync -t` and `cp -p` leave a file: the time of modification is the old one's."""
    file, other, cache = tmp_path / "file", tmp_path / "other", tmp_path / "cache"
    for path, text in ((file, "one"), (other, "two")):
        path.write_text(text)
        os.utime(path, ns=(1, 1))
    assert file_hash(file, cache) == hashlib.sha256(b"one").hexdigest()
    for replaced in (lambda: other.rename(file), lambda: (file.write_text("six"), os.utime(file, ns=(1, 1)))):
        replaced()
        assert file_hash(file, cache) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_changed_file_and_a_damaged_memory_are_hashed_again(tmp_path):
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_text("one")
    assert file_hash(file, cache) == hashlib.sha256(b"one").hexdigest()
    file.write_text("two")
    os.utime(file, ns=(1, 1))  # whatever the clock's resolution
    assert file_hash(file, cache) == hashlib.sha256(b"two").hexdigest()
    for sidecar in (cache / "hashes").iterdir():
        sidecar.write_text("{")
    assert file_hash(file, cache) == hashlib.sha256(b"two").hexdigest()
    stored = [
        json.loads(sidecar.read_text())["hash"]
        for sidecar in (cache / "hashes").iterdir()
        if sidecar.read_text() != "{"
    ]
    assert stored == [hashlib.sha256(b"two").hexdigest()]


def test_a_folder_is_hashed_by_its_named_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    first = folder_hash(tmp_path, ["a"])
    (tmp_path / "b").write_text("other")
    assert folder_hash(tmp_path, ["a"]) == first
    (tmp_path / "a").write_text("other")
    assert folder_hash(tmp_path, ["a"]) != first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_numbers_that_are_not_finite_are_refused_by_name(copy, tmp_path, value, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(copy / "model.safetensors").items()}
    tensors["model.norm.weight"][3] = value
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"{copy}: model\.norm\.weight holds numbers that are NaN or infinite"):
        content_hash(Checkpoint(copy), tmp_path)
