"""The task-vector methods once more for tests: whole tensors, full sorts and masks, straight from their papers."""

import torch

from patientdx.merge.curve import evaluate
from patientdx.merge.random_mask import key_of, uniform

KINDS = ("random", "bfloat16", "few values", "all equal", "one parent at rest", "all at rest", "huge and tiny")


def family(kind, shape=(37, 19), count=2, dtype=torch.float32, seed=0):
    """(ancestor, parents) of one shape; the kinds differ in how many magnitudes are equal."""
    g = torch.Generator().manual_seed(seed)
    ancestor = torch.randn(shape, generator=g).bfloat16()
    moves = [torch.randn(shape, generator=g) for _ in range(count)]
    if kind == "few values":
        ancestor, moves = ancestor.round(), [move.mul(2).round() for move in moves]
    if kind == "all equal":
        ancestor, moves = ancestor.round(), [move.sign() for move in moves]
    if kind == "one parent at rest":
        moves[0].zero_()
    if kind == "all at rest":
        moves = [move.zero_() for move in moves]
    if kind == "huge and tiny":
        moves = [move * 10.0 ** torch.randint(-12, 4, shape, generator=g) for move in moves]
    narrow = torch.bfloat16 if kind == "bfloat16" else dtype
    return ancestor.to(dtype), [(ancestor.float() + move).to(narrow).to(dtype) for move in moves]


def deltas(parents, ancestor):
    return [parent.double() - ancestor.double() for parent in parents]


def largest(x, k):
    """Mask of the k largest magnitudes, as float32, lowest index first among equal ones."""
    mask = torch.zeros(x.numel(), dtype=torch.bool)
    mask[torch.sort(x.reshape(-1).float().abs(), descending=True, stable=True).indices[:k]] = True
    return mask.view(x.shape)


def numbers(x, parent, name="x", seed=0):
    """The uniform number that each element of x draws."""
    return uniform(key_of(seed, parent, name), 0, x.numel()).view(x.shape)


def elected(vectors, weights, compat, divide=True):
    stacked = torch.stack(vectors)
    w = torch.tensor(weights, dtype=torch.float64).view(-1, *[1] * vectors[0].ndim)
    sign = (stacked * w if compat == "mergekit" else stacked).sum(0).sign()
    if compat not in ("paper", "sum"):
        sign = torch.where(sign == 0, 1.0, sign)
    agree = ((stacked * w if compat == "mergekit" else stacked).sign() == sign) & (sign != 0)
    top = torch.where(agree, stacked * w, 0.0).sum(0)
    if compat == "mergekit":
        below = torch.where(agree, w, 0.0).sum(0) if divide else torch.ones_like(top)
        return top / torch.where(below == 0, 1.0, below)
    if compat == "sum":
        return top
    return top / agree.sum(0).clamp(min=1)


def summed(vectors, weights):
    return sum(weight * vector for vector, weight in zip(vectors, weights, strict=True))


def assert_is(curve, ancestor, joined, weight=0.7, atol=1e-15):
    """The curve's point is ancestor + λ joined, worked out in float64."""
    found = evaluate(curve, weight, torch.empty(ancestor.shape, dtype=torch.float64))
    torch.testing.assert_close(found, ancestor.double() + weight * joined, rtol=1e-13, atol=atol)
