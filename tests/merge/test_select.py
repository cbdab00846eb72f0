import math
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patientdx.merge.thresholds import Cutoff, cutoffs, drop_largest, keep_largest


def in_blocks(*sequences, size=7):
    """One part, in blocks of `size` elements."""

    def blocks():
        for start in range(0, len(sequences[0]), size):
            yield [sequence[start : start + size].clone() for sequence in sequences]

    return lambda: [blocks()]


def by_sorting(x, k):
    """Mask of the k largest magnitudes, lowest index first among equal ones: a full stable sort."""
    mask = torch.zeros(len(x), dtype=torch.bool)
    mask[torch.sort(x.abs().float(), descending=True, stable=True).indices[:k]] = True
    return mask


def selected(x, cutoff, start=0):
    """Mask of what keep_largest keeps of x, elements from `start` of a longer tensor."""
    ones = torch.ones_like(x)
    keep_largest(ones, x, start, cutoff)
    return ones == 1


def floats(bits):
    return struct.unpack("<f", struct.pack("<i", bits))[0]


ADVERSARIAL = {
    "random": lambda n, g: torch.randn(n, generator=g),
    "few values": lambda n, g: torch.randint(-3, 4, (n,), generator=g).float(),
    "bfloat16": lambda n, g: torch.randn(n, generator=g).bfloat16().float(),
    "all zero": lambda n, g: torch.zeros(n),
    "all equal": lambda n, g: torch.full((n,), -0.25),
    "two signs": lambda n, g: torch.where(torch.rand(n, generator=g) < 0.5, 1.5, -1.5),
    "last bit": lambda n, g: (torch.randint(0, 5, (n,), generator=g).int() + 0x3F800000).view(torch.float32),
    "subnormal": lambda n, g: torch.randint(0, 9, (n,), generator=g).int().view(torch.float32),
    "huge and tiny": lambda n, g: torch.randn(n, generator=g) * 10.0 ** torch.randint(-38, 38, (n,), generator=g),
    "ascending": lambda n, g: torch.arange(n).float(),
    "descending": lambda n, g: torch.arange(n).flip(0).float(),
}


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("n", [1, 2, 50, 1000])
def test_is_what_a_full_sort_selects(kind, n):
    x = ADVERSARIAL[kind](n, torch.Generator().manual_seed(n))
    for k in sorted({0, 1, min(2, n), n // 5, n // 2, n - 1, n}):
        ((cutoff,),) = cutoffs(in_blocks(x), n, [[k]])
        mask = selected(x.double(), cutoff)
        assert int(mask.sum()) == k
        assert torch.equal(mask, by_sorting(x, k))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), st.data())
def test_is_what_a_full_sort_selects_of_any_numbers(numbers, data):
    x = torch.tensor(numbers)
    k = data.draw(st.integers(0, len(numbers)))
    size = data.draw(st.integers(1, 45))
    ((cutoff,),) = cutoffs(in_blocks(x, size=size), len(x), [[k]])
    assert torch.equal(selected(x.double(), cutoff), by_sorting(x, k))


def test_several_sequences_and_several_counts_at_once():
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(500, generator=g), torch.randint(-2, 3, (500,), generator=g).float()
    found = cutoffs(in_blocks(first, second), 500, [[5, 100, 101], [0, 250, 500]])
    for x, ks, own in ((first, (5, 100, 101), found[0]), (second, (0, 250, 500), found[1])):
        for k, cutoff in zip(ks, own, strict=True):
            assert torch.equal(selected(x.double(), cutoff), by_sorting(x, k))


def test_by_hand():
    x = torch.tensor([1.0, -3.0, 2.0, -2.0, 0.0, 2.0])
    found = cutoffs(in_blocks(x, size=2), 6, [[1, 2, 3, 4, 5, 6]])[0]
    # Past the last tie, or past the end, every element of that magnitude counts.
    assert found == (Cutoff(3.0, 6), Cutoff(2.0, 2), Cutoff(2.0, 3), Cutoff(2.0, 6), Cutoff(1.0, 6), Cutoff(0.0, 6))
    assert selected(x.double(), found[1]).tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("k", "expected"), [(-1, Cutoff(math.inf, -1)), (0, Cutoff(math.inf, -1)), (9, Cutoff(0.0, 3))]
)
def test_none_and_all_need_no_pass(k, expected):
    def blocks():
        raise AssertionError("read")

    assert cutoffs(blocks, 3, [[k]]) == [(expected,)]
    assert cutoffs(blocks, 0, [[1]]) == [(Cutoff(0.0, 0),)]


@pytest.mark.parametrize("passes", [2, 3])
def test_two_passes_and_a_third_up_to_the_last_tie(passes):
    x = torch.tensor([4.0, 3.0, 2.0, 1.0] if passes == 2 else [2.0, 2.0, 2.0, 1.0])
    read = []

    def blocks():
        read.append(0)
        for start in range(4):
            read[-1] += 1
            yield [x[start : start + 1].clone()]

    assert cutoffs(lambda: [blocks()], 4, [[2]])[0][0].last == (4 if passes == 2 else 1)
    assert read == ([4, 4] if passes == 2 else [4, 4, 2])


def test_the_size_of_blocks_changes_nothing():
    x = ADVERSARIAL["bfloat16"](3000, torch.Generator().manual_seed(5))
    found = {cutoffs(in_blocks(x, size=size), 3000, [[1234, 77]])[0] for size in (1, 10, 999, 3000, 5000)}
    assert len(found) == 1


def test_the_number_of_parts_and_of_threads_changes_nothing():
    x = ADVERSARIAL["bfloat16"](3000, torch.Generator().manual_seed(5))

    def parts(size):
        for start in range(0, 3000, size):
            yield from in_blocks(x[start : start + size], size=100)()

    with ThreadPoolExecutor(3) as pool:
        found = {
            cutoffs(partial(parts, size), 3000, [[1234, 77]], each)[0]
            for size in (70, 1000, 3000)
            for each in (map, pool.map)
        }
    assert len(found) == 1


def test_any_span_can_be_judged_by_itself():
    x = ADVERSARIAL["few values"](200, torch.Generator().manual_seed(1)).double()
    ((cutoff,),) = cutoffs(in_blocks(x.float()), 200, [[60]])
    whole = selected(x, cutoff)
    for start in range(0, 200, 3):
        for stop in (start, start + 1, start + 50, 200):
            assert torch.equal(selected(x[start:stop], cutoff, start), whole[start:stop])
            assert torch.equal(selected(x[start:stop], cutoff.shifted(start)), whole[start:stop])


@pytest.mark.parametrize("bits", [1, 2, 0x00800000, 0x3F800000, 0x3F800001, 0x3F7FFFFF, 0x7F7FFFFE, 0x7F7FFFFF])
@pytest.mark.parametrize("ties", [True, False])
def test_float64_magnitudes_count_as_the_float32_they_round_to(bits, ties):
    below, at = floats(bits - 1), floats(bits)
    above = min(floats(bits + 1), 2.0**128)
    candidates = [below, at, min(above, 1.7e308)]
    for low, high in ((below, at), (at, above)):
        middle = (low + high) / 2  # exact in float64; which way it rounds depends on the last bit
        candidates += [middle, math.nextafter(middle, 0), math.nextafter(middle, math.inf)]
    x = torch.tensor([*candidates, *(-c for c in candidates)], dtype=torch.float64)
    as32 = x.float().abs()
    expected = as32 >= at if ties else as32 > at
    cutoff = Cutoff(at, len(x) if ties else -1)
    assert torch.equal(selected(x, cutoff), expected)
    assert torch.equal(selected(as32, cutoff), expected)  # float32 work, as on a device without float64


def test_overflow_to_infinity_is_a_magnitude_like_any_other():
    x = torch.tensor([1e300, 1.0, -1e200, 3.4e38], dtype=torch.float64)
    ((one, two, three),) = cutoffs(in_blocks(x.float()), 4, [[1, 2, 3]])
    assert selected(x, one).tolist() == [True, False, False, False]
    assert selected(x, two).tolist() == [True, False, True, False]
    assert selected(x, three).tolist() == [True, False, True, True]


def test_keep_and_drop_write_in_place_and_leave_the_kept_bits():
    x = torch.tensor([0.5, -1e-30, 2.0, -2.0, 2.0, 3.0], dtype=torch.float64)
    cutoff = Cutoff(2.0, 3)
    kept, dropped = x.clone(), x.clone()
    keep_largest(kept, kept, 0, cutoff)
    drop_largest(dropped, dropped, 0, cutoff)
    assert kept.tolist() == [0.0, 0.0, 2.0, -2.0, 0.0, 3.0]
    assert dropped.tolist() == [0.5, -1e-30, 0.0, 0.0, 2.0, 0.0]
    keep_largest(empty := x[:0].clone(), empty, 4, cutoff)
    assert empty.numel() == 0


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("factor", [1.0, 0.99, 1e6, 0.0])
def test_a_sample_good_or_bad_changes_nothing(kind, factor):
    x = ADVERSARIAL[kind](1000, torch.Generator().manual_seed(3))
    ks = [1, 2, 200, 500, 998, 999]
    sample = in_blocks(x[::7] * factor)
    assert cutoffs(in_blocks(x), 1000, [ks], sample=sample) == cutoffs(in_blocks(x), 1000, [ks])
    assert cutoffs(in_blocks(x), 1000, [ks], sample=list) == cutoffs(in_blocks(x), 1000, [ks])


def test_a_good_sample_saves_a_reading():
    x, read = torch.randn(5000, generator=torch.Generator().manual_seed(4)), []

    def parts():
        read.append(1)
        return in_blocks(x, size=1000)()

    found = cutoffs(parts, 5000, [[1000]], sample=in_blocks(x[:2000]))
    assert len(read) == 1
    assert found == cutoffs(in_blocks(x), 5000, [[1000]])
