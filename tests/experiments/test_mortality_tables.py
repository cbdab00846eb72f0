"""The tables of study 1: mortality, ablation_merge, ablation_pivot, slerp_pairs, transfer, from what sweeps leave."""

import numpy as np
import pytest
from swept_runs import LEVEL, RESAMPLES, SEED, answers, one_run, strengths

from experiments import ablation_merge, ablation_pivot, mortality, slerp_pairs, transfer
from experiments.study import last_sweep
from patientdx.core.errors import UserError
from patientdx.metrics.bootstrap import intervals, paired_difference
from patientdx.metrics.ranking import auprc, auroc


def lines_of(text: str, start: str) -> list[str]:
    """Lines that start so, blanks made one; those of the tables come first."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip().startswith(start)]


def value(strength: float, metric=auroc) -> str:
    patient, label, score = answers("test", strength)
    found = intervals({"a": metric}, score, label, patient, resamples=RESAMPLES, level=LEVEL, seed=SEED)["a"]
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def gap(strength: float, other: float, metric=auroc) -> str:
    """The paired difference as text, rows in the order of their ids."""
    patient, label, score = answers("test", strength)
    order = sorted(range(len(label)), key=lambda i: f"test-{i}")
    found = paired_difference(
        metric, score[order], answers("test", other)[2][order], label[order], [patient[i] for i in order],
        resamples=RESAMPLES, level=LEVEL, seed=SEED,
    )  # fmt: skip
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


TUNED = {"finetune": {"name": "lora", "init_from": "base", "examples": 64, "epochs": 3}}
BESIDE = {("tabular_gbm", "test"): 1.2, ("finetuned", "test"): 0.9}


@pytest.fixture
def six(tmp_path):
    """SLERP is best at 0.4 on pilot and at 0.7 on test; linear at 0.7; beside them a tabular and a fine-tuned model."""
    folder = tmp_path / "outputs" / "mortality"
    found = [("slerp", 0.4, 1.5, 1.0), ("slerp", 0.7, 0.9, 2.5), ("linear", 0.4, 0.3, 1.6), ("linear", 0.7, 0.8, 0.7)]
    for job, (method, weight, pilot, test) in enumerate(found):
        one_run(folder, job, method, weight, strengths(pilot, test) | BESIDE, config=TUNED)
    return folder


def test_mortality_has_every_model_in_both_metrics_at_the_lambda_of_pilot(six, ask):
    code, out, err = ask(mortality, six)
    assert (code, err) == (0, "")
    areas, precisions = (out[out.index(start) :] for start in ("AUROC", "AUPRC"))
    assert lines_of(areas, "base (b)")[0] == f"base (b) {value(0.2)} about 0.5 AUROC S"
    for text, metric in ((areas, auroc), (precisions, auprc)):
        assert lines_of(text, "SLERP λ=0.4")[0].startswith(f"SLERP λ=0.4 {value(1.0, metric)}")
        assert lines_of(text, "Model Soup λ=0.7")[0].startswith(f"Model Soup λ=0.7 {value(0.7, metric)}")
        assert lines_of(text, "tabular_gbm")[0].startswith(f"tabular_gbm {value(1.2, metric)} 0.")
        assert lines_of(text, "finetuned")[0].startswith(f"finetuned {value(0.9, metric)}")
        assert lines_of(text, "SLERP − pivot*")[0].startswith(f"SLERP − pivot* {gap(1.0, 0.6, metric)}")
        assert lines_of(text, "SLERP − finetuned")[0].startswith(f"SLERP − finetuned {gap(1.0, 0.9, metric)}")
        assert lines_of(text, "Model Soup − tabular_gbm")[0].startswith(
            f"Model Soup − tabular_gbm {gap(0.7, 1.2, metric)}"
        )
    assert "up to 7 % AUROC V" in lines_of(areas, "SLERP − pivot*")[0]
    assert "64 examples of train, epochs: 3" in out
    assert "The default pair has no plain and no biomedical sibling" in out


def test_models_scored_alone_stand_beside_those_of_their_pair(six, ask):
    pair = {"pair": {"name": "x", "plain": "p0", "biomedical": "bio"}}
    for job, (method, weight) in enumerate((("slerp", 0.4), ("slerp", 0.7), ("linear", 0.4), ("linear", 0.7))):
        one_run(six, job, method, weight, strengths(1 - weight, 1.0), config=TUNED | pair)
    assert lines_of(ask(mortality, six)[1], "biomedical (bio)")[0].startswith("biomedical (bio) not run")
    alone = six.with_name("mortality_alone")
    for job, (base, strength) in enumerate((("p0", 0.1), ("bio", 0.5))):
        one_run(alone, job, "none", None, {("merged", "test"): strength}, base=base)
    out = ask(mortality, six)[1]
    assert lines_of(out, "plain (p0)")[0] == f"plain (p0) {value(0.1)} not recovered U"
    assert lines_of(out, "biomedical (bio)")[0].startswith(f"biomedical (bio) {value(0.5)} 0.61 AUROC S")


def test_models_scored_alone_on_other_questions_are_refused(six, ask):
    alone = six.with_name("mortality_alone")
    one_run(alone, 0, "none", None, {("merged", "test"): 0.1}, base="p0", task="readmission_30d")
    code, out, err = ask(mortality, six)
    assert (code, out) == (2, "")
    assert "mortality_alone has other questions, labels or another dtype than" in err


def test_a_mortality_sweep_without_merges_is_refused(tmp_path, ask):
    folder = tmp_path / "mortality"
    one_run(folder, 0, "ties", 0.4, strengths(1.0, 1.0))
    assert "has neither merge=slerp nor merge=linear" in ask(mortality, folder)[2]
    assert "first:\n  python run.py experiment=mortality" in ask(mortality, tmp_path / "none")[2].lower()


def test_other_methods_are_set_against_slerp_task_by_task(tmp_path, ask):
    folder = tmp_path / "ablation_merge"
    for job, (task, test) in enumerate((("mortality", 1.0), ("mortality_hospital", 1.4))):
        one_run(folder, 3 * job, "slerp", 0.4, strengths(1.0, test), task=task)
        one_run(folder, 3 * job + 1, "linear", 0.4, strengths(1.0, 0.3), task=task)
        one_run(folder, 3 * job + 2, "ties", 0.8, strengths(1.0, 2.0), task=task)
    code, out, _ = ask(ablation_merge, folder)
    assert code == 0
    assert lines_of(out, "linear − slerp ") == [
        f"linear − slerp {gap(0.3, 1.0)} 9 to 17.4 % AUROC lost S same",
        f"linear − slerp {gap(0.3, 1.4)} 9 to 17.4 % AUROC lost S same",
    ]
    assert lines_of(out, "ties − slerp")[1].startswith(f"ties − slerp {gap(2.0, 1.4)} not recovered U")
    alone = tmp_path / "alone"
    one_run(alone, 0, "slerp", 0.4, strengths(1.0, 1.0))
    assert "has slerp: SLERP is compared with other methods" in ask(ablation_merge, alone)[2]


def test_a_pivot_is_replaced_by_others_each_at_its_own_lambda(tmp_path, ask):
    folder = tmp_path / "ablation_pivot"
    found = [("numeric", 0.4, 1.5, 1.6), ("numeric", 0.8, 0.5, 9.0), ("noise", 0.4, 0.2, 9.0), ("noise", 0.8, 0.9, 0.1)]
    for job, (pivot, weight, pilot, test) in enumerate(found):
        one_run(folder, job, "slerp", weight, strengths(pilot, test), pivot=pivot)
    code, out, _ = ask(ablation_pivot, folder)
    assert code == 0
    assert lines_of(out, "slerp with numeric, λ=0.4")[0].startswith(f"slerp with numeric, λ=0.4 {value(1.6)}")
    assert lines_of(out, "slerp with noise, λ=0.8")[0].startswith(f"slerp with noise, λ=0.8 {value(0.1)}")
    assert lines_of(out, "with noise − base")[0].startswith(f"with noise − base {gap(0.1, 0.2)}")
    lost = lines_of(out, "with noise − with numeric")[0]
    assert lost == f"with noise − with numeric {gap(0.1, 1.6)} about 14 to 21 % AUROC lost S same"
    one = tmp_path / "one"
    one_run(one, 0, "slerp", 0.4, strengths(1.0, 1.0))
    assert "has 1 pivots and 1 merge methods" in ask(ablation_pivot, one)[2]


def far_and_near(folder):
    """Three pairs: SLERP gains nothing, something, much over linear as the angle grows."""
    for job, (pivot, angles, slerp) in enumerate(
        (("near", (0.0, 1.2e-6, 1.0), 1.0), ("mid", (10.0, 30.0), 1.4), ("far", (60.0,), 2.6))
    ):
        one_run(folder, 2 * job, "slerp", 0.4, strengths(1.0, slerp, splits=("test",)), pivot=pivot, angles=angles)
        one_run(folder, 2 * job + 1, "linear", 0.4, strengths(1.0, 1.0, splits=("test",)), pivot=pivot, angles=angles)


def test_the_gain_of_slerp_is_set_against_the_angle(tmp_path, ask):
    folder = tmp_path / "slerp_pairs"
    far_and_near(folder)
    code, out, err = ask(slerp_pairs, folder)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if "°" in line and "of 9" in line] == ["near", "mid", "far"]
    assert lines_of(out, "mid")[0] == f"mid 20.00° 30.0° 4 of 9 0.4 {value(1.4)} {value(1.0)} {gap(1.4, 1.0)}"
    assert "it grows." in out
    assert (folder / "slerp_pairs.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    found = slerp_pairs.pairs(last_sweep(folder, "", by=("pivot",)))
    gains = [auroc(answers("test", s)[2], answers("test", 1.0)[1]) for s in (1.0, 1.4, 2.6)]
    expected = np.polyfit([1.0, 20.0, 60.0], np.array(gains) - gains[0], 1)[0]
    assert slerp_pairs.slope(found, LEVEL)[0] == pytest.approx(expected)


def test_a_slope_has_no_interval_beyond_0_where_nothing_is_gained(tmp_path):
    folder = tmp_path / "same"
    for job, (pivot, angle) in enumerate((("a", 5.0), ("b", 50.0))):
        for k, method in enumerate(("slerp", "linear")):
            given = strengths(1.0, 1.0, splits=("test",))
            one_run(folder, 2 * job + k, method, 0.4, given, pivot=pivot, angles=(angle,))
    found = slerp_pairs.pairs(last_sweep(folder, "", by=("pivot",)))
    assert slerp_pairs.slope(found, LEVEL) == (0.0, 0.0, 0.0)
    with pytest.raises(UserError, match="all pairs are equally far apart"):
        slerp_pairs.slope([found[0], found[0]], LEVEL)


def test_pairs_that_lack_a_method_or_a_second_pivot_are_refused(tmp_path, ask):
    folder = tmp_path / "x"
    one_run(folder, 0, "slerp", 0.4, strengths(1.0, 1.0), angles=(3.0,))
    assert "p was not merged by linear" in ask(slerp_pairs, folder)[2]
    one_run(folder, 1, "linear", 0.4, strengths(1.0, 1.0), angles=(3.0,))
    assert "has one pivot: give several" in ask(slerp_pairs, folder)[2]


def two_tasks(folder, *, shared=False):
    """λ=0.4 is best on mortality's pilot, 0.8 on readmission's."""
    grid = {"mortality": ((0.4, 1.5, 1.0), (0.8, 0.5, 0.3)), "readmission": ((0.4, 0.2, 0.4), (0.8, 0.9, 1.1))}
    for k, (task, points) in enumerate(grid.items()):
        for j, (weight, pilot, test) in enumerate(points):
            moved = shared and task == "readmission"
            one_run(folder, 2 * k + j, "slerp", weight, strengths(pilot, test), task=task, shared=moved)


def test_lambda_goes_from_one_task_to_another(tmp_path, ask):
    folder = tmp_path / "transfer"
    two_tasks(folder)
    code, out, err = ask(transfer, folder)
    assert (code, err) == (0, "")
    scores, gains = lines_of(out, "readmission")
    assert scores == f"readmission {value(0.2)} {value(0.6)} {value(0.4)} 0.8: {value(1.1)}"
    assert gains == f"readmission {gap(0.4, 0.2)} {gap(0.4, 1.1)}"
    assert "and worse than the task's own λ on readmission." in out
    out = ask(transfer, folder, "--task", "readmission")[1]
    assert lines_of(out, "mortality")[0] == f"mortality {value(0.2)} {value(0.6)} {value(0.3)} 0.4: {value(1.0)}"


def test_a_transfer_to_its_own_patients_or_from_no_task_is_refused(tmp_path, ask):
    folder = tmp_path / "transfer"
    two_tasks(folder, shared=True)
    assert "patients of the test split are in the pilot split too" in ask(transfer, folder)[2]
    apart = tmp_path / "apart"
    one_run(apart, 0, "slerp", 0.4, strengths(1.0, 1.0))
    one_run(apart, 1, "slerp", 0.8, strengths(1.0, 1.0), task="readmission")
    assert "has no slerp at λ=0.4 for readmission: sweep the same λ everywhere" in ask(transfer, apart)[2]
    message = ask(transfer, folder, "--task", "gsm8k")[2]
    assert "is of mortality, readmission: λ goes from gsm8k to other tasks" in message
