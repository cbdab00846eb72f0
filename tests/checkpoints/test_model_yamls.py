"""The models that can be chosen by name: the cards of conf/models, which base_model and pivot_model select from."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import REPOSITORY, ModelSource

GROUPS = {group: sorted((REPOSITORY / "conf" / group).glob("*.yaml")) for group in ("base_model", "pivot_model")}
FILES = sorted((REPOSITORY / "conf" / "models").glob("*.yaml"))

# Shapes of the architectures, from which the sizes in the yamls follow:
# vocabulary, width, layers, width of the keys, width of the middle, and whether the head is the embedding.
SHAPES = {
    "smollm2_135m": (49_152, 576, 30, 192, 1_536, True),
    "mistral": (32_000, 4_096, 32, 1_024, 14_336, False),
    "llama": (128_256, 4_096, 32, 1_024, 14_336, False),
    "openbiollm": (128_256, 4_096, 32, 1_024, 14_336, False),
}


def parameters(vocabulary, width, layers, keys, middle, tied):
    layer = 2 * width * width + 2 * width * keys + 3 * width * middle + 2 * width
    return vocabulary * width * (1 if tied else 2) + layers * layer + width


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def test_the_models_of_the_papers_are_there():
    base = {file.stem for file in GROUPS["base_model"]}
    pivot = {file.stem for file in GROUPS["pivot_model"]}
    assert {
        "smollm2_135m_instruct",
        "mistral_7b_instruct_v0_1",
        "mistral_7b_instruct_v0_2",
        "llama_3_8b_instruct",
        "llama_3_1_8b_instruct",
        "biomistral_7b",
        "thealth_mistral_7b",
        "openbiollm_8b",
    } <= base
    assert {
        "smollm2_135m_numeric",
        "dart_math_mistral_7b_uniform",
        "dart_math_mistral_7b_prop2diff",
        "dart_math_llama3_8b_uniform",
        "dart_math_llama3_8b_prop2diff",
        "metamath_mistral_7b",
        "biomistral_7b",
        "thealth_mistral_7b",
        "openbiollm_8b",
        "gatortron_llama",
    } <= pivot


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_yaml_is_a_model_source(file):
    text = file.read_text()
    content = yaml.safe_load(text)
    roles = [f"{group}={file.stem}" for group in GROUPS]
    assert text.splitlines()[0] in (
        f"# python run.py {roles[0]}    or {roles[1]}",
        *(f"# python run.py {role}" for role in roles),
    )
    # All keys, so that each can be overridden on the command line without a plus sign.
    assert list(content) == [field.name for field in fields(ModelSource)]
    model = ModelSource(**content)
    assert model.name == file.stem
    assert isinstance(model.chat_template, bool)
    assert model.ancestor is None or (REPOSITORY / "conf" / "models" / f"{model.ancestor}.yaml").is_file()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_memory_is_two_bytes_a_parameter(file):
    content = yaml.safe_load(file.read_text())
    family = [shape for key, shape in SHAPES.items() if key in file.stem]
    assert len(family) == 1
    count = parameters(*family[0])
    assert content["memory_gb"] == pytest.approx(count * 2 / 1e9, abs=0.005)
    assert f"{count:,} parameters x 2 bytes / 1e9".replace(",", " ") in file.read_text()


def test_every_card_can_be_chosen_in_both_roles():
    for files in GROUPS.values():
        assert [file.resolve() for file in files] == FILES


def test_the_default_base_is_as_large_as_its_yaml_says(smollm2):
    content = yaml.safe_load((REPOSITORY / "conf" / "models" / "smollm2_135m_instruct.yaml").read_text())
    stored = sum(header.nbytes for header in Checkpoint(smollm2).tensors.values())
    assert content["memory_gb"] == pytest.approx(stored / 1e9, abs=0.0005)
