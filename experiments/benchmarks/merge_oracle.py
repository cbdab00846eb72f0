"""The results of mergekit 0.1.5 for a few small tensors, written once for tests/merge/test_mergekit_parity.py.

mergekit is used as it is, through its in-memory API, in an environment of its own; nothing of PatientDx is imported:

    python -m venv .venv-mergekit
    .venv-mergekit/bin/pip install torch==2.13.0 mergekit==0.1.5 transformers==5.23.0
    .venv-mergekit/bin/python experiments/benchmarks/merge_oracle.py tests/merge/mergekit_oracle.safetensors

The file holds float32 tensors under "<model>/<tensor>" for the models, "<case>/float32/<tensor>" for what mergekit
computes in float32, "<case>/float64/<tensor>" for what it computes in float64 and rounds to float32 at the end, and
"<case>/mask<i>/<tensor>" (uint8) for what it drew for the i-th model, with the keep probabilities of della under
"<case>/chance<i>/<tensor>". The file's metadata is JSON under "oracle": versions, and for each case its method,
models, base and parameters in mergekit's words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from mergekit.merge_methods.api import merge_tensors
from safetensors.torch import save_file
from torch import Tensor

SHAPES = {"matrix": (16, 12), "vector": (40,), "cube": (4, 5, 6)}
SIGMA = 0.02  # of the ancestor's elements, as in a language model at its start
NOISE = {"base": 0.35, "pivot": 0.35, "third": 0.35, "near": 0.01, "light": 0.0005, "lighter": 0.0003}  # in sigmas
Case = tuple[str, list[str], str | None, dict[str, Any]]
DRAWING = ("dare_linear", "dare_ties", "della", "della_linear")


def models() -> dict[str, dict[str, Tensor]]:
    """The ancestor; models at independent distances from it (`near`: from base); `opposite`: base times -1; `zero`."""
    generator = torch.Generator().manual_seed(20260405)

    def draw() -> dict[str, Tensor]:
        return {name: torch.randn(shape, generator=generator) * SIGMA for name, shape in SHAPES.items()}

    made = {"ancestor": draw()}
    for model, share in NOISE.items():
        start = made["base" if model == "near" else "ancestor"]
        noise = draw()
        made[model] = {name: start[name] + share * noise[name] for name in SHAPES}
    made["opposite"] = {name: -tensor for name, tensor in made["base"].items()}
    made["zero"] = {name: torch.zeros_like(tensor) for name, tensor in made["base"].items()}
    return made


def cases() -> Iterator[Case]:
    """(method, models, base, parameters) in mergekit's words; a base that is not among the models is put before them.

    Weights are unequal and do not sum to 1 where a method has a rule for that, and they have many digits: with tenths
    every tenth result lies in the middle between two float32 numbers. Left out is what PatientDx does not have:
    multislerp of task vectors or with any weights, ties with `rescale` or without `normalize`, dare and della without
    `rescale`.
    """
    pair, three, base = ["base", "pivot"], ["base", "pivot", "third"], "ancestor"
    for weight in (0.31416, 0.80902):
        yield "linear", pair, None, {"weight": [1 - weight, weight]}
        yield "slerp", pair, "base", {"t": weight}
    yield "linear", three, None, {"weight": [1.0471, 0.61803, 0.41421]}
    yield "slerp", ["base", "near"], "base", {"t": 0.31416}  # |cos| above the threshold: a line
    yield "slerp", ["base", "opposite"], "base", {"t": 0.31416}
    for flatten, rows in ((True, False), (False, False), (False, True)):
        for ancestor in (None, base):
            numbers = {"weight": [0.68584, 0.31416], "nuslerp_flatten": flatten, "nuslerp_row_wise": rows}
            yield "nuslerp", pair, ancestor, numbers
    yield "nuslerp", ["base", "near"], None, {"weight": [0.68584, 0.31416]}
    yield "multislerp", pair, None, {"weight": [0.68584, 0.31416]}
    yield "multislerp", three, None, {"weight": [0.59726, 0.20137, 0.20137]}
    yield "karcher", pair, None, {}
    for numbers in ({}, {"max_iter": 50, "tol": 1e-12}):
        yield "karcher", three, None, numbers
    yield "task_arithmetic", pair, base, {"weight": [0.61803, 0.91287]}
    yield "task_arithmetic", pair, base, {"weight": [0.61803, 0.91287], "lambda": 0.70711}
    yield "task_arithmetic", pair, base, {"weight": [0.61803, 0.91287], "normalize": True}
    yield "task_arithmetic", three, base, {"weight": [0.61803, 0.91287, -0.22361]}
    yield from _trimmed(pair, three, base)
    for method in DRAWING:
        for density in (1.0, 0.6):
            yield method, pair, base, {"weight": [0.61803, 0.91287], "density": density}
        yield method, three, base, {"weight": [0.61803, 0.91287, 0.22361], "density": 0.6, "lambda": 0.70711}
    for wise in (False, True):
        yield "model_stock", pair, base, {"filter_wise": wise}
        yield "model_stock", three, base, {"filter_wise": wise}
    yield "model_stock", ["light", "lighter"], base, {}  # norms of differences below mergekit's floor
    for share in (0.5, 1.0):
        yield "sce", pair, base, {"select_topk": share}
        yield "sce", three, base, {"select_topk": share}
    yield "sce", ["light", "lighter"], base, {"select_topk": 1.0}  # squares of differences below mergekit's floor
    for step in (0.0001, 0.005):
        yield "nearswap", pair, "base", {"t": step}


def _trimmed(pair: list[str], three: list[str], base: str) -> Iterator[Case]:
    for density in (0.3, 0.7):
        yield "ties", pair, base, {"weight": [0.61803, 0.91287], "density": density}
        yield "ties", three, base, {"weight": [0.61803, 0.91287, 0.22361], "density": density}
    yield "ties", pair, base, {"weight": [0.61803, 0.91287], "density": 0.7, "lambda": 0.70711}
    for method in ("ties", "dare_ties"):  # no sign is elected anywhere: the weighted sums are 0
        density = 0.7 if method == "ties" else 1.0
        yield method, ["base", "opposite"], "zero", {"weight": [0.61803, 0.61803], "density": density}
    for method in ("breadcrumbs", "breadcrumbs_ties"):
        for density, gamma in ((0.7, 0.1), (0.95, 0.1)):  # the second leaves no room to drop a tenth from above
            yield method, pair, base, {"weight": [0.61803, 0.91287], "density": density, "gamma": gamma}
        yield (
            method,
            three,
            base,
            {"weight": [0.61803, 0.91287, 0.22361], "density": 0.5, "gamma": 0.05, "lambda": 0.70711},
        )


def answer(case: Case, known: dict[str, dict[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """(key, tensor) of all results of mergekit for a case; key as in the file, without the case's number.

    A method that draws runs in float32 only: mergekit computes its masks in that.
    """
    method, named, base, parameters = case
    ids = named if base is None or base in named else [base, *named]
    draws = method in DRAWING and parameters["density"] < 1
    for dtype in (torch.float32,) if draws else (torch.float32, torch.float64):
        for tensor in SHAPES:
            with _drawing() as drawn:
                torch.manual_seed(0)
                result = merge_tensors(
                    [known[model][tensor] for model in ids],
                    method,
                    parameters=parameters,
                    base_index=None if base is None else ids.index(base),
                    dtype=dtype,
                    out_dtype=torch.float32,
                )
            yield f"{str(dtype).removeprefix('torch.')}/{tensor}", result
            for number, (chance, mask) in enumerate(drawn):
                yield f"mask{number}/{tensor}", mask.reshape(result.shape).to(torch.uint8)
                if method.startswith("della"):
                    yield f"chance{number}/{tensor}", chance.reshape(result.shape)


@contextmanager
def _drawing() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The (chance, mask) of every torch.bernoulli that is drawn meanwhile, as they come."""
    draw, drawn = torch.bernoulli, []

    def record(chance: Tensor) -> Tensor:
        drawn.append((chance, draw(chance)))
        return drawn[-1][1]

    torch.bernoulli = record
    try:
        yield drawn
    finally:
        torch.bernoulli = draw


def main() -> None:
    """Writes the file named on the command line; the same bytes each time."""
    torch.set_num_threads(1)
    known = models()
    tensors = {f"{model}/{name}": tensor for model, made in known.items() for name, tensor in made.items()}
    listed = {}
    for number, case in enumerate(cases()):
        listed[str(number)] = dict(zip(("method", "models", "base", "parameters"), case, strict=True))
        for key, tensor in answer(case, known):
            tensors[f"{number}/{key}"] = tensor.contiguous()
    metadata = {"versions": {name: version(name) for name in ("mergekit", "torch")}, "cases": listed}
    # One entry only: safetensors writes several in an order that changes from run to run.
    save_file(tensors, sys.argv[1], metadata={"oracle": json.dumps(metadata)})


if __name__ == "__main__":
    main()
