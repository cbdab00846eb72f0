"""The end of a sweep, from result folders made by hand."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig
from sweeps_by_hand import PARENTS, finish, point, row, said, shown

from patientdx.cli import sweep_state, sweep_summary
from patientdx.cli.sweep import SweepSummary, close, record_error
from patientdx.core.errors import UserError

CONF = str(Path(__file__).parents[1] / "conf")


def composed(words: Sequence[str]) -> DictConfig:
    """The config of a multirun, as Hydra hands it to a callback."""
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration("config", list(words), run_mode=RunMode.MULTIRUN)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a sweep of the study as Hydra does, and returns its folder; what still runs at the end is dropped."""
    monkeypatch.setenv("PYTHONPATH", "")

    def started(*words: str) -> Path:
        with initialize_config_dir(CONF, version_base="1.3"):
            words = (f"output={tmp_path}", "name=study", *words)
            config = composed(words)
            SweepSummary().on_multirun_start(config)
        return sweep_state.running_folder(tmp_path / "study") / config.hydra.overrides.hydra[-1].rpartition("/")[2]

    yield started
    close()


def test_parents_appear_once_and_points_in_order(study):
    for job, (weight, value) in enumerate([(0.4, 0.7), (0.1, 0.61), (0.2, 0.66)]):
        finish(study, job, [*point(weight, value, value), *PARENTS])
    found = shown(study)
    assert [one["lambda"] for one in found] == [0.0, 0.1, 0.2, 0.4, 1.0] * 2
    with (study / "sweep.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(one["auroc"]) for one in written] == [one["auroc"] for one in found]
    assert (study / "lambda_curve_auroc.png").is_file()


def test_what_the_runs_took_is_one_line(study):
    finish(study, 0, [*point(0.1, 0.6, 0.6), *PARENTS])
    finish(study, 1, [*point(0.2, 0.6, 0.6), *PARENTS])
    finish(study, 2, [*point(0.4, 0.6, 0.6), *PARENTS], reused=True)
    lines = said(study).splitlines()
    assert "1 of 3 runs were already finished" in lines
    assert "seconds: parents 0.0, task 3.3, load 2.5, curve 0.0, fill 0.0, scoring 43.8, metrics 0.1" in lines
    assert f"  {study / 'sweep.csv'}" in lines


def test_several_tasks_have_a_table_each(study):
    finish(study, 0, [*point(0.2, 0.7, 0.5), *PARENTS])
    finish(study, 1, [row("merged", 0.2, 0.88, task="phenotype")])
    first, second = said(study).split("study: 2 runs, phenotype")
    assert ("study: 2 runs, mortality" in first, "0.880 [" in first, "0.880 [" in second) == (True, False, True)


TABULAR = [
    row("tabular_gbm", None, 0.8, split=split, method="tabular_gbm", base=None, pivot=None, abstention_mass=None)
    for split in ("pilot", "test")
]


def test_a_tabular_model_stands_once_below_the_others_and_on_no_curve(study):
    other = {"pivot": "abacus"}
    study.mkdir()
    (study / "lambda_curve_auroc_of_an_earlier_sweep.png").write_bytes(b"old")
    finish(study, 0, [*point(0.2, 0.7, 0.5), *PARENTS, *TABULAR])
    finish(study, 1, [*point(0.4, 0.6, 0.6), *PARENTS, *TABULAR])
    found = shown(study)
    assert [one["role"] for one in found] == ["base", "merged", "merged", "pivot", "tabular_gbm"] * 2
    assert [one["split"] for one in found] == ["pilot"] * 5 + ["test"] * 5
    assert {path.name for path in study.glob("*.png")} == {"lambda_curve_auroc.png"}
    lines = said(study).splitlines()
    assert "chosen on pilot: slerp λ=0.2, test AUROC 0.50 [0.40, 0.60]" in lines
    with (study / "sweep.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["method"], last["lambda"], last["base"], last["abstention_mass"]) == ("tabular_gbm", "", "", "")
    finish(study, 2, [*point(0.4, 0.6, 0.6, **other), *TABULAR])
    assert [one["role"] for one in shown(study)].count("tabular_gbm") == 2


def test_a_sweep_of_tabular_models_alone_has_a_table_and_no_picture(study):
    finish(study, 0, TABULAR)
    assert "tabular_gbm" in said(study)
    assert not list(study.glob("*.png"))


REFUSED, FAILED = UserError("lambda=1.5 is outside [0, 1]"), KeyError("heart rate")


@pytest.mark.parametrize(("errors", "code"), [([], 0), ([FAILED], 1), ([REFUSED], 2), ([FAILED, REFUSED], 2)])
def test_what_did_not_get_through_is_named_and_makes_the_exit_code(start, study, errors, code, capsys):
    folder = start("lambda=" + ",".join(f"0.{job}" for job in range(1, 2 + len(errors))))
    finish(study, 0, [*point(0.1, 0.6, 0.6), *PARENTS], folder=folder, words=["seed=0", "lambda=0.1"])
    for job, error in enumerate(errors, 1):
        record_error(folder, job, error, ["seed=0", f"lambda=0.{job + 1}"], open_data=True)
    assert close() == code
    out = capsys.readouterr().out
    assert "study: 1 runs" in out
    assert ("run 1 (lambda=0.2) was refused: lambda=1.5 is outside [0, 1]\n" in out) is (errors[:1] == [REFUSED])
    assert ("run 1 (lambda=0.2) failed: KeyError in an unknown location: 'heart rate'\n" in out) is (
        errors[:1] == [FAILED]
    )
    assert (study / "sweep.csv").is_file()
    assert sorted(path.name for path in (study / "sweep").iterdir()) == [
        f"{job}.json" for job in range(1 + len(errors))
    ]


def test_a_callback_ends_the_program_with_the_sweeps_code(start, study):
    record_error(start("lambda=0.1,0.2"), 0, REFUSED, [], open_data=True)
    with pytest.raises(SystemExit) as end:
        SweepSummary().on_multirun_end(None)
    assert end.value.code == 2


def test_a_job_whose_process_died_is_named(start, study, capsys):
    folder = start("lambda=0.1,0.2,0.4")
    finish(study, 1, [*point(0.1, 0.6, 0.6), *PARENTS], folder=folder)
    assert close() == 1
    out = capsys.readouterr().out
    for job in (0, 2):
        assert f"run {job} failed: its process ended without a record: killed, or out of memory\n" in out
        assert "failed" in json.loads((study / f"sweep/{job}.json").read_text())


def test_a_sweep_of_refused_runs_alone_has_no_table(start, study, capsys):
    record_error(start("lambda=1.5"), 0, REFUSED, [], open_data=True)
    assert close() == 2
    assert "run 0 was refused: lambda=1.5 is outside [0, 1]\n" in capsys.readouterr().out
    assert not (study / "sweep.csv").exists()


def test_a_sweep_of_which_no_job_began_leaves_the_last_one(start, study, capsys):
    finish(study, 0, [*point(0.1, 0.6, 0.6), *PARENTS])
    start("lambda=0.1,0.2")
    assert close() == 1
    assert capsys.readouterr().out == ""
    assert [path.name for path in (study / "sweep").iterdir()] == ["0.json"]


def test_a_new_sweep_replaces_the_last_one_at_its_end_but_not_its_results(start, study):
    finish(study, 0, [*point(0.1, 0.6, 0.6), *PARENTS])
    record_error(study / "sweep", 1, REFUSED, [], open_data=True)
    folder = start("lambda=0.3")
    assert sweep_state.read_jobs(study / "sweep").keys() == {0, 1}
    finish(study, 2, [*point(0.3, 0.6, 0.6), *PARENTS])
    sweep_state.write_job(folder, 0, json.loads((study / "sweep/2.json").read_text()))
    assert close() == 0
    assert sweep_state.read_jobs(study / "sweep").keys() == {0}
    assert (study / "result_0/metrics.json").is_file()
    with (study / "sweep.csv").open() as file:
        assert {row["lambda"] for row in csv.DictReader(file)} == {"0.0", "0.3", "1.0"}


def test_the_page_that_fails_costs_neither_table_nor_code(start, study, monkeypatch, capsys):
    def broken(*given):
        raise ValueError("no page today")

    monkeypatch.setattr(sweep_summary.reporting, "write_report", broken)
    monkeypatch.setattr(sweep_summary.reporting, "best", broken)
    finish(study, 0, [*point(0.1, 0.6, 0.6), *PARENTS], folder=start("lambda=0.1"))
    assert close() == 0
    assert (study / "sweep.csv").is_file()
    err = capsys.readouterr().err
    assert "no report was made: ValueError in tests/test_sweep.py:" in err
    assert "nothing is marked as best: ValueError in tests/test_sweep.py:" in err
    assert err.count("no page today") == 2


@pytest.mark.parametrize("moment", ["on_run_start", "on_multirun_start"])
def test_a_place_that_cannot_be_written_ends_the_program_at_its_start(tmp_path, moment, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "file").touch()
    with initialize_config_dir(CONF, version_base="1.3"):
        config = composed([f"output={tmp_path}/file", "name=study"])
        with pytest.raises(SystemExit) as end:
            getattr(SweepSummary(), moment)(config)
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}/file/study cannot be written: Not a directory. Free space or set output= to another folder.\n"
    )


def test_a_table_that_cannot_be_written_ends_with_an_error(start, study, monkeypatch, capsys):
    finish(study, 0, [*point(0.1, 0.6, 0.6), *PARENTS], folder=start("lambda=0.1"))

    def full(rows, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(sweep_summary.reporting, "write_csv", full)
    assert close() == 2
    assert "No space left on device" in capsys.readouterr().err


def test_what_cannot_be_left_on_a_full_disk_is_told_all_the_same(start, study, monkeypatch, capsys):
    folder = start("lambda=0.1,0.2")
    finish(study, 0, [*point(0.1, 0.6, 0.6), *PARENTS], folder=folder)

    def full(*given):
        raise UserError("cannot be written")

    monkeypatch.setattr(sweep_state, "write_sealed_json", full)
    record_error(folder, 1, FAILED, [], open_data=True)
    assert close() == 1
    assert "run 1 failed: KeyError in an unknown location: 'heart rate'\n" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["name", "output"])
def test_a_sweep_over_studies_is_refused(start, key, capsys):
    with pytest.raises(SystemExit) as end:
        start(f"{key}=a,b")
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"{key} takes several values in one sweep, but a sweep is one study and has one table: give one {key}, and "
        "start a sweep for each other. Studies below one output= share their scores.\n"
    )


def test_an_overlays_sweep_and_the_command_lines_are_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    with initialize_config_dir(CONF, version_base="1.3"):
        words = ["experiment=lambda_curve", f"output={tmp_path}", "task=mortality,phenotype", "merge=linear"]
        config = composed(words)
        SweepSummary().on_multirun_start(config)
    close()
    assert config.hydra.sweeper.params is None
    assert list(config.hydra.overrides.task) == [
        "experiment=lambda_curve",
        f"output={tmp_path}",
        "merge=slerp,linear",
        "merge=linear",
        "lambda=0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1",
        "task=mortality,phenotype",
    ]
