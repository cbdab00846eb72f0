"""conf/finetune as a run takes it: typed, and refused in one message where it cannot be."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import parsed as given

from patientdx.core.functions import Call
from patientdx.evaluation import finetuned
from patientdx.evaluation.kinds import PromptSpec


def test_nothing_is_trained_unless_asked_for():
    assert given().finetune is None


def test_the_yamls_say_what_is_trained_and_how():
    lora, full = given("finetune=lora").finetune, given("finetune=full", "seed=3").finetune
    assert (lora.init_from, lora.split, lora.examples) == ("base", "train", None)
    assert (lora.hyperparameters.method, lora.hyperparameters.rank, lora.hyperparameters.alpha) == ("lora", 8, 16.0)
    assert lora.hyperparameters.targets[:2] == ("q_proj", "k_proj")
    assert (
        full.hyperparameters.method,
        full.hyperparameters.rank,
        full.hyperparameters.targets,
        full.hyperparameters.seed,
    ) == ("full", None, None, 3)
    assert given("finetune=lora", "finetune.split=test").finetune.split == "test"


@pytest.mark.parametrize(("supported", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_automatic_precision_is_what_the_processor_computes_in(monkeypatch, supported, precision):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    finetune = given("finetune=lora", "finetune.precision=auto", "device=cpu").finetune
    assert finetune.hyperparameters.precision == precision


def test_shorter_prompts_of_training_are_rendered_as_those_of_scoring(monkeypatch):
    spec = PromptSpec(
        Path("model"), True, Call("builtins.dict", "{}"), 4096, '{"enable_thinking": false}', 8192, "test", 420
    )
    monkeypatch.setattr(finetuned, "prompts_of", lambda session, kind, spec: spec)
    context = SimpleNamespace(kind=SimpleNamespace(training_limit=lambda longest, most: longest), spec=spec)
    shorter = finetuned._prompts(None, SimpleNamespace(max_tokens=64), context)
    assert shorter == PromptSpec(Path("model"), True, spec.task, 64, '{"enable_thinking": false}', None, "test", 420)
