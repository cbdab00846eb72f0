"""The rehearsal of a large pair, at its smallest shape."""

import json
from types import SimpleNamespace

import pytest

from experiments.benchmarks import rehearse
from patientdx.core.errors import UserError


def test_a_rehearsal_merges_verifies_and_scores(tiny_base, tmp_path, capsys):
    words = ("--shape=2M", "--records=8", "--weight=0.5", f"--work={tmp_path}", f"--tokenizer={tiny_base}")
    rehearse.main(words)
    shown = capsys.readouterr()
    steps = [line.split("\t") for line in shown.err.splitlines()]
    assert [step[0] for step in steps] == ["merge to disk", "verify", "score 8 records"]
    assert all(float(anonymous) > 0 < float(resident) for *_, anonymous, resident in steps)
    assert "2M, random weights, dtype=auto" in shown.out
    (metrics,) = (tmp_path / "outputs").glob("*/*/metrics.json")
    (row,) = json.loads(metrics.read_text())["rows"]
    assert (row["lambda"], row["n"]) == (0.5, 8)


def test_a_rehearsal_without_room_is_refused_before_a_parent_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearse.shutil, "disk_usage", lambda folder: SimpleNamespace(free=40e9))
    with pytest.raises(UserError, match=r"8\.03B needs 48\.2 GB in .*, which has 40\.0 GB free: set --work\."):
        rehearse.main(["--shape=8.03B", f"--work={tmp_path}"])
    assert list(tmp_path.iterdir()) == []
