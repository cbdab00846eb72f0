"""Fine-tuning in the test's own process, where a run would start another one for it."""

from contextlib import contextmanager

import pytest
import torch

from patientdx.training import build
from patientdx.training.train import train


def train_here(patch: pytest.MonkeyPatch) -> list:
    """Have `patch` train here; the list of jobs, which grows as they are trained."""
    done = []

    def in_this_process(job, start, into, work):
        done.append(job)
        return train(job, start, into, work)

    patch.setattr(build, "run_training", in_this_process)
    return done


@contextmanager
def one_thread():
    """One thread of torch meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
