"""Prompts of any length without a tokenizer, tiny models, and the plain forward that scoring must agree with."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from plain_forward import plain_scores

from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.prompts import Prompts

NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words."


@pytest.fixture(scope="session")
def tiny(tiny_base):
    return load_model(tiny_base, dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def plain() -> Callable[..., np.ndarray]:
    """``plain(model, prompts)``: log mass (n, options), each prompt alone through the full causal language model."""

    return plain_scores


class LimitedModel:
    """A model whose decoder runs out of memory above so many padded tokens; `widths` are the shapes of its inputs."""

    def __init__(self, model, most: float = float("inf"), message: str = NO_MEMORY) -> None:
        self.model, self.most, self.message, self.widths = model, most, message, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def get_decoder(self):
        def forward(input_ids, **rest):
            self.widths.append(tuple(input_ids.shape))
            if input_ids.numel() > self.most:
                raise torch.OutOfMemoryError(self.message)
            return self.model.get_decoder()(input_ids=input_ids, **rest)

        return forward


@pytest.fixture(scope="session")
def limited() -> type[LimitedModel]:
    return LimitedModel
