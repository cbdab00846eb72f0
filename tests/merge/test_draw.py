import hashlib
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patientdx.merge.curve import BLOCK
from patientdx.merge.random_mask import keep_random, key_of, uniform

N = 1 << 18
SIGMA = 1 / math.sqrt(N)


def kept(key, keep, count=N, start=0):
    x = torch.ones(count, dtype=torch.float64)
    keep_random(x, key, start, keep)
    assert set(x.unique().tolist()) <= {0.0, 1.0}
    return x == 1


def correlation(a, b):
    return torch.corrcoef(torch.stack((a, b)))[0, 1].item()


def splitmix(seed, count):
    """SplitMix64 in whole numbers, from its paper."""
    found = []
    for i in range(1, count + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_the_reference_generator_is_splitmix64():
    # The published test vector of seed 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix(1234567, 4) == published


@pytest.mark.parametrize("key", [0, 1234567, 2**63, 2**64 - 1])
def test_two_neighbours_share_one_number_of_splitmix64(key):
    expected = []
    for z in splitmix(key, 50):
        for half in (z & 0xFFFFFFFF, z >> 32):
            step = half - 2**32 if half >= 2**31 else half
            expected.append((2**31 - 1 - step) / 2**32)
    assert uniform(key, 0, 100).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 10**12), st.integers(1, 300), st.data())
def test_any_span_draws_what_the_whole_draws(key, start, count, data):
    whole = uniform(key, start, count)
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low, count))
    assert torch.equal(uniform(key, start + low, high - low), whole[low:high])


def test_spans_longer_than_the_stored_counter():
    whole = uniform(7, 3, 3 * BLOCK)
    parts = [uniform(7, 3 + at, BLOCK) for at in range(0, 3 * BLOCK, BLOCK)]
    assert torch.equal(whole, torch.cat(parts))


def test_uniform_from_0_to_below_1():
    u = uniform(key_of(0, 1, "layer"), 0, N)
    assert 0.0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1.0
    assert abs(u.mean().item() - 0.5) < 4 * SIGMA / math.sqrt(12)
    assert abs(u.var().item() - 1 / 12) < 4 * SIGMA / math.sqrt(180)
    counts = torch.histc(u, bins=256, min=0, max=1)
    chi2 = ((counts - N / 256) ** 2 / (N / 256)).sum().item()
    assert 255 - 4 * math.sqrt(510) < chi2 < 255 + 4 * math.sqrt(510)


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 4096])
def test_elements_are_independent_of_their_neighbours(lag):
    u = uniform(key_of(0, 1, "layer"), 0, N)
    assert abs(correlation(u[:-lag], u[lag:])) < 4.5 * SIGMA


@pytest.mark.parametrize("other", [(0, 1, "layer.2"), (0, 0, "layer"), (1, 1, "layer"), (0, 11, "ayer")])
def test_tensors_parents_and_seeds_draw_independently(other):
    u, v = uniform(key_of(0, 1, "layer"), 0, N), uniform(key_of(*other), 0, N)
    assert abs(correlation(u, v)) < 4.5 * SIGMA
    both = ((u < 0.3) & (v < 0.3)).double().mean().item()
    assert abs(both - 0.09) < 4.5 * SIGMA * math.sqrt(0.09 * 0.91)


def test_the_key_is_the_sha256_of_all_three():
    digest = hashlib.sha256(b"3\n1\nmodel.norm.weight").digest()
    assert key_of(3, 1, "model.norm.weight") == int.from_bytes(digest[:8], "little")


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.9, 1.0])
def test_keeps_the_numbers_below_the_density(density):
    key = key_of(0, 0, "x")
    mask = kept(key, density)
    assert torch.equal(mask, uniform(key, 0, N) < density)
    assert abs(mask.double().mean().item() - density) <= 4.5 * SIGMA * math.sqrt(density * (1 - density))


def test_what_a_low_density_keeps_a_higher_one_keeps_too():
    masks = [kept(5, density) for density in (0.01, 0.1, 0.3, 0.30001, 0.8, 1.0)]
    for low, high in pairwise(masks):
        assert not (low & ~high).any()
    assert masks[-1].all()


def test_one_probability_for_each_element():
    g = torch.Generator().manual_seed(0)
    keep = torch.rand(1001, generator=g, dtype=torch.float64)
    expected = uniform(9, 31, 1001) < keep
    assert torch.equal(kept(9, keep.clone(), 1001, 31), expected)
    same = torch.full((1001,), 0.4, dtype=torch.float64)
    assert torch.equal(kept(9, same, 1001, 31), kept(9, 0.4, 1001, 31))


def test_what_is_kept_keeps_its_bits():
    x = torch.tensor([1e-300, -1e300, 0.1, -0.0] * 50, dtype=torch.float64)
    y = x.clone()
    keep_random(y, 1, 0, 1.0)
    assert torch.equal(x, y)
