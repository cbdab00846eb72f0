"""A LoRA adapter applied by us, against peft's own merge; and the adapters that cannot be applied."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from patientdx.checkpoints import identity
from patientdx.checkpoints.compatibility import align
from patientdx.checkpoints.identity import content_hash
from patientdx.checkpoints.lora import AdaptedCheckpoint, apply_adapter, read_adapter
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.errors import UserError
from patientdx.merge.curve import evaluate
from patientdx.merge.linear import linear


def make_adapter(base, folder, **settings):
    """A peft LoRA with both factors random, saved to ``folder``; returns the peft model."""
    from peft import LoraConfig, get_peft_model

    defaults = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_pretrained(base)
        with warnings.catch_warnings():
            # peft 0.21 asks transformers for a property by its old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **(defaults | settings)))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.normal_(0, 0.1)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def base32(make_tiny):
    return make_tiny(dtype=torch.float32)


@pytest.fixture
def adapter(tiny_base, tmp_path):
    """An adapter folder that a test may break."""
    make_adapter(tiny_base, tmp_path / "adapter")
    return tmp_path / "adapter"


def refusal(base, folder):
    with pytest.raises(UserError) as caught:
        read_adapter(folder, Checkpoint(base).tensors)
    return str(caught.value)


def change_config(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


PATTERNS = {
    "rank_pattern": {"model.layers.0.self_attn.q_proj": 2, "model.layers.1.mlp.down_proj": 6},
    "alpha_pattern": {"model.layers.0.self_attn.q_proj": 5},
}


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"target_modules": "all-linear", "r": 7}, PATTERNS])
def test_equals_the_merge_of_peft_in_float32(base32, tmp_path, settings):
    expected = make_adapter(base32, tmp_path / "adapter", **settings).merge_and_unload().state_dict()
    (tmp_path / "merged").mkdir()
    apply_adapter(Checkpoint(base32), tmp_path / "adapter", tmp_path / "merged")
    base, merged = Checkpoint(base32), Checkpoint(tmp_path / "merged")
    changed = 0
    for name in merged.tensors:
        assert (merged.read(name) - expected[name]).abs().max() < 1e-6
        changed += not torch.equal(merged.read(name), base.read(name))
    assert changed == (14 if settings.get("r") == 7 else 6)


def test_bfloat16_base_is_rounded_once(tiny_base, adapter):
    base = Checkpoint(tiny_base)
    factors = load_file(adapter / "adapter_model.safetensors")
    module = "model.layers.1.mlp.down_proj"
    down, up = (factors[f"base_model.model.{module}.lora_{part}.weight"].double() for part in "AB")
    weight = base.read(f"{module}.weight")
    expected = (weight.double() + 12 / 4 * up @ down).bfloat16()
    found = read_adapter(adapter, base.tensors).apply(f"{module}.weight", weight)
    assert found.dtype == torch.bfloat16
    # sums in float32 may round the other way where a value lies halfway: rare, and one step
    assert (found != expected).float().mean() < 0.002
    assert torch.allclose(found.float(), expected.float(), rtol=2**-7)


def test_shards_tokenizer_and_template_are_kept(make_tiny, tmp_path):
    base = make_tiny(shard_size="20KB")
    make_adapter(base, tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    apply_adapter(Checkpoint(base), tmp_path / "adapter", tmp_path / "merged")
    assert {file.name for file in (tmp_path / "merged").iterdir()} == {file.name for file in base.iterdir()}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(model.state_dict()[name], Checkpoint(tmp_path / "merged").read(name))


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=str)
def both_ways(request, make_tiny, tmp_path):
    """The same adapter on the same base, in memory and written out."""
    base = Checkpoint(make_tiny(dtype=request.param, shard_size="20KB"))
    make_adapter(base.folder, tmp_path / "adapter", target_modules="all-linear", r=7)
    (tmp_path / "merged").mkdir()
    apply_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    return AdaptedCheckpoint(base, tmp_path / "adapter"), Checkpoint(tmp_path / "merged")


def test_in_memory_every_bit_is_that_of_the_folder_written(both_ways):
    view, written = both_ways
    base = Checkpoint(view.folder)
    assert list(view.tensors) == list(written.tensors)
    changed = 0
    for name in written.tensors:
        assert torch.equal(view.read(name), written.read(name))
        assert torch.equal(view.read_bytes(name), written.read_bytes(name))
        assert view.read(name).dtype == view.tensors[name].dtype
        changed += not torch.equal(view.read(name), base.read(name))
    assert changed == 14
    assert (view.config, view.tied) == (written.config, written.tied)


def test_in_memory_and_written_have_one_content_hash(both_ways, tmp_path, monkeypatch):
    view, written = both_ways
    first = content_hash(view, tmp_path / "one")
    assert first == content_hash(written, tmp_path / "two")
    assert first != content_hash(Checkpoint(view.folder), tmp_path / "one")
    monkeypatch.setattr(identity, "_weights_digest", lambda *any: pytest.fail("hashed again"))
    assert content_hash(view, tmp_path / "one") == first


def test_an_adapter_changed_in_place_changes_the_hash(tiny_base, adapter, tmp_path):
    base = Checkpoint(tiny_base)
    before = content_hash(AdaptedCheckpoint(base, adapter), tmp_path / "cache")
    change_config(adapter, lora_alpha=120)
    assert content_hash(AdaptedCheckpoint(base, adapter), tmp_path / "cache") != before


def test_in_memory_is_a_parent_like_any_other(both_ways):
    view, written = both_ways
    base = Checkpoint(view.folder)
    names = align([base, view], ["base", "tuned"])
    assert names == align([base, written], ["base", "tuned"])
    changed = "model.layers.1.mlp.down_proj.weight"
    merged = [
        evaluate(Recipe((base, parent), names, linear).curves((changed,))[changed], 0.4, torch.empty(32, 64))
        for parent in (view, written, base)
    ]
    assert torch.equal(merged[0], merged[1])
    assert not torch.equal(merged[0], merged[2])


def test_unchanged_tensors_are_mapped_and_nothing_is_written(tiny_base, adapter):
    base = Checkpoint(tiny_base)
    before = {file: file.stat().st_mtime_ns for folder in (tiny_base, adapter) for file in folder.iterdir()}
    view = AdaptedCheckpoint(base, adapter)
    for name in view.tensors:
        view.read(name)
    assert view.read("model.norm.weight").data_ptr() == base.read("model.norm.weight").data_ptr()
    assert {file: file.stat().st_mtime_ns for folder in (tiny_base, adapter) for file in folder.iterdir()} == before


def test_absent_weights(tiny_base, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    assert refusal(tiny_base, adapter) == (
        f"The adapter folder {adapter} has no adapter_model.safetensors: "
        "give a folder that peft's save_pretrained made."
    )


def test_adapter_of_another_model(make_tiny, adapter):
    other = make_tiny(num_hidden_layers=1)
    message = refusal(other, adapter)
    assert message.startswith(f"The adapter {adapter} changes 3 tensors that the model does not have: model.layers.1.")
    assert message.endswith("set source to that model.")


def test_adapter_of_another_width(make_tiny, adapter):
    message = refusal(make_tiny(intermediate_size=48), adapter)
    assert message == (
        f"The adapter {adapter} of rank 4 does not fit the model: "
        "model.layers.0.mlp.down_proj.weight [32, 48] against B [32, 4] A [4, 64], rank 4, "
        "model.layers.1.mlp.down_proj.weight [32, 48] against B [32, 4] A [4, 64], rank 4."
    )


def test_rank_in_the_configuration_must_be_the_rank_of_the_factors(tiny_base, adapter):
    change_config(adapter, r=8)
    assert refusal(tiny_base, adapter).startswith(f"The adapter {adapter} of rank 8 does not fit the model: ")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias=all"),
        ({"modules_to_save": ["lm_head"]}, "whole modules saved beside the low-rank ones"),
        ({"fan_in_fan_out": True}, "transposed weights"),
        *(
            ({"init_lora_weights": start}, f"init_lora_weights={start}, which changes the base's weights")
            for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "a start of tomorrow")
        ),
        ({"corda_config": {"corda_method": "kpm"}}, "corda_config"),
        ({"a_key_of_tomorrow": 1}, "a_key_of_tomorrow"),
    ],
)
def test_other_kinds_of_adapter(tiny_base, adapter, values, named):
    change_config(adapter, **values)
    assert refusal(tiny_base, adapter) == (
        f"The adapter {adapter} uses {named}; only plain LoRA can be applied. "
        "Merge it with peft's merge_and_unload and give the merged folder as source."
    )


@pytest.mark.parametrize("pattern", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_is_no_full_name(tiny_base, adapter, pattern):
    change_config(adapter, **{pattern: {"q_proj": 8}})
    assert refusal(tiny_base, adapter) == (
        f"The adapter {adapter} has a {pattern} for q_proj, which is not the full name of a module it changes. "
        "Merge it with peft's merge_and_unload and give the merged folder as source."
    )


def test_other_methods_of_peft(tiny_base, adapter):
    change_config(adapter, peft_type="IA3")
    assert refusal(tiny_base, adapter) == (
        f"The adapter {adapter} is IA3 with r=4, lora_alpha=12; only LoRA can be applied."
    )


def test_configuration_that_is_none(tiny_base, adapter):
    (adapter / "adapter_config.json").write_text("[]")
    assert refusal(tiny_base, adapter).startswith(f"{adapter}/adapter_config.json holds no JSON object")


def test_tensors_that_are_no_pair(tiny_base, adapter):
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    del tensors[name]
    save_file(tensors, file)
    assert refusal(tiny_base, adapter) == (
        f"The adapter {adapter} holds more than lora_A and lora_B pairs: "
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight."
    )


def test_one_end_of_a_tie(tiny_base, adapter, tmp_path):
    rows = Checkpoint(tiny_base).config["vocab_size"]
    prefix = "base_model.model.model.embed_tokens"
    save_file(
        {f"{prefix}.lora_A.weight": torch.ones(4, 32), f"{prefix}.lora_B.weight": torch.ones(rows, 4)},
        adapter / "adapter_model.safetensors",
    )
    for use in (apply_adapter, lambda base, folder, into: AdaptedCheckpoint(base, folder)):
        with pytest.raises(UserError) as caught:
            use(Checkpoint(tiny_base), adapter, tmp_path)
        assert str(caught.value) == (
            f"The adapter {adapter} changes model.embed_tokens.weight, but the model ties its embedding and its "
            "output head: one tensor cannot hold both."
        )


def test_damaged_weights(tiny_base, adapter):
    file = adapter / "adapter_model.safetensors"
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size - 8)
    assert f"{file} is truncated or damaged" in refusal(tiny_base, adapter)
