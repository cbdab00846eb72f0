"""Runs in the test's own process. They share a session, which a test replaces by a new one."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from patientdx.checkpoints.merge_plan import Recipe
from patientdx.core.functions import Call
from patientdx.evaluation import runner
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.evaluation.plan import Plan
from patientdx.evaluation.results import EvaluationResult
from patientdx.evaluation.session import Session
from patientdx.selection import find_weight
from patientdx.tasks.example import TaskData, without_split

_current = [Session()]


def session() -> Session:
    """The session of the present test."""
    return _current[0]


@contextmanager
def new_session() -> Iterator[Session]:
    """A new session meanwhile; its model is released at the end."""
    _current[0] = Session()
    yield _current[0]
    _current[0].release()


def plan(config: RunConfig) -> Plan:
    """What the run would compute."""
    return runner.plan(session(), config)


def run(config: RunConfig) -> EvaluationResult:
    """The run, with the search for λ before it where one is configured."""
    record = None
    if config.search is not None:
        runner.check(session(), config)
        config, record = find_weight.search(session(), config)
    return runner.run(session(), config, search=record)


def compared(result: EvaluationResult) -> dict:
    """Comparisons and groups in one."""
    return {"groups": {}} | result.analyses.get("groups", {}) | result.analyses["paired"]


def count_calls(monkeypatch: pytest.MonkeyPatch, *targets: str) -> Counter:
    """How often each function, by its dotted name, is called from now on, by its last part."""
    count: Counter = Counter()
    for target in targets:
        module, _, name = target.rpartition(".")
        original = getattr(__import__(module, fromlist=[name]), name)

        def step(*args, _original=original, _name=name, **kwargs):
            count[_name] += 1
            return _original(*args, **kwargs)

        monkeypatch.setattr(target, step)
    return count


def count_steps(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each costly step is taken from now on; `write` counts passes over the weights of the live model."""
    count = count_calls(
        monkeypatch,
        "patientdx.lm.load.load_model",
        "patientdx.lm.load.load_tokenizer",
        "patientdx.lm.prompts.tokenise",
        "patientdx.lm.binary.score",
        "patientdx.training.tabular.fit",
        "patientdx.evaluation.session.content_hash",
        "patientdx.evaluation.session.locate",
    )
    original = Recipe.weight_of  # called once for each tensor of a pass
    first = "model.embed_tokens.weight"
    monkeypatch.setattr(
        Recipe, "weight_of", lambda self, name: (count.update(["write"] * (name == first)), original(self, name))[1]
    )
    return count


def change_task(monkeypatch: pytest.MonkeyPatch, change: Callable[[TaskData], TaskData]) -> None:
    """From now on every task is what `change` makes of it."""

    def task_data(self: Session, task: Call, without: str | None = None) -> TaskData:
        if without is not None:
            return self.remember(
                "task_data", (task, change, without), lambda: without_split(task_data(self, task), without)
            )
        return self.remember("task_data", (task, change), lambda: change(task().load()))

    monkeypatch.setattr(Session, "task_data", task_data)
