import hashlib
import json
import os
import secrets
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_folders import reseal

from patientdx.core.errors import UserError
from patientdx.evaluation.results import read_finished
from patientdx.evaluation.seal import METRICS
from patientdx.evaluation.store import (
    Store,
    fingerprint,
    hashed,
    make_writable,
    read_json,
    write_json,
    write_parquet,
    write_text,
)

FACTS = st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none(), st.booleans(), st.lists(st.text())))


@settings(deadline=None)  # a busy machine is no fault
@given(FACTS, st.randoms())
def test_a_fingerprint_does_not_depend_on_order(facts, random):
    order = list(facts)
    random.shuffle(order)
    assert fingerprint({key: facts[key] for key in order}) == fingerprint(facts)


@settings(deadline=None)
@given(FACTS, FACTS)
def test_other_facts_have_another_fingerprint(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_a_number_is_not_its_text():
    assert len({fingerprint({"λ": value}) for value in (0.4, "0.4", 0.4000000000000001, [0.4], None)}) == 5


def test_scores_come_back_bit_for_bit(tmp_path):
    store, scores = Store(tmp_path / "scores"), np.random.default_rng(0).normal(size=(7, 3))
    assert store.load("key", 7) is None
    store.save("key", scores)
    assert store.load("key", 7).tobytes() == scores.tobytes()
    assert store.load("key", 8) is None  # of another number of prompts
    assert [path.name for path in store.folder.iterdir()] == ["key.parquet"]


def damages() -> dict[str, bytes]:
    return {"empty": b"", "no table": b"PAR1" * 40, "text": b"disk error"}


@pytest.mark.parametrize("damage", [*damages(), "cut"])
def test_a_damaged_score_file_is_absent(tmp_path, damage):
    store = Store(tmp_path)
    store.save("key", np.zeros((50, 2)))
    file = tmp_path / "key.parquet"
    file.write_bytes(damages().get(damage, file.read_bytes()[:-9]))
    assert store.load("key", 50) is None


def test_what_is_written_is_whole_or_absent(tmp_path, monkeypatch):
    write_text("old", tmp_path / "file")

    def half(path, *args, **kwargs):
        with open(path, "w") as file:
            file.write("ne")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        write_text("new", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_a_result_is_for_whom_the_umask_lets_read_it(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text("x", tmp_path / "file")
        write_parquet(pa.table({"x": [1]}), tmp_path / "table")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "table")}
    assert modes == {0o666 & ~umask}


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json({"auroc": float("nan")}, tmp_path / "metrics.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", [None, "", "{", "[]"])
def test_json_that_holds_no_mapping_counts_as_absent(tmp_path, harm):
    if harm is not None:
        (tmp_path / "file").write_text(harm)
    assert read_json(tmp_path / "file") is None


@pytest.mark.parametrize("harm", ["", "{", "[]", "null", '"f1"', '{"fingerprint": "f2", "rows": []}'])
def test_a_damaged_or_other_run_is_not_finished(tmp_path, harm):
    reseal(tmp_path, {"fingerprint": "f1", "rows": [{"auroc": 0.5}]})
    assert read_finished(tmp_path, "f1", (), [], searched=False).rows == [{"auroc": 0.5}]
    assert read_finished(tmp_path, "f1", (), [], searched=True) is None  # without search.json
    (tmp_path / METRICS).write_text(harm)
    assert read_finished(tmp_path, "f1", (), [], searched=False) is None


def test_what_does_not_check_out_is_computed_again(tmp_path):
    store, scores = Store(tmp_path), np.random.default_rng(0).normal(size=(7, 3))
    store.save("key", scores)
    store.path("key").rename(store.path("other"))  # the checksum is over the key too
    assert store.load("other", 7) is None


@pytest.mark.parametrize(
    "attempt",
    [make_writable, lambda folder: write_text("x", folder), lambda folder: Store(folder).save("k", np.ones((1, 2)))],
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path, attempt):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"cannot be written: (Not a directory|File exists)\. Free space or set output="
    ):
        attempt(tmp_path / "file" / "below")


def test_make_writable_leaves_nothing(tmp_path):
    make_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_open_ids_are_the_same_everywhere(tmp_path):
    assert hashed(["30000001"], open_data=True, cache=tmp_path) == [
        hashlib.blake2b(b"30000001", key=b"open", digest_size=8).hexdigest()
    ]
    assert list(tmp_path.iterdir()) == []


def test_other_ids_are_keyed_with_a_secret_that_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("patientdx.core.cache._new_secret", lambda: secrets.token_hex(32))  # of this test alone
    ids = [str(number) for number in range(100)]
    ours = hashed(ids, open_data=False, cache=tmp_path / "one")
    assert hashed(ids, open_data=False, cache=tmp_path / "one") == ours  # runs can be joined
    assert len(set(ours)) == 100
    assert not set(ours) & set(hashed(ids, open_data=False, cache=tmp_path / "other"))
    assert not set(ours) & set(hashed(ids, open_data=True, cache=tmp_path / "one"))
    secret = tmp_path / "one" / "id_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(bytes.fromhex(secret.read_text())) == 32
