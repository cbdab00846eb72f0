"""experiments.all and experiments.cost: every study that has results in one report, and what it takes."""

import base64
import json
from importlib import import_module
from pathlib import Path

import pytest
from result_folders import reseal
from swept_runs import one_run, strengths

from experiments import all as every
from experiments import cost
from experiments.reading import OVERLAYS, command, made_by, parser, reader, stems, studies
from patientdx.evaluation.store import write_json, write_sealed_json

STEMS = {path.stem for path in OVERLAYS.glob("*.yaml")}


@pytest.fixture
def output(tmp_path):
    """Two studies with results (one of them small, one refused by its script), and folders that are none."""
    folder = tmp_path / "outputs"
    for name in ("lambda_curve", "lambda_curve_small"):
        one_run(folder / name, 0, "slerp", 0.4, strengths(1.5, 1.0), seconds={"scoring": 21.0, "metrics": 1.0})
        one_run(folder / name, 1, "slerp", 0.7, strengths(0.9, 2.5), seconds={"scoring": 14.0})
    one_run(folder / "transfer", 0, "slerp", 0.4, strengths(1.0, 1.0))
    one_run(folder / "mine", 0, "slerp", 0.4, strengths(1.0, 1.0))
    one_run(folder / "mortality_alone", 0, "none", None, {("merged", "test"): 0.1})
    one_run(folder / "fewshot_steps", 0, "none", None, {("merged", "test"): 0.1})
    (folder / "lambda_curve" / "curve.png").write_bytes(b"picture")
    (folder / "lambda_curve" / "report.html").write_text("page")
    return folder


def test_studies_are_found_by_their_files(output):
    assert set(stems()) == STEMS
    assert stems()[0] == "lambda_curve"  # as README.md has them
    found = studies(output)
    assert found.keys() == STEMS
    assert {stem: names for stem, names in found.items() if names} == {
        "lambda_curve": ["lambda_curve", "lambda_curve_small"],
        "transfer": ["transfer"],
    }


@pytest.mark.parametrize("form", ["html", "md"])
def test_one_report_holds_what_ran_and_names_what_did_not(output, tmp_path, capsys, form):
    place = tmp_path / f"all.{form}"
    assert every.main(["--output", str(output), "--to", str(place)]) == 0
    said, text = capsys.readouterr().out, place.read_text()
    assert "SLERP λ (pilot)" in text  # the script's own table
    assert "size=small: it shows that the study runs" in text
    assert "is of mortality: λ goes from mortality to other tasks" in text  # transfer refuses, and the rest goes on
    assert "transfer: the last sweep" in said
    picture = base64.b64encode(b"picture").decode() if form == "html" else "outputs/lambda_curve/curve.png"
    assert picture in text
    assert "outputs/lambda_curve/report.html" in text
    assert str(tmp_path) not in text
    absent = text[text.index("Not run yet") :]
    assert all(f"experiment={stem}" in absent for stem in STEMS - {"lambda_curve", "transfer"})
    assert "experiment=lambda_curve" not in absent
    assert "7B on A100, estimate" in text
    assert f"written: {place}" in said


def test_a_script_that_fails_leaves_its_message_and_the_output_as_it_was(output, monkeypatch, capsys):
    def fails(arguments):
        raise OSError("there is no /home/someone/file")

    monkeypatch.setattr("experiments.transfer.main", fails)
    monkeypatch.setenv("COLUMNS", "77")
    (part,) = [one for one in every.parts(output) if one.name == "transfer"]
    assert part.fault == "failed: OSError: there is no PATH"
    assert every.os.environ["COLUMNS"] == "77"
    print("heard")
    assert capsys.readouterr().out == "heard\n"


def test_a_place_that_will_not_do_is_refused(tmp_path, capsys):
    assert every.main(["--output", str(tmp_path / "none")]) == 2
    assert "nothing was run yet" in capsys.readouterr().err
    assert every.main(["--output", str(tmp_path), "--to", "x.pdf"]) == 2
    assert "give a name that ends in .html or .md" in capsys.readouterr().err


@pytest.mark.parametrize("script", sorted({reader(stem) for stem in STEMS} - {None}))
def test_a_study_that_was_not_run_is_told_with_the_command_that_runs_it(script, ask, tmp_path):
    code, out, err = ask(import_module(f"experiments.{script}"), tmp_path / script)
    assert (code, out) == (2, "")
    command = f"python run.py experiment={script} output={tmp_path}"
    assert err == f"{tmp_path / script} holds no sweep: nothing was run yet. First:\n  {command}\n"


def test_where_nothing_was_run_the_command_is_made_of_the_name(tmp_path, monkeypatch):
    def of(*words: str) -> str:
        return command(parser("transfer", "x").parse_args(words))

    monkeypatch.chdir(tmp_path)
    assert of() == "python run.py experiment=transfer"
    assert of("--name", "transfer_small") == "python run.py experiment=transfer size=small"
    assert of("--name", "x", "--output", "o") == "python run.py experiment=transfer name=x output=o"


def test_the_command_of_runs_that_kept_theirs_is_what_they_were_asked_for(tmp_path):
    def left(name: str, *jobs: str) -> Path:
        for job, words in enumerate(jobs):
            folder = one_run(tmp_path / name, job, "slerp", job / 10, strengths(1.0, 1.0))
            given = [*words.split(), f"output={tmp_path}", f"data={tmp_path}/sets"]
            write_sealed_json({"folder": folder.name, "overrides": given}, tmp_path / name / "sweep" / f"{job}.json")
        return tmp_path / name

    control = left(
        "leakage_control", "finetune=full merge=slerp experiment=leakage name=leakage_control privacy.extraction=0"
    )
    assert made_by(control) == (
        "python run.py experiment=leakage finetune=full merge=slerp name=leakage_control privacy.extraction=0 data=PATH"
    )
    asked = parser("leakage", "x").parse_args(["--output", str(tmp_path), "--name", "leakage_control"])
    assert command(asked) == f"{made_by(control)} output={tmp_path}"
    # What the overlay sweeps by itself needs no words, in part or cut to size it does.
    parts = [f"experiment=case_study {{}} task={task}" for task in ("record_qa", "record_search", "mortality")]
    whole = left("case_study", *(one.format("dtype=float32") for one in parts))
    assert made_by(whole) == "python run.py experiment=case_study dtype=float32 data=PATH"
    few = left("case_study_few", *(one.format("name=case_study_few") for one in parts[:2]))
    assert made_by(few) == (
        "python run.py experiment=case_study name=case_study_few task=record_qa,record_search data=PATH"
    )
    small = left("forgetting_small", *(f"experiment=forgetting size=small merge={merge} lambda={weight} task={task}"
                 for merge in ("linear", "slerp") for weight in ("0", "0.5", "1")
                 for task in ("record_qa_short", "numeric_questions")))  # fmt: skip
    assert made_by(small) == "python run.py experiment=forgetting size=small data=PATH"
    write_sealed_json({"folder": "gone", "overrides": []}, tmp_path / "transfer" / "sweep" / "0.json")
    assert made_by(tmp_path / "transfer") is None


def test_cost_counts_each_answer_once(output, capsys):
    write_json(
        {"fingerprint": "f", "seconds": 36.0, "peak_memory_bytes": 2_000_000_000},
        next((output / "lambda_curve").glob("mortality*")) / "finetune.json",
    )
    found = {one.name: one for one in cost.costs(output)}
    one = found["lambda_curve"]
    answers = 4 * (60 + 80)  # base, pivot and two merges
    assert (one.answers, one.tokens) == (answers, answers * 100)
    # The first run asked base, pivot and its merge, the second its merge alone; the middle of the two.
    assert one.speed == pytest.approx((420 * 100 / 21 + 140 * 100 / 14) / 2)
    assert one.spent == 36.0
    assert one.hours == pytest.approx((answers * 100 / 1500 + 36) / 3600)
    assert found["transfer"].speed == pytest.approx(1500)  # of other studies: its own scores were all at hand
    assert cost.main(["--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "Training took at most 2.00 GB" in out
    assert cost.main(["--output", str(Path(output) / "none")]) == 2
    assert "no study below" in capsys.readouterr().err


def test_a_search_asks_once_a_candidate_and_each_task_has_its_own_speed(output):
    study = output / "case_study"
    of_search = one_run(study, 0, "slerp", 0.4, strengths(1.0, 1.0), task="record_search", seconds={"scoring": 10.0})
    found = json.loads((of_search / "metrics.json").read_text())
    for row in found["rows"]:
        row["candidates"] = 20 * row["n"]
    reseal(of_search, found)
    one_run(study, 1, "slerp", 0.4, strengths(1.0, 1.0), seconds={"scoring": 30.0})
    (one,) = [one for one in cost.costs(output) if one.name == "case_study"]
    assert one.answers == 3 * (60 + 80) * 21
    assert one.hours == pytest.approx((10 + 30) / 3600)  # what it took, as nothing was at hand
    one_run(study, 2, "slerp", 0.4, strengths(1.0, 1.0), task="record_qa")
    (one,) = [one for one in cost.costs(output) if one.name == "case_study"]
    assert (one.speed, one.hours) == (None, None)  # of one task no speed is known
    one_run(output / "forgetting", 0, "slerp", 0.4, strengths(1.0, 1.0), task="record_qa", seconds={"scoring": 50.0})
    (one,) = [one for one in cost.costs(output) if one.name == "case_study"]
    assert one.hours == pytest.approx((10 + 30 + 50) / 3600)  # but of another study


def test_gpu_hours_are_two_operations_a_parameter_and_token_at_a_share_of_the_peak(output, capsys):
    one = cost.Cost("x", 10, 312e12 * 0.5 / 2e9 * 3600, 3600.0, 0.0, 0.0, 0, 0.1345)
    assert one.hours == 1.0
    assert one.gpu_hours(1.0, "A100", 0.5) == pytest.approx(1.0)
    assert one.gpu_hours(cost.larger()["7B"], "H100", 0.25) == pytest.approx(7.24 * 2 * 312 / 989)
    assert cost.main(["--output", str(output), "--device", "H100", "--utilisation", "0.25"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Estimate: hours of one H100 at 25% of its 989 TFLOPS in bfloat16" in shown
    assert cost.main(["--output", str(output), "--utilisation", "40"]) == 2
    assert capsys.readouterr().err == "--utilisation 40: give a share above 0 and up to 1.\n"
