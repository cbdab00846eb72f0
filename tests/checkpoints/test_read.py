"""Opening a checkpoint by its headers, and every way in which a folder can be wrong."""

import json
import resource
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from patientdx.checkpoints.reader import Checkpoint, read_header
from patientdx.checkpoints.writer import write_safetensors
from patientdx.core.errors import UserError


@pytest.fixture
def copy(tiny_base, tmp_path):
    """A copy of the tiny base that a test may break."""
    return shutil.copytree(tiny_base, tmp_path / "model")


@pytest.fixture(scope="module")
def sharded(make_tiny):
    return make_tiny(shard_size="20KB")


def refusal(folder):
    with pytest.raises(UserError) as caught:
        Checkpoint(folder)
    return str(caught.value)


def test_headers_and_tensors_are_those_of_the_safetensors_library(tiny_base):
    checkpoint = Checkpoint(tiny_base)
    expected = load_file(tiny_base / "model.safetensors")
    assert set(checkpoint.tensors) == set(expected)
    assert "lm_head.weight" not in checkpoint.tensors
    assert checkpoint.tied
    for name, tensor in expected.items():
        header = checkpoint.tensors[name]
        assert (header.shape, header.dtype) == (tuple(tensor.shape), tensor.dtype)
        assert torch.equal(checkpoint.read(name), tensor)


def test_reading_copies_nothing(tiny_base):
    checkpoint = Checkpoint(tiny_base)
    first, again = (checkpoint.read("model.norm.weight") for _ in range(2))
    assert first.data_ptr() == again.data_ptr()
    size = (tiny_base / "model.safetensors").stat().st_size
    assert first.untyped_storage().nbytes() == size


def test_shards_hold_the_same_as_one_file(sharded, tiny_base):
    assert len(list(sharded.glob("*.safetensors"))) > 2
    one, many = Checkpoint(tiny_base), Checkpoint(sharded)
    assert set(one.tensors) == set(many.tensors)
    assert all(torch.equal(one.read(name), many.read(name)) for name in one.tensors)
    assert len({header.file for header in many.tensors.values()}) > 2


def test_the_index_says_which_shard_counts(sharded, tmp_path):
    copy = shutil.copytree(sharded, tmp_path / "model")
    first, *_, last = sorted(copy.glob("*.safetensors"))
    name = next(iter(load_file(first)))
    save_file(load_file(last) | {name: torch.full((2,), 9.0)}, last)
    found = Checkpoint(copy)
    assert found.tensors[name].file == first
    assert torch.equal(found.read(name), Checkpoint(sharded).read(name))


def test_all_dtypes_scalars_and_empty_tensors_come_back(tmp_path):
    tensors = {
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.empty(0, 3),
        "flags": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).half(),
        "eight": torch.randn(4).to(torch.float8_e4m3fn),
        "whole": torch.arange(6).reshape(2, 3),
    }
    (tmp_path / "config.json").write_text("{}")
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    for name, tensor in tensors.items():
        read = checkpoint.read(name)
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
        # by bytes: eight-bit floats have no equality of their own
        assert torch.equal(read.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_unaligned_tensors_are_read_all_the_same(tmp_path):
    values = torch.tensor([1.0, -2.0, 3.0])
    header = json.dumps(
        {
            "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "floats": {"dtype": "F32", "shape": [3], "data_offsets": [1, 13]},
        }
    ).encode()
    data = struct.pack("<Q", len(header)) + header + b"\x07" + values.numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(data)
    (tmp_path / "config.json").write_text("{}")
    assert torch.equal(Checkpoint(tmp_path).read("floats"), values)


def test_what_is_written_tensor_by_tensor_is_read_by_the_safetensors_library(tiny_base, tmp_path):
    checkpoint = Checkpoint(tiny_base)
    write_safetensors(tmp_path / "new.safetensors", list(checkpoint.tensors.values()), checkpoint.read)
    expected, found = load_file(tiny_base / "model.safetensors"), load_file(tmp_path / "new.safetensors")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(header.start % 8 == 0 for header in read_header(tmp_path / "new.safetensors"))


def test_writer_does_not_take_a_tensor_of_other_shape(tiny_base, tmp_path):
    checkpoint = Checkpoint(tiny_base)
    with pytest.raises(ValueError, match="is not what the header promises"):
        write_safetensors(tmp_path / "new.safetensors", list(checkpoint.tensors.values()), lambda name: torch.zeros(1))


def test_opening_reads_headers_only(tmp_path):
    """40 GB by its header, in a file with a hole: opening must not touch the data."""
    size = 40_000_000_000
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / "model.safetensors").open("wb") as handle:
        handle.write(struct.pack("<Q", len(header)) + header)
        handle.truncate(8 + len(header) + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.tensors["w"].shape == (size // 2,)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_absent_folder(tmp_path):
    assert refusal(tmp_path / "none") == (
        f"There is no checkpoint folder {tmp_path}/none: give the folder that holds config.json."
    )


def test_adapter_folder_is_not_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert refusal(tmp_path) == (
        f"{tmp_path} is a LoRA adapter, not a model: set source to the model it was trained on and adapter={tmp_path}."
    )


def test_no_configuration(copy):
    (copy / "config.json").unlink()
    assert refusal(copy) == f"{copy} has no config.json: give a Hugging Face model folder."


def test_broken_configuration(copy):
    (copy / "config.json").write_text('{"model_type": ')
    assert refusal(copy).startswith(f"{copy}/config.json is not valid JSON (Expecting value")


def test_pickle_is_refused_with_the_way_to_convert_it(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"anything")
    message = refusal(copy)
    assert message.startswith(
        f"{copy} has its weights as pickle (pytorch_model.bin), which can run code when it is opened, "
        "so it is not read."
    )
    assert f"M, AutoTokenizer as T; [K.from_pretrained('{copy}').save_pretrained('NEW') for K in (M, T)]" in message


def test_no_weights_at_all(copy):
    (copy / "model.safetensors").unlink()
    assert refusal(copy).startswith(f"{copy} has no *.safetensors file. If the model is published as pickle")


def test_truncated_data_names_bytes_promised_and_found(copy):
    file = copy / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.truncate(size - 1000)
    assert refusal(copy) == (
        f"{file} is truncated or damaged: its header promises {size} bytes, the file has {size - 1000}. "
        "Download or write it again."
    )


def test_header_longer_than_the_file(copy):
    file = copy / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 5000) + b"{}")
    assert refusal(copy) == (
        f"{file} is truncated or damaged: the header is longer than the file or than the format allows. "
        "Download or write it again."
    )


def test_file_shorter_than_the_length_field(copy):
    file = copy / "model.safetensors"
    file.write_bytes(b"abc")
    assert refusal(copy) == (
        f"{file} is truncated or damaged: a safetensors file begins with 8 bytes of length, this one has "
        "3 bytes. Download or write it again."
    )


@pytest.mark.parametrize("text", [b"not json at all", b"[1, 2, 3]", b'{"w": 3}', b'{"w": {"dtype": "F32"}}'])
def test_header_that_is_no_safetensors_json(copy, text):
    file = copy / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    assert refusal(copy) == (
        f"{file} is truncated or damaged: its header of {len(text)} bytes is not the JSON of a safetensors "
        "file. Download or write it again."
    )


def test_shape_that_contradicts_the_bytes(copy):
    file = copy / "model.safetensors"
    text = b'{"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 8]}}'
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    assert "w of shape [2, 3] takes 24 bytes, its header gives 8" in refusal(copy)


def test_unknown_element_type(copy):
    file = copy / "model.safetensors"
    text = b'{"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}'
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0")
    assert refusal(copy).startswith(f"{file} stores w as F4; readable are F64, F32, F16, BF16")


def test_index_that_names_an_absent_shard(sharded, tmp_path):
    copy = shutil.copytree(sharded, tmp_path / "model")
    shards = sorted(copy.glob("*.safetensors"))
    shards[1].unlink()
    assert refusal(copy) == (
        f"{copy}/model.safetensors.index.json names 1 of {len(shards)} shards that are not there "
        f"({shards[1].name}): download the folder again."
    )


def test_index_that_names_an_absent_tensor(sharded, tmp_path):
    copy = shutil.copytree(sharded, tmp_path / "model")
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.layers.9.missing"] = next(iter(index["weight_map"].values()))
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refusal(copy) == (
        f"The index of {copy} names 1 tensors that its shards do not hold (model.layers.9.missing): "
        "download the folder again."
    )


def test_shards_without_an_index(sharded, tmp_path):
    copy = shutil.copytree(sharded, tmp_path / "model")
    (copy / "model.safetensors.index.json").unlink()
    assert "safetensors files and no model.safetensors.index.json to say which tensor is in which" in refusal(copy)


def _single_beside_index(folder):
    shutil.copy(next(folder.glob("*.safetensors")), folder / "model.safetensors")


def _unlisted_shard(folder):
    shutil.copy(next(folder.glob("*.safetensors")), folder / "model-00099-of-00099.safetensors")


def _outside(folder):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    where = {name: f"../{folder.name}/{shard}" for name, shard in content["weight_map"].items()}
    index.write_text(json.dumps(content | {"weight_map": where}))


def _adapter_beside(folder):
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_single_beside_index, "model.safetensors: it is not clear which are the weights"),
        (_unlisted_shard, "model-00099-of-00099.safetensors: it is not clear which are the weights"),
        (_outside, "which is no safetensors file of the same folder"),
        (_adapter_beside, "holds a model and an adapter"),
    ],
)
def test_weights_that_transformers_would_take_elsewhere_are_refused(make_tiny, tmp_path, change, words):
    folder = shutil.copytree(make_tiny(shard_size="20KB"), tmp_path / "model")
    change(folder)
    assert words in refusal(folder)


def test_a_name_that_transformers_does_not_look_for_is_refused(copy):
    (copy / "model.safetensors").rename(copy / "weights.safetensors")
    assert "rename the file to model.safetensors" in refusal(copy)
