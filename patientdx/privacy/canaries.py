"""Canaries: invented records put into the training data on purpose, to measure how well the model remembers them.

A canary is an identification number of random digits in a sentence of a record. Its exposure is how likely the model
takes it to be among other numbers that it could have been (Carlini et al. 2019, The Secret Sharer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from patientdx.core.errors import UserError

DIGITS = 9
_WORDS = "Study number of this patient: {}."


@dataclass(frozen=True)
class Canary:
    """One invented record: its text, how often it is in the training data, and the answer that goes with it."""

    text: str
    copies: int
    label: int


def canaries(copies: Sequence[int], each: int, *, seed: int = 0) -> list[Canary]:
    """`each` canaries for every number of copies, all different. The digits come from the seed alone.

    UserError for a number of copies below 1 and for no canary at all.
    """
    invalid = [number for number in copies if isinstance(number, bool) or not isinstance(number, int) or number < 1]
    if invalid or each < 1:
        raise UserError(
            f"privacy.canaries={list(copies)}, {each} of each: numbers of copies are integers of at least 1, as in "
            "privacy.canaries=[1,4,16]; [] for none."
        )
    random = np.random.default_rng([seed, 0])
    numbers = _numbers(random, each * len(copies))
    labels = random.integers(0, 2, len(numbers))
    repeats = [count for count in copies for _ in range(each)]
    return [Canary(_WORDS.format(n), count, int(y)) for n, count, y in zip(numbers, repeats, labels, strict=True)]


def candidates(inserted: Sequence[Canary], number: int, *, seed: int = 0) -> list[str]:
    """`number` texts that could have been canaries and are not."""
    random, taken = np.random.default_rng([seed, 1]), {canary.text for canary in inserted}
    texts = [_WORDS.format(n) for n in _numbers(random, number + len(taken))]
    return [text for text in texts if text not in taken][:number]


def _numbers(random: np.random.Generator, count: int) -> list[str]:
    """`count` different numbers, their digits three by three."""
    numbers: dict[str, None] = {}
    while len(numbers) < count:
        digits = "".join(map(str, random.integers(0, 10, DIGITS)))
        numbers[" ".join(digits[i : i + 3] for i in range(0, DIGITS, 3))] = None
    return list(numbers)


def exposure(loss: float, candidate_losses: ArrayLike) -> float:
    """log2 of the number of candidates minus log2 of the canary's rank among them by loss, in bits.

    loss: of the canary; candidate_losses (m,): of the others, drawn at random from all that it could have been. The
    canary counts as a candidate, so the exposure lies between 0 and log2(m + 1), and is exact for this drawn set. A
    candidate with the same loss is ranked before it. Expected without memory: about log2 e = 1.44 for large m.
    """
    others = np.asarray(candidate_losses, dtype=np.float64)
    rank = 1 + int((others <= loss).sum())
    return float(np.log2(len(others) + 1) - np.log2(rank))


def continued(reference: Sequence[int], output: Sequence[int]) -> dict[str, float | bool]:
    """Compare a greedy continuation with the text that really follows: token ids of both, equally long.

    `exact`: the same. `prefix`: fraction of the reference tokens before the first mistake. `longest`: fraction of the
    reference tokens in the longest run of them that the output has in one piece, at any position.
    """
    reference, output = list(reference), list(output)
    pairs = enumerate(zip(reference, output, strict=False))
    prefix = next((i for i, (a, b) in pairs if a != b), min(len(reference), len(output)))
    return {
        "exact": reference == output,
        "prefix": prefix / len(reference),
        "longest": longest_common(reference, output) / len(reference),
    }


def longest_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest run of tokens that both contain."""
    best, previous = 0, [0] * (len(b) + 1)
    for token in a:
        lengths = [0]
        for index, other in enumerate(b):
            lengths.append(previous[index] + 1 if token == other else 0)
        best, previous = max(best, *lengths), lengths
    return best
