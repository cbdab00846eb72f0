"""Every yaml of a task: its heading, its keys and its entry. A new task is checked here by itself."""

import dataclasses
import re

import pytest
import yaml
from tasks_by_yaml import CONF, NAMES, node, task

from patientdx.evaluation.registry import kind_names
from patientdx.tasks.corpora import CORPORA
from patientdx.tasks.outcomes import OUTCOMES
from patientdx.tasks.question_sets import COLLECTIONS, SETS

ENTRIES = {"outcome": OUTCOMES, "question_set": SETS | COLLECTIONS, "corpus": CORPORA}
SHARED = sorted((CONF / "task").glob("_*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_yaml_shows_a_command_its_unit_and_every_key_of_its_task(name):
    text = (CONF / f"task/{name}.yaml").read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("# ")]
    assert re.match(rf"# python run\.py (-m )?task={name}( |$)", head[0])
    assert any(line.startswith("# Unit: ") for line in head) or "\n  - record_qa\n" in text
    config = node(name)
    assert config["kind"] in kind_names()
    if config["kind"] == "binary" and "outcome" in config:
        assert any(line.startswith("# Label 1: ") for line in head)
    for key, entries in ENTRIES.items():
        if key in config:
            assert name == config[key]
            assert name in entries
    loaded = task(name)
    fields = {field.name: field for field in dataclasses.fields(loaded)}
    assert set(config) - {"name", "kind", "metrics", "_target_"} <= set(fields)
    # Keys that a yaml does not have belong to other entries of the family, and are not set.
    assert all(not getattr(loaded, key) for key in set(fields) - set(config))


def test_every_entry_has_a_yaml():
    assert {entry for entries in ENTRIES.values() for entry in entries} <= set(NAMES)


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.stem)
def test_a_shared_yaml_explains_every_key(path):
    text = path.read_text(encoding="utf-8")
    keys = set(yaml.safe_load(text)) - {"kind", "_target_", "metrics", "cache"}
    explained = set(re.findall(r"^(\w+):.*#", text, re.M))
    assert keys <= explained
