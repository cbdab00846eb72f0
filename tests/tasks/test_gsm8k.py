"""GSM8K: which number is the answer, how it is asked, files that will not do; and the generated number questions."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.tasks.gsm8k import STOPS, judged
from patientdx.tasks.numeric_generator import KINDS, held_out


def problems(path: Path, count: int, name: str) -> Path:
    lines = [
        {"question": f"{name}: {i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i:,}"} for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


@pytest.mark.parametrize(
    ("answer", "right", "strictly", "loosely"),
    [
        ("2 * 9 = 18\n#### 18", "18", 1, 1),
        ("#### 1,234.", "1234", 1, 1),
        ("So she makes $18.", "18", 0, 1),
        ("#### 18 and later 20", "18", 1, 0),
        ("The answer is -7", "-7", 0, 1),
        ("#### 18.00", "18", 0, 0),  # compared as it is written
        ("I cannot say", "18", 0, 0),
        ("", "18", 0, 0),
    ],
)
def test_the_number_behind_the_mark_or_the_last_one(answer, right, strictly, loosely):
    assert judged(answer, right) == {"exact_match_strict": (strictly, 1), "exact_match_flexible": (loosely, 1)}


def test_worked_examples_show_the_steps_and_come_from_train(tmp_path):
    problems(tmp_path / "train.jsonl", 5, "train")
    problems(tmp_path / "test.jsonl", 4, "test")
    data = load("gsm8k", path=str(tmp_path), shots=2, new_tokens=20)
    assert Counter(each.split for each in data.examples) == {"train": 5, "test": 4}
    requested = [each for each in data.examples if each.split == "test"]
    each = requested[0]
    assert each.prefix.count("Question: train") == each.prefix.count("\n#### ") == 2
    assert each.suffix.startswith("Question: test: ")
    assert each.suffix.endswith("?\nAnswer:")
    assert (data.generation.length, data.generation.stops) == (20, STOPS)
    for i, example in enumerate(data.examples):
        doubled = 2 * int(example.suffix.split()[2])
        assert data.generation.judge(i, f"#### {doubled}")["exact_match_strict"] == (1, 1)
        assert example.reference.endswith(f"#### {doubled}")  # what fine-tuning teaches
        if example.split == "train":  # a train problem is not shown its own answer
            assert example.suffix not in example.prefix
    few = load("gsm8k", path=str(tmp_path), limit=3, train_limit=2)
    assert Counter(each.split for each in few.examples) == {"train": 2, "test": 3}
    assert {each.uid for each in few.examples} < {each.uid for each in data.examples}
    with pytest.raises(UserError, match=r"task\.shots=6: worked examples come from train alone, which has 5 problems"):
        load("gsm8k", path=str(tmp_path), shots=6)


def test_number_questions_are_two_examinations_with_as_many_yes_as_no():
    data = load("numeric_questions", seed=3, per_kind=4)
    assert (data.kind, data.open_data) == ("binary", True)
    for split, seed in (("pilot", 6), ("test", 7)):
        belonging = [each for each in data.examples if each.split == split]
        requested = list(held_out(seed, 4))
        assert [each.prefix + each.context + each.suffix for each in belonging] == [
            question.prompt for question in requested
        ]
        assert [each.label for each in belonging] == [int(question.answer) for question in requested]
        assert sum(each.label for each in belonging) == len(belonging) / 2
    assert Counter(data.groups["kind"]) == dict.fromkeys(KINDS, 8)
    assert load("numeric_questions", seed=3, per_kind=4).fingerprint == data.fingerprint
    assert load("numeric_questions", seed=4, per_kind=4).fingerprint != data.fingerprint
    with pytest.raises(UserError, match=r"task\.per_kind=1: a whole number of 2 or more"):
        load("numeric_questions", per_kind=1)
