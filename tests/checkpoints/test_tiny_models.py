"""The tiny models are the ground that other tests stand on."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from patientdx.checkpoints.reader import Checkpoint


def cosine(first, second):
    first, second = first.double().flatten(), second.double().flatten()
    return float(first @ second / (first.norm() * second.norm()))


def test_pivot_lies_off_the_base_in_most_tensors_and_near_it_in_some(tiny_base, tiny_pivot):
    base, pivot = Checkpoint(tiny_base), Checkpoint(tiny_pivot)
    cosines = {name: cosine(base.read(name), pivot.read(name)) for name in base.tensors}
    assert all(0.9 < value < 0.9995 for name, value in cosines.items() if "norm" not in name)
    assert all(0.9995 < value < 1 for name, value in cosines.items() if "norm" in name)
    assert sum(value < 0.9995 for value in cosines.values()) > len(cosines) / 2


def test_tiny_models_answer_and_speak_yes_and_no_in_one_token(tiny_base, tiny_pivot):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    for word in ("Yes", "No", "yes", "no", " yes", " no"):
        assert len(tokenizer(word).input_ids) == 1
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Is 12 > 3?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nIs 12 > 3?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == text
    logits = [AutoModelForCausalLM.from_pretrained(folder)(ids).logits[0, -1] for folder in (tiny_base, tiny_pivot)]
    assert all(torch.isfinite(row).all() for row in logits)
    assert logits[0].float().std() > 0.3
    assert not torch.equal(*logits)
