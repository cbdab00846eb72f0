"""A merge on disk: the same bytes however it is written, a folder that transformers loads, and what is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from merged_folders import recipe_of, sources, tree

from patientdx.checkpoints.identity import content_hash
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import REPOSITORY
from patientdx.checkpoints.staging import StagingFolder
from patientdx.core.errors import UserError
from patientdx.merge.curve import evaluate
from patientdx.merge.none import none

THREE = 30_000  # bytes of a shard: three of the tiny model


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hashes")


@pytest.fixture(scope="module")
def recipe(tiny_base, tiny_pivot):
    return recipe_of(tiny_base, tiny_pivot)


@pytest.fixture(scope="module")
def described(tiny_base, tiny_pivot):
    return sources(instruct=tiny_base, numeric=tiny_pivot)


@pytest.fixture(scope="module")
def whole(recipe, described, cache, tmp_path_factory):
    """One file, one thread, one process."""
    return save(recipe, tmp_path_factory.mktemp("whole") / "merged", cache=cache, sources=described, threads=1)


@pytest.fixture(scope="module")
def sharded(recipe, described, cache, tmp_path_factory):
    """The same in three files."""
    folder = tmp_path_factory.mktemp("sharded") / "merged"
    return save(recipe, folder, cache=cache, sources=described, threads=1, shard_bytes=THREE)


def refusal(*arguments, **options):
    with pytest.raises(UserError) as caught:
        save(*arguments, **options)
    return str(caught.value)


def left_beside(folder):
    return [path.name for path in folder.parent.iterdir() if path != folder]


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_byte(recipe, described, whole, sharded, tmp_path, threads):
    for number, (like, size) in enumerate(((whole, 1 << 30), (sharded, THREE))):
        # A cache of its own: whether the parents are hashed on the way does not matter either.
        found = save(
            recipe,
            tmp_path / str(number),
            cache=tmp_path / f"cache {number}",
            sources=described,
            threads=threads,
            shard_bytes=size,
        )
        assert tree(found) == tree(like)


def test_shards_hold_the_same_tensors(whole, sharded):
    assert len(list(whole.glob("*.safetensors"))) == 1
    assert len(list(sharded.glob("*.safetensors"))) == 3
    one, many = Checkpoint(whole), Checkpoint(sharded)
    assert set(one.tensors) == set(many.tensors)
    assert all(torch.equal(one.read(name), many.read(name)) for name in one.tensors)
    records = [json.loads((folder / "provenance.json").read_text())["tensors"] for folder in (whole, sharded)]
    assert records[0] == records[1]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("size", [THREE, 1 << 30])
def test_two_processes_in_turn_make_one_folder(recipe, described, cache, whole, sharded, tmp_path, order, size):
    target = tmp_path / "merged"
    given = {"cache": cache, "sources": described, "shard_bytes": size}
    found = [save(recipe, target, process=(rank, 2), **given) for rank in order]
    # One of them says that it is done; a process without a shard leaves the first with all of them.
    assert found == ([target, None] if size > THREE and order[0] == 0 else [None, target])
    assert [save(recipe, target, process=(rank, 2), **given) for rank in (0, 1)] == [target, None]
    assert tree(target) == tree(sharded if size == THREE else whole)
    assert left_beside(target) == []


PROCESS = """
import sys
from pathlib import Path
from merged_folders import recipe_of, sources
from patientdx.checkpoints.save import save
base, pivot, target, cache, rank = sys.argv[1:]
described = sources(instruct=Path(base), numeric=Path(pivot))
given = {"cache": Path(cache), "sources": described, "shard_bytes": 30_000}
print(save(recipe_of(Path(base), Path(pivot)), Path(target), process=(int(rank), 2), **given))
"""


def test_two_processes_at_once_make_one_folder(tiny_base, tiny_pivot, sharded, tmp_path):
    target = tmp_path / "merged"
    path = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, (tiny_base, tiny_pivot, target, tmp_path / "cache", rank))],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "".join(out for out, _ in said).count(str(target)) == 1
    assert tree(target) == tree(sharded)
    assert sorted(left_beside(target)) == ["cache"]


@pytest.mark.parametrize("folder", ["whole", "sharded"])
def test_transformers_loads_it_and_answers_as_the_merge_in_memory(recipe, tiny_base, request, folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = request.getfixturevalue(folder)
    merged = AutoModelForCausalLM.from_pretrained(folder)
    live = AutoModelForCausalLM.from_pretrained(tiny_base)
    curves = {name: curve for group in recipe.groups for name, curve in recipe.curves(group).items()}
    with torch.no_grad():
        for name, curve in curves.items():
            evaluate(curve, recipe.weight_of(name), live.get_parameter(name))
    tokens = AutoTokenizer.from_pretrained(folder)("Is the sodium of 139 high?", return_tensors="pt").input_ids
    assert torch.equal(merged(tokens).logits, live(tokens).logits)
    assert not torch.equal(merged(tokens).logits, AutoModelForCausalLM.from_pretrained(tiny_base)(tokens).logits)


def test_the_files_beside_the_weights_are_the_bases(whole, tiny_base):
    written = set(tree(whole)) - {"model.safetensors", "provenance.json", "README.md"}
    assert written == {
        name for name in tree(tiny_base) if not name.endswith((".safetensors", ".safetensors.index.json"))
    }
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= written
    assert all((whole / name).read_bytes() == (tiny_base / name).read_bytes() for name in written)


def test_a_finished_merge_is_left_as_it_is(recipe, described, cache, whole, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    monkeypatch.setattr(StagingFolder, "lock", lambda *given: pytest.fail("it began"))
    assert save(recipe, whole, cache=cache, sources=described) == whole
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_another_merge_is_not_written_over(recipe, described, cache, whole, tiny_base, tiny_pivot):
    words = (
        f"{whole} holds another merge (slerp λ=0.4 of instruct and numeric, other versions or other shards count as "
        "other too): choose another folder, or delete this one."
    )
    assert refusal(recipe_of(tiny_base, tiny_pivot, weight=0.5), whole, cache=cache, sources=described) == words
    assert refusal(recipe, whole, cache=cache, sources=described, shard_bytes=THREE) == words
    assert refusal(recipe_of(tiny_pivot, tiny_base), whole, cache=cache, sources=described) == words


def test_somebody_elses_folder_is_not_written_over(recipe, cache, tmp_path, tiny_base):
    for place in (tiny_base, tmp_path / "file"):
        if not place.exists():
            place.write_text("mine")
        words = f"{place} exists and is no merge that was written here: choose another folder."
        assert refusal(recipe, place, cache=cache) == words
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_taken(recipe, described, cache, whole, tmp_path):
    (tmp_path / "merged").mkdir()
    assert tree(save(recipe, tmp_path / "merged", cache=cache, sources=described)) == tree(whole)


def test_the_output_needs_no_hashing_later(recipe, tmp_path, monkeypatch):
    folder = save(recipe, tmp_path / "merged", cache=tmp_path / "cache")
    expected = content_hash(Checkpoint(folder), tmp_path / "other")
    monkeypatch.setattr("patientdx.checkpoints.identity.tensor_hash", lambda *given: pytest.fail("hashed again"))
    assert content_hash(Checkpoint(folder), tmp_path / "cache") == expected


def test_a_method_without_lambda(tiny_base, tiny_pivot, cache, tmp_path):
    folder = save(recipe_of(tiny_base, tiny_pivot, method=none, weight=None), tmp_path / "merged", cache=cache)
    assert all(
        torch.equal(Checkpoint(folder).read(name), Checkpoint(tiny_base).read(name))
        for name in Checkpoint(tiny_base).tensors
    )


def test_too_little_space_is_seen_before_the_work(recipe, cache, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert refusal(recipe, tmp_path / "merged", cache=cache) == (
        f"{tmp_path}/merged needs 0.00 GB more, but its disk has 0.00 GB free: free some space, or choose a folder on "
        "a larger disk."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="everything can be written by root")
def test_a_folder_that_cannot_be_written(recipe, cache, tmp_path):
    tmp_path.chmod(0o500)
    assert refusal(recipe, tmp_path / "merged", cache=cache) == (
        f"{tmp_path}/merged cannot be written (Permission denied): choose a folder that you can write to."
    )


def test_a_disk_that_refuses_to_be_written(recipe, cache, tmp_path, monkeypatch):
    def refuse(*given):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert refusal(recipe, tmp_path / "merged", cache=cache) == (
        f"{tmp_path}/merged cannot be written (Read-only file system): choose a folder that you can write to."
    )


def test_a_target_that_another_process_writes_is_refused(recipe, cache, tmp_path):
    target = tmp_path / "merged"
    words = (
        f"Another process is writing a merge to {target} at this moment: wait for its end, or choose another folder."
    )

    def attempt():
        return refusal(recipe, target, cache=cache)

    with StagingFolder(target, "0123456789abcdef0").lock((0, 1)):
        assert attempt() == words
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(attempt).result() == words
    assert save(recipe, target, cache=cache) == target


def test_a_parent_that_changes_meanwhile_is_noticed(make_tiny, tiny_base, tmp_path, monkeypatch):
    from patientdx.checkpoints import save as module

    pivot = make_tiny(noise_seed=2)
    on_disk = module._on_disk

    def touch(*given):
        os.utime(pivot / "model.safetensors", ns=(1, 1))
        return on_disk(*given)

    monkeypatch.setattr(module, "_on_disk", touch)
    assert refusal(recipe_of(tiny_base, pivot), tmp_path / "merged", cache=tmp_path / "cache") == (
        f"A parent's files were changed while {tmp_path}/merged was written: start the merge again."
    )
