"""Merges that are stopped: what counts as done, what is gone on with, and that the bytes are the same in the end."""

import errno
import json
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from merged_folders import recipe_of, sources, tree

from patientdx.checkpoints import journal as module
from patientdx.checkpoints.journal import Journal, entries
from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import REPOSITORY
from patientdx.checkpoints.stream import _Pass
from patientdx.core.errors import UserError

ENTRY = {"sha256": "ab", "facts": {}, "sources": {}}
TENSORS = 20


@pytest.fixture
def stopped(tiny_base, tiny_pivot, tmp_path, monkeypatch):
    """A merge into tmp_path/merged that fails in its middle; gives the arguments of `save`."""
    described = sources(instruct=tiny_base, numeric=tiny_pivot)
    given = {"cache": tmp_path / "cache", "sources": described, "shard_bytes": 30_000, "threads": 1}
    evaluate, count = _Pass._evaluate, 0

    def some(*arguments):
        nonlocal count
        count += 1
        if count > 12:
            raise KeyError("stop")
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_Pass, "_evaluate", some)
        with pytest.raises(KeyError, match="stop"):
            save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", **given)
    assert not (tmp_path / "merged").exists()
    return given


def evaluated(monkeypatch):
    """Names of the tensors that are worked out from now on."""
    names, evaluate = set(), _Pass._evaluate

    def noting(self, curve, header, span):
        names.add(header.name)
        return evaluate(self, curve, header, span)

    monkeypatch.setattr(_Pass, "_evaluate", noting)
    return names


def partials(tmp_path):
    return sorted(tmp_path.glob(".merged.*.partial"))


@pytest.fixture(scope="module")
def killed(tiny_base, tiny_pivot, tmp_path_factory):
    """What became of merges that were killed once or twice at random moments; see killed_merges.py."""
    place = tmp_path_factory.mktemp("killed")
    draw = random.Random(0)
    moments = [[draw.randint(1, 110)] for _ in range(16)]
    moments += [[draw.randint(40, 90), draw.randint(1, 60)] for _ in range(4)]
    asked = {"base": str(tiny_base), "pivot": str(tiny_pivot), "place": str(place), "moments": moments}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_merges.py"))],
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
        input=json.dumps(asked | {"sync_bytes": 1, "file_bytes": 20_000}),
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    *ended, full = json.loads(done.stdout)
    return place, ended, full


def test_a_killed_merge_ends_in_the_same_bytes(killed, saved_merge):
    place, ended, _ = killed
    expected = tree(saved_merge)
    assert len(ended) == 20
    for number, (_, _, then) in enumerate(ended):
        assert then == "done"
        assert tree(place / str(number) / "merged") == expected
        assert sorted(path.name for path in (place / str(number)).iterdir()) == ["cache", "merged"]


def test_the_kills_came_at_different_moments(killed):
    _, ended, _ = killed
    kills = [said for said, _, _ in ended]
    assert sum(one == "ended with -9" for said in kills for one in said) >= 12
    assert {one for said in kills for one in said} <= {"ended with -9", "done"}
    # Some before the first tensor was in the journal, some in the middle, some after the last.
    kept = [kept for _, kept, _ in ended]
    assert 0 in kept
    assert any(0 < number < TENSORS for number in kept)
    assert max(kept) >= TENSORS


def test_a_file_that_cannot_grow(killed, saved_merge):
    place, _, (said, then) = killed
    assert said == (
        f"refused: {place}/full/merged could not be written further (File too large). 0 of {TENSORS} tensors are on "
        "disk and kept: make room and start the same command again, it goes on from there."
    )
    assert then == "done"
    assert tree(place / "full" / "merged") == tree(saved_merge)


def test_a_disk_that_fills_up_is_gone_on_from(tiny_base, tiny_pivot, tmp_path, monkeypatch, saved_merge):
    recipe, described = recipe_of(tiny_base, tiny_pivot), sources(instruct=tiny_base, numeric=tiny_pivot)
    given = {"cache": tmp_path / "cache", "sources": described, "shard_bytes": 30_000, "threads": 1}
    pwrite, written = os.pwrite, 0

    def full(handle, data, start):
        nonlocal written
        written += 1
        if written > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data, start)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(UserError) as caught:
            save(recipe, tmp_path / "merged", **given)
    (partial,) = partials(tmp_path)
    kept = len(entries(partial))
    assert 0 < kept <= 9
    assert str(caught.value) == (
        f"{tmp_path}/merged could not be written further (No space left on device). {kept} of {TENSORS} tensors are on "
        "disk and kept: make room and start the same command again, it goes on from there."
    )
    names = evaluated(monkeypatch)
    assert tree(save(recipe, tmp_path / "merged", **given)) == tree(saved_merge)
    assert len(names) == TENSORS - kept
    assert partials(tmp_path) == []


def test_no_space_at_all_leaves_nothing(tiny_base, tiny_pivot, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"could not be written further \(No space left on device\)\. 0 of 20 tensors"):
        save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", cache=tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_is_not_done_again(stopped, tiny_base, tiny_pivot, tmp_path, monkeypatch, caplog, saved_merge):
    (partial,) = partials(tmp_path)
    done = set(entries(partial))
    assert 5 < len(done) < TENSORS
    names = evaluated(monkeypatch)
    with caplog.at_level(logging.INFO):
        save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", **stopped)
    assert names == set(recipe_of(tiny_base, tiny_pivot).names) - done
    said = f"{len(done)} of {TENSORS} tensors of {tmp_path}/merged are there from an earlier start"
    assert caplog.messages == [said]
    assert tree(tmp_path / "merged") == tree(saved_merge)


def test_a_tensor_that_is_not_what_the_journal_says_is_done_again(
    stopped, tiny_base, tiny_pivot, tmp_path, monkeypatch, saved_merge
):
    (partial,) = partials(tmp_path)
    done = set(entries(partial))
    shard = max((partial / "model").iterdir(), key=lambda file: file.stat().st_size)  # the embedding's
    with shard.open("r+b") as handle:
        handle.seek(-100, os.SEEK_END)
        handle.write(b"damaged")
    names = evaluated(monkeypatch)
    assert tree(save(recipe_of(tiny_base, tiny_pivot), tmp_path / "merged", **stopped)) == tree(saved_merge)
    assert len(names & done) == 1


def test_other_shards_threads_and_processes_go_on_or_begin_afresh(
    stopped, tiny_base, tiny_pivot, tmp_path, saved_merge
):
    (before,) = partials(tmp_path)
    recipe = recipe_of(tiny_base, tiny_pivot)
    more = stopped | {"threads": 3}
    assert save(recipe, tmp_path / "merged", process=(0, 2), **more) is None
    assert partials(tmp_path) == [before]
    save(recipe, tmp_path / "merged", process=(1, 2), **more)
    assert tree(tmp_path / "merged") == tree(saved_merge)


def change_weight(tmp_path, base, pivot):
    return recipe_of(base, pivot, weight=0.5), {}


def change_seed(tmp_path, base, pivot):
    return recipe_of(base, pivot, seed=1), {}


def change_dtype(tmp_path, base, pivot):
    return recipe_of(base, pivot), {"dtype": "float16"}


def change_arguments(tmp_path, base, pivot):
    return recipe_of(base, pivot, arguments={"collinear": 0.5}), {}


def change_shards(tmp_path, base, pivot):
    return recipe_of(base, pivot), {"shard_bytes": 1 << 30}


def change_parent(tmp_path, base, pivot):
    """The same number of bytes in the same place, with an old date."""
    file = pivot / "model.safetensors"
    stat = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return recipe_of(base, pivot), {"cache": tmp_path / "other cache"}


def change_tokenizer(tmp_path, base, pivot):
    with (base / "tokenizer.json").open("a") as handle:
        handle.write("\n")
    return recipe_of(base, pivot), {}


@pytest.mark.parametrize(
    "change",
    [change_weight, change_seed, change_dtype, change_arguments, change_shards, change_parent, change_tokenizer],
)
def test_another_merge_begins_afresh_and_says_so(make_tiny, tmp_path, monkeypatch, caplog, change):
    base, pivot = make_tiny(seed=3), make_tiny(seed=3, noise_seed=4)
    target, given = tmp_path / "merged", {"cache": tmp_path / "cache", "shard_bytes": 30_000, "threads": 1}
    with monkeypatch.context() as patch:
        patch.setattr(module.Journal, "add", lambda self, *given, add=Journal.add: [add(self, *given), 1 / 0])
        with pytest.raises(ZeroDivisionError):
            save(recipe_of(base, pivot), target, **given)
    (before,) = partials(tmp_path)
    assert entries(before)
    names = evaluated(monkeypatch)
    recipe, changed = change(tmp_path, base, pivot)
    save(recipe, target, **(given | changed))
    assert caplog.messages == [f"another merge into {target} was interrupted; this one does not resume it"]
    assert names == set(recipe.names)
    assert partials(tmp_path) == []
    clean = save(recipe, tmp_path / "clean", **(given | changed))
    assert tree(target) == tree(clean)


def test_an_entry_is_written_after_the_bytes_are_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SYNC_BYTES", 10)
    seen = []
    journal = Journal(tmp_path, lambda: seen.append(set(entries(tmp_path))))
    journal.add("a", 9, ENTRY)
    assert (seen, entries(tmp_path)) == ([], {})  # too few bytes to wait for the disk
    journal.add("b", 1, ENTRY)
    journal._under_way.result()
    assert seen == [set()]
    assert set(entries(tmp_path)) == {"a", "b"}
    journal.add("c", 1, ENTRY)
    journal.close()
    assert seen == [set(), {"a", "b"}]
    assert set(entries(tmp_path)) == {"a", "b", "c"}


def test_time_passes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SYNC_SECONDS", 0.0)
    journal = Journal(tmp_path, lambda: None)
    journal.add("a", 1, ENTRY)
    journal._under_way.result()
    assert set(entries(tmp_path)) == {"a"}
    journal.close()


def test_lines_that_were_cut_off_say_nothing(tmp_path):
    journal = Journal(tmp_path, lambda: None)
    journal.add("a", 1, ENTRY)
    journal.close()
    (file,) = tmp_path.glob("journal-*.jsonl")
    for end in (b'{"name": "b", "sha', b'{"name": "b"}\n', b"\0\0\0\n", b"[]\n3\n"):
        (tmp_path / "journal-x.jsonl").write_bytes(file.read_bytes() + end)
        assert entries(tmp_path) == {"a": ENTRY}


def test_a_disk_that_fails_in_the_background_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SYNC_BYTES", 1)

    def fail():
        raise OSError(errno.ENOSPC, "full")

    journal = Journal(tmp_path, fail)
    journal.add("a", 1, ENTRY)
    with pytest.raises(OSError, match="full"):
        journal.close()
    assert entries(tmp_path) == {}
