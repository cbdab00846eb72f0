"""The cache: whole folders or none, built once, and clear words when the disk is full."""

import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from patientdx.checkpoints.reader import TensorHeader
from patientdx.checkpoints.source import REPOSITORY
from patientdx.checkpoints.writer import write_safetensors
from patientdx.core.cache import build_folder, write_json
from patientdx.core.errors import UserError


def names(folder):
    """What a reader of the cache can see: no locks, no temporary folders."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_folder_is_built_once(tmp_path):
    calls = []

    def build(into):
        calls.append(into.stat().st_ino)
        assert not (tmp_path / "models" / "m").exists()
        (into / "file").write_text("content")

    for _ in range(2):
        assert build_folder(tmp_path / "models" / "m", build) == tmp_path / "models" / "m"
    # the very folder that was built, renamed: a copy would be seen half-made
    assert calls == [(tmp_path / "models" / "m").stat().st_ino]
    assert (tmp_path / "models" / "m" / "file").read_text() == "content"
    assert names(tmp_path / "models") == ["m"]


def test_two_at_once_build_once(tmp_path):
    started, calls = threading.Barrier(2), []

    def build(into):
        calls.append(into)
        (into / "file").write_text("content")

    def ask():
        started.wait()
        return build_folder(tmp_path / "m", build)

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask) for _ in range(2)]
        assert {future.result() for future in asked} == {tmp_path / "m"}
    assert len(calls) == 1


def test_a_failed_build_leaves_nothing(tmp_path):
    def build(into):
        (into / "half").write_text("content")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build_folder(tmp_path / "m", build)
    assert names(tmp_path) == []


def test_a_killed_build_is_cleared_away_by_the_next(tmp_path):
    code = (
        "import os, pathlib, signal\n"
        "from patientdx.core.cache import build_folder\n"
        "def build(into):\n"
        "    (into / 'half').write_text('content')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"build_folder(pathlib.Path({str(tmp_path / 'm')!r}), build)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == -9
    assert not (tmp_path / "m").exists()
    assert len(names(tmp_path)) == 1  # what the killed process left under a temporary name
    build_folder(tmp_path / "m", lambda into: (into / "whole").write_text("content"))
    assert names(tmp_path) == ["m"]
    assert names(tmp_path / "m") == ["whole"]


def test_too_little_space_is_seen_before_the_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 9, 1_500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError) as caught:
        build_folder(tmp_path / "m", lambda into: pytest.fail("it began"), need_bytes=2_000_000_000)
    assert str(caught.value) == (
        f"m needs 2.00 GB in the cache, but {tmp_path} has 1.50 GB free: "
        "free some space, or set PATIENTDX_CACHE to a folder on a larger disk."
    )
    assert names(tmp_path) == []


def write_text(into):
    with open("/dev/full", "w") as full:
        full.write("content")


def write_tensors(into):
    header = TensorHeader("w", (100_000,), torch.float32, into, 0, 400_000)
    write_safetensors(Path("/dev/full"), [header], lambda name: torch.zeros(100_000))


def fail_as_safetensors_does(into):
    """What its writer raised on a file system of 200 kB: no OSError and no errno."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("build", [write_text, write_tensors, fail_as_safetensors_does])
def test_a_disk_that_fills_up(tmp_path, build):
    with pytest.raises(UserError) as caught:
        build_folder(tmp_path / "m", build)
    assert str(caught.value) == (
        f"{tmp_path}/m cannot be written: No space left on device. Nothing half-written is left. "
        "Free some space, or set PATIENTDX_CACHE to a folder on a larger disk that you can write to."
    )
    assert names(tmp_path) == []


def test_a_cache_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(UserError) as caught:
        build_folder(tmp_path / "cache" / "m", lambda into: None)
    assert str(caught.value).startswith(f"{tmp_path}/cache/m cannot be used: File exists. ")
    with pytest.raises(UserError, match="cannot be used"):
        write_json(tmp_path / "cache" / "new" / "a.json", {})


def test_json_is_replaced_whole(tmp_path):
    write_json(tmp_path / "sub" / "a.json", {"a": 1})
    write_json(tmp_path / "sub" / "a.json", {"a": 2})
    assert names(tmp_path / "sub") == ["a.json"]
    assert (tmp_path / "sub" / "a.json").read_text() == '{\n "a": 2\n}'
