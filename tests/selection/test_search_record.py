"""What a search leaves on record, and how it is shown."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from test_strategies import POINTS, STRATEGIES
from toys import planted

from patientdx.core.functions import Call
from patientdx.evaluation.config.search import SearchConfig
from patientdx.merge.schedule import schedule
from patientdx.metrics.bootstrap import interval
from patientdx.metrics.ranking import auroc
from patientdx.reporting.search_tables import search_table
from patientdx.reporting.terminal import rendered
from patientdx.selection.pilot import Candidate
from patientdx.selection.trials import Scored, as_config, record

METRIC = ("auroc", "patientdx.metrics.ranking.auroc")


def found(name: str, module: str) -> dict:
    """The record of a strategy on a toy, whose own rows stand in for the reported split."""
    pilot = planted()
    choice = STRATEGIES[name](pilot)
    rows = {
        one: Scored(pilot.scores(one), pilot.label.astype(int), list(pilot.patient))
        for one in (choice.chosen, choice.single)
        if one is not None
    }
    pilot.forwards = sum(one.rows for one in choice.trials)
    search = SearchConfig.model_construct(
        name=module,
        call=Call(f"patientdx.selection.{module}.{module}", json.dumps({"points": POINTS})),
        merge=Call("patientdx.merge.slerp.slerp", "{}"),
    )
    return record(search, METRIC, pilot, choice, rows, "test", resamples=200, level=0.95, seed=3)


@pytest.fixture(scope="module")
def racing() -> dict:
    return found("racing", "racing")


def test_a_record_is_plain_and_counts_what_was_paid(racing):
    assert json.loads(json.dumps(racing, allow_nan=False)) == racing
    assert racing["looked_at"] == racing["outcomes"] == 11
    assert racing["bits"] == pytest.approx(np.log2(11))
    assert racing["grid_forwards"] == 11 * racing["n"]
    assert racing["forwards"] == sum(one["rows"] for one in racing["candidates"])
    assert racing["patients"] == 120


def test_a_winner_of_all_stands_beside_its_corrected_value():
    grid = found("grid", "grid")
    assert grid["corrected"]["value"] == grid["pilot"]["value"]
    assert grid["corrected"]["low"] < grid["corrected"]["corrected"] < grid["corrected"]["high"]
    assert "corrected for the choice" in shown(grid)


def test_the_winner_of_a_race_stands_beside_its_value_on_test_and_why_none_is_corrected(racing):
    pilot = planted()
    scores = pilot.scores(Candidate(racing["chosen"]["lambda"]))
    naive = interval(auroc, scores, pilot.label, pilot.patient, resamples=200, seed=3)
    assert racing["pilot"] == {"value": naive.value, "low": naive.low, "high": naive.high}
    assert racing["corrected"]["value"] == naive.value
    assert racing["corrected"]["corrected"] is racing["corrected"]["low"] is racing["corrected"]["high"] is None
    assert racing["reported"] == {"split": "test"} | racing["pilot"]  # the same rows here


def test_several_weights_are_compared_with_the_single_one():
    layers = found("layers", "depth")
    single = layers["single"]
    assert single["lambda"] == 0.3
    expected = layers["reported"]["value"] - single["reported"]["value"]
    assert single["difference"]["value"] == pytest.approx(expected)
    assert "test" in shown(layers)
    assert "minus that of the single λ=0.3" in " ".join(shown(layers).split())
    assert "the best 12 of 17 candidates" in shown(layers)


def test_a_strategy_that_keeps_the_pilot_to_itself_leaves_no_number_of_it():
    private = found("grid", "private")
    for name in ("n", "events", "patients", "forwards", "grid_forwards", "share", "pilot", "corrected"):
        assert private[name] is None
    assert all(one["value"] is one["rows"] is one["dropped"] is one["round"] is None for one in private["candidates"])
    assert private["reported"]["value"] > 0.5
    assert private["bits"] == pytest.approx(np.log2(11))
    words = " ".join(shown(private).split())
    assert "corrected" not in words
    assert not re.search(r"pilot [-+\d]", words)


def shown(one: dict) -> str:
    """The table as printed on 80 columns."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(rendered(search_table(one)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_table_says_who_won_who_left_and_what_it_is_worth(racing):
    text = shown(racing)
    assert "chosen" in text
    assert "round 1: beats λ=0.3, 0.9" in text
    words = " ".join(text.split())
    assert "no value corrected for the choice: not all candidates were scored on every row" in words
    forwards = (
        f"{racing['forwards']} forward passes, {racing['share']:.1%} of the {racing['grid_forwards']} of the grid"
    )
    assert forwards in text
    assert "at most 3.5 bits" in text


@pytest.mark.parametrize("given", [0.3, [0.1, 0.2], {"self_attn": [0, 1], "rest": 0.4}])
def test_a_weight_on_record_is_one_that_a_config_takes(given):
    assert schedule(as_config(schedule(given))) == schedule(given)
