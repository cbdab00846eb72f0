"""Fresh records in the words of given ones: the reference of the leakage test where no generator can make more.

A text is taken apart into pieces that end at a line break or a separator. A piece's shape is its text with every number
taken out, such as "Heart rate # (#-#) bpm". A fresh record walks from shape to shape as the records do, by which shape
follows which how often, and every number in it is drawn from those that the shape has at that place in any record. So
numbers come from many patients, each on its own, and only neighbouring shapes were ever seen together. Shapes of fewer
than `LEAST` records are left out: a rare word never comes back.

The fresh records know nothing of how numbers belong together (a minimum may exceed a maximum), so a model that knows
medicine finds them harder than real ones and Δ1 comes out too low. The contrast with the base model is to be read.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from patientdx.core.errors import UserError

LEAST = 5
_PIECE = re.compile(r"(.*?)(\n|: |; |, |\. | \| |$)", re.DOTALL)  # what it says, and what it ends at
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SLOT = "\0"  # stands for a number in a shape, where no text has it
_START, _END = "", "\1"  # no piece is empty, and none is this

Piece = tuple[str, list[str], str]  # shape, its numbers, what it ends at


def resampled(texts: Sequence[str], count: int, *, seed: int = 0) -> list[str]:
    """`count` fresh texts in the manner of `texts`; none of them is one of `texts`.

    The draws depend on the seed and on which texts there are, not on their order. UserError where the texts do not fall
    apart into shapes that several records share, as for a template that puts a record on one line.
    """
    donors = [
        [(_NUMBER.sub(_SLOT, said), _NUMBER.findall(said), end) for said, end in _pieces(t)] for t in sorted(texts)
    ]
    held = Counter(shape for pieces in donors for shape in {shape for shape, _, _ in pieces})
    kept = [_without_rare(pieces, held) for pieces in donors]
    share = sum(len(shape) for pieces in donors for shape, *_ in pieces)
    left = sum(len(shape) for pieces in kept for shape, *_ in pieces)
    if left < 0.5 * share or not share:
        raise _no_pieces(len(texts))
    following, pools = _counted(kept)
    random, known = np.random.default_rng([seed, len(donors)]), set(texts)
    longest, found = max(map(len, kept)), []
    for _ in range(100 * count):
        text = _walk(following, pools, longest, random)
        if text and text not in known:
            found.append(text)
        if len(found) == count:
            break
    if found and np.mean([*map(len, found)]) < 0.5 * np.mean([*map(len, texts)]):
        raise _no_pieces(len(texts))
    if len(found) == count:
        return found
    raise UserError(
        f"the {len(texts)} records are so alike that no fresh ones can be made of them. Use more records, or "
        "privacy.reference=fresh on a generated source."
    )


def _no_pieces(records: int) -> UserError:
    return UserError(
        f"{records} records do not fall apart into pieces that at least {LEAST} of them share, so no fresh ones can be "
        "made in their manner. Use task.template=intervals or paper, more records, or privacy.reference=fresh on a "
        "generated source."
    )


def _pieces(text: str) -> list[tuple[str, str]]:
    return [(said, end) for said, end in _PIECE.findall(text) if said or end]


def _without_rare(pieces: Sequence[Piece], held: Counter[str]) -> list[Piece]:
    """The pieces whose shapes enough records hold; the end of one that goes passes to the piece before it."""
    found: list[Piece] = []
    for shape, numbers, end in pieces:
        if held[shape] >= LEAST:
            found.append((shape, numbers, end))
        elif found:
            found[-1] = (*found[-1][:2], end)
    return found


def _counted(kept: Sequence[Sequence[Piece]]):
    """Which shape (with its end) follows which and how often, and the numbers at each place of each shape."""
    following: dict[str, Counter[str]] = defaultdict(Counter)
    pools: dict[tuple[str, int], list[str]] = defaultdict(list)
    for pieces in kept:
        before = _START
        for said, numbers, end in pieces:
            shape = said + end
            following[before][shape] += 1
            before = shape
            for place, number in enumerate(numbers):
                pools[shape, place].append(number)
        following[before][_END] += 1
    return following, pools


def _walk(following, pools, longest: int, random: np.random.Generator) -> str:
    """One fresh text; empty where it comes to no end within the length of the longest record."""
    shape, said = _START, []
    while len(said) <= longest:
        names, counts = zip(*sorted(following[shape].items()), strict=True)
        shape = names[random.choice(len(names), p=np.array(counts) / sum(counts))]
        if shape == _END:
            return "".join(said).rstrip("\n:;, ")
        words = shape.split(_SLOT)
        drawn = [pools[shape, place] for place in range(len(words) - 1)]
        numbers = [pool[random.integers(len(pool))] for pool in drawn]
        said.append("".join(word + number for word, number in zip(words, [*numbers, ""], strict=True)))
    return ""
