"""The command line, whole: a single run, a sweep, a sweep that is killed; what they leave and what they say."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from command_line import PILOT, ROOT, TEST, environment, forked, rows_of, the_one

SWEEP = ("merge=slerp", "lambda=0.1,0.2,0.4")
FILES = {
    "cohort.csv",
    "command.json",
    "config.yaml",
    "metrics.json",
    "predictions.parquet",
    "prompt.txt",
    "provenance.json",
    "readings.csv",
}
PICTURES = {"lambda_curve_auroc.png", "lambda_curve_auprc.png"}
ROW = {
    *("task", "split", "method", "lambda", "role", "base", "pivot"),
    *("auroc", "auroc_ci_low", "auroc_ci_high", "auprc", "auprc_ci_low", "auprc_ci_high"),
    *("n", "events", "prevalence", "patients", "abstention_mass", "distinct_scores", "dtype", "data", "fingerprint"),
}
PNG = b"\x89PNG\r\n\x1a\n"


def state(folder: Path) -> dict[str, int]:
    """When each file below was last changed."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def result(done, place) -> Path:
    return the_one(place, "outputs/default/mortality_*")


@pytest.fixture(scope="module")
def swept(tmp_path_factory, arguments) -> tuple[Path, subprocess.CompletedProcess]:
    """An uninterrupted sweep: its study folder, and what it said."""
    folder = tmp_path_factory.mktemp("swept")
    (done,) = forked(folder, [["-m", *arguments, *SWEEP]], pictures=True)
    assert done.returncode == 0, done.stderr
    return folder / "outputs" / "default", done


def test_a_single_run_leaves_one_folder(done, place, result):
    assert {path.name for path in result.iterdir()} == FILES | PICTURES
    assert result.name.startswith("mortality_slerp_lambda=0.4_")
    assert (result / "lambda_curve_auroc.png").read_bytes().startswith(PNG)
    assert f"written: {result.relative_to(place)}\n" in done.stdout
    assert "Traceback" not in done.stderr
    # No .hydra folder, and no log where nothing was logged.
    assert {path.name for path in (place / "outputs").iterdir()} == {"default", "scores"}
    assert list((place / "outputs/default").iterdir()) == [result]


def test_rows_of_a_single_run(result):
    rows = rows_of(result)
    assert [(row["role"], row["method"], row["lambda"], row["split"]) for row in rows] == [
        ("merged", "slerp", 0.4, "pilot"),
        ("merged", "slerp", 0.4, "test"),
        ("base", None, 0.0, "pilot"),
        ("base", None, 0.0, "test"),
        ("pivot", None, 1.0, "pilot"),
        ("pivot", None, 1.0, "test"),
    ]
    for row in rows:
        assert row.keys() == ROW
        assert row["auroc_ci_low"] <= row["auroc"] <= row["auroc_ci_high"]
        assert (row["data"], row["dtype"]) == ("open", "float32")
        assert (row["n"], row["events"]) == {"pilot": (PILOT, 5), "test": (TEST, 5)}[row["split"]]
        assert row["prevalence"] == row["events"] / row["n"]


def test_predictions_explain_the_metrics(result):
    from patientdx.metrics.ranking import auroc

    told = pyarrow.parquet.read_table(result / "predictions.parquet").to_pandas()
    assert len(told) == 3 * (PILOT + TEST)
    assert told["id"].str.fullmatch("[0-9a-f]{16}").all()
    for row in rows_of(result):
        own = told[(told["role"] == row["role"]) & (told["split"] == row["split"])]
        assert float(auroc(own["probability"].to_numpy(), own["label"].to_numpy())) == pytest.approx(row["auroc"])
        assert own["subject"].nunique() == row["patients"]


def test_config_and_provenance_of_a_single_run(result, tiny_base):
    config = yaml.safe_load((result / "config.yaml").read_text())
    assert (config["lambda"], config["merge"]["name"], config["base_model"]["source"]) == (0.4, "slerp", str(tiny_base))
    facts = json.loads((result / "provenance.json").read_text())
    assert all(len(parent["sha256"]) == 64 for parent in facts["parents"])
    summary = facts["merge"]["summary"]
    assert summary["tensors"] == len(facts["merge"]["tensors"]) == 20
    assert summary["straight_lines"] == sum(one["branch"] == "line" for one in facts["merge"]["tensors"].values())
    assert 0 < summary["straight_lines"] < 20  # norms lie on a line, matrices on the sphere: conftest.make_tiny
    assert facts["scoring"]["processes"] == 1
    assert facts["task"]["open_data"] is True


def test_a_result_keeps_the_command_that_made_it(result, arguments):
    told = json.loads((result / "command.json").read_text())
    assert told == {"overrides": arguments}


def test_the_printed_table_holds_the_metrics(done, result):
    for row in rows_of(result):
        # Two digits: with the mark of few events three do not fit into 80 characters.
        assert f"{row['auroc']:.2f} [{row['auroc_ci_low']:.2f}, {row['auroc_ci_high']:.2f}]†" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80


def test_the_same_command_again_does_nothing(done, place, result, arguments):
    before, rows = state(place / "outputs"), rows_of(result)
    (again,) = forked(place, [arguments], models_may_load=False, pictures=True)
    assert again.returncode == 0, again.stderr
    assert f"already finished, nothing was computed again: {result.relative_to(place)}\n" in again.stdout
    after = state(place / "outputs")
    assert {path for path in after if after[path] != before.get(path)} <= {str(result / name) for name in PICTURES}
    assert rows_of(result) == rows
    assert again.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]


def test_the_same_run_in_a_fresh_place_gives_the_same_bits(result, swept):
    study, _ = swept
    assert rows_of(study / result.name) == rows_of(result)


def test_a_sweep_leaves_a_result_a_point_a_table_and_a_picture(swept):
    study, done = swept
    results = sorted(path.name[:27] for path in study.glob("mortality_*"))
    assert results == [f"mortality_slerp_lambda={weight}_" for weight in (0.1, 0.2, 0.4)]
    rows = table(study)
    assert [(row["role"], row["lambda"]) for row in rows] == [
        ("base", "0.0"), ("merged", "0.1"), ("merged", "0.2"), ("merged", "0.4"), ("pivot", "1.0"),
    ] * 2  # fmt: skip
    assert [row["split"] for row in rows] == ["pilot"] * 5 + ["test"] * 5
    for name in PICTURES:
        assert (study / name).read_bytes().startswith(PNG)
        assert f"\n  outputs/default/{name}\n" in done.stdout
    assert "\nseconds: parents " in done.stdout
    assert (study / "report.html").is_file()
    assert "\n  outputs/default/report.html\n" in done.stdout
    assert list(study.glob(".sweeps/*")) == []
    assert "jobs done" not in done.stdout  # no progress where nobody watches
    assert len(list((study.parent / "scores").glob("*"))) == 10


def test_later_jobs_of_a_sweep_load_nothing(swept):
    study, _ = swept
    seconds = [json.loads((study / f"sweep/{job}.json").read_text())["seconds"] for job in range(3)]
    assert seconds[0]["load"] > 0.1
    for later in seconds[1:]:
        assert later["parents"] + later["task"] + later["load"] < 0.1 * (seconds[0]["task"] + seconds[0]["load"])


def test_a_sweep_says_what_pilot_chose(swept):
    study, done = swept
    best = max((row for row in table(study) if row["role"] == "merged" and row["split"] == "pilot"),
               key=lambda row: (float(row["auroc"]), -float(row["lambda"])))  # fmt: skip
    test = next(row for row in table(study) if row["split"] == "test" and row["lambda"] == best["lambda"])
    value, low, high = (float(test[key]) for key in ("auroc", "auroc_ci_low", "auroc_ci_high"))
    assert (
        f"chosen on pilot: slerp λ={float(best['lambda']):g}, test AUROC {value:.2f} [{low:.2f}, {high:.2f}]\n"
        "chosen from 3 models on pilot: at most 1.58 bits of its patients are in that choice\n"
        "the rest of the test curve is exploratory\n"
    ) in done.stdout


def test_a_sweep_killed_at_any_moment_repeats_nothing(tmp_path, arguments, swept):
    """A real process, killed by the clock; kills at every kind of step are in test_faults.py."""
    scores = tmp_path / "outputs" / "scores"
    command = [sys.executable, str(ROOT / "run.py"), "-m", *arguments, *SWEEP]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 600
    while len(list(scores.glob("*.parquet"))) < 4 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL  # it had not finished
    kept = {path: changed for path, changed in state(scores).items() if Path(path).name[0] != "."}
    assert 4 <= len(kept) < 10  # something was left to do
    (done,) = forked(tmp_path, [["-m", *arguments, *SWEEP]])
    assert done.returncode == 0, done.stderr
    now = state(scores)
    assert {path: now[path] for path in kept} == kept
    assert sum(Path(path).name[0] != "." for path in now) == 10
    study, _ = swept
    assert (tmp_path / "outputs/default/sweep.csv").read_bytes() == (study / "sweep.csv").read_bytes()


@pytest.fixture(scope="module")
def others(tmp_path_factory, arguments) -> tuple[Path, dict[str, subprocess.CompletedProcess]]:
    """Three sweeps of one study, one after the other, and a talkative run elsewhere."""
    folder = tmp_path_factory.mktemp("others")
    commands = {
        "one refused": ["-m", *arguments, "parents=false", "lambda=0.2,1.5,0.4"],
        "repeated": ["-m", *arguments, "parents=false", "lambda=0.2,0.4"],
        "without lambda": ["-m", *arguments, "parents=false", "merge=none"],
        "verbose": [*arguments, "parents=false", "output=talk", "hydra.verbose=true"],
    }
    return folder, dict(zip(commands, forked(folder, list(commands.values())), strict=True))


def test_a_refused_point_costs_the_others_nothing(others):
    _, ended = others
    refused, repeated = ended["one refused"], ended["repeated"]
    fault = (
        "1 problem in this configuration\n  lambda=1.5 is outside [0, 1]: 0 is the base model and 1 the pivot model."
    )
    assert refused.returncode == 2
    assert refused.stderr == f"{fault}\n"
    assert f"run 1 (lambda=1.5) was refused: {fault}\n" in refused.stdout
    assert "default: 2 runs" in refused.stdout
    assert repeated.returncode == 0
    assert repeated.stdout.count("already finished, nothing was computed again: ") == 2
    assert "2 of 2 runs were already finished\n" in repeated.stdout


def test_a_sweep_shows_its_own_runs_and_no_others(others):
    folder, ended = others
    assert "refused" not in ended["repeated"].stdout
    last = ended["without lambda"]
    assert last.returncode == 0
    assert {row["method"] for row in table(folder / "outputs/default")} == {"none"}
    assert "chosen on pilot" not in last.stdout


def test_a_log_file_is_there_when_something_was_logged(others):
    folder, ended = others
    assert ended["verbose"].returncode == 0, ended["verbose"].stderr
    assert (folder / "talk/default/run.log").stat().st_size > 0
    assert not (folder / "outputs/default/run.log").exists()
