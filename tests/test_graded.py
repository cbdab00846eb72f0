"""Runs on multiple choice: what they leave, what they share, how models are compared, and what they refuse."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmark_files import questions
from command_line import forked, rows_of, the_one, tiny, tiny_settings
from in_process import compared, plan, run

from patientdx.core.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("questions"), train=6, dev=5, test=14)


@pytest.fixture(scope="module")
def task_words(folder):
    return "task=medqa", f"task.path={folder}"


@pytest.fixture(scope="module")
def outcome(config_of):
    """Options as text, with two worked examples, in a chat."""
    return run(config_of("task.answer=text", "task.shots=2", "splits=[pilot,test]"))


def test_a_row_a_model_and_split_with_intervals(outcome):
    assert [(row["role"], row["split"]) for row in outcome.rows] == [
        (role, split) for role in ("merged", "base", "pivot") for split in ("pilot", "test")
    ]
    for row in outcome.rows:
        assert row["n"] == {"pilot": 5, "test": 14}[row["split"]]
        for metric in ("acc", "acc_norm"):
            assert 0 <= row[f"{metric}_ci_low"] <= row[metric] <= row[f"{metric}_ci_high"] <= 1
        assert not {"auroc", "events", "prevalence"} & row.keys()
    assert rows_of(outcome.folder) == outcome.rows


def test_predictions_hold_what_the_metrics_are_made_of(outcome, folder):
    table = pq.read_table(outcome.folder / "predictions.parquet").to_pandas()
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for row in (row for row in outcome.rows if row["split"] == "test"):
        own = table[(table["role"] == row["role"]) & (table["split"] == "test")]
        log_p = np.stack(own["log_p"])
        characters = np.array([[len(text) for text in line["options"].values()] for line in lines])
        right = np.array(["ABCD".index(line["answer_idx"]) for line in lines])
        assert row["acc"] == np.mean(log_p.argmax(1) == right)
        assert row["acc_norm"] == np.mean((log_p / characters).argmax(1) == right)
        assert (own["acc"].to_numpy() == log_p.argmax(1)).all()
        assert (own["acc_right"].to_numpy() == right).all()
    assert not set(table.columns) & {"question", "text", "probability"}


def test_the_run_is_compared_with_both_parents_on_the_same_questions(outcome):
    found = compared(outcome)
    assert found == {"groups": {}} | json.loads((outcome.folder / "paired.json").read_text())
    assert [(one["b"], one["metric"]) for one in found["comparisons"]] == [
        (role, metric) for role in ("base", "pivot") for metric in ("acc", "acc_norm")
    ]
    assert (found["rows"], found["subjects"]) == (14, 14)
    value = {
        (row["role"], name): row[name] for row in outcome.rows if row["split"] == "test" for name in ("acc", "acc_norm")
    }
    for one in found["comparisons"]:
        apart = value["merged", one["metric"]] - value[one["b"], one["metric"]]
        assert one["difference"]["value"] == pytest.approx(apart)
        assert one["mcnemar"]["only_a"] - one["mcnemar"]["only_b"] == pytest.approx(14 * apart)
        assert 0 < one["mcnemar"]["p_value"] <= 1


def test_the_same_run_is_found_again(config_of, outcome):
    again = run(config_of("task.answer=text", "task.shots=2", "splits=[pilot,test]"))
    assert again.reused
    assert (again.folder, again.rows, compared(again)) == (outcome.folder, outcome.rows, compared(outcome))


def test_what_is_asked_otherwise_has_other_fingerprints(config_of, outcome):
    one = plan(config_of("task.answer=text", "task.shots=2", "splits=[pilot,test]"))
    assert set(one.keys.values()) == {row["fingerprint"] for row in outcome.rows}
    for words in (["task.shots=1"], ["task.shots=2", "task.chat=false"], ["task.shots=2", "seed=1"]):
        other = plan(config_of("task.answer=text", *words, "splits=[pilot,test]"))
        assert not set(one.keys.values()) & set(other.keys.values())


def test_the_worked_examples_run_once_for_all(config_of):
    asked = plan(config_of("task.shots=2", "task.chat=false"))
    assert set(asked.context.prompts.families) == {0}
    assert asked.context.prompts.prefix > 0.5 * np.mean([len(row) for row in asked.context.prompts.ids])
    assert plan(config_of("task.shots=2", "task.chat=true")).context.prompts.ids != asked.context.prompts.ids


def test_no_evaluation_for_the_clinic_and_no_baselines_unless_asked(config_of, outcome):
    assert "clinical" not in outcome.analyses
    assert {row["role"] for row in outcome.rows} == {"merged", "base", "pivot"}
    with pytest.raises(UserError, match="a tabular model is fitted on numbers, and task=medqa gives none"):
        plan(config_of("baselines=[tabular_logistic]"))
    with pytest.raises(
        UserError, match="prompt_variants=true asks the question of task=medqa in other words, and it has none"
    ):
        plan(config_of("prompt_variants=true"))


@pytest.mark.parametrize("name", ["privacy=dlt"])
def test_what_needs_yes_and_no_is_refused_with_its_name(config_of, name):
    with pytest.raises(UserError, match=f"{name}: it needs yes/no questions, but task=medqa"):
        config_of(name)


def test_a_split_that_is_not_there_is_refused(config_of, folder, tmp_path):
    with pytest.raises(UserError, match=r"fewer than 2 questions in pilot; it has test 14\. Give files of that split"):
        plan(config_of(f"task.path={folder / 'test.jsonl'}", "splits=[pilot,test]"))
    drawn = plan(
        config_of(f"task.path={folder / 'test.jsonl'}", "splits=[pilot,test]", "task.fractions={pilot: 0.5, test: 0.5}")
    )
    assert sum(map(len, drawn.context.rows.values())) == 14


def test_a_kind_that_the_loader_does_not_make_is_refused(config_of):
    with pytest.raises(
        UserError, match=r"task\.kind=binary, but patientdx\.tasks\.multiple_choice\.MultipleChoiceTask makes a task"
    ):
        plan(config_of("task.kind=binary"))


def test_a_metric_by_another_name_is_refused(config_of):
    with pytest.raises(UserError, match=r"task\.metrics names f1; task=medqa has acc, acc_norm, acc_bytes, acc_tokens"):
        run(config_of("+task.metrics.f1=patientdx.metrics.accuracy.accuracy"))


def test_a_chat_without_a_template_is_refused(make_tiny, tiny_pivot, folder, tmp_path):
    from transformers import AutoTokenizer

    bare = make_tiny(seed=3)
    tokenizer = AutoTokenizer.from_pretrained(bare)
    tokenizer.chat_template = None
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(bare)
    given = tiny_settings(bare, tiny_pivot, tmp_path, "task=medqa", f"task.path={folder}", "task.chat=true")
    with pytest.raises(
        UserError, match=r"task\.chat=true asks task=medqa as a chat, but the tokenizer in \S+ has no chat"
    ):
        plan(given)


@pytest.fixture(scope="module")
def commands(tiny_base, tiny_pivot, tmp_path_factory):
    """The folder of three commands, and each as it ended: a run, a sweep, and a run on reports that are closed."""
    place = tmp_path_factory.mktemp("commands")
    given = questions(place / "mixed", dev=4, test=6)
    for name in ("anatomy", "sodium"):
        for split in ("dev", "test"):
            (given / f"{name}_{split}.jsonl").write_text((given / f"{split}.jsonl").read_text())
    for split in ("dev", "test"):
        (given / f"{split}.jsonl").unlink()
    words = ["task=multiple_choice", f"task.path={given}"]
    same = [*tiny(tiny_base, tiny_pivot)[:-1], "splits=[pilot,test]", *words]
    # The reports' words are marked.
    lines = [f'{100 + i // 2},{i},"FINDINGS: Qqfind{i} heart.\nIMPRESSION: Zzimp{i} rate."' for i in range(6)]
    (place / "reports.csv").write_text("\n".join(["subject_id,study_id,text", *lines]) + "\n")
    closed = ["task=radiology_impression", f"task.path={place / 'reports.csv'}", "task.new_tokens=6", "name=closed"]
    closed = [*tiny(tiny_base, tiny_pivot), *closed]
    return place, *forked(place, [same, ["-m", *same, "name=swept", "lambda=0.3,0.6"], closed])


def test_the_command_prints_the_sets_and_the_comparisons_and_a_sweep_chooses_on_pilot(commands):
    folder, one, sweep, _ = commands
    assert (one.returncode, one.stderr) == (0, "")
    for said in (
        "Models, multiple_choice",
        "pilot",
        "By set, test",
        "anatomy",
        "sodium",
        "Differences",
        "minus",
        "McNemar",
    ):
        assert said in one.stdout
    assert max(map(len, one.stdout.splitlines()[:-1])) <= 80
    assert sweep.returncode == 0, sweep.stderr
    assert "chosen on pilot: slerp λ=" in sweep.stdout
    result = the_one(folder / "outputs" / "default", "multiple_choice_slerp_*")
    groups = json.loads((result / "groups.json").read_text())["groups"]["set"]
    assert {name: one["n"] for name, one in groups.items()} == {"anatomy": 6, "sodium": 6}


def test_texts_of_credentialed_reports_are_in_nothing_that_a_command_says_or_leaves(commands):
    folder, *_, done = commands
    assert (done.returncode, done.stderr) == (0, "")
    assert max(len(line) for line in done.stdout.splitlines() if "outputs" not in line) <= 80
    result = the_one(folder / "outputs" / "closed", "radiology_impression_slerp_*")
    assert [(row["data"], row["n"]) for row in rows_of(result)] == [("credentialed", 6)] * 3
    assert pq.read_table(result / "predictions.parquet")["subject"].to_pandas().nunique() == 3
    files = [file for file in (folder / "outputs").rglob("*") if file.is_file()]
    assert len(files) > 20
    for content in (done.stdout.encode(), *(file.read_bytes() for file in files)):
        assert not any(word in content.lower() for word in (b"qqfind", b"zzimp"))
