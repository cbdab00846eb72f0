import pytest

from patientdx.evaluation.config.privacy import Request, request

REST = {"task": {"name": "mortality"}, "model": {"name": "merged"}, "parents": True, "tokenizer": None}


def test_every_fault_is_told_at_once():
    errors = []
    node = {"name": "half", "reference": "mine", "k": 0, "neighbours": -1, "shadows": 2, "canaries": [0],
            "extraction": True, "colour": 3}  # fmt: skip
    request({"privacy": node, **REST}, errors)
    for word in ("colour", "privacy=half", "reference=mine", "k=0", "neighbours=-1", "shadows=2", "canaries=",
                 "extraction=True"):  # fmt: skip
        assert sum(word in fault for fault in errors) == 1, word
    assert len(errors) == 8


@pytest.mark.parametrize(("name", "dlt", "mia"), [("none", 0, 0), ("dlt", 1, 0), ("mia", 0, 1), ("all", 1, 1)])
def test_the_name_says_what_is_measured(name, dlt, mia):
    errors = []
    found = request({"privacy": {"name": name}, **REST}, errors)
    assert (found.dlt, found.mia, errors) == (dlt, mia, [])
    assert found == Request(name)


@pytest.mark.parametrize(
    ("node", "rest", "words"),
    [
        ({}, {"task": {"name": "none"}}, "losses are measured on a task's records"),
        ({}, {"model": {"name": "tabular_gbm"}}, "a tabular model gives no loss"),
        ({}, {"parents": False}, "Leave parents=true"),
        ({}, {"tokenizer": "union"}, "the base reads another tokenizer's tokens than its own"),
        ({"canaries": [1]}, {}, "privacy.canaries: without fine-tuning there is nothing to put into"),
        ({"shadows": 4}, {"finetune": {"name": "none"}}, "privacy.shadows: without fine-tuning"),
        ({"name": "dlt", "canaries": [1]}, {"finetune": {"name": "lora"}}, "part of membership inference"),
    ],
)
def test_what_the_rest_of_the_config_speaks_against_is_told(node, rest, words):
    errors = []
    request({"privacy": {"name": "mia"} | node, **REST, **rest}, errors)
    assert len(errors) == 1
    assert words in errors[0]


def test_nothing_is_told_where_nothing_is_asked():
    errors = []
    assert request({"task": {"name": "none"}, "parents": False}, errors) == Request()
    assert not errors
