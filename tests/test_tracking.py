import getpass
import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from patientdx import tracking
from patientdx.refusal import Refusal
from patientdx.tracking import TrackingSettings, scrubbed, track

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
    "mortality/auroc": 0.71234567890123,
    "mortality/auroc_ci_low": 0.62,
    "mortality/auroc_ci_high": 0.79,
    "mortality/n": 68,
    "dtype": "bfloat16",
    "note": SENTENCE,
}
CURVES = {"mortality/roc": [(0.0, 0.0), (0.25, 0.75), (1.0, 1.0)], "mortality/pr": [(0.0, 1.0), (1.0, 0.125)]}


def send(folder: Path, **changed):
    arguments = {
        "settings": TrackingSettings(project="study", tags=("demo",)),
        "fingerprint": "a1b2c3d4e5f6",
        "name": f"slerp lambda=0.4 task.mimic_root={PLANTED_PATH}",
        "group": "sweep-7",
        "job_type": "mortality",
        "tags": ["slerp", "smollm2"],
        "config": CONFIG,
        "summary": SUMMARY,
        "curves": CURVES,
        "folder": folder,
    }
    return track(**{**arguments, **changed})


def inspect(folder: Path, run_id: str, *options: str) -> str:
    """What wandb's own reader says about the run of that id."""
    (place,) = (folder / "wandb").glob(f"*run-*-{run_id}")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(place)]
    with tempfile.TemporaryDirectory() as away:  # it leaves a diary in ./wandb where there is one
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=away).stdout


def run_record(folder: Path, run_id: str) -> dict:
    records = [json.loads(line) for line in inspect(folder, run_id).splitlines()]
    (run,) = (record["run"] for record in records if record["type"] == "run")
    return run


def final_state(folder: Path, run_id: str) -> dict:
    return json.loads(inspect(folder, run_id, "--summary"))


@pytest.fixture
def machine(monkeypatch):
    """Names that cannot occur by chance, as the names of this machine and of who is at it."""
    monkeypatch.setattr(getpass, "getuser", lambda: "drwatsonjh")
    monkeypatch.setattr(socket, "gethostname", lambda: "bakerstreet221.example")


@pytest.mark.usefixtures("machine")
def test_an_offline_run_says_everything_but_who_and_where(tmp_path):
    config = {**CONFIG, "owner": "drwatsonjh", "node": "bakerstreet221", "study": "study of drwatsonjh"}
    assert send(tmp_path, config=config) == "a1b2c3d4e5f6"
    run, state = run_record(tmp_path, "a1b2c3d4e5f6"), final_state(tmp_path, "a1b2c3d4e5f6")
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
        (file,) = (tmp_path / "wandb").glob(f"*/files/{chart['path']}")
        assert json.loads(file.read_text())["data"] == [list(point) for point in points]
    files = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert len(files) == 3  # the log and two tables: no code, no console, no packages, no diary
    written = b"".join(path.read_bytes() for path in files)
    planted = [
        "zebrawood",
        "Quillfeather",
        "unresponsive",
        "drwatsonjh",
        "bakerstreet",
        str(tmp_path),
        str(Path.cwd()),
    ]
    assert [word for word in planted if word.encode() in written] == []
    for name in {getpass.getuser(), Path.home().name, socket.gethostname(), os.uname().nodename} - {""}:
        assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)".encode(), written)
    # The log is not compressed: a search of its bytes does find what is there.
    assert b"mortality/auroc_ci_low" in written


def test_several_runs_in_one_process_and_a_repeat_replaces(tmp_path):
    for index in range(3):
        assert send(tmp_path, fingerprint=f"run{index}", summary={"mortality/auroc": index / 10})
    assert send(tmp_path, fingerprint="run1", summary={"mortality/auroc": 0.9})
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 3
    found = {f"run{index}": final_state(tmp_path, f"run{index}")["summary"] for index in range(3)}
    assert [found[name]["mortality/auroc"] for name in sorted(found)] == [0.0, 0.9, 0.2]


def test_wandb_writes_only_into_the_given_folder(tmp_path, monkeypatch):
    """In a process of its own: wandb's service inherits the environment at its first start."""
    home, out, elsewhere = (tmp_path / name for name in ("home", "out", "elsewhere"))
    home.mkdir()
    elsewhere.mkdir()
    code = (
        "from pathlib import Path; from patientdx.tracking import *; "
        "print(track(TrackingSettings(), fingerprint='f', name='n', group='g', job_type='j', "
        f"tags=[], config={{}}, summary={{'a': float('nan')}}, curves={{'roc': [(0, 0), (1, 1)]}}, "
        f"folder=Path({str(out)!r})))"
    )
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("f\n", "")
    assert [path.name for path in out.iterdir()] == ["wandb"]
    assert list(home.rglob("*")) == []
    assert list(elsewhere.rglob("*")) == []


@pytest.mark.parametrize("key", ["a" * 40, None], ids=["no network", "no key"])
def test_online_without_network_or_key_records_offline_and_warns_once(tmp_path, monkeypatch, caplog, key):
    monkeypatch.setattr(tracking, "_INIT_SECONDS", 1.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_API_KEY", key) if key else monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with caplog.at_level(logging.WARNING, logger="patientdx"):
        assert send(tmp_path, settings=TrackingSettings(mode="online"), fingerprint="out") == "out"
    (record,) = (record for record in caplog.records if record.name == "patientdx.tracking")
    assert record.getMessage().startswith("W&B could not be reached (")
    assert "wandb sync" in record.getMessage()
    (place,) = (tmp_path / "wandb").iterdir()
    assert place.name.startswith("offline-run-")
    assert final_state(tmp_path, "out")["summary"]["mortality/auroc"] == SUMMARY["mortality/auroc"]


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING, logger="patientdx"):
        assert send(blocked) is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("W&B recorded nothing (FileExistsError")
    assert message.endswith("the results on disk are complete")
    assert str(tmp_path) not in message


def test_a_run_that_breaks_half_way_is_closed(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="patientdx"):
        assert send(tmp_path, fingerprint="broken", curves={"mortality/roc": [("x", "y")]}) is None
    assert "ValueError" in caplog.text
    assert send(tmp_path, fingerprint="broken") == "broken"
    assert final_state(tmp_path, "broken")["exit_code"] == 0


def test_none_does_not_import_wandb(tmp_path):
    code = (
        "import sys; from pathlib import Path; from patientdx.tracking import *; "
        "print(track(TrackingSettings(mode='none'), fingerprint='f', name='n', group='g', job_type='j', "
        "tags=[], config={}, summary={}, curves={}, folder=Path('never')), 'wandb' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "None False\n"
    assert not (root / "never").exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data/mimic", "<path>"),
        ("~/mimic", "<path>"),
        ("~alice/mimic", "<path>"),
        (r"C:\Users\alice", "<path>"),
        (r"\\server\share", "<path>"),
        ("file:///data", "<path>"),
        ("[/data/a,/data/b]", "<path>"),
        (Path("/data"), "<path>"),
        ("mg/dL", "mg/dL"),
        ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
        ("https://example.org/model", "https://example.org/model"),
        ("three words only", "three words only"),
        ("died of sepsis yesterday", "<text of 24 characters>"),
        ("HR 81\nBP 90", "<text of 11 characters>"),
        ("x" * 201, "<text of 201 characters>"),
        ([True, 1, 0.5, None], [True, 1, 0.5, None]),
        ({"output_dir": "a", "paths": "b", "root": "c", "layout": "d"}, {"layout": "d"}),
        (object(), "<object>"),
    ],
)
def test_scrubbing(value, expected):
    assert scrubbed(value) == expected


@pytest.mark.usefixtures("machine")
def test_names_of_people_and_machines_are_whole_words():
    assert scrubbed("drwatsonjh") == "<user>"
    assert scrubbed("by drwatsonjh-2") == "by <user>-2"
    assert scrubbed("drwatsonjhx") == "drwatsonjhx"
    assert scrubbed("bakerstreet221.example") == "<host>"


def test_settings_and_their_yaml():
    with pytest.raises(Refusal, match=r"tracking\.mode=wandb does not exist; it is one of offline, online, none"):
        TrackingSettings(mode="wandb")
    modes = {}
    for file in (Path(__file__).parents[1] / "conf" / "tracking").glob("*.yaml"):
        assert file.read_text().startswith("# python run.py")
        modes[file.stem] = TrackingSettings(**yaml.safe_load(file.read_text())).mode
    assert {key: modes[key] for key in ("wandb_offline", "wandb", "none")} == {
        "wandb_offline": "offline",
        "wandb": "online",
        "none": "none",
    }
