from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import sliding_window_causal_mask_function

from patientdx.lm import prefix_attention
from patientdx.lm.prefix_attention import after_prefix


def model_of(heads: int, dtype: torch.dtype):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=heads,
        vocab_size=90,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval().to(dtype)


def after(model, ids, prefix: int):
    """Hidden states behind a cached prefix."""
    cache = DynamicCache()
    decoder = model.get_decoder()
    with torch.no_grad():
        if prefix:
            decoder(input_ids=ids[:, :prefix], past_key_values=cache, use_cache=True)
        return decoder(input_ids=ids[:, prefix:], past_key_values=cache, use_cache=True).last_hidden_state


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize(("length", "prefix"), [(9, 1), (40, 9), (40, 11), (40, 39), (64, 0), (700, 20), (193, 65)])
def test_hidden_states_are_those_of_the_masked_kernel(heads, length, prefix, monkeypatch):
    model = model_of(heads, torch.float32)
    ids = torch.randint(0, 90, (3, length), generator=torch.Generator().manual_seed(1))
    expected = after(model, ids, prefix)
    monkeypatch.setattr(prefix_attention, "sdpa_mask", lambda **rest: pytest.fail("a CPU needs no mask"))
    with after_prefix(model):
        found = after(model, ids, prefix)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_one_token_behind_others_needs_no_kernel_that_shares_keys(heads, monkeypatch):
    model = model_of(heads, torch.float32)
    ids = torch.randint(0, 90, (3, 21), generator=torch.Generator().manual_seed(1))
    expected = after(model, ids, 20)
    monkeypatch.setattr(prefix_attention, "sdpa_attention_forward", lambda *given, **rest: pytest.fail("that has none"))
    with after_prefix(model):
        found = after(model, ids, 20)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [4, 1])
def test_bfloat16_is_no_further_from_float32_than_the_kernel(heads):
    ids = torch.randint(0, 90, (3, 300), generator=torch.Generator().manual_seed(1))
    model = model_of(heads, torch.bfloat16)
    exact = after(model_of(heads, torch.bfloat16).float(), ids, 20)  # rounded weights, float32 arithmetic
    kernel = after(model, ids, 20)
    with after_prefix(model):
        found = after(model, ids, 20)
    assert found.dtype == torch.bfloat16
    assert 0 < (found - exact).abs().mean() < 1.1 * (kernel - exact).abs().mean()


def test_the_way_of_a_gpu_gives_the_same():
    draw = torch.Generator().manual_seed(1)
    query = torch.randn(2, 4, 30, 16, generator=draw)
    key, value = (torch.randn(2, 4, 40, 16, generator=draw) for _ in range(2))
    module = SimpleNamespace(is_causal=True, training=False)
    found, _ = prefix_attention._end_aligned(module, query, key, value)
    torch.testing.assert_close(found, prefix_attention._by_blocks(query, key, value, 0.25), rtol=0, atol=1e-5)


def test_a_gpu_gets_a_mask_once_the_prefix_is_long(monkeypatch):
    monkeypatch.setattr(prefix_attention, "sdpa_mask", lambda **rest: "mask")
    given = {"q_offset": 10, "kv_offset": 0, "device": torch.device("cuda")}
    assert prefix_attention._mask(q_length=30, kv_length=40, **given) is None
    assert prefix_attention._mask(q_length=29, kv_length=40, **given) == "mask"
    assert prefix_attention._mask(q_length=29, kv_length=40, **given | {"device": "cpu"}) is None


def test_masks_that_are_more_than_causal_are_kept():
    given = {"batch_size": 1, "q_length": 7, "kv_length": 8, "q_offset": 1, "kv_offset": 0, "device": "cpu"}
    assert prefix_attention._mask(**given) is None
    window = prefix_attention._mask(**given, mask_function=sliding_window_causal_mask_function(3), local_size=3)
    assert window.shape == (1, 1, 7, 8)
    assert window.sum(-1).flatten().tolist() == [2, 3, 3, 3, 3, 3, 3]
    padded = prefix_attention._mask(**given, attention_mask=torch.tensor([[False] + [True] * 7]))
    assert padded.sum(-1).flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_the_model_gets_its_own_attention_back():
    model = model_of(2, torch.float32)
    with after_prefix(model):
        assert model.config._attn_implementation != "sdpa"
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(IndexError), after_prefix(model):
        model(torch.tensor([[1000]]))
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    with after_prefix(model):
        assert model.config._attn_implementation == "eager"
