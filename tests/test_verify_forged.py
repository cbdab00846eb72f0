"""A record that was edited with the folder, so that it lists what was added: `verify` believes nothing in it."""

import hashlib
import json
import shutil

import pytest

from patientdx.cli import certify, verify
from patientdx.cli.verify import CANNOT_TELL, DIFFERS, IDENTICAL


@pytest.fixture
def folder(saved_merge, tmp_path):
    """A copy of the merge that a test may change."""
    return shutil.copytree(saved_merge, tmp_path / "folder")


def forge(folder, change):
    """Change the parsed provenance.json."""
    file = folder / "provenance.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "name",
    [
        "modeling_x.py",
        "added_tokens.json",
        "tokenizer.model",
        "additional_chat_templates/other.jinja",
        "quantize_config.json",
        "pytorch_model.bin",
        "adapter_config.json",
        "model.safetensors",
    ],
)
def test_a_file_that_the_record_lists_is_still_none_of_the_merge(folder, capsys, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    forge(folder, lambda record: record["files"].update({name: digest}))
    assert verify.main([str(folder)]) == DIFFERS
    assert f"{name.partition('/')[0]} is no file of this merge" in capsys.readouterr().err


def test_weights_outside_the_folder_are_not_read(folder, capsys):
    def add(record):
        shard = next(iter(record["shards"].values()))
        record["shards"]["../folder/model-00001-of-00002.safetensors"] = shard

    forge(folder, add)
    assert verify.main([str(folder)]) == DIFFERS
    assert "its record lists weights in ../folder/model-00001-of-00002.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["files", "shards", "tensors"])
def test_a_checksum_that_nothing_has_is_noticed(folder, capsys, part):
    def change(record):
        name, value = next(iter(record[part].items()))
        record[part][name] = "0" * 64 if part == "files" else value | {"sha256": "0" * 64}

    assert verify.main([str(folder)]) == IDENTICAL
    forge(folder, change)
    assert verify.main([str(folder)]) == DIFFERS
    assert "provenance.json states another checksum of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("files", None),
        ("files", ["config.json"]),
        ("method", 5),
        ("arguments", []),
        ("lambda", "x"),
        ("seed", "0"),
        ("models", []),
        ("models", ["base", "pivot"]),
        ("models", [{"role": "base", "name": ["x"], "sha256": ""}, {"role": "pivot", "name": "x", "sha256": ""}]),
        ("config_from", -1),
        ("tensors", []),
        ("shards", {}),
        ("versions", None),
        ("dp_epsilon", 0),
    ],
)
@pytest.mark.parametrize("command", [verify, certify])
def test_a_record_of_other_types_is_no_record(folder, capsys, command, key, value):
    forge(folder, lambda record: record.update({key: value}))
    assert command.main([str(folder)]) == CANNOT_TELL
    words = capsys.readouterr().err
    assert f"provenance.json is not the record of a merge: {key}" in words


def test_a_record_whose_configurations_do_not_differ_takes_none(folder, capsys):
    forge(folder, lambda record: record.update({"config_from": 1}))
    assert verify.main([str(folder)]) == DIFFERS
    assert "they do not" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["curve.evaluate", "method.merge_method", "nothing.at_all", "slerp.np"])
def test_what_is_no_merge_method_is_not_called(folder, capsys, method):
    forge(folder, lambda record: record.update({"method": f"patientdx.merge.{method}"}))
    assert verify.main([str(folder)]) == CANNOT_TELL
    assert method in capsys.readouterr().err
