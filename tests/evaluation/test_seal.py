"""No changed byte of a cache or a result folder is believed: every byte of small files is flipped in turn."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from patientdx.core.checksums import cached_checksum, recall_checksum, sha256
from patientdx.core.errors import UserError
from patientdx.evaluation import seal
from patientdx.evaluation.seal import METRICS, read_sealed, seal_folder
from patientdx.evaluation.store import Store, read_sealed_json, write_sealed_json


def flipped(path: Path) -> Iterator[int]:
    """The file with one bit of one byte flipped, byte after byte; as it was at the end."""
    content = path.read_bytes()
    for at, byte in enumerate(content):
        path.write_bytes(content[:at] + bytes([byte ^ (1 << at % 8)]) + content[at + 1 :])
        yield at
    path.write_bytes(content)


def believed(path: Path, read: Callable[[], object], right: object) -> list[int]:
    """The bytes whose change made `read` give something other than what is right or None."""
    return [at for at in flipped(path) if (value := read()) is not None and value != right]


def test_a_score_file(tmp_path):
    store, scores = Store(tmp_path), np.random.default_rng(0).normal(size=(5, 2))
    store.save("key", scores)

    def read() -> list | None:
        loaded = store.load("key", 5)
        return None if loaded is None else loaded.tolist()

    assert believed(store.path("key"), read, scores.tolist()) == []
    assert read() == scores.tolist()


@pytest.mark.parametrize("scores", [np.full((5, 2), np.nan), np.zeros((4, 2)), np.zeros((5, 4))])
def test_a_score_file_of_another_key(tmp_path, scores):
    store = Store(tmp_path)
    store.save("other", scores)
    store.path("other").rename(store.path("key"))
    assert store.load("key", 5) is None


def test_a_json_file_with_a_checksum(tmp_path):
    content = {"folder": "a", "seconds": {"task": 1.5}, "reused": False}
    write_sealed_json(content, tmp_path / "0.json")
    assert believed(tmp_path / "0.json", lambda: read_sealed_json(tmp_path / "0.json"), content) == []


def test_a_hash_in_the_cache(tmp_path):
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"weights")
    right = cached_checksum("file", [file], cache, lambda: sha256(file))
    (entry,) = (cache / "hashes").glob("*.json")
    assert believed(entry, lambda: recall_checksum("file", [file], cache), right) == []
    assert recall_checksum("file", [file], cache) == right


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"key": 1, "hash": "0"}', "[[[["])
def test_a_hash_in_the_cache_that_is_something_else(tmp_path, content):
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"weights")
    cached_checksum("file", [file], cache, lambda: "0")
    (entry,) = (cache / "hashes").glob("*.json")
    entry.write_text(content)
    assert recall_checksum("file", [file], cache) is None


@pytest.fixture
def folder(tmp_path):
    """A small sealed folder."""
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "provenance.json").write_text(json.dumps({"seed": 0}))
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1")
    seal_folder(tmp_path, {"fingerprint": "f", "rows": [{"auroc": 0.5}]})
    return tmp_path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / METRICS).unlink(), "metrics.json cannot be read"),
        (lambda folder: (folder / "config.yaml").unlink(), "config.yaml is missing"),
        (lambda folder: (folder / "config.yaml").write_text("seed: 1"), "config.yaml was changed"),
        (lambda folder: (folder / METRICS).write_text('{"schema": 3, "files": {}}'), "metrics.json was changed"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder, spoil, words):
    spoil(folder)
    with pytest.raises(UserError, match=f"is not as its run left it: {words}. Run the command of that folder again"):
        read_sealed(folder)


def test_a_folder_of_another_version_is_named(folder, monkeypatch):
    monkeypatch.setattr(seal, "SCHEMA", 4)
    with pytest.raises(UserError, match=r"metrics.json has schema 3, and this version reads 4\."):
        read_sealed(folder)


def test_a_result_folder(folder):
    right = read_sealed(folder)

    def read() -> object:
        try:
            return read_sealed(folder)
        except UserError:
            return None

    for path in folder.iterdir():
        assert believed(path, read, right) == []
        if path.name != METRICS:  # numbers come from these files too: a change in them is seen in any case
            assert [at for at in flipped(path) if read() is not None] == []
    assert read() == right
