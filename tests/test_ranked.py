"""Runs of kind ranking: candidates put in order by the model, BM25 as a line beside it, and what such a run leaves."""

import json
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import composed
from hydra.types import RunMode
from in_process import compared, plan, run, session

from patientdx.cli.run import run_job
from patientdx.core.errors import UserError
from patientdx.evaluation import runner
from patientdx.evaluation.analyses import paired
from patientdx.evaluation.inference import Timer
from patientdx.evaluation.kinds.ranking import rank_candidates
from patientdx.evaluation.plan import Run
from patientdx.evaluation.results import metric_rows
from patientdx.evaluation.session import Session
from patientdx.evaluation.systems import FIRST_STAGE
from patientdx.metrics.retrieval import per_query

MEAN = "patientdx.metrics.retrieval.mean_over_queries"
SMALL = (
    "task=record_search",
    "data=null",
    "task.synthetic.stays=60",
    "task.threads=1",
    "task.limit=6",
    "task.depth=5",
    "~task.metrics.ndcg_10",
    "~task.metrics.recall_20",
    f"+task.metrics.ndcg_3={MEAN}",
)
METRICS = ("map", "mrr", "recall_5", "ndcg_3")


@pytest.fixture(scope="module")
def task_words():
    return SMALL


def test_every_model_and_the_first_stage_has_a_row_with_intervals(outcome):
    assert [row["role"] for row in outcome.rows] == ["merged", "base", "pivot", "bm25"]
    for row in outcome.rows:
        assert (row["n"], row["candidates"], row["split"]) == (6, 30, "test")
        for metric in METRICS:
            assert 0 <= row[f"{metric}_ci_low"] <= row[metric] <= row[f"{metric}_ci_high"] <= 1
    # A list of five holds the same five, in whatever order.
    assert len({row["recall_5"] for row in outcome.rows}) == 1
    assert outcome.rows[-1]["abstention_mass"] is None
    assert len({row["fingerprint"] for row in outcome.rows}) == 4


def test_metrics_are_those_of_the_lists_that_are_left(config_of, outcome):
    table = pq.read_table(outcome.folder / "predictions.parquet").to_pandas()
    asked = plan(config_of())
    missed = [
        asked.data.ranking.missed[q]
        for q, _ in groupby(asked.data.ranking.query[i] for i in asked.context.rows["test"])
    ]
    for row in outcome.rows:
        own = table[table["role"] == row["role"]]
        found = per_query(METRICS, [list(grades) for grades in own["grades"]], missed)
        for metric in METRICS:
            assert row[metric] == pytest.approx(found[metric].mean())
            assert own[metric].to_numpy() == pytest.approx(found[metric])
        if row["role"] == "bm25":
            assert own["p_yes"].isna().all()
        else:
            assert all((np.diff(p) <= 0).all() for p in own["p_yes"])
    lists = {role: set(map(frozenset, part["documents"])) for role, part in table.groupby("role")}
    assert len(set(map(frozenset, lists.values()))) == 1
    assert not set(table.columns) & {"text", "query"}


def test_a_perfect_reader_is_above_the_first_stage_and_ties_keep_its_order(config_of):
    given = config_of("task.depth=20")
    asked = plan(given)
    rows = asked.context.rows["test"]
    margin = np.array([asked.data.examples[i].label for i in rows], dtype=float)
    context, first_stage = asked.context, asked.context.data.ranking.first_stage
    stage = np.array([[first_stage[i]] for i in rows])
    right = np.stack([margin, -margin], 1)
    perfect = {key: stage if key[0] == FIRST_STAGE else right for key in asked.keys}
    state = Run(session(), given, asked, Timer(), perfect)
    measured = {row["role"]: row for row in metric_rows(state)}
    assert measured["merged"]["ndcg_3"] > measured["bm25"]["ndcg_3"]
    compared = paired.ANALYSIS.compute(state, None)
    pairs = {(one["a"], one["b"]): one["difference"] for one in compared["comparisons"] if one["metric"] == "map"}
    assert list(pairs) == [
        ("merged", "base"),
        ("merged", "pivot"),
        ("merged", "bm25"),
        ("base", "bm25"),
        ("pivot", "bm25"),
    ]
    assert pairs["merged", "bm25"]["value"] == pytest.approx(measured["merged"]["map"] - measured["bm25"]["map"])
    assert pairs["merged", "base"]["value"] == 0
    assert rank_candidates(context.data, rows, np.zeros((len(rows), 2))) == rank_candidates(context.data, rows, stage)


def test_groups_of_queries_add_up_to_all_of_them(outcome):
    groups = compared(outcome)["groups"]["kind"]
    assert sum(group["n"] for group in groups.values()) == 6
    whole = {row["role"]: row for row in outcome.rows}
    for role in whole:
        mean = sum(group["n"] * group["models"][role]["map"]["value"] for group in groups.values()) / 6
        assert mean == pytest.approx(whole[role]["map"])


def test_the_same_run_is_found_again_and_another_first_stage_is_another_run(config_of, outcome):
    again = run(config_of())
    assert again.reused
    assert (again.rows, compared(again)) == (outcome.rows, compared(outcome))
    assert plan(config_of("task.k1=1.2")).key != plan(config_of()).key


def test_ids_of_closed_data_are_hashed_with_a_secret(config_of, outcome, monkeypatch):
    given = config_of("name=closed", "parents=false")
    data = session().task_data(given.task_config.call)
    monkeypatch.setattr(Session, "task_data", lambda self, task, without=None: replace(data, open_data=False))
    closed = run(given)
    ids = [
        set(pq.read_table(one.folder / "predictions.parquet", columns=["id"])["id"].to_pylist())
        for one in (closed, outcome)
    ]
    assert not ids[0] & ids[1]
    assert json.loads((closed.folder / "provenance.json").read_text())["task"]["open_data"] is False


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (f"+task.metrics.ndcg_6={MEAN}",
         r"task\.metrics\.ndcg_6: the lists are 5 candidates long \(task\.depth\), so K is 1 to 5"),
        (f"+task.metrics.ndcg={MEAN}",
         r"task\.metrics\.ndcg: a ranking has ndcg_K, map, mrr, recall_K, with a whole number for K"),
    ],
)  # fmt: skip
def test_a_metric_that_a_ranking_does_not_have_is_refused_before_a_model_is_asked(config_of, word, said):
    with pytest.raises(UserError, match=said):
        plan(config_of(word))


def test_a_split_without_queries_is_refused(config_of):
    with pytest.raises(UserError, match="fewer than 2 questions in pilot"):
        plan(config_of("splits=[pilot,test]", "task.fractions={train: 0, pilot: 0, test: 1}"))
    with pytest.raises(UserError, match=r"task\.metrics names nothing: a ranking has ndcg_K"):
        plan(config_of(*(f"~task.metrics.{name}" for name in METRICS)))


def test_what_needs_one_question_a_row_is_refused(config_of):
    with pytest.raises(UserError, match="tabular_gbm: a tabular model is fitted on numbers"):
        plan(config_of("baselines=[tabular_gbm]"))


@pytest.mark.parametrize(("words", "told"), [(["task.path=mine"], False), ([], True)])
def test_an_error_over_ones_own_files_keeps_what_it_says_to_itself(config_of, monkeypatch, capsys, words, told):
    """Without a path the hospital is the synthetic one, and the whole message helps; with one it may quote a record."""

    quoted = " ".join(("a", "line", "of", "a", "record"))  # not in the source, which a traceback shows

    def broken(*arguments, **named):
        raise ValueError(quoted)

    monkeypatch.setattr(runner, "run", broken)
    job = SimpleNamespace(
        mode=RunMode.RUN,
        overrides=SimpleNamespace(task=[], hydra=[]),
        runtime=SimpleNamespace(config_sources=[]),
    )
    cfg = composed(*SMALL, *words)
    with pytest.raises(SystemExit) as end:
        run_job(cfg, job)
    assert end.value.code == 1
    assert (quoted in capsys.readouterr().err) is told
