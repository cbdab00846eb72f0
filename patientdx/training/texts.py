"""Training texts: token ids and the ones whose loss counts, the draw of the records, and their order."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """Token ids of a prompt with its answer; the loss is that of `ids[first:]`, each predicted from those before it.

    first: at least 1; 1 counts the full text, len(ids) - 1 its last token alone.
    """

    ids: tuple[int, ...]
    first: int


def text(prompt: Sequence[int], answer: int | Sequence[int], loss: str) -> Text:
    """A prompt and its answer, of one token or several; the loss is of the `answer` or of the whole `record`."""
    ids = (answer,) if isinstance(answer, int) else answer
    return Text((*prompt, *ids), len(prompt) if loss == "answer" else 1)


def digest(texts: Iterable[Text]) -> str:
    """SHA-256 of texts in their order, 64 hex digits."""
    sha256 = hashlib.sha256()
    for item in texts:
        sha256.update(f"{item.first} {item.ids}\n".encode())
    return sha256.hexdigest()


def drawn(uids: Sequence[str], labels: Sequence[int], seed: int) -> list[int]:
    """All positions 0 .. n-1 in a random order whose first k positions are a draw of k.

    So draws are nested, and each holds the labels in the proportion of all, to within one. A position depends on its
    uid and the seed, not on the order in which the examples came.
    """
    groups: dict[int, list[tuple[bytes, int]]] = {}
    for i, (uid, label) in enumerate(zip(uids, labels, strict=True)):
        groups.setdefault(label, []).append((hashlib.sha256(f"finetune {seed} {uid}".encode()).digest(), i))
    # The j-th of a group of m stands at (j + ½) / m of the way, so that each group is spread evenly over all.
    spread = [
        ((j + 0.5) / len(group), label, i) for label, group in groups.items() for j, (_, i) in enumerate(sorted(group))
    ]
    return [i for _, _, i in sorted(spread)]


def order(n: int, batch: int, seed: int, *, epochs: float, steps: int | None) -> list[int]:
    """Which of n texts is shown when: every pass in a random order; `batch` of them make a step.

    `steps` full batches, or the texts of so many epochs, the last of which may end early.
    """
    length = max(1, round(epochs * n)) if steps is None else steps * batch
    shown: list[int] = []
    for epoch in range(math.ceil(length / n)):
        indices = list(range(n))
        random.Random(f"finetune {seed} {epoch}").shuffle(indices)
        shown += indices
    return shown[:length]
