"""The command that writes a task's labels and splits as MEDS files."""

from pathlib import Path

import pyarrow.parquet
import pytest
from command_line import ROOT, forked

from patientdx.cli.labels import labels, main
from patientdx.core.errors import UserError


def test_the_command_takes_what_run_takes(session_cache, tmp_path):
    message = labels(tmp_path, ["task=length_of_stay", "task.days=7", f"cache={session_cache}"])
    assert message[0] == f"written: {tmp_path / 'labels/length_of_stay.parquet'}"
    rows = pyarrow.parquet.read_table(tmp_path / "labels/length_of_stay.parquet")
    assert message[-1] == f"{len(rows)} examples. The data is open."
    assert set(rows["boolean_value"].to_pylist()) == {True, False}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task=none", "save=/tmp/merged"], "task=none has no labels: choose another task."),
        (["task=sepsis"], "In 'config': Could not find 'task/sepsis'"),
    ],
)
def test_what_is_no_task_is_refused(tmp_path, overrides, expected):
    with pytest.raises(UserError) as refused:
        labels(tmp_path / "out", [f"cache={tmp_path}", *overrides])
    assert str(refused.value).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_and_what_is_wrong(session_cache, tmp_path, capsys):
    with pytest.raises(SystemExit) as shown:
        main(["--help"])
    assert (shown.value.code, "credentialed" in capsys.readouterr().out) == (0, True)
    assert main([str(tmp_path), "task=mortality", "+task.beds=3"]) == 2
    assert "task.beds: ClinicalTask has no such parameter" in capsys.readouterr().err


def test_the_command_runs_on_its_own(session_cache, tmp_path):
    program = ROOT / "patientdx/cli/labels.py"
    (done,) = forked(tmp_path, [[str(tmp_path), "task=mortality"]], program=program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == [
        f"written: {Path(tmp_path) / name}"
        for name in ("labels/mortality.parquet", "labels/mortality_stays.parquet", "metadata/subject_splits.parquet")
    ]
