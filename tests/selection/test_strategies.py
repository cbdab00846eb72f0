"""What every strategy must do: find a planted λ, pay for each score once, and say what it did."""

from functools import partial

import numpy as np
import pytest
from toys import planted

from patientdx.core.functions import Call
from patientdx.metrics.ranking import auroc
from patientdx.metrics.specification import metric
from patientdx.selection.bayes import bayes
from patientdx.selection.depth import depth
from patientdx.selection.grid import grid
from patientdx.selection.pilot import Candidate, Pilot
from patientdx.selection.racing import Scene, racing

POINTS = [i / 10 for i in range(11)]
race = partial(
    racing, points=POINTS, test="bootstrap", alpha=0.05, tolerance=0.002, first=0.2, growth=1.4, budget=0.4,
    resamples=200, seed=0,
)  # fmt: skip
STRATEGIES = {
    "grid": partial(grid, points=POINTS),
    "racing": race,
    "wilcoxon": partial(race, test="wilcoxon", budget=None),
    "bayes": partial(bayes, between=[0, 1], parameters={}, budget=5, start=3, step=0.01, seed=0),
    "layers": partial(depth, points=POINTS, by="layers", layers=3, kinds=[], between=[0, 1], budget=6, sigma=0.1,
                      step=0.05, seed=0),
    "kinds": partial(depth, points=POINTS, by="kinds", layers=0, kinds=["mlp"], between=[0, 1], budget=6, sigma=0.1,
                     step=0.05, seed=0),
}  # fmt: skip
every = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


@every
def test_a_planted_optimum_is_found(strategy):
    pilot = planted(0.3)
    choice = strategy(pilot)
    best = max(auroc(pilot.scores(Candidate(point)), pilot.label) for point in POINTS)
    assert pilot.value(choice.chosen) >= best - 0.01
    if isinstance(choice.chosen.weight, float):
        assert abs(choice.chosen.weight - 0.3) < 0.11


@every
def test_nothing_is_scored_twice_and_every_forward_is_counted(strategy):
    calls: list = []
    pilot = planted(calls=calls)
    choice = strategy(pilot)
    assert len(calls) == len(set(calls)) == pilot.forwards == sum(one.rows for one in choice.trials)
    assert {one.candidate for one in choice.trials} == {candidate for candidate, _ in calls}
    assert choice.outcomes >= len(choice.trials)


@every
def test_the_same_seed_gives_the_same_choice_whatever_the_order_of_the_rows(strategy):
    order = np.random.default_rng(3).permutation(240)
    first, again, shuffled = planted(), planted(), planted(order=order)
    choice = strategy(first)
    assert strategy(again) == choice
    assert strategy(shuffled) == choice
    assert shuffled.forwards == first.forwards


@every
def test_the_chosen_model_is_known_on_every_row(strategy):
    pilot = planted()
    choice = strategy(pilot)
    assert not np.isnan(pilot.known(choice.chosen)).any()
    (value,) = {one.value for one in choice.trials if one.candidate == choice.chosen}
    assert value == pilot.value(choice.chosen)


def flat(*, n: int = 60) -> Pilot:
    """Every λ gives the same scores."""
    random = np.random.default_rng(0)
    score = random.random(n)
    return Pilot(random.random(n) < 0.3, np.arange(n), auroc, lambda _, rows: score[rows])


@pytest.mark.parametrize("name", ["grid", "racing", "bayes", "layers", "kinds"])
def test_ties_go_to_the_smaller_weight_and_to_a_single_one(name):
    choice = STRATEGIES[name](flat())
    assert choice.chosen.weight == min(one.candidate.weight for one in choice.trials[:5])
    assert isinstance(choice.chosen.weight, float)


def test_a_metric_of_which_less_is_better_is_minimised():
    @metric("Brier-like", greater_is_better=False, takes="probabilities")
    def brier_like(score, label, weight=None):
        weight = np.ones_like(score) if weight is None else weight
        found = (weight * (score - label) ** 2).sum(-1) / weight.sum(-1)
        return found if np.ndim(weight) == 2 else float(found)

    label = np.arange(80) % 2
    near = Pilot(label, np.arange(80), brier_like, lambda one, rows: abs(label[rows] - abs(one.weight - 0.6)))
    for name in ("grid", "racing", "bayes"):
        assert abs(STRATEGIES[name](near).chosen.weight - 0.6) < 0.06


def test_racing_saves_forwards_keeps_to_its_budget_and_says_why_each_left():
    pilot = planted()
    choice = race(pilot)
    assert pilot.forwards <= 0.4 * 11 * pilot.n
    stayed = [one for one in choice.trials if one.dropped is None]
    assert choice.chosen in [one.candidate for one in stayed]
    assert all(one.rows == pilot.n and one.round is None for one in stayed)
    left = [one for one in choice.trials if one.dropped is not None]
    assert left
    assert all(one.rows < pilot.n and one.round >= 1 for one in left)
    assert any("of the resamples" in one.dropped for one in left)
    assert [one.candidate.weight for one in choice.trials] == POINTS


def test_racing_scores_patients_whole_and_those_with_an_event_first():
    calls: list = []
    pilot = planted(calls=calls)
    race(pilot)
    first = [row for candidate, row in calls if candidate.weight == 1.0]  # λ=1 is far off, and leaves early
    patients = np.unique(np.array(first) // 2)
    assert len(first) == 2 * len(patients) < pilot.n
    with_event = np.unique(np.flatnonzero(pilot.label) // 2)
    assert np.isin(patients, with_event).mean() >= 0.5


def test_racing_without_a_limit_may_spend_more_and_a_tight_one_drops_who_is_behind():
    free, tight = (planted(slope=0.3, wobble=0.5) for _ in range(2))
    race(free, budget=None, alpha=0.001)
    choice = race(tight, budget=0.3, alpha=0.001)
    assert tight.forwards <= 0.3 * 11 * tight.n < free.forwards
    assert "the budget ends" in {one.dropped for one in choice.trials}


def test_racing_that_starts_with_everybody_is_the_grid():
    pilot, full = planted(), planted()
    assert race(pilot, first=1.0, budget=None).chosen == grid(full, points=POINTS).chosen
    assert pilot.forwards == full.forwards == 11 * pilot.n


def test_the_test_of_a_race_is_stricter_while_few_patients_are_seen():
    def scene(seen: int, left: int) -> Scene:
        kinds = ((np.arange(seen), left), (np.arange(5), 0))  # everybody with an event is seen: no doubt is left there
        return Scene(np.arange(3), np.ones(3, bool), np.arange(3), kinds)

    assert scene(5, 10).expanded(0.05) == pytest.approx(0.0086, abs=1e-4)  # Φ(-2.132 √(5/4)), by a table of t
    assert 0.0086 < scene(12, 10).expanded(0.05) < scene(200, 10).expanded(0.05) < 0.05
    assert scene(5, 0).expanded(0.05) == 0.05


def test_bayes_searches_numbers_of_the_method_as_well():
    pilot = planted(0.5)
    choice = bayes(pilot, between=[0, 1], parameters={"density": [0.2, 0.9]}, budget=8, start=4, step=0.1, seed=0)
    assert len(choice.trials) == 8
    assert choice.outcomes == 11 * 8
    ((name, value),) = choice.chosen.parameters
    assert name == "density"
    assert 0.2 <= value <= 0.9
    for one in choice.trials:
        assert round(one.candidate.parameters[0][1] * 10, 6) == round(one.candidate.parameters[0][1] * 10)


def test_a_choice_by_depth_names_the_single_weight_that_it_started_from():
    choice = STRATEGIES["layers"](planted(0.3))
    assert choice.single == Candidate(0.3)
    several = [one.candidate.weight for one in choice.trials if not isinstance(one.candidate.weight, float)]
    assert {len(weight) for weight in several} == {3}
    assert choice.outcomes == 11 + 21**3
    by_kind = STRATEGIES["kinds"](planted(0.3)).trials[-1].candidate.weight
    assert [part for part, _ in by_kind] == ["mlp", "*"]


MERGE = Call("patientdx.merge.breadcrumbs.breadcrumbs", '{"density": 0.9, "gamma": 0.01, "weights": null}')
RIGHT = {
    "grid": {"points": POINTS},
    "racing": {"points": POINTS, "test": "bootstrap", "alpha": 0.05, "tolerance": 0.0, "first": 0.2, "growth": 1.4,
               "budget": 0.4, "resamples": 100},
    "bayes": {"between": [0, 1], "parameters": {}, "budget": 5, "start": 3, "step": 0.01},
    "depth": {"points": POINTS, "by": "layers", "layers": 4, "kinds": ["mlp"], "between": [0, 1], "budget": 8,
              "sigma": 0.1, "step": 0.05},
}  # fmt: skip
WRONG = [
    ("grid", {"points": 0.3}, "search.points=0.3: give a list of numbers"),
    ("grid", {"points": [0.3]}, "give at least two different λ"),
    ("grid", {"points": [0.3, 0.3]}, "give at least two different λ, each once"),
    ("grid", {"points": [0, 1.5]}, "λ of this method is a number from 0 to 1; 1.5 is not"),
    ("racing", {"points": [0, -1]}, "-1 is not"),
    ("racing", {"test": "t"}, "search.test=t: it is one of bootstrap, wilcoxon"),
    ("racing", {"alpha": 0.0}, "search.alpha=0.0: give a number between 0 and 0.5"),
    ("racing", {"tolerance": -1.0}, "search.tolerance=-1.0: give 0 or more"),
    ("racing", {"first": 0.0}, "search.first=0.0: give a share of the patients"),
    ("racing", {"growth": 1.0}, "search.growth=1.0: give a number above 1"),
    ("racing", {"budget": 0.1}, "search.budget=0.1: give a share of the grid's forwards above search.first=0.2"),
    ("racing", {"resamples": 10}, "search.resamples=10: give a whole number of at least 100"),
    ("bayes", {"budget": 0, "start": 1}, "search.budget=0: give the number of candidates to look at, at least 1"),
    ("bayes", {"start": 9}, "search.start=9: give a whole number from 1 to search.budget=5"),
    ("bayes", {"step": 0.0}, "search.step=0.0: give a number of at least"),
    ("bayes", {"between": [0, 2]}, "search.between=[0, 2]: λ of this method is a number from 0 to 1"),
    ("bayes", {"between": [1, 0]}, "the second number must lie at least search.step=0.01 above the first"),
    ("bayes", {"between": [0]}, "search.between=[0]: give two numbers"),
    ("bayes", {"parameters": 3}, "search.parameters=3: give a mapping"),
    ("bayes", {"parameters": {"width": [0, 1]}}, "breadcrumbs has no such number; it has density, gamma"),
    ("bayes", {"parameters": {"density": 1}}, "search.parameters.density=1: give two numbers"),
    ("depth", {"by": "head"}, "search.by=head: it is one of layers, kinds"),
    ("depth", {"layers": 1}, "search.layers=1: give a whole number of at least 2"),
    ("depth", {"by": "kinds", "kinds": []}, "give a list of different parts of tensor names"),
    ("depth", {"by": "kinds", "kinds": ["mlp", "rest"]}, "the rest of the tensors has a λ of its own"),
    ("depth", {"budget": 0}, "search.budget=0: give the number of candidates beside the grid"),
    ("depth", {"sigma": 0.0}, "search.sigma=0.0: give a number above 0"),
]


@pytest.mark.parametrize(("name", "change", "said"), WRONG)
def test_a_number_that_will_not_do_is_told(name, change, said):
    module = __import__(f"patientdx.selection.{name}", fromlist=["check"])
    assert module.check(0.0, 1.0, MERGE, **RIGHT[name]) == []
    (fault,) = module.check(0.0, 1.0, MERGE, **RIGHT[name] | change)
    assert said in fault
