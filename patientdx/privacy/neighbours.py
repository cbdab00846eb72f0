"""Neighbours of a record: the same text with some words exchanged, for the neighbourhood attack.

Mattern et al. 2023 have a masked language model propose the words. This is a cheaper scheme that needs none: numbers,
which are what is private in a record, get other digits, and other words come from the records' own vocabulary. Such
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
    """How often each word stands in the texts, in alphabetical order; numbers are left out."""
    counted = Counter(word for text in texts for word in _PARTS.findall(text) if not word.isdecimal())
    return dict(sorted(counted.items()))


def neighbours(text: str, words: dict[str, int], count: int, *, share: float = 0.1, seed: int = 0) -> list[str]:
    """`count` neighbours of a text, in each of which `share` of its words and numbers, at least one, are others.

    A group of digits keeps its length, and a first digit that is not 0 stays so; a word is drawn from `words` by how
    often it stands there. The draw depends on the seed and the text alone. UserError for a share outside (0, 1] and for a
    text without words.
    """
    if not 0 < share <= 1:
        raise UserError(f"a neighbour with {share:g} of its words exchanged: give a share above 0, up to 1.")
    places = [found.span() for found in _PARTS.finditer(text)]
    if not places:
        raise UserError(
            "a record without words or numbers has no neighbours. Leave it out, or set privacy.neighbours=0."
        )
    names, weight = list(words), np.array(list(words.values()), dtype=np.float64)
    random = np.random.default_rng([seed, *text.encode()])
    exchanged = max(1, round(share * len(places)))
    found = []
    for _ in range(count):
        chosen = sorted(random.choice(len(places), size=exchanged, replace=False), reverse=True)
        other = text
        for place in chosen:
            start, stop = places[place]
            other = other[:start] + _another(other[start:stop], names, weight, random) + other[stop:]
        found.append(other)
    return found


def _another(old: str, names: list[str], weight: np.ndarray, random: np.random.Generator) -> str:
    """Another number of as many digits, or another word."""
    if old.isdecimal():
        low = 0 if len(old) == 1 or old[0] == "0" else 10 ** (len(old) - 1)
        # One of all but the old one.
        drawn = int(random.integers(low, 10 ** len(old) - 1))
        return str(drawn + (drawn >= int(old))).zfill(len(old))
    others = weight * np.array([name != old for name in names])
    return old if not others.sum() else names[random.choice(len(names), p=others / others.sum())]
