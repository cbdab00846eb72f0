"""Prompts of any length without a tokenizer, and the plain forward that scoring must agree with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from patientdx.lm.prompts import Prompts


@pytest.fixture
def make_prompts() -> Callable[..., Prompts]:
    """``make_prompts(vocab, prefix, lengths)``: random ids, the first ``prefix`` of them common to all."""

    def make(vocab: int = 100, prefix: int = 12, lengths=(3, 30, 9, 1, 17, 30, 8, 2), options=((3, 4), (5,))):
        generator = torch.Generator().manual_seed(0)
        common = torch.randint(0, vocab, (prefix,), generator=generator).tolist()
        rows = [torch.randint(0, vocab, (n,), generator=generator).tolist() for n in lengths]
        # Different first tokens end the common prefix where it is meant to end.
        rows = [[i % vocab, *row[1:]] for i, row in enumerate(rows)]
        prompts = Prompts(tuple((*common, *row) for row in rows), options, 0, 4096)
        assert prompts.prefix == prefix
        return prompts

    return make


@pytest.fixture
def plain() -> Callable[..., np.ndarray]:
    """``plain(model, prompts)``: log mass (n, options), each prompt alone through the whole causal language model."""

    def forward(model, prompts: Prompts) -> np.ndarray:
        found = []
        with torch.no_grad():
            for row in prompts.ids:
                logp_V = torch.log_softmax(model(torch.tensor([row])).logits[0, -1].double(), -1)
                found.append([torch.logsumexp(logp_V[list(ids)], 0).item() for ids in prompts.options])
        return np.array(found)

    return forward
