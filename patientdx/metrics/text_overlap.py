"""How much a text overlaps with a reference, and simple defects of the text itself.

`compare` turns a text and its reference into counts: ROUGE is a mean of them, and BLEU and chrF of a corpus are
functions of their sums. So a bootstrap draws rows of counts, and gives what scoring the drawn texts anew would give.
Metrics as in `patientdx.metrics.specification`, of scores (n,), or (n, k) where a row has several counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.accuracy import check_rows
from patientdx.metrics.specification import Values, metric

REQUIRES = ("rouge_score", "sacrebleu")
ROUGE = ("rouge1", "rouge2", "rougeL")
WORDS, CHARACTERS = 4, 6  # longest n-grams: of words in BLEU, of characters in chrF
BETA = 2  # chrF: recall counts so many times as much as precision
REPEATED = 4  # n-grams of so many words
# By metric how many counts `compare` gives; the last is the reference's, the same for all models.
NUMBERS = {**dict.fromkeys(ROUGE, 2), "bleu": 2 + WORDS, "chrf": 2 + CHARACTERS, "length_ratio": 2, "repetition": 2,
           "empty": 2}  # fmt: skip


def compare(text: str, reference: str) -> dict[str, tuple[float, ...]]:
    """What each metric needs of a text and its reference, by metric, with `NUMBERS` counts each.

    rouge1, rouge2, rougeL: F1 (Lin, ACL workshop 2004) by rouge-score with Porter's stemmer, of words in small letters.
    bleu: length of the text, n-grams that it shares with the reference for n = 1 to 4, length of the reference, in
    words of sacrebleu's tokenizer 13a (Papineni et al., ACL 2002). chrf: the same in characters without blanks, n = 1
    to 6 (Popović, WMT 2015). length_ratio: words, and words of the reference. repetition: the share of 4-grams of words
    that occur earlier in the same text, 0 where there are none. empty: 1 for a text without a word.
    """
    words = text.split()
    rouge = _scorer().score(reference, text)
    tokens, reference_tokens = (_tokens()(string.rstrip()).split() for string in (text, reference))
    letters, reference_letters = ("".join(string.split()) for string in (text, reference))
    grams = [tuple(words[i : i + REPEATED]) for i in range(len(words) - REPEATED + 1)]
    return {
        **{name: (float(rouge[name].fmeasure), 1.0) for name in ROUGE},
        "bleu": (len(tokens), *_shared(tokens, reference_tokens, WORDS), len(reference_tokens)),
        "chrf": (len(letters), *_shared(letters, reference_letters, CHARACTERS), len(reference_letters)),
        "length_ratio": (len(words), len(reference.split())),
        "repetition": (1 - len(set(grams)) / len(grams) if grams else 0.0, 1.0),
        "empty": (float(not words), 1.0),
    }


@metric("mean", greater_is_better=True, takes="counts", low=0, high=1)
def mean(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """The mean of `score` (n,), which is better the higher; `label` (n,) is 1 in every row."""
    return ratio(score, label, weight)


@metric("rate", greater_is_better=False, takes="counts", low=0, high=1)
def rate(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """The mean of a defect, which is better the lower."""
    return ratio(score, label, weight)


@metric("ratio", greater_is_better=None, takes="counts", low=0)
def ratio(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """The sum of `score` (n,) over that of `label` (n,), a ratio of sums over the rows; 1 is best."""
    score, label, weight = check_rows(score, label, weight)
    numerator, denominator = _sums(np.stack([score, label], axis=1), weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _unwrap(numerator / denominator, weight)


@metric("BLEU", greater_is_better=True, takes="counts", low=0, high=100)
def bleu(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Corpus BLEU-4, 0 to 100, with sacrebleu's exponential smoothing (Post, WMT 2018).

    `score` (n, 5): length and shared n-grams; `label` (n,): length of the reference; see `compare`. An order without a
    shared n-gram counts as half a one, a quarter at the next such order, and so on; 0 where no word is shared, or no
    text has four words.
    """
    score, label, weight = check_rows(score, label, weight, 1 + WORDS)
    ngrams = np.stack([np.maximum(score[:, 0] - n, 0) for n in range(WORDS)], axis=1)
    sums = _sums(np.concatenate([label[:, None], score[:, :1], score[:, 1:], ngrams], axis=1), weight)
    reference_length, length = sums[0], sums[1]
    shared, ngrams = np.array(sums[2 : 2 + WORDS]), np.array(sums[2 + WORDS :])
    smoothed = 0.5 ** np.cumsum(shared == 0, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.log(np.where(shared == 0, smoothed, shared) / ngrams).mean(axis=0)
        brevity = np.where(length < reference_length, 1 - reference_length / length, 0.0)
        value = 100 * np.exp(precision + brevity)
    return _unwrap(np.where(shared.any(axis=0) & (ngrams > 0).all(axis=0), value, 0.0), weight)


@metric("chrF", greater_is_better=True, takes="counts", low=0, high=100)
def chrf(score: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> Values:
    """Corpus chrF2, 0 to 100: precision and recall are means over n = 1 to 6, as sacrebleu has it.

    `score` (n, 7): length and shared n-grams; `label` (n,): length of the reference; see `compare`. Orders that the
    texts or the references are too short for do not count.
    """
    score, label, weight = check_rows(score, label, weight, 1 + CHARACTERS)
    in_reference = np.stack([np.maximum(label - n, 0) for n in range(CHARACTERS)], axis=1)
    # An order that the reference is too short for does not count against the text.
    in_text = np.stack([np.maximum(score[:, 0] - n, 0) for n in range(CHARACTERS)], axis=1) * (in_reference > 0)
    sums = np.array(_sums(np.concatenate([in_text, in_reference, score[:, 1:]], axis=1), weight))
    in_text, in_reference, shared = np.split(sums, (CHARACTERS, 2 * CHARACTERS))
    counts = (in_text > 0) & (in_reference > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = (
            np.where(counts, shared / total, 0).sum(axis=0) / counts.sum(axis=0) for total in (in_text, in_reference)
        )
        value = 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
    return _unwrap(np.nan_to_num(value, nan=0.0), weight)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # two seconds
    from rouge_score.tokenizers import DefaultTokenizer

    # A scorer that chooses its tokenizer itself logs a line about it.
    return RougeScorer(list(ROUGE), tokenizer=DefaultTokenizer(use_stemmer=True))


@lru_cache(maxsize=1)
def _tokens() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def _shared(first: Sequence, second: Sequence, longest: int) -> list[int]:
    """For n = 1 to `longest` how many n-grams two sequences share, each as often as it is in both."""
    shared = []
    for n in range(1, longest + 1):
        a, b = (Counter(_key(s[i : i + n]) for i in range(len(s) - n + 1)) for s in (first, second))
        shared.append(sum((a & b).values()))
    return shared


def _key(gram: Sequence) -> Any:
    return gram if isinstance(gram, str) else tuple(gram)


def _sums(numbers: NDArray[np.float64], weight: NDArray[np.float64] | None) -> list[NDArray[np.float64]]:
    """Each column of (n, k) summed over the rows, as often as each was drawn: k arrays, () or (resamples,)."""
    sums = numbers.sum(axis=0) if weight is None else weight @ numbers
    return list(np.moveaxis(sums, -1, 0))


def _unwrap(value: NDArray[np.float64], weight: NDArray[np.float64] | None) -> Values:
    return float(value) if weight is None or weight.ndim == 1 else value
