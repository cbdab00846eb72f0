"""The weights of a model that was read from its public source are refused in a folder that gives them another name."""

import shutil

import pytest
from command_line import forked, small, tiny

from patientdx.checkpoints.known_models import FOLDER, check_name
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource
from patientdx.core.errors import UserError
from patientdx.evaluation.session import open_parents


@pytest.fixture
def known(tiny_base, tmp_path):
    """A cache in which the tiny base is known as org/known-1b."""
    check_name(ModelSource("known-1b", "org/known-1b", "main"), Checkpoint(tiny_base), tmp_path / "cache")
    return tmp_path / "cache"


def test_a_folder_with_another_name_is_refused_and_both_names_are_said(known, tiny_base, tiny_pivot):
    with pytest.raises(UserError, match=rf"^mine \({tiny_base}\) holds the weights of known-1b, as org/known-1b has"):
        check_name(ModelSource("mine", str(tiny_base)), Checkpoint(tiny_base), known)
    check_name(ModelSource("mine", str(tiny_pivot)), Checkpoint(tiny_pivot), known)  # weights that nobody knows


@pytest.mark.parametrize("name", ["known-1b", "unknown_base"])
def test_its_name_and_none_are_taken(known, tiny_base, name):
    check_name(ModelSource(name, str(tiny_base)), Checkpoint(tiny_base), known)


def test_a_second_public_name_counts_too(known, tiny_base):
    check_name(ModelSource("mirror", "other/mirror"), Checkpoint(tiny_base), known)
    check_name(ModelSource("mirror", str(tiny_base)), Checkpoint(tiny_base), known)
    check_name(ModelSource("known-1b", str(tiny_base)), Checkpoint(tiny_base), known)
    with pytest.raises(UserError, match="the weights of known-1b or mirror"):
        check_name(ModelSource("mine", str(tiny_base)), Checkpoint(tiny_base), known)


def test_neither_shards_nor_the_files_beside_the_weights_make_another_model(known, tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "copy")
    (folder / "README.md").write_text("# Mine\n")
    (folder / "generation_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds the weights of known-1b"):
        check_name(ModelSource("Mine", str(folder)), Checkpoint(folder), known)


def test_every_byte_of_what_is_remembered_is_covered(known, tiny_base, caplog):
    (file,) = (known / FOLDER).iterdir()
    content = file.read_bytes()
    for at in range(0, len(content), 7):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        caplog.clear()
        check_name(ModelSource("mine", str(tiny_base)), Checkpoint(tiny_base), known)
        assert "is damaged and is not believed" in caplog.text


def test_a_local_folder_teaches_nothing(tiny_base, tmp_path):
    check_name(ModelSource("mine", str(tiny_base)), Checkpoint(tiny_base), tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_by_the_command(known, tiny_base, tiny_pivot, tmp_path):
    named = ["base_model.name=Impostor-1B", f"cache={known}", "lambda=0.4"]
    commands = [[*tiny(tiny_base, tiny_pivot), "task=none", "save=merged", *named],
                [*small(tiny_base, tiny_pivot), *named]]  # fmt: skip
    for run in forked(tmp_path, commands, models_may_load=False):
        assert run.returncode == 2
        assert f"Impostor-1B ({tiny_base}) holds the weights of known-1b" in run.stderr
    assert not (tmp_path / "merged").exists()
    assert not list(tmp_path.glob("outputs/*/*/metrics.json"))


def test_an_ancestor_is_checked_too(known, tiny_base, tiny_pivot, make_tiny):
    models = tuple(ModelSource(folder.name, str(folder)) for folder in (make_tiny(noise_seed=2), tiny_pivot))
    parents = open_parents(models, known, ModelSource("mine", str(tiny_base)))
    with pytest.raises(UserError, match=r"^mine .* holds the weights of known-1b"):
        _ = parents.ancestor_hash
