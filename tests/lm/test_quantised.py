"""Scoring with weights in int8 and int4: what is refused, and (where torchao is installed) what is scored and named."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from command_line import composed, launch, listed, parsed, small
from command_line import settings as scored
from in_process import plan, run, session
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from patientdx.checkpoints.save import save
from patientdx.core import extras
from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import parse
from patientdx.evaluation.inference import Timer, fill
from patientdx.evaluation.preflight import preflight
from patientdx.evaluation.session import Session
from patientdx.lm.quantised import Blank
from patientdx.reporting import runs
from patientdx.reporting.pages import page

torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed (make test-int8 runs it)"
)
CPU = torch.device("cpu")


@pytest.fixture
def present(monkeypatch):
    """As if torchao were installed; configurations do not import it."""
    monkeypatch.setattr(extras, "absence", lambda packages: None)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("load=int8 save=out", "load=int8: save and dry_run are about the merge before it is quantised."),
        ("load=int8 dry_run=true", "load=int8: save and dry_run are about the merge before it is quantised."),
        ("load=int4 task=none save=out", "load=int4: save and dry_run are about the merge before it is quantised."),
        ("load=int4 finetune=lora", "load=int4: finetune=lora trains weights in floating point."),
        ("load=int8 device_map=auto", "load=int8: a quantised model is on one device."),
    ],
)
def test_what_needs_weights_in_floating_point_is_refused(present, words, problem):
    with pytest.raises(UserError) as error:
        parsed(*words.split())
    assert [line for line in listed(error.value, "  ") if line.startswith(problem)]


def test_nothing_to_score_a_generator_and_a_device_of_their_own_are_refused(present):
    with pytest.raises(UserError) as error:
        parsed("load=int8", "task=none", "generator=vllm", "device=mps")
    problems = " ".join(listed(error.value, "  "))
    assert "task=none scores nothing" in problems
    assert "generator=vllm loads models itself" in problems
    assert "not on mps" in problems


def test_a_word_that_is_no_precision_is_refused():
    with pytest.raises(UserError, match=r"load=int2: it is int8 or int4\."):
        parsed("load=int2")


def test_without_torchao_the_command_names_how_it_is_installed(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        parse(composed("load=int8"))
    assert listed(error.value, "  ") == [
        "load=int8: it needs the package torchao, which is not installed: pip install 'patientdx[int8]', or in a clone "
        "pip install '.[int8]'. Or leave load out."
    ]


def test_the_precision_is_part_of_every_fingerprint_and_name(present, tiny_base, tiny_pivot, tmp_path):
    plans = [plan(scored(tiny_base, tiny_pivot, tmp_path, *words)) for words in ([], ["load=int8"], ["load=int4"])]
    keys = [{*made.keys.values(), made.key} for made in plans]
    assert not keys[0] & keys[1] | keys[1] & keys[2] | keys[0] & keys[2]
    config = scored(tiny_base, tiny_pivot, tmp_path, "load=int8")
    assert (config.method, config.inference.precision) == ("slerp int8", "int8-float32")


def test_an_architecture_without_linear_layers_and_widths_without_groups_are_refused(tmp_path):
    options = {"dtype": torch.float32, "device": CPU}
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64))
    gpt2.save_pretrained(tmp_path / "gpt2")
    names = [name for name, _ in gpt2.named_parameters()]
    with pytest.raises(UserError, match=r"load=int8: GPT2LMHeadModel has no linear layers of torch"):
        Blank(tmp_path / "gpt2", names, load="int8", **options)
    config = AutoConfig.for_model("llama", hidden_size=48, intermediate_size=80, num_hidden_layers=1,
                                  num_attention_heads=2, num_key_value_heads=1, vocab_size=64)  # fmt: skip
    llama = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path / "llama")
    names = [name for name, _ in llama.named_parameters()]
    with pytest.raises(UserError, match=r"load=int4: LlamaForCausalLM has linear layers of 48 inputs"):
        Blank(tmp_path / "llama", names, load="int4", **options)
    assert Blank(tmp_path / "llama", names, load="int8", **options).shapes.keys() == set(names)


@torchao
@pytest.mark.parametrize(("load", "least"), [("int8", 0.99), ("int4", 0.2)])  # random layers of 32 inputs: one group
def test_quantised_scores_are_near_those_in_floating_point_and_named(tiny_base, tiny_pivot, tmp_path, load, least):
    words = ["merge=slerp", "lambda=0.4", "splits=[test]"]
    plain = run(scored(tiny_base, tiny_pivot, tmp_path, *words))
    result = run(scored(tiny_base, tiny_pivot, tmp_path, *words, f"load={load}"))
    scores = [runs.Run(outcome.folder).predictions for outcome in (plain, result)]
    for role in ("base", "merged", "pivot"):
        first, second = (part[role, "test"].of("auroc")[0] for part in scores)
        assert least < np.corrcoef(first, second)[0, 1] < 1.0
    names = [(row["role"], row["method"], row["dtype"]) for row in result.rows]
    assert names == [("merged", f"slerp {load}", f"{load}-float32"), ("base", load, f"{load}-float32"),
                     ("pivot", load, f"{load}-float32")]  # fmt: skip
    provenance = json.loads((result.folder / "provenance.json").read_text())
    assert provenance["scoring"]["dtype"] == f"{load}-float32"
    assert result.folder.name.startswith(f"mortality_slerp_{load}_lambda=0.4_")
    shown = page(runs.read(result.folder))
    assert f"slerp {load} λ=0.4" in shown
    assert f"base {load}" in shown


@torchao
@pytest.mark.parametrize(("load", "correlation"), [("int8", 0.999), ("int4", 0.8)])
def test_a_point_is_the_saved_merge_as_transformers_quantises_it(tiny_base, tiny_pivot, tmp_path, load, correlation):
    """And the next point is not the former one; its logits go with those in floating point."""
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup
    from transformers import TorchAoConfig

    ids, logits = torch.arange(3, 40)[None], []
    schemes = {"int8": Int8WeightOnlyConfig(), "int4": IntxWeightOnlyConfig(torch.int4, PerGroup(32))}
    for weight in (0.4, 0.6):
        config = scored(tiny_base, tiny_pivot, tmp_path, f"lambda={weight}", f"load={load}")
        system = plan(config).main
        recipe = session().recipe(config.merge_config.spec, config.weight, config.cache)
        save(recipe, tmp_path / f"{weight}", cache=config.cache, sources=config.merge_config.spec.models,
             dtype="float32")  # fmt: skip
        exact = AutoModelForCausalLM.from_pretrained(tmp_path / f"{weight}", dtype=torch.float32)
        reference = AutoModelForCausalLM.from_pretrained(
            tmp_path / f"{weight}", dtype=torch.float32, quantization_config=TorchAoConfig(schemes[load])
        )
        model = fill(session(), config, system, Timer())
        with torch.no_grad():
            logits.append(model(ids).logits)
            assert torch.equal(logits[-1], reference(ids).logits)
            pair = torch.stack([logits[-1].flatten(), exact(ids).logits.flatten()])
        assert pair.corrcoef()[0, 1] > correlation
    assert not torch.equal(*logits)


@torchao
def test_the_command_scores_a_sweep_in_int8(tiny_base, tiny_pivot, tmp_path):
    words = ["-m", *small(tiny_base, tiny_pivot), "lambda=0.2,0.4", "load=int8", f"output={tmp_path / 'out'}"]
    outcome = launch(tmp_path, *words)
    assert outcome.returncode == 0, outcome.stderr
    assert "slerp int8 λ=0.2" in outcome.stdout
    assert "base int8" in outcome.stdout
    assert "torchao" not in outcome.stderr.lower()


def test_preflight_refuses_what_cannot_be_quantised(present, tiny_base, tiny_pivot, tmp_path, monkeypatch):
    monkeypatch.setattr("patientdx.lm.quantised.GROUP", 7)
    with pytest.raises(UserError, match="load=int4: LlamaForCausalLM has linear layers of"):
        preflight(Session(), scored(tiny_base, tiny_pivot, tmp_path, "load=int4"))
