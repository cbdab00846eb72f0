"""The forward pass that scoring must agree with."""

import numpy as np
import torch

from patientdx.lm.prompts import Prompts


def plain_scores(model, prompts: Prompts) -> np.ndarray:
    """Log mass (n, options), each prompt alone through the full causal language model."""
    scores = []
    with torch.no_grad():
        for row in prompts.ids:
            logp_V = torch.log_softmax(model(torch.tensor([row])).logits[0, -1].double(), -1)
            scores.append([torch.logsumexp(logp_V[list(ids)], 0).item() for ids in prompts.options])
    return np.array(scores)
