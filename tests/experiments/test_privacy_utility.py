"""The price of privacy: the table that reads a sweep and says what each ε is expected to cost."""

import math

import numpy as np
import pytest
from swept_runs import LEVEL, RESAMPLES, SEED, answers, one_run, strengths

from experiments import privacy_utility
from experiments.study import last_sweep
from patientdx.metrics.bootstrap import paired_difference
from patientdx.metrics.ranking import auroc

# λ → what the scores know of the label on pilot and on test
GRID = {0.0: (0.1, 0.4), 0.25: (0.6, 1.4), 0.5: (1.9, 1.0), 1.0: (0.3, 2.0)}


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "outputs" / "privacy_utility"
    for job, (weight, (pilot, test)) in enumerate(GRID.items()):
        one_run(folder, job, "slerp", weight, strengths(pilot, test, parents=False))
    return folder


def curve_of(study, max_stays=1):
    (found,) = privacy_utility.curves(last_sweep(study, "run it"), max_stays)
    return found


def by_hand(max_stays: int) -> tuple[np.ndarray, np.ndarray, int]:
    """AUROC of each λ on the pilot stays that count, pairs per stay, and how many stays those are."""
    found, pairs, stays = [], [], 0
    for pilot, _ in GRID.values():
        patient, label, score = answers("pilot", pilot)
        order = np.argsort([f"pilot-{i}" for i in range(len(label))])  # rows come in the order of their hashed ids
        kept = [i for place, i in enumerate(order) if [patient[j] for j in order[:place]].count(patient[i]) < max_stays]
        events, others = score[kept][label[kept] == 1], score[kept][label[kept] == 0]
        right = sum(float(one > other) + 0.5 * float(one == other) for one in events for other in others)
        stays = len(kept)
        found.append(right / (len(events) * len(others)))
        pairs.append(right / stays)
    return np.array(found), np.array(pairs), stays


@pytest.mark.parametrize("max_stays", [1, 2])
def test_chances_and_aurocs_are_those_worked_out_by_hand(study, max_stays):
    curve = curve_of(study, max_stays)
    pilot, pairs, stays = by_hand(max_stays)
    assert curve.stays == stays == 30 * max_stays
    np.testing.assert_allclose(curve.pilot, pilot, atol=1e-12)
    np.testing.assert_allclose(
        curve.test, [auroc(answers("test", test)[2], answers("test", test)[1]) for _, test in GRID.values()]
    )
    weight = np.exp(2.5 * pairs / max_stays)
    np.testing.assert_allclose(curve.chances(2.5, max_stays), weight / weight.sum(), atol=1e-12)


def test_a_large_epsilon_is_the_grid_and_a_small_one_a_blind_draw(study):
    curve = curve_of(study)
    assert curve.weights[curve.best] == 0.5
    np.testing.assert_allclose(curve.chances(1e5, 1), [0, 0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(curve.chances(1e-6, 1), [0.25] * 4, atol=1e-4)
    expected = [curve.chances(epsilon, 1) @ curve.pilot for epsilon in (0.01, 0.1, 1, 10, 100)]
    assert expected == sorted(expected)


def test_the_loss_has_the_paired_interval_of_its_difference(study):
    curve = curve_of(study)
    alone = np.array([1.0, 0, 0, 0])
    found = curve.loss(alone)
    (patient, label, best), (_, _, other) = answers("test", GRID[0.5][1]), answers("test", GRID[0.0][1])
    one = paired_difference(auroc, best, other, label, patient, resamples=RESAMPLES, level=LEVEL, seed=SEED)
    # The runs' rows are read in the order of their ids, and draws go by patient: the resamples are the same.
    np.testing.assert_allclose(found, (one.value, one.low, one.high), atol=1e-12)
    assert curve.loss(np.array([0, 0, 1.0, 0])) == (0, 0, 0)


def test_the_command_prints_a_line_an_epsilon_and_draws(study, ask):
    code, out, _ = ask(privacy_utility, study, "--epsilon", "5", "0.5")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    first = [line[0] for line in lines if line]
    assert [one for one in first if one in ("blind", "0.5", "5", "grid")] == ["blind", "0.5", "5", "grid"]
    assert next(line for line in lines if line[:1] == ["0.5"])[1] == f"{math.exp(0.5):.3g}"
    curve = curve_of(study)
    assert f"{curve.chances(5, 1) @ curve.test:.3f}" in next(line for line in lines if line[:1] == ["5"])
    assert (study / "privacy_utility.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "it stays in the house" in out


def test_several_methods_have_a_table_and_a_picture_each(study, ask):
    for job, weight in ((4, 0.0), (5, 0.5)):
        one_run(study, job, "linear", weight, strengths(0.5 + weight, 1.0, parents=False))
    code, out, _ = ask(privacy_utility, study)
    assert (code, out.count("blind  ")) == (0, 2)
    assert {path.name for path in study.glob("*.png")} == {"privacy_utility_slerp.png", "privacy_utility_linear.png"}


def test_what_cannot_be_told_is_refused(study, tmp_path, ask):
    assert ask(privacy_utility, study, "--epsilon", "0")[::2] == (
        2,
        "--epsilon and --max-stays take numbers above 0.\n",
    )
    code, _, err = ask(privacy_utility, tmp_path / "outputs" / "nothing")
    assert (code, "nothing was run yet" in err) == (2, True)
    other = tmp_path / "outputs" / "one"
    one_run(other, 0, "slerp", 0.5, strengths(1, 1, parents=False))
    code, _, err = ask(privacy_utility, other)
    assert (code, "has one λ of slerp: a choice needs two at least" in err) == (2, True)
    shared = tmp_path / "outputs" / "shared"
    for job, weight in enumerate((0.0, 1.0)):
        one_run(shared, job, "slerp", weight, strengths(1 + weight, 1, parents=False), shared=True)
    code, _, err = ask(privacy_utility, shared)
    assert (code, "patients of the test split are in the pilot split too" in err) == (2, True)
