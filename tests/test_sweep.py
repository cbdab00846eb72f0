"""The end of a sweep, from result folders made by hand."""

import csv
import io
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from patientdx import sweep
from patientdx.refusal import Refusal
from patientdx.results import write_json
from patientdx.sweep import SweepSummary, choices, leave_fault, leave_pointer, summarise

SECONDS = {"parents": 0.0, "task": 1.66, "load": 1.24, "curve": 0.01, "fill": 0.0, "scoring": 21.9, "metrics": 0.03}


def row(
    role: str, weight: float | None, value: float, *, split: str = "test", method: str | None = None, **more
) -> dict:
    method = method or ("slerp" if role == "merged" else None)
    return {
        "task": "mortality", "split": split, "method": method, "lambda": weight, "role": role,
        "base": "instruct", "pivot": "numeric",
        "auroc": value, "auroc_ci_low": value - 0.1, "auroc_ci_high": value + 0.1,
        "n": 68, "events": 9, "prevalence": 9 / 68, "patients": 60, "abstention_mass": 0.9, "distinct_scores": 60,
        "dtype": "float32", "data": "open", "fingerprint": f"{role} {method} {weight} {split} {value}",
    } | more  # fmt: skip


PARENTS = [row(role, weight, value, split=split) for split in ("pilot", "test")
           for role, weight, value in (("base", 0.0, 0.6), ("pivot", 1.0, 0.65))]  # fmt: skip


def point(weight: float, pilot: float, test: float, **more) -> list[dict]:
    return [row("merged", weight, pilot, split="pilot", **more), row("merged", weight, test, **more)]


@pytest.fixture
def config(tmp_path):
    return OmegaConf.create({"output": str(tmp_path), "name": "study", "device": "cpu"})


@pytest.fixture
def study(tmp_path) -> Path:
    return tmp_path / "study"


def finish(config, study: Path, job: int, rows: list[dict], *, reused: bool = False) -> None:
    """What run number `job` leaves."""
    folder = study / f"result_{job}"
    write_json({"fingerprint": str(job), "rows": rows}, folder / "metrics.json")
    leave_pointer(config, job, folder, SECONDS, reused)


def said(study: Path) -> str:
    console = Console(file=io.StringIO(), width=80)
    summarise(study, console)
    return console.file.getvalue()


def test_parents_appear_once_and_points_in_order(config, study):
    for job, (weight, value) in enumerate([(0.4, 0.7), (0.1, 0.61), (0.2, 0.66)]):
        finish(config, study, job, [*point(weight, value, value), *PARENTS])
    found = summarise(study, Console(file=io.StringIO()))
    assert [one["lambda"] for one in found] == [0.0, 0.1, 0.2, 0.4, 1.0] * 2
    with (study / "sweep.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(one["auroc"]) for one in written] == [one["auroc"] for one in found]
    assert (study / "lambda_curve_auroc.png").is_file()


def test_more_than_ten_runs_stay_in_their_order(config, study):
    for job in range(12):
        finish(config, study, job, point(job / 20, 0.6, 0.6))
    assert [line.split(":")[0] for line in said(study).splitlines() if line.startswith("run ")] == [
        f"run {job}" for job in range(12)
    ]


def test_a_line_of_seconds_is_one_line(config, study):
    finish(config, study, 0, [*point(0.1, 0.6, 0.6), *PARENTS])
    finish(config, study, 1, [*point(0.2, 0.6, 0.6), *PARENTS], reused=True)
    lines = said(study).splitlines()
    assert ("run 0: seconds: parents 0.0, task 1.7, load 1.2, curve 0.0, fill 0.0, scoring 21.9, metrics 0.0") in lines
    assert "run 1: found finished" in lines
    assert f"  {study / 'sweep.csv'}" in lines


def test_each_method_has_its_choice(config, study):
    for job, (method, weight, pilot, test) in enumerate(
        [("slerp", 0.2, 0.7, 0.5), ("slerp", 0.4, 0.72, 0.71), ("linear", 0.2, 0.8, 0.66), ("linear", 0.4, 0.1, 0.99)]
    ):
        finish(config, study, job, [*point(weight, pilot, test, method=method), *PARENTS])
    lines = said(study).splitlines()
    start = lines.index("chosen on pilot: linear λ=0.2, test AUROC 0.66 [0.56, 0.76]")
    assert lines[start + 1 : start + 3] == [
        "chosen on pilot: slerp λ=0.4, test AUROC 0.71 [0.61, 0.81]",
        "the rest of the test curve is exploratory",
    ]


def test_several_pairs_of_parents_have_choices_and_pictures_of_their_own(config, study):
    other = {"pivot": "math"}
    finish(config, study, 0, [*point(0.2, 0.7, 0.5), *point(0.4, 0.6, 0.6), *PARENTS])
    theirs = [*point(0.2, 0.7, 0.5, **other), *point(0.4, 0.8, 0.6, **other), *(one | other for one in PARENTS)]
    finish(config, study, 1, theirs)
    lines = said(study).splitlines()
    assert "mortality instruct numeric: chosen on pilot: slerp λ=0.2, test AUROC 0.50 [0.40, 0.60]" in lines
    assert "mortality instruct math: chosen on pilot: slerp λ=0.4, test AUROC 0.60 [0.50, 0.70]" in lines
    assert {path.name for path in study.glob("*.png")} == {
        "lambda_curve_auroc_mortality_instruct_numeric.png",
        "lambda_curve_auroc_mortality_instruct_math.png",
    }
    # The base is the same model, with the same fingerprint, and stands in both.
    shown = [(one["pivot"], one["role"]) for one in summarise(study, Console(file=io.StringIO()))]
    assert all(shown.count((pivot, "base")) == 2 for pivot in ("numeric", "math"))


TABULAR = [
    row("tabular_gbm", None, 0.8, split=split, method="tabular_gbm", base=None, pivot=None, abstention_mass=None)
    for split in ("pilot", "test")
]


def test_a_tabular_model_stands_once_below_the_others_and_on_no_curve(config, study):
    other = {"pivot": "abacus"}
    finish(config, study, 0, [*point(0.2, 0.7, 0.5), *PARENTS, *TABULAR])
    finish(config, study, 1, [*point(0.4, 0.6, 0.6), *PARENTS, *TABULAR])
    found = summarise(study, Console(file=io.StringIO()))
    assert [one["role"] for one in found] == ["base", "merged", "merged", "pivot", "tabular_gbm"] * 2
    assert [one["split"] for one in found] == ["pilot"] * 5 + ["test"] * 5
    assert {path.name for path in study.glob("*.png")} == {"lambda_curve_auroc.png"}
    lines = said(study).splitlines()
    assert "chosen on pilot: slerp λ=0.2, test AUROC 0.50 [0.40, 0.60]" in lines
    with (study / "sweep.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["method"], last["lambda"], last["base"], last["abstention_mass"]) == ("tabular_gbm", "", "", "")
    finish(config, study, 2, [*point(0.4, 0.6, 0.6, **other), *TABULAR])
    assert [one["role"] for one in summarise(study, Console(file=io.StringIO()))].count("tabular_gbm") == 2


def test_a_sweep_of_tabular_models_alone_has_a_table_and_no_picture(config, study):
    finish(config, study, 0, TABULAR)
    assert "tabular_gbm" in said(study)
    assert not list(study.glob("*.png"))


@pytest.mark.parametrize(
    "rows",
    [
        [*point(0.4, 0.7, 0.7), *PARENTS],
        [row("merged", weight, 0.6) for weight in (0.1, 0.2)],
        [row("merged", weight, 0.6, split="pilot") for weight in (0.1, 0.2)],
        [*(row("merged", None, 0.6, split=split, method="none") for split in ("pilot", "test")), *PARENTS],
        [],
    ],
    ids=["one λ", "no pilot", "no test", "no λ", "nothing"],
)
def test_nothing_is_chosen_where_there_is_no_choice(rows):
    assert choices(rows) == []


def test_refused_runs_are_named_and_make_the_exit_code(config, study, capsys):
    finish(config, study, 0, [*point(0.1, 0.6, 0.6), *PARENTS])
    leave_fault(config, 1, Refusal("lambda=1.5 is outside [0, 1]"))
    with pytest.raises(SystemExit) as end:
        SweepSummary().on_multirun_end(config)
    assert end.value.code == 2
    out = capsys.readouterr().out
    assert "study: 1 runs" in out
    assert "run 1 was refused: lambda=1.5 is outside [0, 1]\n" in out
    assert (study / "sweep.csv").is_file()


def test_a_sweep_of_refused_runs_alone_has_no_table(config, study, capsys):
    leave_fault(config, 0, Refusal("no"))
    with pytest.raises(SystemExit):
        SweepSummary().on_multirun_end(config)
    assert capsys.readouterr().out == "run 0 was refused: no\n"
    assert not (study / "sweep.csv").exists()


def test_a_new_sweep_forgets_the_last_ones_pointers_but_not_its_results(config, study):
    finish(config, study, 0, [*point(0.1, 0.6, 0.6), *PARENTS])
    leave_fault(config, 1, Refusal("no"))
    SweepSummary().on_multirun_start(config)
    assert not list(study.glob("sweep/*"))
    assert (study / "result_0/metrics.json").is_file()
    finish(config, study, 0, [*point(0.3, 0.6, 0.6), *PARENTS])
    assert {one["lambda"] for one in summarise(study, Console(file=io.StringIO()))} == {0.0, 0.3, 1.0}


@pytest.mark.parametrize("moment", ["on_run_start", "on_multirun_start"])
def test_a_place_that_cannot_be_written_ends_the_program_at_its_start(tmp_path, moment, capsys):
    (tmp_path / "file").touch()
    config = OmegaConf.create({"output": str(tmp_path / "file"), "name": "study", "device": "cpu"})
    with pytest.raises(SystemExit) as end:
        getattr(SweepSummary(), moment)(config)
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}/file/study cannot be written: Not a directory. Free space or set output= to another place.\n"
    )


def test_a_table_that_cannot_be_written_ends_with_an_error(config, study, monkeypatch, capsys):
    finish(config, study, 0, [*point(0.1, 0.6, 0.6), *PARENTS])

    def full(rows, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(sweep.report, "write_csv", full)
    with pytest.raises(SystemExit) as end:
        SweepSummary().on_multirun_end(config)
    assert end.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
