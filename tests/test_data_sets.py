"""Where a task finds its files when only the folder of all data sets is named."""

import pytest

from patientdx.core.validation import ConfigErrors
from patientdx.evaluation.config.task import with_files


def test_a_task_reads_the_folder_of_its_name(tmp_path):
    (tmp_path / "medqa").mkdir()
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / "medqa" / name).write_text("{}")
    assert with_files({"name": "medqa", "path": None}, tmp_path) == {"name": "medqa", "path": str(tmp_path / "medqa")}


def test_a_folder_of_one_data_file_stands_for_it(tmp_path):
    (tmp_path / "ifeval").mkdir()
    for name in ("prompts.jsonl", "SOURCE.txt"):
        (tmp_path / "ifeval" / name).write_text("{}")
    (tmp_path / "gsm8k.jsonl").write_text("{}")
    assert with_files({"name": "ifeval", "path": None}, tmp_path)["path"] == str(tmp_path / "ifeval" / "prompts.jsonl")
    assert with_files({"name": "gsm8k", "path": None}, tmp_path)["path"] == str(tmp_path / "gsm8k.jsonl")


def test_a_task_of_several_sets_reads_each_by_its_name(tmp_path):
    for name in ("medqa", "medmcqa"):
        (tmp_path / f"{name}.jsonl").write_text("{}")
    task = with_files({"name": "medical_qa", "medqa": None, "medmcqa": "mine.jsonl"}, tmp_path)
    assert task == {"name": "medical_qa", "medqa": str(tmp_path / "medqa.jsonl"), "medmcqa": "mine.jsonl"}


def test_what_is_given_or_has_no_path_stays(tmp_path):
    assert with_files({"name": "medqa", "path": "x"}, tmp_path) == {"name": "medqa", "path": "x"}
    assert with_files({"name": "mortality"}, tmp_path) == {"name": "mortality"}


def test_a_task_that_can_do_without_files_is_left_without(tmp_path):
    requested = {"name": "record_search", "path": None, "synthetic": {"stays": 60}}
    assert with_files(dict(requested), tmp_path) == requested


def test_a_set_that_is_not_there_is_told_with_what_is(tmp_path):
    (tmp_path / "gsm8k.jsonl").write_text("{}")
    with pytest.raises(ConfigErrors) as refused:
        with_files({"name": "medqa", "path": None}, tmp_path)
    assert (
        f"data={tmp_path} has no folder or file medqa (it holds gsm8k.jsonl). Name one so, link to it, or give"
        in str(refused.value)
    )
    with pytest.raises(ConfigErrors, match="there is no such folder"):
        with_files({"name": "medqa", "path": None}, tmp_path / "no")
