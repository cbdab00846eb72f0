"""Which single flipped bits of weight files a merge and `verify` notice, and by what.

    python -m experiments.benchmarks.bit_flips --flips 100

Two tiny models are merged. At each place below, one bit drawn with the seed is flipped and restored: in the pivot's
file before the merge (weights, header), in that file while the merge reads it, in what one read returns while the file
stays as it was (memory, bus), and in the merged file (weights, header). Counted is what notices it first: the merge
itself (header, names and shapes, finite numbers, a file that changed meanwhile), the pivot's content hash against that
of its maker, or `verify` with the undamaged parents. A bit that leaves every
tensor as it would be without it has no effect.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks import harness
from patientdx.checkpoints.compatibility import align
from patientdx.checkpoints.identity import content_hash
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.save import save
from patientdx.checkpoints.source import ModelSource
from patientdx.cli.verify import IDENTICAL, verify
from patientdx.core.errors import UserError
from patientdx.merge.slerp import slerp

UNNOTICED, NO_EFFECT = "not noticed", "no effect: every tensor is as it would be"
# Parts of a refusal, and what refused.
_REFUSED = {
    "NaN or infinite": "merge: check for finite numbers",
    "files were changed while": "merge: check that files stay as they are",
    "is not the model that was merged": "verify: hash of the parent",
    "Checkpoints that fit": "merge: names and shapes",
    "cannot be merged": "merge: names and shapes",
    "config.json": "merge: numbers of config.json against the tensors",
    "": "header that cannot be read",
}


class _Flipping(Checkpoint):
    """A checkpoint in which read number `at` is of a file that has just changed, or returns a changed copy."""

    def __init__(self, folder: Path, at: int, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(folder)
        self.left, self.change = at, change

    def read(self, name: str) -> Tensor:
        """The tensor; see `Checkpoint.read`."""
        self.left -= 1
        tensor = super().read(name)
        return self.change(tensor) if self.left == -1 else tensor


class Merge:
    """The merge of two tiny models, and where its files are."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.parents = folder, (folder / "base", folder / "pivot")
        for seed, parent in enumerate(self.parents):
            _tiny_model(parent, seed)
        self.file = self.parents[1] / "model.safetensors"
        self.hash = content_hash(Checkpoint(self.parents[1]), None)
        self.count = 0

    def made(self, pivot: Checkpoint | None = None) -> Path:
        """The merge in a new folder."""
        self.count += 1
        parents = (Checkpoint(self.parents[0]), pivot or Checkpoint(self.parents[1]))
        names = align(parents, ["base", "pivot"])
        target, cache = self.folder / f"merged-{self.count}", self.folder / f"cache-{self.count}"
        sources = [ModelSource(parent.name, str(parent)) for parent in self.parents]
        save(Recipe(parents, tuple(names), slerp, weight=0.4), target, cache=cache, sources=sources, threads=1)
        return target

    def verified(self, folder: Path) -> str:
        """What `verify` makes of a merged folder."""
        status, _ = verify(folder, {}, self.folder / "cache", threads=1)
        return UNNOTICED if status == IDENTICAL else "verify: weights or files derived again"

    def before(self, draw: np.random.Generator, part: str) -> str:
        """A bit of the pivot's file, before the merge."""
        with _flipped(self.file, draw, part):
            pivot = Checkpoint(self.parents[1])
            changed = content_hash(pivot, None) != self.hash
            self.made(pivot)
        return "hash of the parent, before or after the merge" if changed else NO_EFFECT

    def during(self, draw: np.random.Generator, where: str) -> str:
        """A bit of the pivot while the merge reads it, in the file or in what one read returns."""
        undo = []

        def change(tensor: Tensor) -> Tensor:
            if where == "file":
                flip = _flipped(self.file, draw, "weights")
                flip.__enter__()
                undo.append(flip)
                return tensor
            copy = tensor.clone()
            flat = copy.view(-1).view(torch.uint8)
            flat[int(draw.integers(len(flat)))] ^= 1 << int(draw.integers(8))
            return copy

        try:
            folder = self.made(_Flipping(self.parents[1], int(draw.integers(self.reads)), change))
        finally:
            for flip in undo:
                flip.__exit__(None, None, None)
        return NO_EFFECT if (noticed := self.verified(folder)) == UNNOTICED else noticed  # bit for bit as derived again

    @cached_property
    def reads(self) -> int:
        """How often a merge reads a tensor of the pivot, to merge it and to hash it."""
        counting = _Flipping(self.parents[1], sys.maxsize, lambda tensor: tensor)
        self.made(counting)
        return sys.maxsize - counting.left

    def written(self, draw: np.random.Generator, part: str) -> str:
        """A bit of the merged file."""
        with _flipped(self.output / "model.safetensors", draw, part):
            return self.verified(self.output)

    @cached_property
    def output(self) -> Path:
        """One undamaged merge."""
        folder = self.made()
        if self.verified(folder) != UNNOTICED:
            raise RuntimeError("the undamaged merge does not verify")
        return folder


PLACES: dict[str, Callable[[Merge, np.random.Generator], str]] = {
    "parent before the merge, weights": lambda merge, draw: merge.before(draw, "weights"),
    "parent before the merge, header": lambda merge, draw: merge.before(draw, "header"),
    "parent's file during the merge": lambda merge, draw: merge.during(draw, "file"),
    "one read of the parent, in memory": lambda merge, draw: merge.during(draw, "memory"),
    "merged file, weights": lambda merge, draw: merge.written(draw, "weights"),
    "merged file, header": lambda merge, draw: merge.written(draw, "header"),
}


def measure(flips: int, seed: int, folder: Path) -> dict[str, Counter[str]]:
    """For each place how many of so many flipped bits were noticed by what."""
    merge, counts = Merge(folder), {}
    for number, (where, flip) in enumerate(PLACES.items()):
        draw, counts[where] = np.random.default_rng([seed, number]), Counter()
        for _ in range(flips):
            try:
                noticed = flip(merge, draw)
            except UserError as error:
                noticed = next(name for words, name in _REFUSED.items() if words in str(error))
            counts[where][noticed] += 1
    return counts


def _tiny_model(folder: Path, seed: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=64, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


@contextmanager
def _flipped(file: Path, draw: np.random.Generator, part: str) -> Iterator[None]:
    """One bit of the header (with its length) or of the weights of a safetensors file is another inside the block."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        begin = 8 + int.from_bytes(handle.read(8), "little")
    at = int(draw.integers(begin) if part == "header" else draw.integers(begin, size))
    bit = 1 << int(draw.integers(8))
    _xor(file, at, bit)
    try:
        yield
    finally:
        _xor(file, at, bit)


def _xor(file: Path, at: int, bit: int) -> None:
    with file.open("r+b") as handle:
        handle.seek(at)
        (byte,) = handle.read(1)
        handle.seek(at)
        handle.write(bytes([byte ^ bit]))


def main() -> None:
    """The command."""
    options = harness.parser(__doc__)
    options.add_argument("--flips", type=int, default=100, help="of each place")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for where, counts in measure(args.flips, args.seed, Path(folder)).items():
            print(f"{where}: " + ", ".join(f"{count} {noticed}" for noticed, count in counts.most_common()))


if __name__ == "__main__":
    sys.exit(harness.run(main))
