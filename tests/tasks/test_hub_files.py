"""Data sets of the hub, out of a stand-in for its local cache: nothing is fetched, what cannot be had is refused."""

import json
from pathlib import Path

import httpx2
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.tasks.hub_files import fetched, name_of

COMMIT = "a" * 40
QUESTION = {"question": "Which?", "opa": "one", "opb": "two", "opc": "three", "opd": "four"}


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """`cached("owner/name", {"data/test.jsonl": rows})`: a data set in the hub's cache of this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def made(name: str, files: dict[str, list[dict]], revision: str = "main") -> Path:
        location = tmp_path / "hub" / f"datasets--{name.replace('/', '--')}"
        (location / "refs").mkdir(parents=True)
        (location / "refs" / revision).write_text(COMMIT)
        for inside, rows in files.items():
            file = location / "snapshots" / COMMIT / inside
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".parquet":
                pq.write_table(pa.Table.from_pylist(rows), file)
            else:
                file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return location / "snapshots" / COMMIT

    return made


def test_parquet_files_are_read_by_their_splits_and_the_commit_is_recorded(cached):
    files = {f"data/{split}-00000-of-00001.parquet": [QUESTION | {"cop": cop} for cop in loaded]
             for split, loaded in (("train", (0, 3)), ("validation", (2,)), ("test", (-1,)))}  # fmt: skip
    cached("owner/medmcqa", files | {"dataset_infos.json": [{}], "README.md": [{}]})
    data = load("medmcqa", path="hub:owner/medmcqa", train_limit=None, answers_from=0)
    assert [(one.split, one.gold) for one in data.examples] == [("train", 0), ("train", 3), ("test", 2)]
    assert data.provenance["hub"] == {"medmcqa": f"hub:owner/medmcqa@{COMMIT}"}
    again = load("medmcqa", path=f"hub:owner/medmcqa/data@{COMMIT}", train_limit=None, answers_from=0)
    assert again.provenance["hub"] == {"medmcqa": f"hub:owner/medmcqa/data@{COMMIT}"}
    assert "hub" not in data.provenance["settings"]


def test_the_same_files_from_the_hub_and_from_a_folder_are_the_same_questions(cached, tmp_path):
    rows = [QUESTION | {"question": f"Which, {letter}?", "answer": letter} for letter in "AB"]
    cached("owner/mine", {"test-00000-of-00002.parquet": rows[:1], "test-00001-of-00002.parquet": rows[1:],
                          "train.jsonl": [*rows, QUESTION | {"question": "Why?", "answer": "C"}]})  # fmt: skip
    local = tmp_path / "mine"
    local.mkdir()
    for name in ("test-00000-of-00002.parquet", "test-00001-of-00002.parquet", "train.jsonl"):
        (local / name).write_bytes((fetched("hub:owner/mine", "task.path") / name).read_bytes())
    hub, belonging = (load("multiple_choice", path=path, shots=1) for path in ("hub:owner/mine", str(local)))
    assert hub.fingerprint == belonging.fingerprint  # the shards of a split are one set, named as the data set is
    assert "hub" not in belonging.provenance
    assert name_of(Path("/data/snapshots/mine")) == "mine"


def test_one_folder_or_one_file_of_a_data_set_can_be_asked_for(cached):
    problems = [{"question": "How many?", "answer": "#### 2"}]
    cached("owner/gsm8k", {f"{kind}/test-00000-of-00001.parquet": problems for kind in ("main", "socratic")})
    full = load("gsm8k", path="hub:owner/gsm8k")
    assert [one.uid for one in full.examples] == ["gsm8k:main/test-00000-of-00001.parquet row 1"]
    assert len(load("gsm8k", path="hub:owner/gsm8k/socratic").examples) == 1
    prompt = {"prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    cached("owner/ifeval", {"ifeval_input_data.jsonl": [prompt], "more/other.jsonl": [prompt]})
    data = load("ifeval", path="hub:owner/ifeval/ifeval_input_data.jsonl@main")
    assert len(data.examples) == 1
    assert data.provenance["hub"] == {"ifeval": f"hub:owner/ifeval/ifeval_input_data.jsonl@{COMMIT}"}
    with pytest.raises(UserError, match="a folder; give the one file in it that holds prompts"):
        load("ifeval", path="hub:owner/ifeval")


def test_pubmedqa_of_the_hub_has_its_abstract_in_parts(cached):
    row = {"pubid": 1, "question": "Does it?", "final_decision": "maybe",
           "context": {"contexts": ["One part.", "Another."], "labels": ["AIM", "RESULTS"]}}  # fmt: skip
    cached("owner/PubMedQA", {"pqa_labeled/train-00000-of-00001.parquet": [row]})
    (loaded,) = load("pubmedqa", path="hub:owner/PubMedQA/pqa_labeled").examples  # one file alone is the test split
    assert (loaded.context, loaded.gold, loaded.split) == ("One part.\nAnother.", 2, "test")


def test_texts_and_groups_of_benchmarks_record_their_commits_too(cached, tmp_path):
    cached("owner/meqsum", {"test.jsonl": [{"CHQ": "who makes it", "Summary": "Who makes it?"}]})
    data = load("question_summary", path="hub:owner/meqsum")
    assert data.provenance["hub"] == {"question_summary": f"hub:owner/meqsum@{COMMIT}"}
    with pytest.raises(UserError, match=r"^task\.medqa=hub:owner/none: owner/none is not in the hub cache"):
        load("medical_qa", medqa="hub:owner/none")


def test_what_cannot_be_had_offline_says_how_to_fetch_it(cached):
    cached("owner/mine", {"test.jsonl": [QUESTION | {"answer": "A"}]}, revision="v1")
    assert len(load("multiple_choice", path="hub:owner/mine@v1").examples) == 1
    with pytest.raises(UserError) as refused:
        load("multiple_choice", path="hub:owner/mine@v2")
    assert str(refused.value) == (
        "task.path=hub:owner/mine@v2: owner/mine is not in the hub cache of this machine and cannot be fetched "
        "(LocalEntryNotFoundError). With a connection run `hf download --repo-type dataset owner/mine --revision v2`, "
        "or give a local folder that holds it."
    )


@pytest.mark.parametrize(
    "path", ["hub:", "hub:medqa", "hub:owner/name@", "hub:owner/../name", "hub:a/b/../c", "hub:a/b@c@d"]
)
def test_another_form_is_refused(path):
    with pytest.raises(UserError, match=r"names no data set of the hub: write hub:<owner>/<name>\[/<folder or file>\]"):
        load("multiple_choice", path=path)


def test_a_data_set_without_a_file_that_can_be_read_is_refused(cached):
    cached("owner/script", {"script.py": [{}], "dataset_infos.json": [{}], "data.zip": [{}]})
    for path in ("hub:owner/script", "hub:owner/script/nowhere"):
        with pytest.raises(UserError, match=rf"task\.path={path} holds no file that can be read \(\.jsonl, "):
            load("multiple_choice", path=path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GatedRepoError, "owner/name asks for consent to its terms: accept them on the data set's page"),
        (RepositoryNotFoundError, "there is no owner/name among the hub's data sets, or it is not public"),
        (RevisionNotFoundError, "there is no revision v1 of owner/name among the hub's data sets"),
    ],
)
def test_what_the_hub_says_no_to_is_refused_and_only_data_is_asked_of_it(monkeypatch, error, said):
    requested = {}

    def answered(name, **options):
        requested.update(options, name=name)
        raise error("no", response=httpx2.Response(404, request=httpx2.Request("GET", "http://hub")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answered)
    with pytest.raises(UserError, match=said):
        fetched("hub:owner/name/part@v1", "task.path")
    assert (requested["name"], requested["repo_type"], requested["revision"]) == ("owner/name", "dataset", "v1")
    assert requested["allow_patterns"][0] == "part"
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in requested["allow_patterns"])
