"""The account of ε: what adds up, what survives, what is refused, and what it cannot be read from."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.metrics.ranking import auroc
from patientdx.privacy import ledger
from patientdx.selection.pilot import Pilot
from patientdx.selection.private import FOLDER, private


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A ledger of the test's own."""
    monkeypatch.setenv(ledger.PLACE, str(tmp_path / "account" / "ledger.jsonl"))
    return tmp_path / "account" / "ledger.jsonl"


def draw(cache, *, task="mortality", extract="2024", points=(0.0, 1.0), epsilon=1.0, **keywords):
    """A private draw from the tables of an extract; returns its numbers, and how many scores it took."""
    label = np.arange(20) < 5
    pilot = Pilot(
        label, np.arange(20), auroc, lambda candidate, rows: candidate.weight * label[rows], cache=cache,
        key=f"{task} {extract}", task={"tables": {"icu/icustays": {"sha256": f"hash of {extract}"}}},
    )  # fmt: skip
    choice = private(pilot, points=list(points), epsilon=epsilon, **keywords)
    return choice.numbers | {"forwards": pilot.forwards}


def spent(numbers) -> tuple:
    return numbers["epsilon_spent"], numbers["draws"]


def test_draws_from_one_hospital_add_up_whatever_they_are_called(tmp_path):
    assert spent(draw(tmp_path, hospital="St. Mary")) == (1, 1)
    assert spent(draw(tmp_path, hospital="St. Mary")) == (1, 1)  # remembered
    assert spent(draw(tmp_path, hospital="St. Mary", points=(0.0, 0.5, 1.0), epsilon=0.5)) == (1.5, 2)
    assert spent(draw(tmp_path, hospital="St. Mary", extract="2025")) == (2.5, 3)
    assert spent(draw(tmp_path, hospital="another name", task="sepsis")) == (2.5, 3)  # two of the same tables, and this
    assert spent(draw(tmp_path, extract="2025", task="sepsis")) == (2, 2)  # without a name by content
    assert spent(draw(tmp_path, hospital="elsewhere", extract="1999")) == (1, 1)


def test_the_account_survives_the_cache_and_a_draw_that_is_made_again_adds_to_it(tmp_path, file):
    draw(tmp_path / "cache", hospital="St. Mary")
    shutil.rmtree(tmp_path / "cache" / FOLDER)
    assert spent(draw(tmp_path / "cache", hospital="St. Mary")) == (2, 2)
    shutil.rmtree(tmp_path / "cache")
    assert spent(draw(tmp_path / "cache", hospital="St. Mary")) == (3, 3)
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0


def test_a_remembered_draw_counts_under_the_name_that_is_declared_later(tmp_path):
    draw(tmp_path)
    assert spent(draw(tmp_path, hospital="St. Mary")) == (1, 1)
    assert spent(draw(tmp_path, hospital="St. Mary", extract="2025")) == (2, 2)


def test_a_budget_refuses_the_draw_that_would_exceed_it_before_scoring(tmp_path):
    for epsilon in (0.1, 0.2):  # 0.1 + 0.2 is not above 0.3
        assert draw(tmp_path, hospital="St. Mary", epsilon=epsilon, budget_epsilon=0.3)["forwards"] == 40
    calls = []
    pilot = Pilot(np.arange(4) < 2, np.arange(4), auroc, lambda *asked: calls.append(asked), cache=tmp_path, data="new")
    with pytest.raises(UserError) as refused:
        private(pilot, points=[0.0, 1.0], epsilon=0.05, hospital="St. Mary", budget_epsilon=0.3)
    assert str(refused.value).startswith(
        "search.budget_epsilon=0.3: draws from this hospital have spent ε=0.3, and one more of ε=0.05 would exceed it."
    )
    assert calls == []
    assert len(ledger.draws()) == 2
    assert spent(draw(tmp_path, hospital="St. Mary", epsilon=0.2, budget_epsilon=0.3)) == (0.3, 2)  # remembered


def test_draws_from_a_seed_are_counted_apart(tmp_path):
    numbers = draw(tmp_path, hospital="St. Mary", draw_seed=1, budget_epsilon=0.5)
    assert (*spent(numbers), numbers["draws_by_seed"], numbers["ledger_entry"]) == (0, 0, 1, None)


def test_a_draw_of_an_earlier_version_is_counted_once_it_is_used(tmp_path, file):
    draw(tmp_path)
    file.unlink()
    (drawn,) = (tmp_path / FOLDER).glob("*.json")
    content = json.loads(drawn.read_text())
    del content["entry"]
    drawn.write_text(json.dumps(content))
    assert [spent(draw(tmp_path)) for _ in range(2)] == [(1, 1), (1, 1)]


def test_a_damaged_ledger_is_refused_and_not_taken_for_an_empty_one(tmp_path, file):
    draw(tmp_path)
    file.write_text(file.read_text() + '{"hospital": ')
    with pytest.raises(UserError, match=r"the account of ε, has a line that cannot be read"):
        draw(tmp_path, task="sepsis")


def test_a_ledger_that_cannot_be_written_is_refused_before_scoring(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(ledger.PLACE, str(tmp_path / "file" / "ledger.jsonl"))
    calls = []
    pilot = Pilot(np.arange(4) < 2, np.arange(4), auroc, lambda *asked: calls.append(asked), cache=tmp_path)
    with pytest.raises(UserError, match="PATIENTDX_LEDGER"):
        private(pilot, points=[0.0, 1.0], epsilon=1)
    assert calls == []


def test_no_line_is_lost_where_several_draw(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda i: draw(tmp_path / f"{i}", task=f"task {i}", hospital="St. Mary"), range(8)))
    assert max(spent(numbers) for numbers in done) == (8, 8)
    assert len({numbers["ledger_entry"] for numbers in done}) == 8


def test_what_is_told_of_an_entry_is_its_hospitals_account_now(tmp_path):
    entry = draw(tmp_path, hospital="St. Mary")["ledger_entry"]
    draw(tmp_path, hospital="St. Mary", extract="2025", epsilon=2)
    assert ledger.account_of_entry(entry) == ledger.Account(3.0, 2, 0)
    assert ledger.account_of_entry("another") is None
