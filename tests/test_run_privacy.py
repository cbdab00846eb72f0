"""A run on records that are not known to be open: what it leaves and says holds no text and no id of them."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from command_line import forked, rows_of, small, the_one
from tasks_by_yaml import load
from tracked_runs import final_state, log_records, run_record

from patientdx.records import concept_table, concepts
from patientdx.records.splits import position
from patientdx.records.synthetic.hospital import hospital
from patientdx.tasks.example import TaskData

LETTERS = 16  # of a record, in a row: enough to be no accident


@pytest.fixture(scope="module")
def root(session_cache, tmp_path_factory) -> Path:
    """The synthetic hospital without one row, and so no longer known to be synthetic."""
    folder = shutil.copytree(hospital(session_cache, stays=60), tmp_path_factory.mktemp("mimic") / "root")
    file = folder / "icu/outputevents.parquet"
    events = pyarrow.parquet.read_table(file)
    pyarrow.parquet.write_table(events.slice(1), file)
    return folder


@pytest.fixture(scope="module")
def records(root, session_cache) -> TaskData:
    data = load("mortality", cache=session_cache, mimic_root=str(root), threads=1)
    assert data.open_data is False
    return data


@pytest.fixture(scope="module")
def result(root, place, tiny_base, tiny_pivot) -> Path:
    """The result folder of a run that does and logs all that it can, tracked offline; beside it what it said."""
    every = ("baselines=null", "clinical=true", "prompt_variants=true", f"task.mimic_root={root}")
    words = [one for one in small(tiny_base, tiny_pivot, *every) if "tracking" not in one]
    (done,) = forked(place, [[*words, "name=trial", "hydra.verbose=true"]], pictures=True)
    assert done.returncode == 0, done.stderr
    (place / "outputs/said").write_text(done.stdout + done.stderr)
    return the_one(place, "outputs/trial/mortality_*")


@pytest.fixture(scope="module")
def left(result, place) -> bytes:
    """All bytes that the run left and said; tables unpacked."""
    files = [path for path in (place / "outputs").rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"run.log", "said", "config.yaml", "provenance.json", "clinical.json", "clinical.txt", "cohort.csv"} <= names
    assert [path for path in files if path.suffix == ".wandb"]
    tables = (str(pyarrow.parquet.read_table(path).to_pydict()) for path in files if path.suffix == ".parquet")
    everything = b"\n".join([*(path.read_bytes() for path in files), *(table.encode() for table in tables)])
    # Tables count by reading: the names of readings are in every text, and have nothing of a patient.
    # Where a line is broken inside a name, its first words are left.
    names = {*concepts.readings(), *concept_table.concepts()}
    for name in sorted({*names, *(name.partition(" (")[0] for name in names)}, key=len, reverse=True):
        everything = everything.replace(name.encode(), b"-")
    return everything


def pieces(record: str) -> set[bytes]:
    return {record[i : i + LETTERS].encode() for i in range(0, len(record) - LETTERS, 5)}


def test_no_text_of_a_record(left, records):
    found = {piece for example in records.examples for piece in pieces(example.context) if piece in left}
    assert found == set()
    planted = left + records.examples[7].context.encode()
    assert any(piece in planted for piece in pieces(records.examples[7].context))  # the search does find


def test_no_id(left, records, root):
    admissions = pyarrow.parquet.read_table(root / "icu/icustays.parquet")["hadm_id"].to_pylist()
    ids = {example.uid for example in records.examples} | {example.subject for example in records.examples}
    ids |= {str(one) for one in admissions}
    # Digits inside a longer number or a hash are no id.
    pattern = re.compile(rb"(?<![0-9a-f.])(" + b"|".join(sorted(one.encode() for one in ids)) + rb")(?![0-9a-f])")
    assert min(map(len, ids)) >= 8
    assert pattern.findall(left) == []
    assert pattern.search(b"stay " + records.examples[0].uid.encode())  # the search does find


def test_a_small_group_is_named_and_nothing_else(result):
    """As few as these stays are, no group has events enough to be told."""
    told = json.loads((result / "clinical.json").read_text())
    cells = {
        (role, name, value): cell
        for role, model in told["models"].items()
        for name, grouping in model["subgroups"].items()
        for value, cell in grouping["cells"].items()
    }
    assert len({role for role, _, _ in cells}) == 8
    assert len({name for _, name, _ in cells}) >= 2
    assert all(cell.keys() == {"suppressed"} for cell in cells.values())


def test_predictions_name_patients_by_a_keyed_hash(result, records, session_cache):
    told = pyarrow.parquet.read_table(result / "predictions.parquet").to_pydict()
    secret = bytes.fromhex((session_cache / "id_secret").read_text())

    def under(key: bytes) -> set[str]:
        names = {example.uid for example in records.examples if example.split != "train"}
        return {hashlib.blake2b(name.encode(), key=key, digest_size=8).hexdigest() for name in names}

    assert set(told["id"]) == under(secret)
    assert not set(told["id"]) & (under(b"open") | under(b""))
    assert all(row["data"] == "credentialed" for row in rows_of(result))


def test_the_tracked_run_reads_back(result, tiny_base):
    merged = {row["split"]: row for row in rows_of(result) if row["role"] == "merged"}
    (place,) = (result / "wandb").glob("offline-run-*")
    run_id = place.name.rsplit("-", 1)[1]
    assert run_id.startswith(result.name.rsplit("_", 1)[1])  # the fingerprint
    run, state = run_record(result, run_id), final_state(result, run_id)
    assert (run["run_group"], run["job_type"], run["display_name"]) == ("trial", "mortality", "mortality slerp λ=0.4")
    assert run["tags"] == ["slerp", "unknown_base", "unknown_pivot", "credentialed", "few events"]
    config, summary = state["config"], state["summary"]
    assert (config["lambda"], config["merge"]["name"], config["dtype"], config["seed"]) == (0.4, "slerp", "float32", 0)
    assert "mimic_root" not in config["task"]
    for metric in ("auroc", "auroc_ci_low", "auroc_ci_high", "auprc", "n", "events", "prevalence"):
        assert summary[f"mortality/{metric}"] == merged["test"][metric]
        assert summary[f"mortality_pilot/{metric}"] == merged["pilot"][metric]
    assert list(place.rglob("*.table.json")) == []  # of patients no point of a curve; of open data: test_wandb_run.py


def test_the_order_of_rows_names_no_patient(root, result, records, session_cache, tmp_path):
    """Predictions are ordered by the keyed id; what is stored row by row, by draws with the same key."""
    told = pyarrow.parquet.read_table(result / "predictions.parquet").to_pydict()
    for part in {(split, role) for split, role in zip(told["split"], told["role"], strict=True)}:
        ids = [one for one, *of in zip(told["id"], told["split"], told["role"], strict=True) if tuple(of) == part]
        assert ids == sorted(ids)
        assert len(ids) > 10
    by_id = sorted(records.examples, key=lambda example: position("order", 0, example.uid))
    order = [example.uid for example in records.examples if example.split == "test"]
    assert len(order) > 10
    assert order != [example.uid for example in by_id if example.split == "test"]
    (tmp_path / "id_secret").write_text("a7" * 32)  # another machine's
    here, elsewhere = (
        [(example.uid, example.split) for example in load("mortality", cache=cache, mimic_root=str(root)).examples]
        for cache in (session_cache, tmp_path)
    )
    assert here == [(example.uid, example.split) for example in records.examples]
    assert here != elsewhere
    assert sorted(here) != sorted(elsewhere)  # who is in which split is known to the holder of the secret alone
    assert sorted(uid for uid, _ in here) == sorted(uid for uid, _ in elsewhere)


def test_scores_of_patients_are_not_in_the_tracked_run(result):
    """Hashed or not, they are data about patients. What is sent of open data: tests/tracking/test_wandb_run.py."""
    assert (result / "predictions.parquet").is_file()
    (place,) = (result / "wandb").glob("offline-run-*")
    logged = log_records(result, place.name.rsplit("-", 1)[1])
    assert "artifact" not in logged
    assert not list(place.rglob("*.parquet"))


def test_tracking_is_offline_by_default_and_below_its_own_result(place, result):
    assert [path.parent for path in place.rglob("wandb")] == [result]
