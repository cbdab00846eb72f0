"""Neighbours of a record: the same text with some words exchanged, for the neighbourhood attack.

Mattern et al. 2023 have a masked language model propose the words. This is a cheaper scheme that needs none: numbers,
which are the private part of a record, get other digits, and other words come from the vocabulary of all records. Such
neighbours are less plausible than a masked model's, so L of a neighbour is higher; what counts is whether members
differ in it from non-members.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from patientdx.core.errors import UserError

_PARTS = re.compile(r"\d+|[^\W\d_]+")  # numbers digit group by digit group, and words


def vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """How often each word occurs in the texts, in alphabetical order; numbers are left out."""
    counted = Counter(word for text in texts for word in _PARTS.findall(text) if not word.isdecimal())
    return dict(sorted(counted.items()))


def neighbours(text: str, words: dict[str, int], count: int, *, share: float = 0.1, seed: int = 0) -> list[str]:
    """`count` neighbours of a text, each with a fraction `share` of its words and numbers (at least one) exchanged.

    A group of digits keeps its length, and a first digit that is not 0 stays so; a word is drawn from `words` by its
    count. The draw depends on the seed and the text alone. UserError for a share outside (0, 1] and for a
    text without words.
    """
    if not 0 < share <= 1:
        raise UserError(f"share={share:g} of the words exchanged is not valid: it must be above 0 and at most 1.")
    spans = [match.span() for match in _PARTS.finditer(text)]
    if not spans:
        raise UserError(
            "a record without words or numbers has no neighbours. Leave it out, or set privacy.neighbours=0."
        )
    names, weight = list(words), np.array(list(words.values()), dtype=np.float64)
    random = np.random.default_rng([seed, *text.encode()])
    exchanged = max(1, round(share * len(spans)))
    texts = []
    for _ in range(count):
        chosen = sorted(random.choice(len(spans), size=exchanged, replace=False), reverse=True)
        other = text
        for index in chosen:
            start, stop = spans[index]
            other = other[:start] + _replacement(other[start:stop], names, weight, random) + other[stop:]
        texts.append(other)
    return texts


def _replacement(old: str, names: list[str], weight: np.ndarray, random: np.random.Generator) -> str:
    """Another number of as many digits, or another word."""
    if old.isdecimal():
        low = 0 if len(old) == 1 or old[0] == "0" else 10 ** (len(old) - 1)
        # Uniform over all numbers of that length except the old one.
        drawn = int(random.integers(low, 10 ** len(old) - 1))
        return str(drawn + (drawn >= int(old))).zfill(len(old))
    others = weight * np.array([name != old for name in names])
    return old if not others.sum() else names[random.choice(len(names), p=others / others.sum())]
