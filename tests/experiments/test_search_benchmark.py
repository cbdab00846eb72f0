"""The benchmark of search strategies: its toys are what they say, and its figures are what was paid and lost."""

import csv

import numpy as np
import pytest

from experiments.benchmarks import search
from experiments.benchmarks.search_toys import SHAPES, STEPS, toy
from patientdx.metrics.ranking import auroc


@pytest.mark.parametrize("shape", SHAPES)
def test_a_toy_is_best_where_it_says_and_the_same_for_the_same_seed(shape):
    toys = [toy(shape, 3000, seed) for seed in range(4)]
    areas = np.array([[auroc(score, one.test_label) for score in one.test[::10]] for one in toys])
    if shape == "flat":
        assert {one.best for one in toys} == {None}
        assert np.ptp(areas.mean(axis=0)) < 0.03
    for one, area in zip(toys, areas, strict=True):
        # By value: above a step all λ are nearly as good, and noise decides which of them is first.
        assert one.best is None or area[round(10 * one.best)] >= area.max() - 0.01
        assert one.pilot.shape == (STEPS, one.label.size) == (STEPS, one.subject.size)
    assert np.array_equal(toy(shape, 70, 1).pilot, toy(shape, 70, 1).pilot)
    assert not np.array_equal(toy(shape, 70, 1).label, toy(shape, 70, 2).label)


def test_scores_of_neighbours_are_alike_and_of_the_ends_less_so():
    flat = toy("flat", 3000, 0).pilot
    near, far = np.corrcoef(flat[40], flat[50])[0, 1], np.corrcoef(flat[0], flat[100])[0, 1]
    assert near > 0.9 > 0.7 > far > 0.4


@pytest.fixture
def case() -> search.Case:
    data = toy("inside", 80, 3)
    return search.Case("toy", 0, STEPS, data.pilot, data.label, data.subject, data.test, data.test_label)


def test_share_and_regret_are_what_was_paid_and_lost_against_the_grid(case):
    rows = {row["strategy"]: row for row in search.compare(case, ["racing", "racing unlimited", "bayes"])}
    on_pilot = {weight: auroc(case.pilot[case.at(weight)], case.label) for weight in search.GRID}
    best = max(on_pilot, key=on_pilot.get)
    for row in rows.values():
        assert row["grid_lambda"] == best
        lost = on_pilot[best] - auroc(case.pilot[case.at(row["lambda"])], case.label)
        assert row["regret"] == lost
    assert 0.05 < rows["racing"]["share"] <= 0.4
    assert rows["bayes"]["share"] == 5 / 11


def test_drawn_patients_are_whole_and_the_first_are_as_they_were(case):
    first, second = list(search.drawn(case, 2))
    assert np.array_equal(np.sort(first.pilot[7]), np.sort(case.pilot[7]))
    assert first.subject.max() == second.subject.max() == case.subject.max()
    for patient in range(second.subject.max() + 1):
        rows = np.flatnonzero(second.subject == patient)
        (original,) = {int(case.subject[case.pilot[0] == value][0]) for value in second.pilot[0, rows]}
        assert rows.size == (case.subject == original).sum()


def test_the_command_prints_its_table_and_writes_every_seed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search, "SIZES", (40,))
    search.main(["toys", "--seeds", "2", "--strategies", "racing", "--csv", str(tmp_path / "seeds.csv")])
    output = capsys.readouterr().out
    assert "inside, 40 patients" in output
    assert "racing" in output
    rows = list(csv.DictReader((tmp_path / "seeds.csv").read_text().splitlines()))
    assert len(rows) == len(SHAPES) * 2
    shares = [float(row["share"]) for row in rows if row["case"].startswith("flat")]
    assert f"{np.median(shares):.3f}" in output
