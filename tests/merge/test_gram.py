import pytest
import torch

from patientdx.merge.curve import BLOCK, require_parents
from patientdx.merge.gram import cosines, gram


def draw(shape, count=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 5), (3, BLOCK + 9), (2 * BLOCK // 100 + 1, 100)])
@pytest.mark.parametrize("differences", [False, True])
def test_is_all_inner_products_in_float64(dtype, shape, differences):
    *tensors, origin = draw(shape, 4, dtype)
    stack = torch.stack(tensors).double() - (origin.double() if differences else 0.0)
    given = (tensors, origin) if differences else (tensors,)
    flat, rows = stack.flatten(1), stack.reshape(3, -1, shape[-1])
    torch.testing.assert_close(gram(*given), (flat @ flat.T)[None], rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(
        gram(*given, by_row=True), torch.einsum("irk,jrk->rij", rows, rows), rtol=1e-12, atol=1e-9
    )


def test_differences_are_taken_in_float64():
    origin = torch.tensor([1e8])  # 1e-3 beside it is lost in float32
    a, b = origin.double() + 1e-3, origin.double() - 1e-3
    assert gram((a, b), origin)[0, 0, 1].item() == pytest.approx(-1e-6, rel=1e-4)


def test_tensors_of_one_element_and_of_none():
    two = torch.tensor(2.0)
    for by_row in (False, True):
        assert gram((two, -two), by_row=by_row).tolist() == [[[4.0, -4.0], [-4.0, 4.0]]]
    assert gram([torch.empty(0)] * 2).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]
    for shape in ((0,), (3, 0), (0, 3)):
        assert gram([torch.empty(shape)] * 2, by_row=True).shape == (0, 2, 2)


def test_views_with_gaps_are_read_as_their_copies():
    a, b = (tensor.T for tensor in draw((12, 30), 2))
    for by_row in (False, True):
        assert torch.equal(gram((a, b), by_row=by_row), gram((a.contiguous(), b.contiguous()), by_row=by_row))


@pytest.mark.parametrize("shape", [(BLOCK + 1,), (2, BLOCK // 2), (3, 70001), (20001, 16)])
@pytest.mark.parametrize("by_row", [False, True])
def test_the_number_of_threads_changes_no_bit(shape, by_row):
    tensors = draw(shape)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(gram(tensors, by_row=by_row))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found)


def test_cosines_and_norms_of_vectors_with_and_without_length():
    a, b, nothing = torch.tensor([3.0, 4.0]), torch.tensor([-4.0, 3.0]), torch.zeros(2)
    norms, cosine = cosines(gram((a, b, a + b, nothing))[0])
    assert norms.tolist() == pytest.approx([5.0, 5.0, 50**0.5, 0.0])
    half = 0.5**0.5
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(cosine, torch.tensor(expected, dtype=torch.float64))
    tiny = torch.tensor([0.1, 0.2, 0.3])
    assert cosines(gram((tiny, 3 * tiny))[0])[1].max().item() <= 1.0


def test_cosines_of_values_whose_squares_leave_float32():
    norms, cosine = cosines(gram((torch.tensor([1e30, 0.0]), torch.tensor([1e-30, 1e-30])))[0])
    assert norms.tolist() == pytest.approx([1e30, 2**0.5 * 1e-30])
    assert cosine[0, 1].item() == pytest.approx(0.5**0.5)


def test_fewer_than_two_parents_or_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^merge=karcher joins two or more parents, got 1$"):
        require_parents([torch.ones(2)], "karcher")
    with pytest.raises(ValueError, match=r"^merge=karcher joins tensors of one shape, got \(2,\) and \(3,\)$"):
        require_parents([torch.ones(2), torch.ones(2), torch.ones(3)], "karcher")
