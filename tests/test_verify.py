"""python -m patientdx.cli verify: says whether a folder is the merge it claims to be, and believes no checksum."""

import hashlib
import json
import os
import shutil
import sys

import pytest
import torch
from command_line import CONSOLE, forked
from merged_folders import recipe_of, sources
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from patientdx import __version__
from patientdx.checkpoints.patient_mark import MARK, mark, marked
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import ModelSource
from patientdx.cli.verify import CANNOT_TELL, DIFFERS, IDENTICAL, main
from patientdx.core.functions import Call
from patientdx.evaluation.config.merge import MergeSpec
from patientdx.evaluation.session import Session
from patientdx.merge.schedule import schedule
from patientdx.merge.ties import ties

NAME = "model.layers.1.mlp.up_proj.weight"
TITLE = "slerp λ=0.4 of instruct and numeric"


@pytest.fixture
def folder(saved_merge, tmp_path):
    """A copy of the merge that a test may change."""
    return shutil.copytree(saved_merge, tmp_path / "folder")


def said(capsys, *arguments):
    """Exit status, what was printed on stdout, what on stderr."""
    capsys.readouterr()
    status = main([str(one) for one in arguments])
    out = capsys.readouterr()
    return status, out.out.strip(), out.err.strip()


def place_of(folder, name, element):
    """Shard and byte of an element."""
    header = Checkpoint(folder).tensors[name]
    return header.file, header.start + element * header.dtype.itemsize


def flip(folder, name, element):
    """Change the lowest bit of an element; gives its value before and after."""
    values = []
    file, byte = place_of(folder, name, element)
    with file.open("r+b") as handle:
        values.append(load_file(file)[name].flatten()[element].item())
        handle.seek(byte)
        old = handle.read(1)
        handle.seek(byte)
        handle.write(bytes([old[0] ^ 1]))
    return [*values, load_file(file)[name].flatten()[element].item()]


def rewrite(folder, change):
    """Change provenance.json."""
    file = folder / "provenance.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def test_a_merge_is_recognised(folder, capsys):
    count = sum(header.nbytes // 2 for header in Checkpoint(folder).tensors.values())
    words = f"{folder} is {TITLE}, bit for bit: 20 tensors, {count} parameters"
    assert said(capsys, folder) == (IDENTICAL, words, "")
    assert said(capsys, folder, "--threads", "3") == (IDENTICAL, words, "")


def test_one_flipped_bit_is_named(folder, capsys):
    derived, stored = flip(folder, NAME, 70)
    assert said(capsys, folder) == (
        DIFFERS,
        "",
        f"{folder} differs from {TITLE}: {NAME} in 1 of 2048 elements, first [2, 6]: stored {stored!r}, derived "
        f"{derived!r}. 0 other tensors differ. It was changed since: its checksum is not the recorded one.",
    )


def test_the_first_of_several_is_named(folder, capsys):
    flip(folder, "model.norm.weight", 3)
    for element in (2000, 40, 41):
        flip(folder, NAME, element)
    status, _, words = said(capsys, folder)
    assert status == DIFFERS
    assert f": {NAME} in 3 of 2048 elements, first [1, 8]: stored " in words
    assert ". 1 other tensors differ. " in words


def test_recorded_checksums_are_not_believed(folder, capsys):
    flip(folder, NAME, 0)
    file, _ = place_of(folder, NAME, 0)

    def forge(record):
        tensor = load_file(file)[NAME]
        record["tensors"][NAME]["sha256"] = hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()
        record["shards"][file.name]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()

    rewrite(folder, forge)
    status, _, words = said(capsys, folder)
    assert status == DIFFERS
    assert words.endswith("Its checksum is the recorded one, so the file was not changed nor the versions.")


def test_other_versions_are_named_where_weights_differ(folder, capsys):
    flip(folder, NAME, 0)
    file, _ = place_of(folder, NAME, 0)
    old = {"versions": {"patientdx": "0.0.1", "python": sys.version.split()[0], "torch": torch.__version__}}

    def forge(record):
        tensor = load_file(file)[NAME]
        record["tensors"][NAME]["sha256"] = hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()
        record.update(old, code="0" * 64)
        for shard in folder.glob("*.safetensors"):
            with safe_open(shard, "pt") as opened:
                said_there = json.loads(opened.metadata()["patientdx"]) | old | {"code": "0" * 64}
            metadata = {"format": "pt", "patientdx": json.dumps(said_there, separators=(",", ":"))}
            save_file(load_file(shard), shard, metadata)

    rewrite(folder, forge)
    _, _, words = said(capsys, folder)
    assert words.endswith(
        "Its checksum is the recorded one, so the file was not changed; it was written with patientdx 0.0.1, here "
        f"{__version__}, other code of the merge methods."
    )


def test_a_record_of_another_merge_is_noticed(folder, capsys):
    rewrite(folder, lambda record: record.update({"lambda": 0.5}))
    assert said(capsys, folder) == (
        DIFFERS,
        "",
        f"{folder} differs from slerp λ=0.5 of instruct and numeric: the header of model-00001-of-00003.safetensors "
        "describes another merge than provenance.json.",
    )


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "chat_template.jinja"])
def test_a_changed_file_beside_the_weights_is_named(folder, capsys, name):
    with (folder / name).open("a") as handle:
        handle.write("\n")
    words = f"{folder} differs from {TITLE}: {name} is not what follows from the base's."
    assert said(capsys, folder) == (DIFFERS, "", words)
    (folder / name).unlink()
    if name != "config.json":
        assert said(capsys, folder) == (DIFFERS, "", words)


def test_absent_and_further_tensors_and_other_dtypes_are_named(folder, capsys):
    file, _ = place_of(folder, NAME, 0)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    index = folder / "model.safetensors.index.json"
    listed = json.loads(index.read_text())

    def verdict(content, weight_map):
        save_file(content, file, metadata)
        index.write_text(json.dumps(listed | {"weight_map": weight_map}))
        status, _, words = said(capsys, folder)
        assert status == DIFFERS
        return words.removeprefix(f"{folder} differs from {TITLE}: ")

    whole = listed["weight_map"]
    less = {name: tensor for name, tensor in tensors.items() if name != NAME}
    assert verdict(less, {name: one for name, one in whole.items() if name != NAME}) == f"{NAME} is absent."
    more = tensors | {"model.other": torch.ones(1)}
    assert verdict(more, whole | {"model.other": file.name}) == "model.other is in none of the parents."
    wide = tensors | {NAME: tensors[NAME].float()}
    assert verdict(wide, whole) == (
        f"{NAME} is stored as torch.float32 [64, 32] and derived as torch.bfloat16 [64, 32]."
    )


def test_another_parent_is_named(folder, capsys, make_tiny):
    other = make_tiny(noise_seed=9)
    recorded = json.loads((folder / "provenance.json").read_text())["models"][1]["sha256"]
    status, out, words = said(capsys, folder, "--parent", f"numeric={other}")
    assert (status, out) == (CANNOT_TELL, ""), words
    assert words.startswith(
        f"cannot tell: pivot numeric in {other} is not the model that was merged: its content hash is "
    )
    assert words.endswith(f", recorded is {recorded}. Give the right one: --parent numeric=<folder>.")


def test_parents_that_have_moved_can_be_given(tiny_base, tiny_pivot, tmp_path, capsys):
    base, pivot = (shutil.copytree(one, tmp_path / name) for one, name in ((tiny_base, "a"), (tiny_pivot, "b")))
    described = sources(instruct=base, numeric=pivot)
    recipe = recipe_of(base, pivot, weight=schedule({"mlp": [0, 1], "rest": 0.3}))
    folder = save(recipe, tmp_path / "merged", cache=tmp_path / "cache", sources=described, dtype="float32")
    assert said(capsys, folder)[0] == IDENTICAL
    pivot.rename(tmp_path / "c")
    base.rename(tmp_path / "d")
    status, _, words = said(capsys, folder)
    assert status == CANNOT_TELL
    assert f"there is nothing at {base}" in words
    moved = ["--parent", f"base={tmp_path / 'd'}", "--parent", f"numeric={tmp_path / 'c'}"]
    assert said(capsys, folder, *moved)[0] == IDENTICAL


def test_models_without_a_source_must_be_given(tiny_base, tiny_pivot, tmp_path, capsys):
    folder = save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", cache=tmp_path / "cache")
    assert said(capsys, folder)[2] == ("cannot tell: The record does not say where base is: --parent base=<folder>.")
    given = ["--parent", f"base={tiny_base}", "--parent", f"pivot={tiny_pivot}"]
    assert said(capsys, folder, *given)[0] == IDENTICAL


def test_an_ancestor_and_whole_model_trimming_are_derived_again(tiny_base, make_tiny, tmp_path, capsys):
    pivots = [make_tiny(noise_seed=seed) for seed in (1, 2)]
    models = (tiny_base, *pivots)
    recipe = recipe_of(*models, method=ties, weight=0.7, ancestor=Checkpoint(tiny_base))
    described = sources(one=models[0], two=models[1], three=models[2], origin=tiny_base)
    folder = save(recipe, tmp_path / "merged", cache=tmp_path / "cache", sources=described, threads=2)
    status, words, _ = said(capsys, folder)
    assert status == IDENTICAL
    assert f"{folder} is ties λ=0.7 of one, two and three, bit for bit" in words


@pytest.mark.parametrize("tokenizer", ["pivot", "union"])
def test_a_common_vocabulary_is_made_again(tiny_base, make_tiny, tmp_path, capsys, tokenizer):
    other = make_tiny(seed=5, extra_tokens=("<extra>",), vocab_size=421)
    described = sources(instruct=tiny_base, numeric=other)
    merge_spec = MergeSpec(tuple(described), Call("patientdx.merge.linear.linear", "{}"), tokenizer=tokenizer)
    recipe = Session().recipe(merge_spec, 0.5, tmp_path / "cache")
    folder = save(recipe, tmp_path / "merged", cache=tmp_path / "cache", sources=described, tokenizer=tokenizer)
    assert said(capsys, folder)[0] == IDENTICAL


def test_what_cannot_be_asked_is_refused(folder, tmp_path, capsys):
    assert said(capsys, folder, "--parent", "third=x")[2] == (
        "cannot tell: --parent third=...: the record names no such model; it names instruct, numeric."
    )
    assert said(capsys, folder, "--parent", "instruct")[2] == (
        "cannot tell: --parent instruct: write it as name=folder."
    )
    assert said(capsys, tmp_path)[2] == (
        f"cannot tell: {tmp_path} has no provenance.json: it was not written by `save=`, so there is no record to go "
        "by."
    )
    rewrite(folder, lambda record: record.update(method="os.system"))
    assert said(capsys, folder)[2] == (
        "cannot tell: The record's method os.system is no merge method; nothing else is called."
    )


def test_the_command_ends_with_the_verdict(folder):
    def ended():
        return forked(folder.parent, [["verify", str(folder)]], program=CONSOLE)[0]

    done = ended()
    assert (done.returncode, done.stderr) == (0, "")
    assert "bit for bit" in done.stdout
    flip(folder, NAME, 5)
    done = ended()
    assert (done.returncode, done.stdout) == (1, "")
    assert NAME in done.stderr


def test_a_described_model_is_enough(saved_merge):
    """The record holds what `locate` needs and no more."""
    for model in json.loads((saved_merge / "provenance.json").read_text())["models"]:
        given = {key: value for key, value in model.items() if key not in ("role", "sha256")}
        assert ModelSource(**given).name == model["name"]


def _point_index_elsewhere(folder):
    other = folder / "model-00009-of-00009.safetensors"
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name, shard = next(iter(content["weight_map"].items()))
    shutil.copy(folder / shard, other)
    index.write_text(json.dumps(content | {"weight_map": content["weight_map"] | {name: other.name}}))


def _swap_two_in_the_index(folder):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first, *_, last = content["weight_map"]
    shards = content["weight_map"][first], content["weight_map"][last]
    index.write_text(json.dumps(content | {"weight_map": content["weight_map"] | {first: shards[1], last: shards[0]}}))


def _link_a_shard(folder):
    shard = next(folder.glob("*.safetensors"))
    shard.rename(folder.parent / "elsewhere")
    shard.symlink_to(folder.parent / "elsewhere")


FORGED = {
    "an adapter beside the weights": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "a file that transformers takes first": lambda folder: (folder / "model.safetensors").touch(),
    "an index that points to another file": _point_index_elsewhere,
    "an index that mixes up shards": _swap_two_in_the_index,
    "a link": _link_a_shard,
    "settings of generation": lambda folder: (folder / "generation_config.json").write_text('{"max_length": 3}'),
    "code": lambda folder: (folder / "modeling_x.py").write_text("print('run')"),
    "a folder": lambda folder: (folder / "more").mkdir(),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_makes_transformers_load_something_else_is_noticed(folder, capsys, how):
    (folder / "generation_config.json").unlink(missing_ok=True)
    FORGED[how](folder)
    status, _, words = said(capsys, folder)
    assert (status, "differs from" in words) == (DIFFERS, True), words


def test_a_parent_replaced_behind_the_cache_s_back_is_hashed_again(tiny_base, tiny_pivot, tmp_path, capsys):
    """Other weights of the same size and time of modification."""
    pivot = shutil.copytree(tiny_pivot, tmp_path / "pivot")
    described = sources(instruct=tiny_base, numeric=pivot)
    merged = save(recipe_of(tiny_base, pivot), tmp_path / "merged", cache=tmp_path / "cache", sources=described)
    file = pivot / "model.safetensors"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    status, _, words = said(capsys, merged)
    assert (status, "is not the model that was merged" in words) == (CANNOT_TELL, True)


def test_a_parent_trained_on_patients_asks_for_a_mark(tiny_base, tiny_pivot, tmp_path, capsys):
    pivot = shutil.copytree(tiny_pivot, tmp_path / "pivot")
    mark(pivot)
    described = sources(instruct=tiny_base, numeric=pivot)
    merged = save(recipe_of(tiny_base, pivot), tmp_path / "merged", cache=tmp_path / "cache", sources=described)
    assert marked(merged)
    assert {folder.stat().st_mode & 0o077 for folder in (pivot, merged)} == {0}
    assert said(capsys, merged)[0] == IDENTICAL
    (merged / MARK).unlink()
    status, _, words = said(capsys, merged)
    assert (status, f"the folder has no {MARK}" in words) == (DIFFERS, True)
