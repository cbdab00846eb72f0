"""The λ-curve study: its sweep, and the table that reads what it left."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import forked, small
from result_folders import reseal
from swept_runs import LEVEL, RESAMPLES, SEED, answers, one_run, strengths

from experiments import lambda_curve
from experiments.study import last_sweep
from patientdx.evaluation.store import write_sealed_json
from patientdx.metrics.bootstrap import intervals, paired_difference
from patientdx.metrics.ranking import auroc

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path):
    """SLERP is best at 0.4 on pilot and at 0.7 on test; linear at 0.7 on pilot."""
    folder = tmp_path / "outputs" / "lambda_curve"
    one_run(folder, 0, "slerp", 0.4, strengths(1.5, 1.0))
    one_run(folder, 1, "slerp", 0.7, strengths(0.9, 2.5))
    one_run(folder, 2, "linear", 0.4, strengths(0.3, 1.6))
    one_run(folder, 10, "linear", 0.7, strengths(0.8, 0.7))
    return folder


def line(text: str, start: str) -> str:
    return " ".join(next(line for line in text.splitlines() if line.strip().startswith(start)).split())


def area(strength: float, split: str = "test") -> str:
    patient, label, score = answers(split, strength)
    found = intervals({"a": auroc}, score, label, patient, resamples=RESAMPLES, level=LEVEL, seed=SEED)["a"]
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def gap(strength: float, other: float) -> tuple[str, float]:
    """The paired difference as text, rows in the order of their ids, and as a share of the second in %."""
    patient, label, score = answers("test", strength)
    order = sorted(range(len(label)), key=lambda i: f"test-{i}")
    other_score = answers("test", other)[2]
    found = paired_difference(
        auroc, score[order], other_score[order], label[order], [patient[i] for i in order],
        resamples=RESAMPLES, level=LEVEL, seed=SEED,
    )  # fmt: skip
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]", 100 * found.value / auroc(other_score, label)


def test_lambda_is_chosen_on_pilot_and_stands_beside_what_was_published(study, ask):
    code, out, err = ask(lambda_curve, study)
    assert (code, err) == (0, "")
    absent = "not recovered U"
    (gain, relative), (linear_gain, other), (over_linear, last) = gap(1.0, 0.6), gap(0.7, 0.6), gap(1.0, 0.7)
    assert line(out, "base") == f"base {area(0.2)} {absent}"
    assert line(out, "pivot") == f"pivot {area(0.6)} {absent}"
    assert line(out, "SLERP λ (pilot)") == "SLERP λ (pilot) 0.4 0.4 λ S"
    assert line(out, "SLERP AUROC") == f"SLERP AUROC {area(1.0)} {absent}"
    assert line(out, "SLERP − pivot*").startswith(f"SLERP − pivot* {gain} up to 7 % AUROC V same")
    assert line(out, "linear λ (pilot)") == f"linear λ (pilot) 0.7 {absent}"
    assert line(out, "linear AUROC") == f"linear AUROC {area(0.7)} {absent}"
    assert line(out, "linear − pivot*") == f"linear − pivot* {linear_gain} {absent}"
    assert line(out, "SLERP − linear").startswith(f"SLERP − linear {over_linear} 9 to 17.4 % AUROC S")
    assert line(out, "prevalence").endswith("about 0.1 of stays S")
    assert "Not recovered: not published, or not in what of the paper could be read." in out
    assert "the numbers cannot be compared, only directions" in out
    assert "SLERP took a straight line, which is the linear merge, for 4 of 9 tensors." in out
    assert (
        f"Relative to the second: SLERP − pivot* {relative:+.1f} %, linear − pivot* {other:+.1f} %, "
        f"SLERP − linear {last:+.1f} %." in out
    )
    assert "mistral_merged_0_4" in out
    assert "90% intervals by patient;" in out


@pytest.mark.parametrize(("test_strength", "said"), [(2.5, "same"), (0.6, "unclear"), (-2.0, "opposite")])
def test_the_direction_is_that_of_the_interval(tmp_path, ask, test_strength, said):
    study = tmp_path / "x"
    one_run(study, 0, "slerp", 0.4, strengths(1.5, test_strength))
    one_run(study, 1, "slerp", 0.5, strengths(1.0, 1.0))
    _, out, _ = ask(lambda_curve, study)
    assert line(out, "SLERP − pivot*").endswith(f"V {said}")
    assert "linear λ (pilot) not run" in line(out, "linear λ (pilot)")
    assert "SLERP − linear not run 9 to 17.4 % AUROC S" in line(out, "SLERP − linear")


def test_a_lambda_chosen_where_it_is_reported_is_refused(study, ask):
    code, out, err = ask(lambda_curve, study, "--chosen-on", "test")
    assert (code, out) == (2, "")
    assert "λ cannot be chosen on the test split and reported on it" in err


def test_a_sweep_that_only_scored_test_is_refused(tmp_path, ask):
    study = tmp_path / "x"
    for job, weight in enumerate((0.3, 0.6)):
        one_run(study, job, "slerp", weight, strengths(1.0, 1.0 + weight, splits=("test",)))
    code, out, err = ask(lambda_curve, study)
    assert (code, out) == (2, "")
    assert "no merged model with a λ has a value of auroc on the pilot split to choose by" in err


def test_patients_in_both_splits_are_refused(tmp_path, ask):
    study = tmp_path / "x"
    one_run(study, 0, "slerp", 0.4, strengths(1.5, 1.0), shared=True)
    code, out, err = ask(lambda_curve, study)
    assert (code, out) == (2, "")
    assert "3 of 40 patients of the test split are in the pilot split too" in err


def test_runs_of_two_settings_are_not_put_into_one_table(study, ask):
    one_run(study, 11, "slerp", 0.4, strengths(1.5, 1.0), dtype="bfloat16")
    code, _, err = ask(lambda_curve, study)
    assert code == 2
    assert "scored slerp λ=0.4 on pilot in more than one setting" in err


def test_a_refused_run_leaves_no_gap_in_the_table(study, ask):
    write_sealed_json({"refused": "no space"}, study / "sweep" / "11.json")
    code, _, err = ask(lambda_curve, study)
    assert code == 2
    assert "run 11 of the last sweep" in err
    assert "was refused, and a table has no gaps: no space" in err


def test_missing_parents_folders_and_rows_are_refused(study, tmp_path, ask):
    alone = tmp_path / "alone"
    one_run(alone, 0, "slerp", 0.4, strengths(1.5, 1.0, parents=False))
    assert "no score of the base model on the test split: run it with parents=true" in ask(lambda_curve, alone)[2]
    other = study / "mortality_linear_p_b_lambda=0.7_float32" / "predictions.parquet"
    pq.write_table(pq.read_table(other).slice(0, 100), other)
    reseal(other.parent)
    assert "did not answer the same test rows; run both again" in ask(lambda_curve, study)[2]
    (study / "mortality_slerp_p_b_lambda=0.4_float32" / "metrics.json").unlink()
    assert "no longer holds mortality_slerp_p_b_lambda=0.4_float32 of its last sweep" in ask(lambda_curve, study)[2]


def test_reading_does_not_import_torch(study):
    code = (
        "import sys; from experiments.lambda_curve import main; "
        f"assert main(['--output', {str(study.parent)!r}]) == 0; "
        "print(sorted({'torch', 'transformers', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_study_runs_without_m_and_is_read(tiny_base, tiny_pivot, tmp_path, ask):
    """The whole way, on tiny models: the overlay's sweep, what the command line changes of it, the table."""
    given = [one for one in small(tiny_base, tiny_pivot) if not one.startswith(("task.", "splits", "baselines"))]
    own = ["experiment=lambda_curve", "lambda=0.5,1", "name=short", f"output={tmp_path}", "task.synthetic.stays=80"]
    (ran,) = forked(tmp_path, [[*given, *own]])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    study = last_sweep(tmp_path / "short", "")
    merged = [
        (row["method"], row["lambda"]) for row in study.rows if row["role"] == "merged" and row["split"] == "test"
    ]
    assert merged == [("slerp", 0.5), ("slerp", 1.0), ("linear", 0.5), ("linear", 1.0)]
    pivot = study.row("pivot", "test")
    at_one = [row for row in study.rows if row["lambda"] == 1.0 and row["split"] == "test"]
    assert {row["fingerprint"] for row in at_one} == {pivot["fingerprint"]}
    # Base, pivot, slerp 0.5, linear 0.5, two tabular models and three severity scores.
    assert len(list((tmp_path / "scores").glob("*.parquet"))) == 2 * 9
    code, said, error = ask(lambda_curve, tmp_path / "short")
    assert code == 0, error
    assert f"{pivot['auroc']:.3f} [{pivot['auroc_ci_low']:.3f}, {pivot['auroc_ci_high']:.3f}]" in said
    facts = json.loads((study.run_of("slerp", 0.5).folder / "provenance.json").read_text())["merge"]["summary"]
    assert f"for {facts['straight_lines']} of {facts['tensors']} tensors" in said
