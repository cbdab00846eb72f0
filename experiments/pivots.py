"""Pivots that studies need and nobody ships: the numeric pivot's differences scaled, and noise of the same size.

    python -m experiments.pivots                     # into the cache, where conf/ looks for them
    python -m experiments.pivots --cache DIR         # with cache=DIR

numeric_x4 is the base and 4 times the numeric pivot's difference from it (task arithmetic with λ=4, arXiv 2212.04089).
noise_x4 has in every matrix the singular values of numeric_x4, and so its rank and both its norms, but singular vectors
drawn at random: as far from the base as numeric_x4, knowing nothing. Each is a LoRA folder of 8 MB; no model is opened.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

import patientdx
from patientdx.core.atomic_io import write_atomically

SHIPPED = Path(patientdx.__file__).parent / "adapters" / "numeric"
CACHE = Path(os.environ.get("PATIENTDX_CACHE", "~/.cache/patientdx"))
SCALES = {"numeric": (0.25, 1.0, 4.0, 16.0), "noise": (1.0, 4.0, 16.0, 64.0)}  # powers of two: exact in bfloat16
SEED = 20261
_A, _B = ".lora_A.weight", ".lora_B.weight"


def made(adapter: Mapping[str, Tensor], seed: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Name and tensors (bfloat16) of every pivot, from those of a LoRA adapter of scale 1."""
    noise = drawn(adapter, seed)
    for kind, of in (("numeric", adapter), ("noise", noise)):
        for scale in SCALES[kind]:
            scaled = {name: one * scale if name.endswith(_B) else one for name, one in of.items()}
            yield f"{kind}_x{scale:g}", scaled


def drawn(adapter: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """B A of every pair, A (r, in) and B (out, r), with its singular values and random singular vectors.

    Those are the columns of Q in the QR of a Gaussian matrix, evenly spread over all directions. Norms are kept up to
    the rounding of factors to bfloat16.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in sorted(one.removesuffix(_A) for one in adapter if one.endswith(_A)):
        down, up = adapter[name + _A].float(), adapter[name + _B].float()
        # The singular values of B A are those of the two triangles' product: r by r, however large the matrix.
        values = torch.linalg.svdvals(torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T)
        root = values.sqrt()
        left, right = (
            torch.linalg.qr(torch.randn(size, len(values), generator=generator)).Q
            for size in (up.shape[0], down.shape[1])
        )
        found[name + _A] = (root[:, None] * right.T).to(adapter[name + _A].dtype).contiguous()
        found[name + _B] = (left * root).to(adapter[name + _B].dtype).contiguous()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write every pivot, and say where."""
    asked = argparse.ArgumentParser(prog="python -m experiments.pivots", description=__doc__.splitlines()[0])
    asked.add_argument("--cache", type=Path, default=CACHE, help="cache= of the runs")
    asked.add_argument("--seed", type=int, default=SEED, help="of the noise")
    given = asked.parse_args(arguments)
    place = given.cache.expanduser() / "pivots"
    for name, tensors in made(load_file(SHIPPED / "adapter_model.safetensors"), given.seed):
        (place / name).mkdir(parents=True, exist_ok=True)
        write_atomically(
            place / name / "adapter_model.safetensors", partial(save_file, tensors, metadata={"format": "pt"})
        )
        write_atomically(
            place / name / "adapter_config.json", partial(shutil.copyfile, SHIPPED / "adapter_config.json")
        )
        Console(highlight=False, markup=False).print(f"{place / name}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
