import getpass
import socket
from pathlib import Path

import pytest

from patientdx.tracking.scrubbing import phrase, reason, scrubbed


@pytest.fixture
def machine(monkeypatch):
    """Names that cannot occur by chance, as the names of this machine and of who is at it."""
    monkeypatch.setattr(getpass, "getuser", lambda: "drwatsonjh")
    monkeypatch.setattr(socket, "gethostname", lambda: "bakerstreet221.example")


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


@pytest.mark.usefixtures("machine")
def test_a_name_and_a_reason_are_short_and_on_one_line():
    assert phrase("slerp\n task.data=/srv/x of drwatsonjh", 100) == "slerp task.data=<path> of <user>"
    assert phrase("x" * 9, 4) == "xxxx"
    assert reason(OSError("no room in /srv/x")) == "OSError: no room in <path>"
