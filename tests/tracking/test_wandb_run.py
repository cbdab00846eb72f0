import getpass
import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest
import wandb
from tracked_runs import final_state, log_records, run_record
from wandb_server import wandb_server

from patientdx import tracking
from patientdx.evaluation.config.tracking import TrackingConfig
from patientdx.tracking import track, wandb_run

SENTENCE = "Mr Quillfeather, 81, was found unresponsive at home."
PLANTED_PATH = "/srv/zebrawood/physionet/mimiciv"
CONFIG = {
    "merge": {"method": "slerp", "lambda": 0.4, "layers": [0.1, 0.2]},
    "task": {
        "name": "mortality",
        "mimic_root": [PLANTED_PATH, "zebrawood/relative"],
        "question": SENTENCE,
        "window_hours": 48,
        "source": f"file:{PLANTED_PATH}",
    },
    "cache": "zebrawood/cache",
    "hydra": {"job": {"name": "zebrawood"}},
    "base_model": {"source": {"hub": "HuggingFaceTB/SmolLM2-135M-Instruct", "token": "hf_zebrawood"}},
}
SUMMARY = {
    "lambda": 0.4,
    "mortality/auroc": 0.71234567890123,
    "mortality/auroc_ci_low": 0.62,
    "mortality/auroc_ci_high": 0.79,
    "mortality/n": 68,
    "dtype": "bfloat16",
    "note": SENTENCE,
}
CURVES = {"mortality/roc": [(0.0, 0.0), (0.25, 0.75), (1.0, 1.0)], "mortality/pr": [(0.0, 1.0), (1.0, 0.125)]}
SCORES = b"hashed ids, labels and scores"
RUN_ID = "a1b2c3d4e5f6"


def send(output: Path, **changed):
    folder = output / "study" / "result"
    if not output.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predictions.parquet").write_bytes(SCORES)
    arguments = {
        "tracking": TrackingConfig(tracking={"project": "study", "tags": ("demo",)}),
        "fingerprint": RUN_ID,
        "name": f"slerp lambda=0.4 task.mimic_root={PLANTED_PATH}",
        "group": "sweep-7",
        "job_type": "mortality",
        "tags": ["slerp", "smollm2"],
        "config": CONFIG,
        "summary": SUMMARY,
        "curves": CURVES,
        "folder": folder,
        "output": output,
        "predictions": folder / "predictions.parquet",
        "open_data": True,
    }
    return track(**{**arguments, **changed})


@pytest.fixture
def machine(monkeypatch):
    """Names that cannot occur by chance, as the names of this machine and of who is at it."""
    monkeypatch.setattr(getpass, "getuser", lambda: "drwatsonjh")
    monkeypatch.setattr(socket, "gethostname", lambda: "bakerstreet221.example")


@pytest.fixture
def online(monkeypatch, tmp_path) -> TrackingConfig:
    """Online, with a key and short patience; nothing was tried yet, and wandb will look at the environment anew."""
    wandb.teardown()
    monkeypatch.setattr(wandb_run, "_INIT_SECONDS", 1.0)
    monkeypatch.setattr(tracking, "_unreachable", False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    return TrackingConfig(tracking={"mode": "online", "project": "study"})


def test_a_run_whose_names_are_blank_is_recorded_under_others(tmp_path):
    assert send(tmp_path, name=" ", group="   ", job_type="", tags=["", " ", "slerp"]) == RUN_ID
    run = run_record(tmp_path / "study/result", RUN_ID)
    assert (run["display_name"], run["run_group"], run["job_type"]) == (RUN_ID, "study", "evaluate")
    assert run["tags"] == ["demo", "slerp"]


@pytest.mark.usefixtures("machine")
def test_an_offline_run_says_everything_but_who_and_where(tmp_path):
    config = {**CONFIG, "owner": "drwatsonjh", "node": "bakerstreet221", "study": "study of drwatsonjh"}
    assert send(tmp_path, config=config) == RUN_ID
    result = tmp_path / "study/result"
    run, state = run_record(result, RUN_ID), final_state(result, RUN_ID)
    assert (run["project"], run["run_group"], run["job_type"]) == ("study", "sweep-7", "mortality")
    assert run["tags"] == ["demo", "slerp", "smollm2"]
    assert run["display_name"] == "slerp lambda=0.4 task.mimic_root=<path>"
    assert run["resume"] is True
    assert run["host"] == "-"
    assert state["config"] == {
        "merge": {"method": "slerp", "lambda": 0.4, "layers": [0.1, 0.2]},
        "task": {
            "name": "mortality",
            "question": f"<text of {len(SENTENCE)} characters>",
            "window_hours": 48,
            "source": "<path>",
        },
        "base_model": {"source": {"hub": "HuggingFaceTB/SmolLM2-135M-Instruct"}},
        "owner": "<user>",
        "node": "<host>",
        "study": "study of <user>",
    }
    for key in SUMMARY.keys() - {"note"}:
        assert state["summary"][key] == SUMMARY[key]
    for key, points in CURVES.items():
        chart = state["summary"][f"{key}_table"]
        (file,) = (result / "wandb").glob(f"*/files/{chart['path']}")
        assert json.loads(file.read_text())["data"] == [list(point) for point in points]
    files = [path for path in (result / "wandb").rglob("*") if path.is_file()]
    assert len(files) == 3  # the log and two tables: no code, no console, no packages, no diary
    written = b"".join(path.read_bytes() for path in files)
    planted = ["zebrawood", "Quillfeather", "unresponsive", "drwatsonjh", "bakerstreet"]
    planted += [str(tmp_path), tmp_path.name, str(Path.cwd())]
    assert [word for word in planted if word.encode() in written] == []
    for name in {getpass.getuser(), Path.home().name, socket.gethostname(), os.uname().nodename} - {""}:
        assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)".encode(), written)
    # The log is not compressed: a search of its bytes does find what is there.
    assert b"mortality/auroc_ci_low" in written


def test_numbers_are_one_row_of_history_too_so_that_a_plot_can_have_lambda_as_its_axis(tmp_path):
    send(tmp_path)
    (row,) = log_records(tmp_path / "study/result", RUN_ID)["history"]
    numbers = {key: value for key, value in SUMMARY.items() if not isinstance(value, str)}
    assert {key: row["item"][key] for key in numbers} == numbers
    assert not {"dtype", "note"} & row["item"].keys()


def test_predictions_are_an_artifact_that_names_no_place_on_this_machine(tmp_path):
    send(tmp_path)
    (artifact,) = log_records(tmp_path / "study/result", RUN_ID)["artifact"]
    assert (artifact["type"], artifact["name"]) == ("predictions", f"predictions-{RUN_ID}")
    (entry,) = artifact["manifest"]["contents"]
    assert entry["path"] == "predictions.parquet"
    assert entry["local_path"] == "study/result/predictions.parquet"  # from the output folder on
    assert entry["digest"] == b64encode(hashlib.md5(SCORES).digest()).decode()


@pytest.mark.parametrize(
    ("predictions", "open_data", "sent"),
    [("open", False, False), ("never", True, False), ("always", False, True), ("open", True, True)],
)
def test_scores_of_patients_stay_here_unless_the_data_are_open_or_the_user_says_so(
    tmp_path, predictions, open_data, sent
):
    send(tmp_path, tracking=TrackingConfig(tracking={"predictions": predictions}), open_data=open_data, curves={})
    assert ("artifact" in log_records(tmp_path / "study/result", RUN_ID)) is sent


def test_several_runs_in_one_process_and_a_repeat_replaces(tmp_path):
    for index in range(3):
        assert send(tmp_path, fingerprint=f"run{index}", summary={"mortality/auroc": index / 10}, curves={})
    assert send(tmp_path, fingerprint="run1", summary={"mortality/auroc": 0.9}, curves={})
    result = tmp_path / "study/result"
    assert len(list((result / "wandb").glob("offline-run-*"))) == 3
    found = {f"run{index}": final_state(result, f"run{index}")["summary"] for index in range(3)}
    assert [found[name]["mortality/auroc"] for name in sorted(found)] == [0.0, 0.9, 0.2]


def test_wandb_writes_only_into_the_given_folder(tmp_path, monkeypatch):
    """In a process of its own: wandb's service inherits the environment at its first start."""
    home, out, elsewhere = (tmp_path / name for name in ("home", "out", "elsewhere"))
    home.mkdir()
    elsewhere.mkdir()
    code = (
        "from pathlib import Path; from patientdx.tracking import *; "
        f"out = Path({str(out)!r}); folder = out / 'n' / 'r'; folder.mkdir(parents=True); "
        "scores = folder / 'predictions.parquet'; scores.write_bytes(b'scores'); "
        "print(track(TrackingConfig(tracking={}), fingerprint='f', name='n', group='g', job_type='j', "
        "tags=[], config={}, summary={'a': float('nan')}, curves={'roc': [(0, 0), (1, 1)]}, "
        "folder=folder, output=out, predictions=scores, open_data=True))"
    )
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("f\n", "")
    assert sorted(path.name for path in (out / "n/r").iterdir()) == ["predictions.parquet", "wandb"]
    assert list(home.rglob("*")) == []
    assert list(elsewhere.rglob("*")) == []


def test_an_online_run_arrives_whole_and_leaves_nothing_here(tmp_path, monkeypatch, online, caplog):
    with wandb_server() as (url, sent), caplog.at_level(logging.INFO, logger="patientdx.tracking"):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setattr(wandb_run, "_INIT_SECONDS", 20.0)
        monkeypatch.chdir(tmp_path)
        assert send(Path("out"), tracking=online, fingerprint="on") == "on"
    assert Path.cwd() == tmp_path
    said = [record.getMessage() for record in caplog.records if record.name == "patientdx.tracking"]
    assert said == [f"W&B run: {url}/me/study/runs/on"]
    assert [path.name for path in (tmp_path / "out/study/result").iterdir()] == ["predictions.parquet"]
    assert sent.files["artifact/predictions.parquet"] == [SCORES]
    (summary,) = map(json.loads, sent.files["run/wandb-summary.json"])
    assert summary["mortality/auroc"] == SUMMARY["mortality/auroc"]
    first = sent.variables("UpsertBucket")[0]
    assert (first["displayName"], first["program"], first["host"]) == (
        "slerp lambda=0.4 task.mimic_root=<path>",
        "run.py",
        None,
    )
    planted = ["zebrawood", "Quillfeather", "unresponsive", str(tmp_path), tmp_path.name, str(Path.cwd())]
    assert [word for word in planted if word.encode() in sent.everything] == []


@pytest.mark.parametrize("key", ["a" * 40, None], ids=["no network", "no key"])
def test_online_without_network_or_key_records_offline_and_warns_once(tmp_path, monkeypatch, caplog, online, key):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", key) if key else monkeypatch.delenv("WANDB_API_KEY")
    with caplog.at_level(logging.WARNING, logger="patientdx"):
        assert send(tmp_path, tracking=online, fingerprint="out") == "out"
        # The next one does not wait for a network that is not there.
        monkeypatch.setattr(tracking, "_online", None)
        assert send(tmp_path, tracking=online, fingerprint="next", curves={}) == "next"
    (record,) = (record for record in caplog.records if record.name == "patientdx.tracking")
    assert record.getMessage().startswith("W&B online failed (")
    assert record.getMessage().endswith(
        f"this and later runs are recorded offline, send them with\n  cd {tmp_path} && "
        "WANDB_PROGRAM=run.py wandb sync */*/wandb/offline-run-*"
    )
    result = tmp_path / "study/result"
    places = sorted(path.name for path in (result / "wandb").iterdir())
    assert sorted(name.rsplit("-", 1)[1] for name in places) == ["next", "out"]
    assert all(name.startswith("offline-run-") for name in places)
    assert final_state(result, "out")["summary"]["mortality/auroc"] == SUMMARY["mortality/auroc"]


def test_a_network_that_goes_away_half_way_costs_a_bounded_time(tmp_path, monkeypatch, online, caplog):
    monkeypatch.setattr(wandb_run, "_FINISH_SECONDS", 1.0)
    began = time.monotonic()
    with wandb_server(silent_on={"CreateArtifact", "CreateRunFiles"}) as (url, sent):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setattr(wandb_run, "_INIT_SECONDS", 20.0)
        assert send(tmp_path, tracking=online, fingerprint="half") == "half"
        assert sent.variables("UpsertBucket")
    assert time.monotonic() - began < 20
    assert "W&B online failed (TimeoutError" in caplog.text
    (place,) = (tmp_path / "study/result/wandb").iterdir()
    assert place.name.startswith("offline-run-")
    assert final_state(tmp_path / "study/result", "half")["exit_code"] == 0


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING, logger="patientdx"):
        assert send(blocked) is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("W&B recorded nothing (NotADirectoryError")
    assert message.endswith("the results on disk are complete")
    assert str(tmp_path) not in message


def test_a_run_that_breaks_half_way_is_closed(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="patientdx"):
        assert send(tmp_path, fingerprint="broken", curves={"mortality/roc": [("x", "y")]}) is None
    assert "ValueError" in caplog.text
    assert send(tmp_path, fingerprint="broken") == "broken"
    assert final_state(tmp_path / "study/result", "broken")["exit_code"] == 0
