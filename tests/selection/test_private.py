"""search=private: no patient does more than the bound, one does as much; the draw has the stated chances."""

import itertools
import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.core.functions import Call
from patientdx.metrics.ranking import auprc, auroc
from patientdx.privacy import ledger
from patientdx.selection.pilot import Candidate, Pilot
from patientdx.selection.private import (
    auroc_moves,
    check,
    doubled_pairs,
    draw,
    exponents,
    first_stays,
    loss_bound,
    moves_apart,
    private,
    probabilities,
)

SLERP = Call("patientdx.merge.slerp.slerp", "{}")
POINTS = [0.0, 0.25, 0.5, 0.75, 1.0]


def utility(score, label) -> Fraction:
    return Fraction(doubled_pairs(score, label), 2 * len(label)) if len(label) else Fraction(0)


def scorings(label):
    """Every order of the rows with every way of sharing places."""
    yield from (np.array(one) for one in itertools.product(range(len(label)), repeat=len(label)))


SMALL = [
    (events, others, e, f)
    for events, others, e, f in itertools.product(range(4), range(4), range(3), range(3))
    if e + f >= 1 and events + others + e + f <= 5
]


@pytest.mark.parametrize(("events", "others", "e", "f"), SMALL)
def test_no_patient_moves_two_candidates_further_apart_than_the_bound_and_one_does_reach_it(events, others, e, f):
    label = np.array([1] * events + [0] * others + [1] * e + [0] * f)
    n = events + others
    moves = [utility(score, label) - utility(score[:n], label[:n]) for score in scorings(label)]
    assert max(moves) - min(moves) == moves_apart(events, others, e, f)


def test_the_bound_is_below_the_number_of_stays_for_every_pilot_and_comes_near_it():
    found = {
        (events, others, e, f): moves_apart(events, others, e, f) / (e + f)
        for events, others, e, f in itertools.product(range(30), range(30), range(4), range(4))
        if e + f
    }
    assert max(found.values()) < 1
    assert moves_apart(0, 500, 1, 0) > Fraction(99, 100)
    assert moves_apart(0, 500, 3, 0) > Fraction(99, 100) * 3


@pytest.mark.parametrize(("events", "others", "e", "f"), [(2, 2, 1, 0), (2, 3, 0, 1), (3, 2, 1, 1), (2, 3, 1, 2)])
def test_an_auroc_moves_by_no_more_than_its_bound_and_does_reach_it(events, others, e, f):
    label = np.array([1] * e + [0] * f + [1] * (events - e) + [0] * (others - f))
    moves = [abs(auroc(score, label) - auroc(score[e + f :], label[e + f :])) for score in scorings(label)]
    assert max(moves) == pytest.approx(float(auroc_moves(events, others, e, f)), abs=1e-12)


def test_a_patient_with_all_events_can_turn_an_auroc_from_one_to_nothing():
    assert auroc_moves(3, 40, 3, 0) == 1
    assert auroc_moves(3, 40, 1, 0) == Fraction(1, 3)


def test_pairs_are_those_of_the_auroc():
    generator = np.random.default_rng(0)
    for _ in range(50):
        score, label = generator.integers(0, 6, 25) / 5, np.append(generator.random(23) < 0.3, [True, False])
        pairs = label.sum() * (~label).sum()
        assert doubled_pairs(score, label) / (2 * pairs) == pytest.approx(auroc(score, label), abs=1e-12)


def gammas_of(scores, label, patient, epsilon, max_stays):
    """What the mechanism makes of a pilot; scores (candidates, n)."""
    rows = first_stays(patient, max_stays)
    doubled = [doubled_pairs(score[rows], label[rows]) for score in scores]
    return exponents(doubled, len(rows), Fraction(str(epsilon)), max_stays)


def neighbours(generator, count):
    """Random pilots of patients with one to six stays, each with one of its patients taken away."""
    for _ in range(count):
        patient = np.repeat(np.arange(12), generator.integers(1, 7, 12))
        label = generator.random(len(patient)) < generator.choice([0.05, 0.3, 0.5])
        scores = generator.integers(0, generator.choice([2, 8, 1000]), (7, len(patient)))
        if generator.random() < 0.5:  # a patient whom some candidates rank first and others last
            own = patient == 3
            side = np.where(generator.random(7) < 0.5, -1, 5000)[:, None]
            scores = np.where(own & label, side, np.where(own, 4999 - side, scores))
        yield scores, label, patient, patient != generator.choice([3, generator.integers(12)])


@pytest.mark.parametrize("max_stays", [1, 3])
@pytest.mark.parametrize("epsilon", [0.1, 1, 4])
def test_no_probability_changes_by_more_than_the_promised_factor(epsilon, max_stays):
    most = 0.0
    for scores, label, patient, rest in neighbours(np.random.default_rng(7), 150):
        one = probabilities(gammas_of(scores, label, patient, epsilon, max_stays))
        other = probabilities(gammas_of(scores[:, rest], label[rest], patient[rest], epsilon, max_stays))
        most = max(most, np.abs(np.log(one / other)).max())
    assert 0.2 * epsilon < most <= epsilon


def test_a_patient_made_for_it_comes_near_the_promised_factor():
    """A first event among 300 others, which one of 400 candidates ranks above all and the rest below."""
    scores = np.zeros((400, 301))
    scores[:, -1] = -1
    scores[0, -1] = 1
    label, patient = np.arange(301) == 300, np.arange(301)
    one = probabilities(gammas_of(scores, label, patient, 1, 1))
    other = probabilities(gammas_of(scores[:, :-1], label[:-1], patient[:-1], 1, 1))
    assert 0.99 < np.abs(np.log(one / other)).max() <= 1


def test_what_is_drawn_from_two_neighbours_has_the_stated_chances():
    scores, label, patient, rest = next(neighbours(np.random.default_rng(1), 1))
    below = random.Random(5).randrange
    shares = []
    for kept in (np.full(len(rest), True), rest):
        gammas = gammas_of(scores[:, kept], label[kept], patient[kept], 2, 2)
        count = np.bincount([draw(gammas, below) for _ in range(6000)], minlength=len(gammas))
        expected = 6000 * probabilities(gammas)
        # Chi-square with 6 degrees of freedom: above 22.5 once in a thousand.
        assert ((count - expected) ** 2 / expected).sum() < 22.5
        shares.append(count / 6000)
    spread = 4 * np.sqrt(1 / (6000 * shares[0]) + 1 / (6000 * shares[1]))
    assert (np.abs(np.log(shares[0] / shares[1])) <= 2 + spread).all()


def test_the_draw_has_the_chances_of_the_exponential():
    gammas = [Fraction(0), Fraction(1, 7), Fraction(1), Fraction(19, 7)]
    below = random.Random(2).randrange
    count = np.bincount([draw(gammas, below) for _ in range(10_000)], minlength=4)
    expected = 10_000 * np.exp([-float(one) for one in gammas]) / np.exp([-float(one) for one in gammas]).sum()
    assert ((count - expected) ** 2 / expected).sum() < 16.3  # 3 degrees of freedom, once in a thousand
    assert draw([Fraction(10**6), Fraction(0)], below) == 1


def test_the_expected_loss_stays_below_its_bound():
    generator, nearest = np.random.default_rng(3), 0.0
    for _ in range(200):
        doubled = generator.integers(0, 2 * 20 * 80, 11).tolist() if generator.random() < 0.5 else [3200] + [2880] * 10
        share = probabilities(exponents(doubled, 100, Fraction(2), 1))
        loss = (max(doubled) - share @ np.array(doubled)) / 200
        assert loss <= loss_bound(11, 2, 1)
        nearest = max(nearest, loss / loss_bound(11, 2, 1))
    assert nearest > 0.3


def test_a_pilot_without_events_tells_nothing():
    gammas = gammas_of(np.random.default_rng(0).random((5, 20)), np.zeros(20, bool), np.arange(20), 1, 1)
    assert set(probabilities(gammas)) == {0.2}


def test_a_patient_more_changes_no_other_patients_rows():
    generator = np.random.default_rng(0)
    patient = generator.integers(0, 9, 60)
    every = set(first_stays(patient, 2).tolist())
    assert max(np.bincount(patient[sorted(every)])) == 2
    for gone in range(9):
        rest = np.flatnonzero(patient != gone)
        assert set(rest[first_stays(patient[rest], 2)].tolist()) == {row for row in every if patient[row] != gone}


@pytest.fixture(autouse=True)
def account(tmp_path, monkeypatch):
    """A ledger of the test's own; its file."""
    monkeypatch.setenv(ledger.PLACE, str(tmp_path / "account" / "ledger.jsonl"))
    return tmp_path / "account" / "ledger.jsonl"


def pilot(cache, seed=0, n=60, metric=auroc, tables="f00d", **settings) -> Pilot:
    """A pilot of 40 patients, whose candidates are the better the larger λ is."""
    generator = np.random.default_rng(seed)
    label, noise = generator.random(n) < 0.3, generator.random(n)
    return Pilot(
        label,
        generator.integers(0, 40, n),
        metric,
        lambda candidate, rows: candidate.weight * label[rows] + noise[rows],
        cache=cache,
        data=f"pilot {seed} {n}",
        key=f"scores {seed} {n}",
        task={"settings": settings, "tables": {"icu/icustays": {"sha256": tables}}},
    )


def test_the_same_command_finds_the_same_draw_and_spends_once(tmp_path):
    first = private(pilot(tmp_path), points=POINTS, epsilon=0.5)
    again = pilot(tmp_path)
    second = private(again, points=POINTS, epsilon=0.5)
    assert second == first
    assert again.forwards == 0  # nobody looked at a patient for it
    assert (first.numbers["epsilon_spent"], first.numbers["draws"]) == (0.5, 1)
    other = private(pilot(tmp_path, seed=1), points=POINTS, epsilon=0.25)
    assert (other.numbers["epsilon_spent"], other.numbers["draws"]) == (0.75, 2)


def test_without_a_seed_the_draw_is_the_systems(tmp_path):
    """32 caches: with these chances, all the same λ would be seen less than once in 10^9."""
    found = [private(pilot(tmp_path / str(i)), points=POINTS, epsilon=0.01).chosen.weight for i in range(32)]
    assert len(set(found)) > 1


def test_a_seed_gives_the_same_draw_anywhere_and_no_promise(tmp_path):
    one, two = (private(pilot(tmp_path / name), points=POINTS, epsilon=0.1, draw_seed=4) for name in "ab")
    assert one.chosen == two.chosen
    assert (one.numbers["draw"], one.numbers["guaranteed"], one.numbers["epsilon_spent"]) == ("seed", False, 0)
    drawn = {private(pilot(tmp_path), points=POINTS, epsilon=0.1, draw_seed=i).chosen for i in range(8)}
    assert len(drawn) > 1


def test_what_is_told_beside_the_choice_is_the_same_for_every_pilot(tmp_path):
    found = [
        private(pilot(tmp_path / str(n), seed=n, n=n), points=POINTS, epsilon=1, draw_seed=0) for n in (0, 30, 90, 200)
    ]
    assert [one.numbers.pop("draws_by_seed") for one in found] == [1, 2, 3, 4]
    assert all(one.numbers == found[0].numbers for one in found)
    for one in found:
        assert [looked.candidate for looked in one.trials] == [Candidate(point) for point in POINTS]
        assert {(looked.value, looked.rows, looked.dropped) for looked in one.trials} == {(None, 0, None)}
        assert one.outcomes == 5
    assert found[0].numbers["loss_bound"] == pytest.approx(math.log(5))


def test_what_must_not_be_told_is_in_the_cache_for_its_owner_alone(tmp_path):
    asked = pilot(tmp_path)
    chosen = private(asked, points=POINTS, epsilon=1).chosen
    assert (tmp_path / "private_search").stat().st_mode & 0o077 == 0
    (file,) = (tmp_path / "private_search").glob("*.json")
    kept = json.loads(file.read_text())
    assert POINTS[kept["chosen"]] == chosen.weight
    hidden = kept["not for release"]
    rows = first_stays(asked.patient, 1)
    values = [auroc(asked.scores(Candidate(point), rows), asked.label[rows]) for point in POINTS]
    assert [one["auroc"] for one in hidden["candidates"]] == pytest.approx(values, abs=1e-12)
    share = np.array([one["probability"] for one in hidden["candidates"]])
    assert share.sum() == pytest.approx(1)
    assert hidden["auroc_loss"] == pytest.approx(max(values) - share @ np.array(values))
    assert (hidden["probability_highest"], hidden["probability_lowest"]) == (share.max(), share.min())


@pytest.mark.parametrize("epsilon", [0, -1, math.inf, math.nan, True, "one", None])
def test_epsilon_must_be_positive(epsilon):
    (fault,) = check(0, 1, SLERP, points=POINTS, epsilon=epsilon)
    assert fault.startswith(f"search.epsilon={epsilon}: a private choice needs a number above 0;")
    assert fault.endswith("To choose without privacy use search=grid.")


def test_faults_of_the_other_numbers_are_told():
    assert check(0, 1, SLERP, points=POINTS, epsilon=0.5, max_stays=2, draw_seed=7) == []
    assert check(0, 1, SLERP, points=[0.5, 2], epsilon=1, max_stays=0, draw_seed=-1)[1:] == [
        "search.max_stays=0: give a whole number of at least 1.",
        "search.draw_seed=-1: give a whole number of at least 0.",
    ]
    assert "search.points" in check(0, 1, SLERP, points=[0.5, 2], epsilon=1)[0]
    assert check(0, 1, SLERP, points=POINTS, epsilon=1, hospital="St. Mary", budget_epsilon=3) == []
    budget, hospital = check(0, 1, SLERP, points=POINTS, epsilon=1, hospital="a/b", budget_epsilon=0)
    assert budget == "search.budget_epsilon=0: give a number above 0, or null for no budget."
    assert hospital.startswith("search.hospital=a/b: a name has no /")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limit": 50}, r"search=private with task\.limit=50: there one patient changes .* Use task\.limit=null"),
        ({"outliers": "cohort"}, r"task\.outliers=cohort: .* Use task\.outliers=range, or search=grid"),
        ({"split_by": "stay"}, r"task\.split_by=stay: .* Use task\.split_by=patient"),
    ],
)
def test_a_task_in_which_a_patient_changes_others_is_refused(tmp_path, settings, words):
    asked = pilot(tmp_path, **settings)
    with pytest.raises(UserError, match=words):
        private(asked, points=POINTS, epsilon=1)
    assert asked.forwards == 0


def test_another_metric_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"search=private is for the AUROC of binary tasks: .* chosen by auprc"):
        private(pilot(tmp_path, metric=auprc), points=POINTS, epsilon=1)
