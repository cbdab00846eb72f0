import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from patientdx.evaluation.config.tracking import TrackingConfig
from patientdx.tracking import track, trackio_run

SUMMARY = {"lambda": 0.4, "mortality/auroc": 0.71234567890123, "mortality/slope": float("nan"), "dtype": "bfloat16"}
# Put first on a Python's path it notes whoever looks for another machine.
WATCH = """
import os, socket
def _watched(function):
    def noted(*arguments, **options):
        with open(os.environ["NOTED"], "a") as notes:
            print(arguments, file=notes)
        return function(*arguments, **options)
    return noted
socket.getaddrinfo = _watched(socket.getaddrinfo)
class _Socket(socket.socket):
    connect = _watched(socket.socket.connect)
socket.socket = _Socket
"""


def send(output: Path, **changed):
    folder = output / "study" / "result"
    arguments = {
        "tracking": TrackingConfig(tracking={"mode": "trackio", "project": "study"}),
        "fingerprint": "a1b2c3d4e5f6",
        "name": "mortality slerp λ=0.4",
        "group": "sweep-7",
        "job_type": "mortality",
        "tags": ["slerp"],
        "config": {"lambda": 0.4, "merge": {"name": "slerp"}, "cache": "/srv/zebrawood", "note": "of /srv/zebrawood"},
        "summary": SUMMARY,
        "curves": {},
        "folder": folder,
        "output": output,
        "predictions": folder / "predictions.parquet",
        "open_data": False,
    }
    return track(**{**arguments, **changed})


def table(output: Path, name: str) -> list[dict]:
    """The rows of a table of the database, JSON unpacked."""
    with sqlite3.connect(output / "trackio/study.db") as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute(f"select * from {name}")]
    database.close()
    return [row | {key: json.loads(row[key]) for key in ("config", "metrics") if key in row} for row in rows]


@pytest.fixture
def watched(tmp_path, monkeypatch) -> Path:
    """A file that notes every look for another machine; a home without files, a token and a place to send to."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_zebrawood")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9/?write_token=x")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "noted"


def test_a_run_is_in_a_database_below_the_output_folder_and_nowhere_else(tmp_path, watched, capfd):
    output = tmp_path / "out"
    assert send(output) == "a1b2c3d4e5f6"
    assert capfd.readouterr() == ("", "")
    assert not watched.exists()
    assert list((tmp_path / "home").rglob("*")) == []
    assert [path.name for path in output.iterdir()] == ["trackio"]
    (row,), (told,) = table(output, "metrics"), table(output, "configs")
    assert row["run_name"] == "mortality slerp λ=0.4 a1b2c3d4"
    assert row["metrics"] == {"lambda": 0.4, "mortality/auroc": 0.71234567890123, "mortality/slope": "NaN"}
    config = {key: value for key, value in told["config"].items() if key != "_Created"}
    assert config == {
        "lambda": 0.4,
        "merge": {"name": "slerp"},
        "note": "<path>",
        "id": "a1b2c3d4e5f6",
        "job_type": "mortality",
        "tags": ["slerp"],
        "_Username": None,
        "_Group": "sweep-7",
    }
    written = b"".join(path.read_bytes() for path in output.rglob("*") if path.is_file())
    assert [word for word in ("zebrawood", str(tmp_path), tmp_path.name) if word.encode() in written] == []
    # The watch does note.
    look = "import socket; socket.socket().connect_ex; socket.getaddrinfo('127.0.0.1', 9)"
    subprocess.run([sys.executable, "-c", look], env=os.environ, check=True)
    assert "127.0.0.1" in watched.read_text()


def test_a_repeat_replaces_and_others_stay(tmp_path):
    send(tmp_path)
    send(tmp_path, fingerprint="other", name="mortality slerp λ=0.6", summary={"mortality/auroc": 0.5})
    send(tmp_path, summary={"mortality/auroc": 0.9})
    found = {row["run_name"]: row["metrics"] for row in table(tmp_path, "metrics")}
    assert len(table(tmp_path, "configs")) == len(table(tmp_path, "metrics")) == 2
    assert found == {
        "mortality slerp λ=0.4 a1b2c3d4": {"mortality/auroc": 0.9},
        "mortality slerp λ=0.6 other": {"mortality/auroc": 0.5},
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"tracking": TrackingConfig(tracking={"mode": "trackio", "project": "registry-x"})},
            "names beginning with 'registry-'",
        ),
        ({"seconds": 0.01}, "OSError: trackio did not end within 0 seconds"),
    ],
)
def test_what_goes_wrong_costs_one_warning(tmp_path, monkeypatch, caplog, changed, said):
    monkeypatch.setattr(trackio_run, "_SECONDS", changed.pop("seconds", 60.0))
    with caplog.at_level(logging.WARNING, logger="patientdx"):
        assert send(tmp_path, **changed) is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("trackio recorded nothing (OSError: ")
    assert said in message
    assert message.endswith("the results on disk are complete")
