import pytest
import torch

from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.errors import UserError
from patientdx.lm.load import default_dtype, load_model, storage
from patientdx.merge.curve import write
from patientdx.merge.linear import linear

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request, make_tiny):
    return make_tiny(tie_word_embeddings=request.param)


def loaded(folder, dtype=torch.bfloat16):
    return load_model(folder, dtype=dtype, device=CPU)


def test_a_loaded_model_is_for_scoring_only(tiny_base):
    model = loaded(tiny_base, torch.float32)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_storage_is_the_models_own_and_filling_it_is_loading(folder):
    model, checkpoint = loaded(folder), Checkpoint(folder)
    names = sorted(checkpoint.tensors)
    live = storage(model, names)
    assert sorted(live) == names
    for tensor in live.values():
        tensor.fill_(torch.nan)
    assert all(parameter.isnan().all() for parameter in model.parameters())  # a tied head is filled with the embedding
    read = {name: checkpoint.read(name) for name in names}
    write({name: linear((tensor, tensor)) for name, tensor in read.items()}, 0.0, live)
    fresh = loaded(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    ids = torch.tensor([[1, 5, 9]])
    assert torch.equal(model(ids).logits, fresh(ids).logits)


def test_tensors_that_the_model_does_not_have(tiny_base):
    names = sorted(Checkpoint(tiny_base).tensors)
    with pytest.raises(UserError) as refused:
        storage(loaded(tiny_base), [*names, "model.extra", "model.layers.9.mlp"])
    assert str(refused.value) == (
        "the checkpoint's tensors do not fill LlamaForCausalLM: 2 unknown to the model "
        "['model.extra', 'model.layers.9.mlp'], 0 not in the checkpoint []. "
        "Only checkpoints saved in the model's own Hugging Face layout can be merged."
    )


def test_tensors_that_the_checkpoint_does_not_have(folder):
    model = loaded(folder)
    names = [name for name in Checkpoint(folder).tensors if name not in ("model.norm.weight", "lm_head.weight")]
    missing = ["model.norm.weight"]
    if not model.config.tie_word_embeddings:
        missing.append("lm_head.weight")
    with pytest.raises(UserError) as refused:
        storage(model, names)
    assert str(refused.value) == (
        f"the checkpoint's tensors do not fill LlamaForCausalLM: 0 unknown to the model [], {len(missing)} not in the "
        f"checkpoint {missing}. Only checkpoints saved in the model's own Hugging Face layout can be merged."
    )


@pytest.mark.parametrize(
    ("device", "accelerator", "hardware", "dtype"),
    [
        ("auto", True, False, "bfloat16"),
        ("auto", False, True, "bfloat16"),
        ("auto", False, False, "float32"),
        ("cpu", True, False, "float32"),
        ("cpu", True, True, "bfloat16"),
    ],
)
def test_a_cpu_that_emulates_bfloat16_computes_in_float32(monkeypatch, device, accelerator, hardware, dtype):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: hardware)
    assert default_dtype(device) == dtype
