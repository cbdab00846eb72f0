"""Runs whose answers are the model's own words: said, judged, kept as numbers, and as texts where the data is open."""

import json
from dataclasses import replace

import pytest
from command_line import tiny_settings
from in_process import compared, plan, run, session

from patientdx.core.errors import UserError
from patientdx.evaluation.kinds.generation import TEXTS
from patientdx.evaluation.session import Session
from patientdx.evaluation.store import write_sealed_json
from patientdx.tasks import ifeval_rules

PROMPTS = [
    (
        "Is the heart rate above the interval? Answer yes or no.",
        ["punctuation:no_comma", "startend:quotation"],
        [{}, {}],
    ),
    ("Sodium of 139 mEq/L?", ["length_constraints:number_words"], [{"num_words": 500, "relation": "less than"}]),
    ("Say it.", ["keywords:existence"], [{"keywords": ["heart"]}]),
    ("And again, please.", ["punctuation:no_comma"], [{}]),
]


@pytest.fixture(scope="module")
def task_words(tmp_path_factory):
    prompts = tmp_path_factory.mktemp("prompts") / "input_data.jsonl"
    lines = [{"key": i, "prompt": p, "instruction_id_list": k, "kwargs": a} for i, (p, k, a) in enumerate(PROMPTS)]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    return "task=ifeval", f"task.path={prompts}", "task.new_tokens=12"


def test_metrics_are_those_of_the_answers_that_are_left(outcome):
    said = [json.loads(line) for line in (outcome.folder / TEXTS).read_text().splitlines()]
    assert {(one["role"], one["split"]) for one in said} == {(role, "test") for role in ("merged", "base", "pivot")}
    for row in outcome.rows:
        answers = [one["answer"] for one in said if one["role"] == row["role"]]
        followed = [
            [ifeval_rules.strict(answer, kind, given) for kind, given in zip(kinds, arguments, strict=True)]
            for answer, (_, kinds, arguments) in zip(answers, PROMPTS, strict=True)
        ]
        assert row["prompt_level_strict_acc"] == pytest.approx(sum(map(all, followed)) / 4)
        assert row["inst_level_strict_acc"] == pytest.approx(sum(map(sum, followed)) / 5)
        assert row["prompt_level_loose_acc"] >= row["prompt_level_strict_acc"]
        assert 0 < row["mean_tokens"] <= 12
        assert 0 <= row["ended"] <= 1
        assert row["n"] == 4
    exact = {one["metric"]: one.get("mcnemar") for one in compared(outcome)["comparisons"]}
    assert exact["prompt_level_strict_acc"] is not None
    assert exact["inst_level_strict_acc"] is None  # a share of each prompt, which is not right or wrong


def test_the_same_run_is_found_again_and_another_length_is_another_run(config_of, outcome):
    again = run(config_of())
    assert again.reused
    assert again.rows == outcome.rows
    assert plan(config_of("task.new_tokens=11")).key != plan(config_of()).key


def test_answers_found_in_the_store_are_left_with_a_new_run_too(config_of, outcome):
    other = run(config_of("name=second"))
    assert not other.reused
    assert (other.folder / TEXTS).read_text() == (outcome.folder / TEXTS).read_text()


def test_texts_of_credentialed_data_stay_nowhere(config_of, monkeypatch):
    data = session().task_data(config_of("name=closed", "task.new_tokens=10").task_config.call)
    monkeypatch.setattr(Session, "task_data", lambda self, task, without=None: replace(data, open_data=False))
    given = config_of("name=closed", "task.new_tokens=10")
    found = run(given)
    assert not (found.folder / TEXTS).exists()
    assert not list((given.output / "scores").glob(f"{found.rows[0]['fingerprint']}.texts.json"))
    assert {row["data"] for row in found.rows} == {"credentialed"}


def test_a_line_end_inside_an_answer_ends_no_line(config_of):
    given = config_of("name=lines", "task.new_tokens=10")
    outcome = run(given)
    asked = plan(given)
    for (_, split), key in asked.keys.items():
        odd = ["one\u2028two\u0085three\n"] * len(asked.context.rows[split])
        write_sealed_json({"key": key, "texts": odd}, given.output / "scores" / f"{key}.texts.json")
    asked.context.kind.write_texts(asked.context, asked.keys, given.output / "scores", outcome.folder)
    told = [json.loads(line) for line in (outcome.folder / TEXTS).read_text(encoding="utf-8").split("\n")[:-1]]
    assert {one["answer"] for one in told} == {"one\u2028two\u0085three\n"}
    assert len(told) == len(asked.keys) * len(odd)


def test_an_answer_that_leaves_no_room_for_a_question_is_refused(config_of):
    with pytest.raises(
        UserError, match=r"task\.new_tokens=2048 leaves no room for a question in the model's context of 2048"
    ):
        plan(config_of("task.new_tokens=2048"))


def test_word_problems_stop_at_the_next_question(tiny_base, tiny_pivot, tmp_path):
    lines = [{"question": f"{i} and {i}?", "answer": f"#### {2 * i}"} for i in range(6)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = [
        "task=gsm8k",
        f"task.path={tmp_path}",
        "task.new_tokens=10",
        "task.shots=1",
        "task.limit=3",
        "parents=false",
    ]
    found = run(tiny_settings(tiny_base, tiny_pivot, tmp_path / "out", *words))
    (row,) = found.rows
    assert row["n"] == 3
    assert 0 <= row["exact_match_strict"] <= 1
    assert compared(found) == {"split": "test", "comparisons": [], "groups": {}, "rows": 3, "subjects": 3}
    said = [json.loads(line)["answer"] for line in (found.folder / TEXTS).read_text().splitlines()]
    assert len(said) == 3
    assert not any("Question:" in answer for answer in said)
