"""save=, dry_run= and mergekit_config= on the command line: merges to disk without and beside a task."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from command_line import CONSOLE, forked, launch, small, the_one, without_task
from merged_folders import recipe_of, tree
from safetensors.torch import load_file, save_file

from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.save import save


@pytest.fixture(scope="module")
def arguments(tiny_base, tiny_pivot) -> list[str]:
    return [*small(tiny_base, tiny_pivot), "lambda=0.3"]


@pytest.fixture(scope="module")
def merge_only(arguments) -> list[str]:
    return without_task(arguments)


@pytest.fixture(scope="module")
def merged(place, merge_only) -> subprocess.CompletedProcess:
    """A merge to disk and nothing else."""
    (done,) = forked(place, [[*merge_only, "save=merged"]])
    assert done.returncode == 0, done.stderr
    return done


def weights(folder: Path) -> dict[str, bytes]:
    found = Checkpoint(folder)
    return {name: found.read_bytes(name).numpy().tobytes() for name in found.tensors}


def test_a_merge_to_disk_is_the_merge_of_its_parents(merged, place, tiny_base, tiny_pivot, session_cache, tmp_path):
    assert merged.stdout == f"merged model: {place / 'merged'}\n"
    assert not [path for path in place.glob("outputs/**/*") if path.is_file()]
    other = save(recipe_of(tiny_base, tiny_pivot, weight=0.3), tmp_path / "other", cache=session_cache)
    assert weights(place / "merged") == weights(other)
    assert json.loads((place / "merged/provenance.json").read_text())["lambda"] == 0.3


def test_again_it_is_left_as_it_is_and_another_lambda_is_refused(merged, place, merge_only):
    before = tree(place / "merged")
    again, other = forked(place, [[*merge_only, *more, "save=merged"] for more in ([], ["lambda=0.7"])])
    assert (again.returncode, again.stdout) == (0, merged.stdout)
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr.startswith(f"{place / 'merged'} holds another merge (slerp λ=0.3 of ")
    assert tree(place / "merged") == before


def test_two_processes_write_the_same_bytes(merged, place, merge_only):
    (done,) = forked(place, [[*merge_only, "save=merged_by_two"]], processes=2)
    assert (done.returncode, done.stdout) == (0, f"merged model: {place / 'merged_by_two'}\n"), done.stderr
    assert weights(place / "merged_by_two") == weights(place / "merged")


@pytest.mark.usefixtures("merged")
def test_a_refusal_is_said_once_by_two_processes(place, merge_only):
    (done,) = forked(place, [[*merge_only, "lambda=0.7", "save=merged"]], processes=2)
    assert done.returncode != 0
    assert done.stderr.count("holds another merge") == 1


@pytest.fixture(scope="module")
def others(place, arguments, merge_only, tiny_base, tiny_pivot) -> dict[str, subprocess.CompletedProcess]:
    """Commands that differ from `merged` and need nothing of it."""
    models = [{"model": str(model)} for model in (tiny_base, tiny_pivot)]
    asked = {"merge_method": "slerp", "base_model": str(tiny_base), "models": models, "parameters": {"t": 0.3}}
    (place / "recipe.yml").write_text(yaml.safe_dump(asked | {"dtype": "bfloat16"}))
    commands = {
        "dry run": [*arguments, "dry_run=true", "save=nothing", "save_dtype=float16"],
        "both": [*arguments, "output=both", "save=saved_and_scored", "save_dtype=bfloat16"],
        "sweep": ["-m", *merge_only, "save=points/${lambda}", "lambda=0,0.5"],
        "recipe": ["mergekit_config=recipe.yml", "task=none", "save=by_recipe", "tracking=none"],
    }
    return dict(zip(commands, forked(place, list(commands.values())), strict=True))


def test_dry_run_says_what_it_takes_and_writes_nothing(others, place):
    done = others["dry run"]
    assert done.returncode == 0, done.stderr
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(said) == ["merge", "model", "vocabulary", "reads", "writes", "memory", "time"]
    assert said["merge"].startswith("slerp λ=0.3 of ")
    assert said["model"].endswith("float16")
    assert f"to {place / 'nothing'}" in said["writes"]
    assert not (place / "nothing").exists()
    assert not list(place.glob(".nothing*"))


def test_a_run_saves_and_scores(others, place):
    done = others["both"]
    assert done.returncode == 0, done.stderr
    assert the_one(place, "both/default/mortality_slerp_*").is_dir()
    stored = Checkpoint(place / "saved_and_scored")
    assert {str(header.dtype) for header in stored.tensors.values()} == {"torch.bfloat16"}
    assert stored.config["dtype"] == "bfloat16"


def test_what_cannot_be_scored_is_refused_before_anything_is_written(place, arguments):
    plain = [one for one in arguments if not one.startswith("tracking")]
    bad = {"tracking.project": ["tracking.project=a/b"], "nowhere": ["tracking=none", "task.mimic_root=nowhere"]}
    done = forked(place, [[*plain, *more, "save=never"] for more in bad.values()], models_may_load=False)
    for word, one in zip(bad, done, strict=True):
        assert (one.returncode, word in one.stderr) == (2, True), one.stderr
    assert not (place / "never").exists()


def test_a_sweep_saves_each_of_its_points(others, place):
    done = others["sweep"]
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (place / "points").iterdir()} == {"0", "0.5"}


def test_a_saved_merge_is_verified(merged, place, session_cache):
    del merged
    (done,) = forked(place, [["verify", str(place / "merged")]], program=CONSOLE)
    assert (done.returncode, done.stderr.replace("\r", "")) == (0, ""), done.stderr
    assert "bit for bit" in done.stdout


def test_a_mergekit_recipe_is_run(others, merged, place):
    del merged
    assert others["recipe"].returncode == 0, others["recipe"].stderr
    assert weights(place / "by_recipe") == weights(place / "merged")


def test_a_merge_to_disk_starts_without_a_model_library(place, merge_only):
    forked(place, [[*merge_only, "save=first"]])  # the architecture is checked once
    done = launch(place, *merge_only, "save=light", program=(sys.executable, "-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"torch", "hydra", "patientdx.cli.save"} <= imported
    heavy = {"transformers", "accelerate", "scipy", "sklearn", "wandb", "duckdb", "pandas", "matplotlib"}
    assert imported & heavy == set()


def _rename_all(tensors):
    return {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}


def _as_integers(tensors):
    return tensors | {"model.norm.weight": (tensors["model.norm.weight"].float() * 10).to(torch.int8)}


def _as_float8(tensors):
    return tensors | {"model.norm.weight": tensors["model.norm.weight"].to(torch.float8_e4m3fn)}


def _not_finite(tensors):
    return tensors | {"model.norm.weight": tensors["model.norm.weight"] * float("nan")}


@pytest.mark.parametrize(
    ("change", "both", "words"),
    [
        (_rename_all, True, "as those of torch.compile"),
        (_rename_all, False, "only in"),
        (_as_integers, False, "as int8"),
        (_as_float8, True, "as float8_e4m3fn"),
        (_not_finite, False, "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("way", [["save=merged"], []])
def test_weights_that_are_no_model_are_refused_alike_on_disk_and_in_memory(
    tiny_base, tiny_pivot, tmp_path, change, both, words, way
):
    folders = [shutil.copytree(source, tmp_path / name) for source, name in ((tiny_base, "a"), (tiny_pivot, "b"))]
    for folder in folders if both else folders[1:]:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})
    (ended,) = forked(tmp_path, [[*(without_task(small(*folders)) if way else small(*folders)), *way]])
    assert ended.returncode == 2
    said = ended.stderr + ended.stdout
    assert words in said or (words.startswith("as those") and "unknown to the model" in said)
    assert not (tmp_path / "merged").exists()


def test_a_head_that_config_promises_and_no_file_holds(tiny_base, tiny_pivot, tmp_path):
    folders = [shutil.copytree(source, tmp_path / name) for source, name in ((tiny_base, "a"), (tiny_pivot, "b"))]
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    (ended,) = forked(tmp_path, [[*without_task(small(*folders)), "save=merged"]])
    assert (ended.returncode, "random numbers (lm_head.weight)" in ended.stderr) == (2, True)
    assert not (tmp_path / "merged").exists()
