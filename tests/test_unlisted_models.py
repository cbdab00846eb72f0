"""base_model=<folder> and pivot_model=<org>/<name>, without a yaml."""

import json
import shutil

import pytest
from command_line import forked, rows_of, small

from patientdx.checkpoints.model_card import describe
from patientdx.checkpoints.source import ModelSource
from patientdx.cli.compose import configuration
from patientdx.core.errors import UserError


@pytest.fixture
def models(tiny_base, tiny_pivot, tmp_path):
    """Copies of the tiny models under names, the pivot with a card."""
    for name, folder in (("clinic-base.v1", tiny_base), ("tuned", tiny_pivot)):
        shutil.copytree(folder, tmp_path / "models" / name)
    card = "---\nlicense: mit\nbase_model: meta-llama/Llama-3.1-8B\n---\n# Tuned\n"
    (tmp_path / "models" / "tuned" / "README.md").write_text(card)
    return tmp_path / "models"


def test_name_licence_ancestor_and_template_come_from_the_folder(models):
    folder = models / "tuned"
    assert describe(str(folder), "pivot_model") == ModelSource(
        "tuned", str(folder), licence="mit", ancestor="llama_3_1_8b", chat_template=True
    )
    (folder / "README.md").unlink()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert describe(str(folder), "pivot_model") == ModelSource("tuned", str(folder), chat_template=False)


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_stands_for_a_yaml(models, ending):
    words = [f"base_model={models / 'clinic-base.v1'}{ending}", f"pivot_model={models / 'tuned'}{ending}"]
    config = configuration([*words, "task=none", "dry_run=true", "base_model.licence=apache-2.0"]).merge_config
    assert (config.base.name, config.base.source) == ("clinic-base.v1", str(models / "clinic-base.v1"))
    assert (config.base.licence, config.pivot.licence) == ("apache-2.0", "mit")


def test_the_ancestor_can_be_a_folder_too_and_is_asked_for_by_name(models):
    words = [
        f"base_model={models / 'clinic-base.v1'}",
        f"pivot_model={models / 'tuned'}",
        "merge=ties",
        "task=none",
        "dry_run=true",
    ]
    with pytest.raises(UserError, match=r"set base_model@ancestor=<its yaml>"):
        configuration([*words, "pivot_model.ancestor=null"])
    config = configuration([*words, f"base_model@ancestor={models / 'clinic-base.v1'}"]).merge_config
    assert config.ancestor is not None
    assert config.ancestor.name == "clinic-base.v1"


def test_an_adapter_is_applied_to_the_model_that_it_names(models, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(models / "tuned")}))
    with pytest.raises(UserError, match=r"no config\.json, so there is no model in it, and no LoRA adapter"):
        describe(str(folder), "base_model")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    model = describe(str(folder), "base_model")
    assert (model.name, model.source, model.adapter) == ("adapter", str(models / "tuned"), str(folder))
    assert model.chat_template


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/folder", r"base_model=/no/such/folder: there is no such folder or file"),
        ("no-org/no-model", r"no-org/no-model is not in the hub cache of this machine and cannot be fetched"),
    ],
)
def test_what_is_no_model_is_refused_with_what_can_be_given(source, message):
    with pytest.raises(UserError, match=message):
        configuration([f"base_model={source}", "task=none", "dry_run=true"])


def test_a_sweep_over_folders_runs(models, tmp_path):
    words = [word for word in small(models, models) if "model." not in word]
    base, pivot = models / "clinic-base.v1", models / "tuned"
    words += [f"base_model={base}", f"pivot_model={pivot},{base}", "lambda=0.4", f"output={tmp_path / 'out'}"]
    (done,) = forked(tmp_path, [["-m", *words]])
    assert done.returncode == 0, done.stderr
    pairs = {(row["base"], row["pivot"]) for path in (tmp_path / "out").glob("default/*/metrics.json")
             for row in rows_of(path.parent)}  # fmt: skip
    assert pairs == {("clinic-base.v1", "tuned"), ("clinic-base.v1", "clinic-base.v1")}
