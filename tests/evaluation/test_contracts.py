"""A new kind and a new analysis are one file each; what every kind and every analysis has to keep to."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import PILOT, TEST
from in_process import plan, run

from patientdx.core.errors import UserError
from patientdx.evaluation import analyses, kinds
from patientdx.evaluation.analyses import all_analyses
from patientdx.evaluation.kinds import Kind, kind_named
from patientdx.evaluation.registry import kind_names
from patientdx.evaluation.session import Session

pytestmark = pytest.mark.usefixtures("fresh_session")

KIND = '''
import numpy as np
from patientdx.evaluation.kinds import Kind, Measures, texts_of


class Lengths(Kind):
    """Whether a prompt has an even number of tokens, which needs no model."""

    name = "lengths"
    unit = "prompt"

    def encode(self, data, tokenizer, *, chat, max_tokens, context):
        from patientdx.lm.prompts import tokenise

        return tokenise(tokenizer, list(map(texts_of, data.examples)), (), chat=chat, limit=max_tokens)

    def respond(self, request):
        return np.array([[len(request.prompts.ids[i])] for i in request.rows], float)

    def measures(self, context, rows, responses):
        right = np.array([context.data.examples[i].label for i in rows], float)
        even = (responses[:, 0] % 2 == 0).astype(float)
        return Measures(list(rows), {name: (even, right) for name, _ in context.metrics}, np.zeros(len(rows), bool))


KIND = Lengths()
'''
ANALYSIS = '''
from patientdx.core.tables import count, make_table
from patientdx.evaluation.analyses import Analysis


class Sizes(Analysis):
    """How many rows each split has."""

    name = "sizes"

    def not_applicable(self, config, data, kind):
        return None

    def fingerprint(self, run):
        return 1

    def compute(self, run, collected):
        return {split: len(rows) for split, rows in run.plan.context.rows.items()}

    def roles(self, result):
        return ("merged",)

    def tables(self, entries):
        return [make_table("sizes", "Sizes", ["pilot"], [[count(entry.result["pilot"])] for entry in entries])]

    def summary(self, result, task):
        return {f"{task}/sizes/{split}": count for split, count in result.items()}


ANALYSIS = Sizes()
'''
EVEN = "+task.metrics.even=patientdx.metrics.accuracy.accuracy"
LENGTHS = ["task.kind=lengths", "~task.metrics.auroc", "~task.metrics.auprc", EVEN]


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """``plug_in(package, name, source)``: the source as one more module of the package."""

    def plug_in(package, name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])

    return plug_in


@pytest.fixture
def lengths(plug_in, monkeypatch):
    """The toy kind, and mortality as a task of it."""
    plug_in(kinds, "lengths", KIND)
    monkeypatch.setattr(
        Session,
        "task_data",
        lambda self, task, without=None: self.remember(
            "task_data", task, lambda: replace(task().load(), kind="lengths")
        ),
    )


def test_a_kind_in_one_file_is_run_compared_and_searched(make, lengths):
    assert "lengths" in kind_names()
    result = run(make(*LENGTHS))
    assert {(row["role"], row["split"]) for row in result.rows} == {
        (role, split) for role in ("merged", "base", "pivot") for split in ("pilot", "test")
    }
    assert result.rows[0]["even_ci_low"] <= result.rows[0]["even"] <= result.rows[0]["even_ci_high"]
    assert [(one["a"], one["b"]) for one in result.analyses["paired"]["comparisons"]] == [
        ("merged", "base"), ("merged", "pivot"),
    ]  # fmt: skip
    assert {"even", "even_right"} <= set(pq.read_schema(result.folder / "predictions.parquet").names)
    searched = run(make(*LENGTHS, "splits=test", "parents=false", "search=grid", "search.points=[0,0.5,1]"))
    record = json.loads((searched.folder / "search.json").read_text())
    assert (record["metric"], record["chosen"]["lambda"], record["forwards"]) == ("even", 0.0, 3 * record["n"])
    with pytest.raises(UserError, match=r"search=private is for the AUROC of binary tasks"):
        make(*LENGTHS, "splits=test", "search=private", "search.epsilon=1")


def test_an_analysis_in_one_file_is_computed_written_and_part_of_the_fingerprint(make, plug_in):
    before = plan(make())
    plug_in(analyses, "sizes", ANALYSIS)
    assert plan(make()).key != before.key
    assert plan(make()).keys == before.keys
    result = run(make())
    sizes = {"pilot": PILOT, "test": TEST}
    assert result.analyses["sizes"] == json.loads((result.folder / "sizes.json").read_text()) == sizes
    again = run(make())
    assert again.reused
    assert again.analyses == result.analyses
    (result.folder / "sizes.json").unlink()  # without it the run is not finished
    assert not run(make()).reused


@pytest.mark.parametrize("name", kind_names())
def test_a_kind_is_named_as_its_file_and_keeps_to_the_protocol(name):
    kind = kind_named(name)
    assert kind.name == name
    assert Kind in type(kind).__mro__
    assert kind.cpu_batch_tokens >= 1
    assert kind.unit
    assert (kind.version is None) == kind.gives_probability


@pytest.mark.parametrize("analysis", all_analyses(), ids=lambda analysis: analysis.name)
def test_an_analysis_is_named_as_its_file(analysis):
    assert type(analysis).__module__ == f"patientdx.evaluation.analyses.{analysis.name}"


def test_only_kinds_know_which_kind_a_task_has():
    """No code outside kinds/ names a kind in a comparison."""
    from pathlib import Path

    names = "|".join(kind_names())
    package = Path(kinds.__file__).parents[1].parent
    found = []
    for path in package.rglob("*.py"):
        if path.parent.name == "kinds" or "tasks" in path.parts:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if any(f'kind == "{name}"' in line or f'kind != "{name}"' in line for name in names.split("|")):
                found.append(f"{path.name}:{number}")
    assert found == []


def test_units_of_a_search_hold_nan_only_where_nothing_is_known():
    from patientdx.selection.pilot import Candidate, Pilot

    def score(candidate, units):
        return np.stack([units + candidate.weight, units], axis=1)

    from patientdx.metrics.text_overlap import bleu

    pilot = Pilot(np.ones(6), np.arange(6), bleu, score, events=np.zeros(6))
    assert pilot.scores(Candidate(0.5), [1, 4]).tolist() == [[1.5, 1.0], [4.5, 4.0]]
    assert (pilot.forwards, pilot.count(Candidate(0.5))) == (2, 2)
    assert np.isnan(pilot.known(Candidate(0.5))).all(axis=1).sum() == 4
