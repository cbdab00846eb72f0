"""Fresh records in the manner of existing ones: the reference of the leakage test where no generator can make more.

A text is split into pieces that end at a line break or a separator. A piece's shape is its text with every number
replaced, such as "Heart rate # (#-#) bpm". A fresh record is a Markov chain over shapes with the records' transition
counts, and every number in it is drawn from those that the shape has at that position in any record. So numbers come
from many patients, each independently, and only neighbouring shapes come from one record. Shapes of fewer than `LEAST`
records are left out: a rare word never comes back.

Fresh records do not respect how numbers belong together (a minimum may exceed a maximum), so a model with medical
knowledge finds them harder than real ones and Δ1 comes out too low. Read the contrast with the base model.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from patientdx.core.errors import UserError

LEAST = 5
_PIECE = re.compile(r"(.*?)(\n|: |; |, |\. | \| |$)", re.DOTALL)  # its text, and the separator
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SLOT = "\0"  # replaces a number in a shape; no text contains it
_START, _END = "", "\1"  # no piece is equal to these

Piece = tuple[str, list[str], str]  # shape, its numbers, its separator


def resampled(texts: Sequence[str], count: int, *, seed: int = 0) -> list[str]:
    """`count` fresh texts in the manner of `texts`; none of them is one of `texts`.

    The draws depend on the seed and on which texts there are, not on their order. UserError where the texts do not
    split into shapes that several records share, as for a template that puts a record on one line.
    """
    donors = [
        [(_NUMBER.sub(_SLOT, piece), _NUMBER.findall(piece), end) for piece, end in _pieces(t)] for t in sorted(texts)
    ]
    records_with = Counter(shape for pieces in donors for shape in {shape for shape, _, _ in pieces})
    common = [_without_rare(pieces, records_with) for pieces in donors]
    length = sum(len(shape) for pieces in donors for shape, *_ in pieces)
    common_length = sum(len(shape) for pieces in common for shape, *_ in pieces)
    if common_length < 0.5 * length or not length:
        raise _no_pieces(len(texts))
    following, pools = _counted(common)
    random, known = np.random.default_rng([seed, len(donors)]), set(texts)
    longest, fresh = max(map(len, common)), []
    for _ in range(100 * count):
        text = _walk(following, pools, longest, random)
        if text and text not in known:
            fresh.append(text)
        if len(fresh) == count:
            break
    if fresh and np.mean([*map(len, fresh)]) < 0.5 * np.mean([*map(len, texts)]):
        raise _no_pieces(len(texts))
    if len(fresh) == count:
        return fresh
    raise UserError(
        f"the {len(texts)} records are so alike that no fresh ones can be made of them. Use more records, or "
        "privacy.reference=fresh on a generated source."
    )


def _no_pieces(records: int) -> UserError:
    return UserError(
        f"{records} records do not split into pieces that at least {LEAST} of them share, so no fresh ones can be "
        "made in their manner. Use task.template=intervals or paper, more records, or privacy.reference=fresh on a "
        "generated source."
    )


def _pieces(text: str) -> list[tuple[str, str]]:
    return [(piece, end) for piece, end in _PIECE.findall(text) if piece or end]


def _without_rare(pieces: Sequence[Piece], records_with: Counter[str]) -> list[Piece]:
    """The pieces with common shapes; the separator of a removed one passes to the piece before it."""
    common: list[Piece] = []
    for shape, numbers, end in pieces:
        if records_with[shape] >= LEAST:
            common.append((shape, numbers, end))
        elif common:
            common[-1] = (*common[-1][:2], end)
    return common


def _counted(records: Sequence[Sequence[Piece]]) -> tuple[dict[str, Counter[str]], dict[tuple[str, int], list[str]]]:
    """Which shape (with its separator) follows which and how often, and the numbers at each slot of each shape."""
    following: dict[str, Counter[str]] = defaultdict(Counter)
    pools: dict[tuple[str, int], list[str]] = defaultdict(list)
    for pieces in records:
        previous = _START
        for text, numbers, end in pieces:
            shape = text + end
            following[previous][shape] += 1
            previous = shape
            for slot, number in enumerate(numbers):
                pools[shape, slot].append(number)
        following[previous][_END] += 1
    return following, pools


def _walk(following, pools, longest: int, random: np.random.Generator) -> str:
    """A fresh text; empty where it does not end within the length of the longest record."""
    shape, pieces = _START, []
    while len(pieces) <= longest:
        names, counts = zip(*sorted(following[shape].items()), strict=True)
        shape = names[random.choice(len(names), p=np.array(counts) / sum(counts))]
        if shape == _END:
            return "".join(pieces).rstrip("\n:;, ")
        words = shape.split(_SLOT)
        drawn = [pools[shape, slot] for slot in range(len(words) - 1)]
        numbers = [pool[random.integers(len(pool))] for pool in drawn]
        pieces.append("".join(word + number for word, number in zip(words, [*numbers, ""], strict=True)))
    return ""
