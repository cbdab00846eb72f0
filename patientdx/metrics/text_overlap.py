"""How much of a text is in what somebody else wrote of the same, and what is odd about the text itself.

`compared` makes numbers of a text and its reference, which need no text any more: ROUGE is a mean of them, and BLEU and
chrF of a whole corpus are functions of their sums. So a bootstrap draws rows of numbers, and gives what scoring the
drawn texts anew would give. Metrics as in `patientdx.metrics.ranking`, `metric(score, label, weight=None)` with (n,) or
(resamples, n) weights, of other scores: (n,), or (n, k) where a row has several numbers. All raise ValueError for
arrays that do not fit together or hold what is not a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUGE = ("rouge1", "rouge2", "rougeL")
WORDS, CHARACTERS = 4, 6  # longest n-grams: of words in BLEU, of characters in chrF
BETA = 2  # chrF: recall counts so many times as much as precision
REPEATED = 4  # n-grams of so many words
# By metric how many numbers `compared` gives; the last one is what the others are set against, the same for all models.
NUMBERS = {**dict.fromkeys(ROUGE, 2), "bleu": 2 + WORDS, "chrf": 2 + CHARACTERS, "length_ratio": 2, "repetition": 2,
           "empty": 2}  # fmt: skip
# Of `ratio` 1 is best, so that neither more nor less is better.
HIGHER_IS_BETTER = {"mean": True, "rate": False, "ratio": None, "bleu": True, "chrf": True}


def compared(text: str, reference: str) -> dict[str, tuple[float, ...]]:
    """What the metrics need of a text and its reference, by the name of each, as `NUMBERS` counts them.

    rouge1, rouge2, rougeL: F1 (Lin, ACL workshop 2004) by rouge-score with Porter's stemmer, of words in small letters.
    bleu: length of the text, n-grams that it shares with the reference for n = 1 to 4, length of the reference, in
    words of sacrebleu's tokenizer 13a (Papineni et al., ACL 2002). chrf: the same in characters without blanks, n = 1
    to 6 (Popović, WMT 2015). length_ratio: words, and words of the reference. repetition: the share of 4-grams of words
    that stood before in the same text, 0 where there are none. empty: 1 for a text without a word.
    """
    words = text.split()
    rouge = _scorer().score(reference, text)
    said, wanted = (_tokens()(one.rstrip()).split() for one in (text, reference))
    letters, wanted_letters = ("".join(one.split()) for one in (text, reference))
    grams = [tuple(words[i : i + REPEATED]) for i in range(len(words) - REPEATED + 1)]
    return {
        **{name: (float(rouge[name].fmeasure), 1.0) for name in ROUGE},
        "bleu": (len(said), *_shared(said, wanted, WORDS), len(wanted)),
        "chrf": (len(letters), *_shared(letters, wanted_letters, CHARACTERS), len(wanted_letters)),
        "length_ratio": (len(words), len(reference.split())),
        "repetition": (1 - len(set(grams)) / len(grams) if grams else 0.0, 1.0),
        "empty": (float(not words), 1.0),
    }


def mean(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """The mean of `score` (n,), which is better the higher; `label` (n,) is 1 in every row."""
    return ratio(score, label, weight)


def rate(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """The same of a fault, which is better the lower."""
    return ratio(score, label, weight)


def ratio(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """All of `score` (n,) for each of `label` (n,): a ratio of sums over the rows."""
    score, label, weight = _checked(score, label, weight, 0)
    said, wanted = _sums(np.stack([score, label], axis=1), weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _plain(said / wanted, weight)


def bleu(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """Corpus BLEU-4, 0 to 100, with sacrebleu's exponential smoothing (Post, WMT 2018).

    `score` (n, 5): length and shared n-grams; `label` (n,): length of the reference; see `compared`. An order without a
    shared n-gram counts as half a one, a quarter at the next such order, and so on; 0 where no word is shared, or no
    text has four words.
    """
    score, label, weight = _checked(score, label, weight, 1 + WORDS)
    there = np.stack([np.maximum(score[:, 0] - n, 0) for n in range(WORDS)], axis=1)
    sums = _sums(np.concatenate([label[:, None], score[:, :1], score[:, 1:], there], axis=1), weight)
    wanted, said, shared, there = sums[0], sums[1], np.array(sums[2 : 2 + WORDS]), np.array(sums[2 + WORDS :])
    halved = 0.5 ** np.cumsum(shared == 0, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.log(np.where(shared == 0, halved, shared) / there).mean(axis=0)
        brevity = np.where(said < wanted, 1 - wanted / said, 0.0)
        value = 100 * np.exp(precision + brevity)
    return _plain(np.where(shared.any(axis=0) & (there > 0).all(axis=0), value, 0.0), weight)


def chrf(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> float | NDArray[np.float64]:
    """Corpus chrF2, 0 to 100: precision and recall are means over n = 1 to 6, as sacrebleu has it.

    `score` (n, 7): length and shared n-grams; `label` (n,): length of the reference; see `compared`. Orders that the
    texts or the references are too short for do not count.
    """
    score, label, weight = _checked(score, label, weight, 1 + CHARACTERS)
    wanted = np.stack([np.maximum(label - n, 0) for n in range(CHARACTERS)], axis=1)
    # What is longer than its reference's n-grams could be is not held against a text.
    said = np.stack([np.maximum(score[:, 0] - n, 0) for n in range(CHARACTERS)], axis=1) * (wanted > 0)
    sums = np.array(_sums(np.concatenate([said, wanted, score[:, 1:]], axis=1), weight))
    said, wanted, shared = sums[:CHARACTERS], sums[CHARACTERS : 2 * CHARACTERS], sums[2 * CHARACTERS :]
    counts = (said > 0) & (wanted > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = (
            np.where(counts, shared / whole, 0).sum(axis=0) / counts.sum(axis=0) for whole in (said, wanted)
        )
        value = 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
    return _plain(np.nan_to_num(value, nan=0.0), weight)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # two seconds
    from rouge_score.tokenizers import DefaultTokenizer

    # A scorer that is to find its tokenizer itself says so in the log.
    return RougeScorer(list(ROUGE), tokenizer=DefaultTokenizer(use_stemmer=True))


@lru_cache(maxsize=1)
def _tokens() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def _shared(said: Sequence, wanted: Sequence, longest: int) -> list[int]:
    """For n = 1 to `longest` how many n-grams two sequences share, each as often as it is in both."""
    found = []
    for n in range(1, longest + 1):
        a, b = (Counter(_key(one[i : i + n]) for i in range(len(one) - n + 1)) for one in (said, wanted))
        found.append(sum((a & b).values()))
    return found


def _key(gram: Sequence) -> Any:
    return gram if isinstance(gram, str) else tuple(gram)


def _sums(numbers: NDArray[np.float64], weight: NDArray[np.float64] | None) -> list[NDArray[np.float64]]:
    """Each column of (n, k) summed over the rows, as often as each was drawn: k arrays, () or (resamples,)."""
    found = numbers.sum(axis=0) if weight is None else weight @ numbers
    return list(np.moveaxis(found, -1, 0))


def _plain(value: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float | NDArray[np.float64]:
    return float(value) if weight is None or weight.ndim == 1 else value


def _checked(
    score: ArrayLike, label: ArrayLike, weight: ArrayLike | None, columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    score, label = (np.asarray(one, dtype=np.float64) for one in (score, label))
    wanted = (label.size, columns) if columns else (label.size,)
    if label.ndim != 1 or not label.size or score.shape != wanted:
        said = f"(n, {columns})" if columns else "(n,)"
        raise ValueError(f"score must be {said} and label (n,); they are {score.shape} and {label.shape}")
    if not (np.isfinite(score).all() and np.isfinite(label).all()):
        raise ValueError("score and label must be numbers")
    if weight is None:
        return score, label, None
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape[-1:] != label.shape or weight.ndim > 2 or not (weight >= 0).all():
        raise ValueError(f"weight must be (n,) or (resamples, n) of numbers that are not negative, not {weight.shape}")
    return score, label, weight
