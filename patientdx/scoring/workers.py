"""Many prompts at a time on a CPU: one thread each, instead of all threads on one prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers(device: torch.device) -> Iterator[Callable]:
    """A `map` that keeps the order; on a CPU it works on as many items at a time as torch has threads.

    Each item has one thread: between two products of matrices a model's small operations leave further threads idle,
    and a product's last bits can depend on how many threads share it, which a score must not.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
