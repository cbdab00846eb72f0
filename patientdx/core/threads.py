"""Work on a CPU split among threads: one thread for each piece, instead of all threads for one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers(device: torch.device | str = "cpu") -> Iterator[Callable]:
    """A `map` that keeps the order; on a CPU it works on as many pieces at a time as torch has threads.

    Each piece has one thread. Small operations between two matrix products leave further threads idle, and the last
    bits of a sum or a product can depend on the number of threads, which no result here may.
    """
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
