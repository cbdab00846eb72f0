"""Hidden cells: by size, and so that no hidden one can be worked out from totals."""

import itertools

import numpy as np
import pytest

from patientdx.metrics.subgroups import TIMES, subgroups
from patientdx.metrics.suppression import COMPLEMENTARY, OF_HIDDEN, hidden


def small(sizes, least=10):
    return lambda key: f"fewer than {least}" if sizes[key] < least else None


def test_one_small_cell_takes_the_next_smallest_with_it():
    sizes = {("A",): 50, ("B",): 20, ("C",): 3}
    assert hidden(sizes, small(sizes), 10) == {("C",): "fewer than 10", ("B",): COMPLEMENTARY}


def test_two_small_cells_hide_no_other_unless_they_are_few_together():
    enough = {("A",): 50, ("B",): 6, ("C",): 7}
    assert hidden(enough, small(enough), 10).keys() == {("B",), ("C",)}
    few = {("A",): 50, ("B",): 1, ("C",): 2, ("D",): 30}
    assert hidden(few, small(few), 10).keys() == {("B",), ("C",), ("D",)}


def test_nothing_small_hides_nothing():
    sizes = {("A",): 50, ("B",): 20}
    assert hidden(sizes, small(sizes), 10) == {}


def solvable(sizes, why) -> set:
    """The hidden cells of a two-way table that its lines' totals determine, by linear algebra."""
    covered = sorted(why)
    lines = [(side, group) for side in (0, 1) for group in sorted({key[side] for key in sizes})]
    system = np.array([[float(key[side] == group) for key in covered] for side, group in lines])
    rank = np.linalg.matrix_rank(system)
    return {
        key for number, key in enumerate(covered)
        if np.linalg.matrix_rank(np.vstack([system, np.eye(len(covered))[number]])) == rank
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_no_hidden_cell_of_a_crossed_table_follows_from_the_totals_of_its_groups(seed):
    random = np.random.default_rng(seed)
    keys = itertools.product(("F", "M", "other"), ("A", "B", "C", "D"))
    sizes = {key: int(random.choice([4, 15, 40, 90])) for key in keys}
    why = hidden(sizes, small(sizes), 10)
    assert {key for key in sizes if sizes[key] < 10} <= why.keys()
    assert not {key for key in solvable(sizes, why) if sizes[key] < 10}


def test_the_cells_of_a_hidden_group_are_hidden():
    sizes = {("F", "A"): 90, ("M", "A"): 80, ("F", "B"): 30, ("M", "B"): 30, ("F", "C"): 25, ("M", "C"): 25}
    why = hidden(sizes, small(sizes), 10, {"B": True, "C": True})
    assert why == dict.fromkeys([("F", "B"), ("M", "B"), ("F", "C"), ("M", "C")], OF_HIDDEN)


def test_intersections_are_groupings_with_the_cells_of_both():
    random = np.random.default_rng(0)
    n = 800
    groups = {"sex": random.choice(["F", "M"], n).tolist(), "unit": random.choice(["A", "B"], n).tolist()}
    score, label = random.random(n), random.random(n) < 0.5
    crossed = [("sex", "unit"), ("sex", "race")]  # race is no grouping of this task
    result = subgroups(score, label, np.arange(n), groups, threshold=0.5, intersections=crossed, resamples=50)
    assert list(result) == ["sex", "unit", f"sex{TIMES}unit"]
    cells = result[f"sex{TIMES}unit"]["cells"]
    assert list(cells) == [f"{sex}{TIMES}{unit}" for sex in "FM" for unit in "AB"]
    rows = (np.array(groups["sex"]) == "F") & (np.array(groups["unit"]) == "B")
    cell = cells[f"F{TIMES}B"]
    assert cell["n"] == rows.sum()
    alert = score >= 0.5
    assert cell["false_positive_rate"]["value"] == pytest.approx((alert & ~label & rows).sum() / (~label & rows).sum())
    assert cell["ppv"]["value"] == pytest.approx((alert & label & rows).sum() / (alert & rows).sum())
