import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from patientdx.core.errors import UserError
from patientdx.evaluation import store as results
from patientdx.evaluation.store import (
    Store,
    fingerprint,
    hashed,
    make_writable,
    read_json,
    read_run,
    write_json,
    write_run,
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


def test_a_result_can_be_read_by_others(tmp_path):
    write_text("x", tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json({"auroc": float("nan")}, tmp_path / "metrics.json")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def written(tmp_path) -> Path:
    write_run(
        tmp_path,
        config={"lambda": 0.4, "name": "λ-study"},
        metrics={"fingerprint": "f1", "rows": [{"auroc": 0.5}]},
        predictions=pa.table({"id": ["a"], "probability": [0.25]}),
        provenance={"seed": 0},
    )
    return tmp_path


def test_a_run_reads_back_under_its_own_fingerprint(written):
    assert read_run(written, "f1") == {"fingerprint": "f1", "rows": [{"auroc": 0.5}]}
    assert read_run(written, "f2") is None
    assert read_run(written / "nowhere", "f1") is None
    assert yaml.safe_load((written / "config.yaml").read_text()) == {"lambda": 0.4, "name": "λ-study"}
    assert "λ-study" in (written / "config.yaml").read_text()


@pytest.mark.parametrize("harm", ["", "{", "[]", "null", '"f1"'])
def test_a_damaged_run_is_not_finished(written, harm):
    (written / "metrics.json").write_text(harm)
    assert read_run(written, "f1") is None


def test_cohort_and_evaluation_are_written_where_there_are_some(written, tmp_path):
    assert not {"cohort.csv", "clinical.json"} & {path.name for path in written.iterdir()}
    write_run(
        tmp_path / "full",
        config={},
        metrics={},
        predictions=pa.table({"id": ["a"]}),
        provenance={},
        cohort=[{"step": "adults, of whom", "stays": 3}, {"step": "rest", "stays": 1, "events": None}],
        clinical={"reported": "test"},
    )
    assert (tmp_path / "full/cohort.csv").read_text() == 'step,stays,events\n"adults, of whom",3,\nrest,1,\n'
    assert read_json(tmp_path / "full/clinical.json") == {"reported": "test"}


@pytest.mark.parametrize("harm", [None, "", "{", "[]"])
def test_json_that_holds_no_mapping_counts_as_absent(tmp_path, harm):
    if harm is not None:
        (tmp_path / "file").write_text(harm)
    assert read_json(tmp_path / "file") is None


def test_metrics_are_written_last(tmp_path, monkeypatch):
    order, whole = [], results._whole
    monkeypatch.setattr(results, "_whole", lambda path, write: (order.append(path.name), whole(path, write)))
    more = {"cohort": [{"step": "all"}], "clinical": {}}
    write_run(tmp_path, config={}, metrics={}, predictions=pa.table({"id": ["a"]}), provenance={}, **more)
    assert sorted(order[:-1]) == [
        "clinical.json",
        "cohort.csv",
        "config.yaml",
        "predictions.parquet",
        "provenance.json",
    ]
    assert order[-1] == "metrics.json"


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


def test_other_ids_are_keyed_with_a_secret_that_stays(tmp_path):
    ids = [str(number) for number in range(100)]
    ours = hashed(ids, open_data=False, cache=tmp_path / "one")
    assert hashed(ids, open_data=False, cache=tmp_path / "one") == ours  # runs can be joined
    assert len(set(ours)) == 100
    assert not set(ours) & set(hashed(ids, open_data=False, cache=tmp_path / "other"))
    assert not set(ours) & set(hashed(ids, open_data=True, cache=tmp_path / "one"))
    secret = tmp_path / "one" / "id_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(bytes.fromhex(secret.read_text())) == 32
