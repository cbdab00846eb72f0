import pytest
import torch

from patientdx.merge.curve import BLOCK, evaluate
from patientdx.merge.task_vectors import (
    check_choice,
    check_density,
    check_weights,
    model_cutoffs,
    task_vectors,
    weighted_sum,
)


def whole(pieces, number):
    return torch.cat([moved[number].clone() for moved in pieces])


@pytest.mark.parametrize("count", [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks_are_the_difference(count):
    g = torch.Generator().manual_seed(0)
    ancestor, a, b = (torch.randn(count, generator=g).bfloat16() for _ in range(3))
    found = task_vectors((a, b), ancestor, None, "x")
    for number, parent in enumerate((a, b)):
        exact = parent.double() - ancestor.double()
        if count:
            assert torch.equal(torch.cat([moved[number].clone() for _, moved in found.blocks()]), exact)
            assert torch.equal(torch.cat([moved[number].clone() for moved in found.magnitudes()]), exact.float())
    assert [start for start, _ in found.blocks()] == list(range(0, count, BLOCK))


@pytest.mark.parametrize("width", [1, 576, BLOCK - 1, BLOCK, BLOCK + 3])
def test_blocks_by_row_hold_whole_rows(width):
    shape = (-(-2 * BLOCK // width) + 1, width)
    found = task_vectors((torch.zeros(shape),), torch.ones(shape), None, "x")
    sizes = [(start, moved[0].numel()) for start, moved in found.blocks(by_row=True)]
    assert all(start % width == 0 == size % width and size for start, size in sizes)
    assert sum(size for _, size in sizes) == shape[0] * shape[1]
    assert max(size for _, size in sizes) <= max(BLOCK, width)


@pytest.mark.parametrize(
    "dtypes",
    [
        ("bfloat16", "bfloat16"),
        ("float16", "bfloat16"),
        ("float32", "float32"),
        ("float32", "bfloat16"),
        ("float64", "float32"),
    ],
)
def test_float32_magnitudes_are_the_float64_difference_rounded_once(dtypes):
    g = torch.Generator().manual_seed(1)
    low, high = (-7, 4) if "float16" in dtypes else (-40, 38)

    def spread():
        return torch.randn(BLOCK + 9, generator=g) * 10.0 ** torch.randint(low, high, (BLOCK + 9,), generator=g)

    # Far apart, near each other, and one bit apart.
    first = spread()
    ancestor = torch.cat((first, first)).to(getattr(torch, dtypes[0]))
    parent = torch.cat((spread(), first * (1 + 1e-6 * torch.randn(BLOCK + 9, generator=g)))).to(
        getattr(torch, dtypes[1])
    )
    found = whole(task_vectors((parent,), ancestor, None, "x").magnitudes(), 0)
    assert torch.equal(found, (parent.double() - ancestor.double()).float())


def test_a_parent_in_the_ancestors_own_memory_is_left_out_and_a_copy_of_it_is_not():
    ancestor, pivot = torch.randn(3, 4), torch.randn(3, 4)
    found = task_vectors((ancestor, pivot, ancestor.clone()), ancestor, [2, 3, 4], "x")
    assert (found.numbers, found.weights) == ((1, 2), (3.0, 4.0))
    assert task_vectors((ancestor.view(3, 4),), ancestor, None, "x").numbers == ()
    assert task_vectors((ancestor[:2],), ancestor[:2], None, "x").numbers == ()
    square = torch.randn(4, 4)
    assert task_vectors((square.T,), square, None, "x").numbers == (0,)
    assert task_vectors((ancestor, pivot), ancestor, None, "x", every=True).numbers == (0, 1)


def test_without_a_parent_that_moved_the_curve_is_the_ancestor():
    ancestor = torch.randn(5)
    curve = task_vectors((ancestor,), ancestor, None, "x").curve(lambda moved, start: 1 / 0, weighted_sum, {})
    assert torch.equal(evaluate(curve, 3.0, torch.empty(5)), ancestor)


def test_cutoffs_of_a_model_are_those_of_one_long_vector():
    g = torch.Generator().manual_seed(2)
    sizes = {"a": (4, 5), "b": (0,), "c": (), "d": (30,)}
    ancestors = {name: torch.randint(-3, 4, shape, generator=g).float() for name, shape in sizes.items()}
    parents = {name: torch.randint(-3, 4, shape, generator=g).float() for name, shape in sizes.items()}

    def tensors():
        for name in sizes:
            yield name, (ancestors[name], parents[name]), ancestors[name]

    found = model_cutoffs(tensors, lambda count: [count // 3], "x")
    assert all(list(cutoffs) == [1] for cutoffs in found.values())  # the base is the ancestor itself
    start = 0
    flat = torch.cat([(parents[name] - ancestors[name]).flatten() for name in sizes]).abs()
    keep = set(torch.sort(flat, descending=True, stable=True).indices[: len(flat) // 3].tolist())
    for name in sizes:
        (cutoff,) = found[name][1]
        for i, value in enumerate((parents[name] - ancestors[name]).abs().flatten().tolist()):
            assert (value > cutoff.magnitude or (value == cutoff.magnitude and i <= cutoff.last)) == (start + i in keep)
        start += ancestors[name].numel()


def test_words_of_refusal():
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"^merge=ties joins one parent or more, got none$"):
        task_vectors((), x, None, "ties")
    with pytest.raises(ValueError, match=r"^merge=ties joins tensors of one shape, got \(2,\) and \(2, 1\)$"):
        task_vectors((x, x[:, None]), x, None, "ties")
    words = r"^merge.weights=\[1.0\] has 1 for 2 parents: give one number for each, base first$"
    with pytest.raises(ValueError, match=words):
        check_weights([1.0], 2)
    for wrong in (1.0, ["a", "b"], [True, 1.0], [float("nan"), 1.0], "12", {"a": 1}):
        with pytest.raises(ValueError, match=r"give a list of numbers, one for each parent, base first, or null$"):
            check_weights(wrong, 2)
    assert check_weights([1, 0.5], 2) == (1.0, 0.5)
    assert check_weights(None, 3) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"^merge.compat=peft: it is one of paper, mergekit$"):
        check_choice("peft", "compat", ("paper", "mergekit"))
    for wrong in (0.0, -0.1, 1.1, float("nan")):
        words = rf"^merge.density={wrong:g} is no share of the elements: give a number above 0 and up to 1$"
        with pytest.raises(ValueError, match=words):
            check_density(wrong)
