"""What a command says of words that are nearly right, and of folders and devices that it cannot take."""

import pytest
import torch
from command_line import forked, launch, small

from patientdx.cli.compose import configuration
from patientdx.core import progress as module
from patientdx.core.errors import UserError, meant
from patientdx.core.progress import progress
from patientdx.evaluation.session import Session


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("merge=slrp", "slerp"),
        ("task=mortalty", "mortality"),
        ("tsk=mortality", "task"),
        ("lamda=0.3", "lambda"),
        ("+lamda=0.3", "lambda"),
        ("task.windowhours=24", "window_hours"),
        ("+merge.colinear=0.9", "collinear"),
        ("scoring.batchtokens=64", "batch_tokens"),
        ("+tracking.proyect=mine", "project"),
        ("pivot_model.sorce=/models", "source"),
    ],
)
def test_a_word_that_is_nearly_right_is_named(word, name):
    with pytest.raises(UserError) as refused:
        configuration([word])
    assert str(refused.value).endswith(f"Did you mean {name}?")


def test_nothing_is_named_that_is_not_alike():
    assert meant("foo", ["lambda", "merge"]) == ""
    with pytest.raises(UserError) as refused:
        configuration(["+wholly_other=1"])
    assert str(refused.value).endswith("wholly_other: there is no such key.")


@pytest.mark.parametrize("word", ["lambda=0.1:0.5", "lambda=0:1:0.1"])
def test_a_range_with_colons_is_answered_with_the_right_one(word):
    with pytest.raises(UserError, match=r"add -m and write 'lambda=range\(0\.1,0\.51,0\.1\)'"):
        configuration([word])


def test_a_device_is_taken_where_the_machine_has_it(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device=cuda: this machine shows no such device\. Give auto or cpu\."):
        configuration(["device=cuda"])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert configuration(["device=cuda"]).inference.device == "cuda"
    with pytest.raises(UserError, match=r"device=mps: this machine shows no such device\. Give auto or cpu or cuda\."):
        configuration(["device=mps"])
    monkeypatch.undo()
    assert Session().accelerator("cpu").device.type == "cpu"


def test_folders_of_hydra_are_refused_before_anything_is_written(tiny_base, tiny_pivot, tmp_path):
    words = [*small(tiny_base, tiny_pivot), f"output={tmp_path / 'out'}"]
    commands = [
        [*words, f"hydra.run.dir={tmp_path / 'run'}"],
        ["-m", *words, "lambda=0.2,0.4", f"hydra.sweep.dir={tmp_path / 'sweep'}"],
    ]
    for done, key in zip(forked(tmp_path, commands), ("hydra.run.dir", "hydra.sweep.dir"), strict=True):
        assert done.returncode == 2
        assert f"Leave {key} out, and give output= and name=." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_flags_of_hydra_that_exclude_each_other_end_in_its_message(tmp_path):
    done = launch(tmp_path, "-m", "merge=slerp", "lambda=0.1,0.2", "--cfg", "hydra")
    message = "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_without_a_terminal_a_line_follows_every_so_many_seconds(monkeypatch, capsys):
    with progress(total=3, desc="scoring") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""  # it took no 30 seconds
    monkeypatch.setattr(module, "SECONDS", 0.0)
    with progress(range(3), desc="scoring", unit="prompt") as bar:
        assert list(bar) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("scoring: ") and "\r" not in line for line in lines)
    with progress(range(3), show=False) as bar:
        assert list(bar) == [0, 1, 2]
    assert capsys.readouterr().err == ""
