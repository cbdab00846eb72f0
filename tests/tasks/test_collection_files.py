"""Collections from local files: BEIR's form and TREC's, and every line that will not do by its name and number."""

import json

import pytest
from tasks_by_yaml import load

from patientdx.core.errors import UserError

CORPUS = [
    {"_id": "d1", "title": "Norepinephrine", "text": "was started for shock"},
    {"_id": "d2", "text": "insulin and heparin"},
    {"_id": "d3", "text": "heparin alone"},
]
QUERIES = [{"_id": "q1", "text": "shock treatment"}, {"_id": "q2", "text": "heparin", "subject": "p1"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td3\t1\nq2\td2\t0\n"


def write(folder, corpus=CORPUS, queries=QUERIES, **qrels):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (qrels or {"test.tsv": QRELS}).items():
        (folder / "qrels").mkdir(exist_ok=True)
        (folder / "qrels" / name).write_text(text)
    return folder


def test_beirs_form_is_read(tmp_path):
    data = load("record_search", cache=tmp_path, path=str(write(tmp_path / "beir")))
    assert [example.uid.split("/")[0] for example in data.examples] == ["q1"] * 3 + ["q2"] * 3
    first = data.examples[0]
    assert (first.uid, first.context, first.label, first.split) == (
        "q1/d1",
        "Norepinephrine\nwas started for shock",
        1,
        "test",
    )
    assert data.ranking.grade[0] == 2
    assert {example.subject for example in data.examples} == {"q1", "p1"}
    relevant = {example.uid for example in data.examples if example.label}
    assert relevant == {"q1/d1", "q2/d3"}
    assert not data.open_data
    assert set(data.provenance["source"]) == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}


def test_trecs_four_columns_and_splits_by_name(tmp_path):
    folder = write(tmp_path / "trec", **{"dev.txt": "q1 0 d1 1\n", "test.txt": "q2 0 d3 1\n\n"})
    data = load("record_search", cache=tmp_path, path=str(folder), open_data=True)
    assert {(example.uid.split("/")[0], example.split) for example in data.examples} == {
        ("q1", "pilot"),
        ("q2", "test"),
    }
    assert data.open_data
    drawn = load("record_search", cache=tmp_path, path=str(folder), fractions={"train": 0, "pilot": 0, "test": 1})
    assert {example.split for example in drawn.examples} == {"test"}


def test_a_limit_takes_so_many_queries_of_each_split(tmp_path):
    data = load("record_search", cache=tmp_path, path=str(write(tmp_path / "beir")), limit=1)
    assert len(data.ranking.queries) == 1
    assert len(load("record_search", cache=tmp_path, path=str(tmp_path / "beir"), limit=None).ranking.queries) == 2


BAD = {
    "corpus line without text": (
        {"corpus": [*CORPUS, {"_id": "d4", "body": "x"}]},
        r"corpus\.jsonl line 4 has no text\. Its columns are _id, body",
    ),
    "query without id": ({"queries": [{"text": "x"}]}, r"queries\.jsonl line 1 has no _id\. Its columns are text"),
    "empty document": ({"corpus": [{"_id": "d1", "text": " "}]}, r"corpus\.jsonl line 1: the document is empty"),
    "empty query": ({"queries": [{"_id": "q1", "text": ""}]}, r"queries\.jsonl line 1: the query is empty"),
    "an id twice": ({"corpus": [*CORPUS, CORPUS[0]]}, r"corpus\.jsonl line 4: the _id is that of corpus\.jsonl line 1"),
    "no such document": (
        {"test.tsv": QRELS + "q1\td9\t1\n"},
        r"qrels/test\.tsv line 5 judges a document that is not in corpus\.jsonl",
    ),
    "no such query": (
        {"test.tsv": "q9\td1\t1\n"},
        r"qrels/test\.tsv line 1 judges a query that is not in queries\.jsonl",
    ),
    "nothing relevant": (
        {"test.tsv": "q1\td1\t1\nq2\td1\t0\nq2\td2\t0\n"},
        r"qrels/test\.tsv line 2: this query has no relevant document",
    ),
    "judged twice": ({"test.tsv": "q1\td1\t1\nq1\td1\t0\n"}, r"test\.tsv line 2 judges a document a second time"),
    "two columns": ({"test.tsv": "q1\td1\n"}, r"test\.tsv line 1 has 2 columns\. There are three \(query-id, c"),
    "grade in words": ({"test.tsv": "q1\td1\tyes\n"}, r"test\.tsv line 1: the grade is no whole number"),
    "grade with two signs": ({"test.tsv": "q1\td1\t--1\n"}, r"test\.tsv line 1: the grade is no whole number"),
    "grade that is a power": ({"test.tsv": "q1\td1\t1\nq1\td2\t²\n"},
                              r"test\.tsv line 2: the grade is no whole number"),
    "nothing judged": ({"test.tsv": "query-id\tcorpus-id\tscore\n"}, r"test\.tsv judges nothing"),
    "one query in two splits": (
        {"dev.tsv": "q1\td1\t1\n", "test.tsv": "q1\td1\t1\n"},
        r"qrels/test\.tsv judges a query that qrels/dev\.tsv judges too",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_will_not_do_is_named_with_its_line_and_no_id(tmp_path, name):
    keys, message = BAD[name]
    folder = write(tmp_path / "bad", **keys)
    with pytest.raises(UserError, match=message) as refusal:
        load("record_search", cache=tmp_path, path=str(folder))
    assert "q9" not in str(refusal.value)
    assert "d9" not in str(refusal.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"task\.path=.*nowhere is no folder; nothing is downloaded\. A collection is a folder"
    ):
        load("record_search", cache=tmp_path, path=str(tmp_path / "nowhere"))
    folder = write(tmp_path / "part")
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(UserError, match=r"task\.path=.*part has no qrels\. A collection is a folder"):
        load("record_search", cache=tmp_path, path=str(folder))
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no queries\.jsonl"):
        load("record_search", cache=tmp_path, path=str(folder))
    (folder / "corpus.jsonl").write_text("")
    with pytest.raises(UserError, match=r"corpus\.jsonl in task\.path=.* is empty"):
        load("record_search", cache=tmp_path, path=str(folder))
