"""What is checked before a launcher starts processes, and as a command."""

import re
from pathlib import Path

import pytest
from command_line import CONSOLE, PILOT, ROOT, TEST, forked, small, tiny
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from patientdx.cli import preflight, sweep_points
from patientdx.core.errors import UserError


def check(output: Path, words: list[str], *points: list[str]) -> None:
    """The check of a sweep over these points, each beside the words that all share."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [*words, f"output={output}"], return_hydra_config=True)
        with open_dict(config.hydra):
            config.hydra.job.config_name = "config"
        preflight.check(config, [[*words, f"output={output}", *point] for point in points], sweep=True)


def test_data_models_licences_disk_and_a_prompt_are_shown(make_tiny, tiny_pivot, tmp_path, capsys):
    base = make_tiny()
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    check(tmp_path, small(base, tiny_pivot), ["lambda=0.1"], ["lambda=0.2"], ["lambda=7"])
    shown = capsys.readouterr().out
    assert f"data    task=mortality, examples: pilot {PILOT}, test {TEST}; open\n" in shown
    assert re.search(r"models  \w+, licence apache-2.0; \w+, licence not stated: clarify it before", shown)
    assert f"output={tmp_path / 'default'} has " in shown
    assert shown.count("prompt  ") == 1  # two points need the same, and the third is refused
    assert "of 4,096 at most" in shown or "of 2,048 at most" in shown
    assert "<|im_start|>assistant" in shown  # as the model gets it
    assert "run 2 (lambda=7) will be refused: 1 problem in this configuration\n  lambda=7 is outside [0, 1]" in shown
    assert "checked: 2 of 3 can run\n" in shown
    assert not list(tmp_path.rglob("*.parquet"))


def test_no_text_of_data_that_are_not_open(tiny_base, tiny_pivot, tmp_path, capsys):
    file = tmp_path / "notes.csv"
    rows = [f"secretword {n},{n % 2},p{n},{'pilot' if n < 4 else 'test'}" for n in range(8)]
    file.write_text("\n".join(["text,label,patient_id,split", *rows]) + "\n")
    words = [*tiny(tiny_base, tiny_pivot), "task=yes_no", f"task.path={file}", "task.question='Is it?'"]
    check(tmp_path / "out", words, ["lambda=0.1"])
    shown = capsys.readouterr().out
    assert "not declared open: no text of it is shown" in shown
    assert " tokens, of " in shown
    assert "secretword" not in shown


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("base_model.source=/models/absent", "/models/absent"),
        ("task.mimic_root=/data/absent", "/data/absent"),
        ("output=/proc/none", "/proc/none"),
    ],
)
def test_what_every_point_lacks_is_one_message(tiny_base, tiny_pivot, tmp_path, word, message):
    with pytest.raises(UserError) as error:
        check(tmp_path, small(tiny_base, tiny_pivot), ["lambda=0.1", word], ["lambda=0.2", word])
    assert message in str(error.value)
    assert "will be refused" not in str(error.value)
    assert "\n\n" not in str(error.value)


def test_nothing_is_started_where_no_point_can_run(tiny_base, tiny_pivot, tmp_path):
    words = [*small(tiny_base, tiny_pivot), "task.mimic_root=/data/absent", "hydra/launcher=submitit_local", "chunks=2"]
    (done,) = forked(tmp_path, [["-m", *words, "lambda=0.1,0.2,0.3"]])
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("MIMIC-IV tables are incomplete: no folder /data/absent") == 1
    assert not list(tmp_path.rglob("*.pkl"))
    assert not list(tmp_path.rglob(".sweeps/*"))


def test_the_command_ends_before_anything_is_scored(tiny_base, tiny_pivot, tmp_path):
    words = ["preflight", "-m", *small(tiny_base, tiny_pivot), "lambda=0.1,0.2", "chunks=2"]
    (done,) = forked(tmp_path, [words], program=CONSOLE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("checked: 2 of 2 can run\n")
    assert not list(tmp_path.rglob("scores")) + list(tmp_path.rglob("sweep.csv"))


@pytest.mark.parametrize(("points", "chunks", "sizes"), [(22, 8, {2, 3}), (3, 8, {1}), (5, 1, {5})])
def test_chunks_are_neighbours_of_nearly_one_size(points, chunks, sizes, tmp_path):
    words = [["merge=slerp", f"lambda={number}"] for number in range(points)]
    *first, swept = sweep_points.split(words, chunks, tmp_path)
    assert first == words[0]
    count = len(swept.split(","))
    assert swept == "+chunk=" + ",".join(map(str, range(min(points, chunks))))
    parts = [sweep_points.chunk_of(OmegaConf.create({"chunk": number}), tmp_path) for number in range(count)]
    assert {len(part) for part in parts} == sizes
    assert [one for part in parts for one in part] == list(enumerate(words))


def test_a_chunk_of_a_sweep_that_has_ended_says_so(tmp_path):
    with pytest.raises(UserError, match="the command that started this sweep has ended"):
        sweep_points.chunk_of(OmegaConf.create({"chunk": 0}), tmp_path / "gone")
