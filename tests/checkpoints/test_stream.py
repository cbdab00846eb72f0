"""The pass: the same bytes whatever the threads, blocks and spans; what is merged and what is kept; little memory."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from merged_folders import recipe_of
from safetensors.torch import save_file

from patientdx.checkpoints import stream as module
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import REPOSITORY
from patientdx.checkpoints.stream import stream
from patientdx.checkpoints.write_plan import tensors_to_write
from patientdx.checkpoints.writer import raw
from patientdx.core.errors import UserError
from patientdx.merge.curve import Curve, evaluate
from patientdx.merge.linear import linear
from patientdx.merge.method import merge_method


def by_row(parents):
    """Each row of the pivot in a share of its own: needs whole rows."""
    base, pivot = parents
    rows = base.shape[0] if base.ndim > 1 else 1
    shares = torch.linspace(0, 1, rows, dtype=torch.float64)
    return Curve((base, pivot), lambda weight: (1 - shares, shares), {"rows": rows}, by_row=True)


def collected(recipe, *, names=None, dtype=None, threads=1, hashed=()):
    """Bytes by tensor, and what was said of each."""
    headers = {
        header.name: header for header in tensors_to_write(recipe, dtype) if names is None or header.name in names
    }
    found = {name: bytearray(header.nbytes) for name, header in headers.items()}

    def put(name, first, data):
        found[name][first : first + len(data)] = data

    def after(name):
        return hashlib.sha256(found[name]).hexdigest()

    said = {one.name: one for one in stream(recipe, headers, put, after, threads=threads, hashed=hashed)}
    return {name: bytes(data) for name, data in found.items()}, said


def in_memory(recipe, dtype):
    """The same, each tensor at once."""
    found = {}
    for group in recipe.groups:
        for name, curve in recipe.curves(group).items():
            out = torch.empty(recipe.parents[0].tensors[name].shape, dtype=dtype)
            found[name] = bytes(raw(evaluate(curve, recipe.weight_of(name), out)))
    return found


@pytest.fixture(scope="module")
def pair(tiny_base, tiny_pivot):
    return recipe_of(tiny_base, tiny_pivot)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_and_spans_do_not_change_a_bit(pair, threads):
    found, said = collected(pair, threads=threads)
    assert found == in_memory(pair, torch.bfloat16)
    assert set(said) == set(pair.names)


@pytest.mark.parametrize("block", [1, 100, 1 << 18])
def test_neither_do_blocks(pair, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    names = {"model.norm.weight", "model.layers.0.self_attn.k_proj.weight"}
    found, _ = collected(pair, names=names, threads=2)
    expected = in_memory(pair, torch.bfloat16)
    assert found == {name: expected[name] for name in names}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("block", [7, 1 << 18])
def test_rows_stay_whole_where_a_curve_needs_them(tiny_base, tiny_pivot, monkeypatch, threads, block):
    monkeypatch.setattr(module, "BLOCK", block)
    recipe = recipe_of(tiny_base, tiny_pivot, method=by_row, weight=None)
    names = [name for name in recipe.names if "layers.0" in name]
    found, said = collected(recipe, names=names, threads=threads)
    expected = in_memory(recipe, torch.bfloat16)
    assert found == {name: expected[name] for name in names}
    assert said["model.layers.0.mlp.up_proj.weight"].diagnostics == {"rows": 64}


def test_a_large_tensor_is_divided_among_threads(pair, monkeypatch):
    seen = []
    evaluated = module._Pass._evaluate

    def noting(self, curve, header, span):
        seen.append((header.name, span))
        return evaluated(self, curve, header, span)

    monkeypatch.setattr(module._Pass, "_evaluate", noting)
    collected(pair, threads=2)
    spans = sorted(span for name, span in seen if name == "model.embed_tokens.weight")
    rows, row = pair.parents[0].tensors["model.embed_tokens.weight"].shape
    assert len(spans) > 1
    assert [0, *(stop for _, stop in spans)] == [*(start for start, _ in spans), rows * row]
    assert all(start % row == 0 for start, _ in spans)


def test_only_what_is_asked_for_is_worked_out(pair):
    found, said = collected(pair, names={"model.norm.weight"})
    assert set(found) == set(said) == {"model.norm.weight"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_another_dtype_is_rounded_to_once(pair, dtype):
    found, _ = collected(pair, dtype=dtype, threads=2)
    assert found == in_memory(pair, getattr(torch, dtype))


def test_sources_are_hashed_on_the_way(pair):
    found, said = collected(pair, threads=2, hashed=(1,))
    for name, one in said.items():
        assert one.hashes == {1: hashlib.sha256(raw(pair.parents[1].read(name))).hexdigest()}
        assert one.result == hashlib.sha256(found[name]).hexdigest()
        assert one.diagnostics["branch"] in ("sphere", "line")


def test_a_layer_at_a_time_and_part_of_it(tiny_base, tiny_pivot):
    opened = []

    @merge_method(lambda_range=(0.0, 1.0), scope="layer")
    def layerwise(parents, *, config):
        opened.append(sorted(parents[0]))
        return {name: linear([parent[name] for parent in parents]) for name in parents[0]}

    recipe = recipe_of(tiny_base, tiny_pivot, method=layerwise)
    expected = in_memory(recipe_of(tiny_base, tiny_pivot, method=linear), torch.bfloat16)
    assert collected(recipe, threads=2)[0] == expected
    opened.clear()
    one = {"model.layers.1.mlp.up_proj.weight"}
    assert collected(recipe, names=one)[0] == {name: expected[name] for name in one}
    assert [len(group) for group in opened] == [9]


def test_whole_numbers_are_kept_from_the_base(tmp_path):
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        tensors = {"ids": torch.arange(3) + number, "mask": torch.tensor(not number), "w": torch.ones(4) * number}
        save_file(tensors, tmp_path / name / "model.safetensors")
    parents = tuple(Checkpoint(tmp_path / name) for name in ("a", "b"))
    recipe = Recipe(parents, ("ids", "mask", "w"), linear, weight=0.5)
    found, said = collected(recipe, dtype="bfloat16", threads=2)
    assert found["ids"] == bytes(raw(torch.arange(3)))
    assert found["mask"] == b"\x01"
    assert found["w"] == bytes(raw(torch.full((4,), 0.5, dtype=torch.bfloat16)))
    assert said["ids"].diagnostics == {"kept": "base"}


def test_values_that_float16_cannot_hold_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.full((3,), 70000.0)}, tmp_path / "model.safetensors")
    recipe = Recipe((Checkpoint(tmp_path),) * 2, ("w",), linear, weight=0.5)
    assert collected(recipe)[0]["w"] == bytes(raw(torch.full((3,), 70000.0)))
    with pytest.raises(UserError) as caught:
        collected(recipe, dtype="float16")
    assert str(caught.value) == (
        "w has values beyond float16's largest, 65504, or parents that are not numbers: choose save_dtype=bfloat16 or "
        "save_dtype=float32."
    )


def test_threads_are_given_back_and_a_fault_ends_the_pass(pair):
    before = torch.get_num_threads()

    def put(name, first, data):
        assert torch.get_num_threads() == 1
        raise KeyError(name)

    headers = {header.name: header for header in tensors_to_write(pair, None)}
    with pytest.raises(KeyError):
        list(stream(pair, headers, put, lambda name: None, threads=2))
    assert torch.get_num_threads() == before


MEMORY = """
import sys, threading, time
from pathlib import Path
import torch
from patientdx.checkpoints.reader import Checkpoint, TensorHeader
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.save import save
from patientdx.checkpoints.writer import write_safetensors
from patientdx.merge.slerp import slerp

def anonymous():
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.005)

place = Path(sys.argv[1])
shapes = {"embedding": (30000, 1024), **{f"layers.{i}.w": (1024, 4096) for i in range(10)}}
for number, name in enumerate(("a", "b")):
    (place / name).mkdir()
    (place / name / "config.json").write_text("{}")
    headers = [TensorHeader(n, s, torch.bfloat16, Path(), 0, 2 * s[0] * s[1]) for n, s in shapes.items()]
    block = torch.randn(256, generator=torch.Generator().manual_seed(number)).bfloat16()
    make = lambda n: block.repeat(shapes[n][0] * shapes[n][1] // 256).view(shapes[n])
    write_safetensors(place / name / "model.safetensors", headers, make)
recipe = Recipe(tuple(Checkpoint(place / n) for n in "ab"), tuple(shapes), slerp, weight=0.3)
before = anonymous()
peak = [0]
threading.Thread(target=watch, daemon=True).start()
save(recipe, place / "merged", cache=place / "cache", threads=2)
print(before, peak[0], sum(2 * r * c for r, c in shapes.values()) / 2**20)
"""


def test_memory_holds_blocks_and_not_tensors(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    before, peak, model = map(float, done.stdout.split())
    assert model > 130
    # The embedding of one parent is 59 MB, and 234 MB in float64; a thread's blocks, with what malloc keeps for it, 30.
    assert peak - before < 110
    assert json.loads((tmp_path / "merged" / "provenance.json").read_text())["lambda"] == 0.3
