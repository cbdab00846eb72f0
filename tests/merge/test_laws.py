"""Laws of every method that has a yaml in conf/merge: a new yaml is tested as soon as it is there."""

import inspect
import threading
from pathlib import Path

import pytest
import torch
import yaml

from patientdx.core.functions import dotted
from patientdx.merge.curve import BLOCK, evaluate, write
from patientdx.merge.method import method_spec

YAMLS = sorted((Path(__file__).parents[2] / "conf/merge").glob("*.yaml"))
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 5), (0,), (BLOCK + 3,)]
ARGUMENTS = {
    "ancestor",
    "name",
    "seed",
    "cutoffs",
    "config",
}  # what a method may name beside its numbers: make_curve gives it


def make_curve(path: Path, parents, ancestor=None, **numbers):
    """The curve that the method of this yaml makes of the parents, with the yaml's own numbers but for `numbers`."""
    node = yaml.safe_load(path.read_text(encoding="utf-8"))["merge"]
    numbers = {key: value for key, value in node.items() if key not in ("name", "_target_")} | numbers
    method = dotted(node["_target_"])
    given = {
        "ancestor": torch.zeros_like(parents[0]) if ancestor is None else ancestor,
        "name": "x",
        "seed": 0,
        "config": {},
    }
    # The thresholds of a model of this one tensor.
    given["cutoffs"] = spec(path).fit_global_thresholds(lambda: [("x", parents, given["ancestor"])], numbers)
    named = [name for name in list(inspect.signature(method).parameters)[1:] if name not in numbers]
    assert set(named) <= ARGUMENTS | defaults(method), f"{path.stem} needs {named}: teach make_curve to give it"
    if spec(path).scope == "layer":
        key = "model.layers.0.mlp.up_proj.weight"
        origin = {key: given["ancestor"]}
        return method([{key: parent} for parent in parents], ancestor=origin, config={}, **numbers)[key]
    return method(parents, **numbers, **{name: given[name] for name in named if name in given})


def defaults(method) -> set[str]:
    return {n for n, p in inspect.signature(method).parameters.items() if p.default is not inspect.Parameter.empty}


def spec(path: Path):
    node = yaml.safe_load(path.read_text(encoding="utf-8"))["merge"]
    return method_spec(dotted(node["_target_"]))


def weights(path: Path) -> list[float]:
    allowed = spec(path).lambda_range
    if allowed is None:
        return [0.0]
    low, high = allowed[0], min(allowed[1], allowed[0] + 1.0)  # a λ may have no upper end
    return [low + (high - low) * s for s in (0.0, 0.3, 0.5, 1.0)]


def parents_of(shape=(41, 13), dtype=torch.float32, seed=0, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(shape, generator=generator)
    return a.to(dtype), (a + spread * torch.randn(shape, generator=generator)).to(dtype)


def point(path: Path, parents, weight, dtype=None) -> torch.Tensor:
    return evaluate(make_curve(path, parents), weight, torch.empty(parents[0].shape, dtype=dtype or parents[0].dtype))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit, signs of zero included."""
    return a.dtype == b.dtype and a.shape == b.shape and bytes_of(a) == bytes_of(b)


def bytes_of(a: torch.Tensor) -> bytes:
    return a.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


every_method = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
ITSELF = {"none", "model_stock", "nearswap"}  # without two ends, but one parent twice gives that parent
with_ends = pytest.mark.parametrize("path", [p for p in YAMLS if spec(p).exact_ends], ids=lambda path: path.stem)


@every_method
def test_yaml_module_and_function_share_a_name_and_lambda_is_declared_on_both_sides(path):
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert whole["merge"]["name"] == path.stem
    assert whole["merge"]["_target_"] == f"patientdx.merge.{path.stem}.{path.stem}"
    assert ("lambda" in whole) == (spec(path).lambda_range is not None)


@with_ends
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.5, 1e-3])  # where SLERP takes the sphere, and where the line
def test_ends_are_parents_bit_for_bit(path, dtype, shape, spread):
    parents = parents_of(shape, dtype, spread=spread)
    parents[0].view(-1)[:1] = -0.0
    for weight, which in zip((0.0, 1.0), spec(path).exact_ends, strict=True):
        assert same(point(path, parents, weight), parents[which])


@pytest.mark.parametrize(
    "path", [p for p in YAMLS if spec(p).exact_ends or p.stem in ITSELF], ids=lambda path: path.stem
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_identical_parents_give_themselves_bit_for_bit(path, dtype):
    # Shares that add up to 1 only within float64's rounding do not show in a narrower dtype; in float64 they may.
    a, _ = parents_of((1000,), dtype)
    for weight in (0.1, 0.3, 0.5, 0.7, 0.9):
        found = point(path, (a, a.clone()), weight)
        if dtype == torch.float64:
            torch.testing.assert_close(found, a, rtol=2**-50, atol=0)
        else:
            assert same(found, a)


@every_method
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_dtype_and_finite_values(path, dtype, shape):
    parents = parents_of(shape, dtype)
    for weight in weights(path):
        found = point(path, parents, weight)
        assert (found.shape, found.dtype) == (parents[0].shape, dtype)
        assert torch.isfinite(found).all()


@every_method
def test_parents_are_never_written_to(path):
    parents = parents_of((BLOCK + 3,), torch.bfloat16)
    kept = [parent.clone() for parent in parents]
    for weight in weights(path):
        point(path, parents, weight)
    assert all(same(parent, copy) for parent, copy in zip(parents, kept, strict=True))


@every_method
def test_parents_that_want_a_gradient_get_none(path):
    parents = [torch.nn.Parameter(parent) for parent in parents_of()]
    for weight in weights(path):
        assert point(path, parents, weight).grad_fn is None
    assert [parent.grad for parent in parents] == [None, None]


@every_method
def test_the_number_of_threads_changes_no_bit_and_no_fact(path):
    parents = parents_of((3 * BLOCK + 1,), torch.bfloat16)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            curve = make_curve(path, parents)
            found.append(
                (dict(curve.diagnostics), [bytes_of(point(path, parents, weight)) for weight in weights(path)])
            )
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@every_method
def test_the_order_of_tensors_and_of_positions_changes_no_bit(path):
    parents = {name: parents_of((50, 3), torch.bfloat16, seed) for seed, name in enumerate("abc")}

    def model(names, positions):
        curves = {name: make_curve(path, parents[name]) for name in names}
        into = {name: torch.full((50, 3), torch.nan, dtype=torch.bfloat16) for name in names}
        for weight in positions:
            write(curves, weight, into)
        return {name: bytes_of(tensor) for name, tensor in into.items()}

    last = weights(path)[-2] if len(weights(path)) > 1 else weights(path)[0]
    assert model("abc", [last]) == model("cba", [*weights(path), last])


@every_method
def test_several_writers_at_once_give_what_one_gives(path):
    parents = [parents_of((BLOCK + 3,), torch.bfloat16, seed) for seed in range(4)]
    weight = weights(path)[-1] / 2
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: bytes_of(point(path, parents[i], weight))}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(4)] == [bytes_of(point(path, pair, weight)) for pair in parents]


@every_method
def test_non_contiguous_parents_are_their_contiguous_copies(path):
    a, b = parents_of((12, 30))
    views = (a.T, torch.stack((b, b), -1)[..., 0].T)
    assert not any(view.is_contiguous() for view in views)
    for weight in weights(path):
        assert same(point(path, views, weight), point(path, [view.contiguous() for view in views], weight))


@every_method
def test_the_result_can_be_wider_or_narrower_than_the_parents(path):
    parents = parents_of(dtype=torch.bfloat16)
    for weight in weights(path):
        wide = point(path, parents, weight, torch.float32)
        assert same(wide.bfloat16(), point(path, parents, weight))


@every_method
def test_out_of_its_own_parents_memory_is_refused(path):
    buffer = torch.randn(100)
    parents = (buffer[:40], buffer[40:80])
    curve = make_curve(path, parents)
    words = "a merged tensor cannot be written over its parents: give it other memory"
    for out in (parents[0], buffer[39:79]):
        with pytest.raises(ValueError, match=words):
            evaluate(curve, weights(path)[0], out)
    apart = evaluate(curve, weights(path)[0], buffer[80:].new_empty(40))
    assert torch.isfinite(apart).all()
    free = torch.randn(120)
    curve = make_curve(path, (free[:40], free[40:80]))
    assert same(evaluate(curve, weights(path)[0], free[80:]), evaluate(curve, weights(path)[0], torch.empty(40)))


@every_method
def test_out_of_another_shape_or_with_gaps_is_refused(path):
    curve = make_curve(path, parents_of((4, 3)))
    weight = weights(path)[0]
    with pytest.raises(ValueError, match=r"^a tensor of shape \(4, 3\) cannot be merged into \(3, 4\)$"):
        evaluate(curve, weight, torch.empty(3, 4))
    with pytest.raises(ValueError, match=r"^a tensor of shape \(4, 3\) cannot be merged into \(2, 4, 3\)$"):
        evaluate(curve, weight, torch.empty(2, 4, 3))
    with pytest.raises(ValueError, match=r"^a merged tensor is written to contiguous memory, got strides \(1, 4\)$"):
        evaluate(curve, weight, torch.empty(3, 4).T)


@every_method
def test_inference_mode_leaves_nothing_behind(path):
    def turn():
        parents = parents_of((10,))
        with torch.inference_mode():
            point(path, parents, weights(path)[-1] / 2)
        found.append(point(path, parents, weights(path)[-1] / 2))

    found = []
    thread = threading.Thread(target=turn)  # of its own, so that the scratch is made in inference mode
    thread.start()
    thread.join()
    assert torch.isfinite(found[0]).all()
