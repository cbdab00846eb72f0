"""Models whose rotary frequencies depend on the length of a text are scored as they compute, or refused."""

import numpy as np
import pytest
import torch

from patientdx.core.errors import UserError
from patientdx.lm.binary import score
from patientdx.lm.prompts import Prompts

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 100, "initializer_range": 0.4, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2, "tie_word_embeddings": True}  # fmt: skip
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 16}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
KINDS = {
    "longrope": ("phi3", {"max_position_embeddings": 512, "original_max_position_embeddings": 16}, LONGROPE),
    "dynamic": ("llama", {"max_position_embeddings": 16}, DYNAMIC),
    "yarn": ("qwen2", {"max_position_embeddings": 512}, YARN),
    "default": ("llama", {"max_position_embeddings": 512}, {"rope_type": "default", "rope_theta": 1e4}),
}


def model_of(kind, shape, rope):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE, **shape, rope_parameters=rope)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def prompts_of(lengths) -> Prompts:
    generator = torch.Generator().manual_seed(0)
    common = torch.randint(5, 100, (6,), generator=generator).tolist()
    rows = [(*common, i, *torch.randint(5, 100, (n,), generator=generator).tolist()) for i, n in enumerate(lengths)]
    return Prompts(tuple(rows), ((3, 4), (5,)), 0, 4096)


def alone(model, prompts) -> np.ndarray:
    with torch.no_grad():
        log_p = [torch.log_softmax(model(torch.tensor([row])).logits[0, -1].double(), -1) for row in prompts.ids]
    return np.array([[torch.logsumexp(row[list(option)], 0).item() for option in prompts.options] for row in log_p])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("lengths", [(3, 5, 8, 2), (3, 40, 9, 30, 2)])
@pytest.mark.parametrize("batch", [1, 10_000])
def test_a_score_is_that_of_the_prompt_alone_or_refused(name, lengths, batch):
    prompts = prompts_of(lengths)
    if name in ("longrope", "dynamic") and max(lengths) > 9:
        with pytest.raises(UserError, match=r"other rotary frequencies for texts of more than 16 tokens"):
            score(model_of(*KINDS[name]), prompts, range(len(lengths)), batch_tokens=batch)
        return
    places, values = score(model_of(*KINDS[name]), prompts, range(len(lengths)), batch_tokens=batch)
    scores = np.empty_like(values)
    scores[places] = values
    assert np.abs(scores - alone(model_of(*KINDS[name]), prompts)).max() < 1e-4
