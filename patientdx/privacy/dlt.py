"""The leakage test of Skywork (Wei et al. 2023, section 5.2), which PatientDx calls DLT.

L is the mean loss of a set of texts in nats per token. Δ1 = L(test) - L(reference) and Δ2 = L(test) - L(train), where
the reference holds fresh texts of the same kind. A clean model has both near 0. Δ1 clearly below 0: the model has seen
the test texts. Δ2 clearly above 0: it has memorised the train texts. A set that is merely easier changes them as well,
so the same Δ of the model before is subtracted (`over_base`), in which the sets' differences cancel.

The functions need only sums over the records of a set (`columns`). With weights those are the sums of a resample, so
every function takes the sums of a set, floats, and those of its resamples, (resamples,), alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Sums = Mapping[str, Any]

BINS = 5  # of length, with as many records of both sets together in each


def columns(total: ArrayLike, tokens: ArrayLike, edges: ArrayLike = ()) -> dict[str, NDArray[np.float64]]:
    """The quantities that are summed over the records of a set: each column (n,).

    total: (n,) loss of a record, the sum over its tokens, in nats. tokens: (n,) number of its tokens.
    edges: inner edges of the bins of length, as `length_edges` gives them.
    """
    total, tokens = np.asarray(total, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    result = {"total": total, "tokens": tokens, "records": np.ones_like(total), "mean": total / tokens}
    edges = np.asarray(edges, dtype=np.float64)
    bin_of = np.searchsorted(edges, tokens, side="right")
    for number in range(len(edges) + 1):
        inside = (bin_of == number).astype(np.float64)
        result |= {f"total_{number}": total * inside, f"tokens_{number}": tokens * inside, f"records_{number}": inside}
    return result


def length_edges(*tokens: ArrayLike, bins: int = BINS) -> NDArray[np.float64]:
    """Inner edges (fewer than `bins`) that divide all sets together into bins of about as many records each."""
    lengths = np.concatenate([np.asarray(counts, dtype=np.float64) for counts in tokens])
    return np.unique(np.quantile(lengths, np.arange(1, bins) / bins))


def loss(sums: Sums) -> Any:
    """Token-weighted loss of a set in nats: all loss over all tokens, as Skywork's script has it."""
    return sums["total"] / sums["tokens"]


def record_loss(sums: Sums) -> Any:
    """Record-weighted loss of a set in nats: the mean of its records' mean losses; long ones count no more."""
    return sums["mean"] / sums["records"]


def perplexity(sums: Sums) -> Any:
    """exp of the token-weighted loss."""
    return np.exp(loss(sums))


def matched_difference(test: Sums, other: Sums) -> Any:
    """Loss of `test` minus that of `other` with its lengths reweighted to those of `test`, in nats per token.

    The difference is taken within each bin of length and averaged with the bin's fraction of test records; a bin that
    is empty in either set is left out (`matched_share` gives how much was kept). NaN where no bin is shared.
    """
    weighted, total = 0.0, 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        for number in _bins(test):
            both = (np.asarray(test[f"records_{number}"]) > 0) & (np.asarray(other[f"records_{number}"]) > 0)
            test_mean, other_mean = (
                np.divide(sums[f"total_{number}"], sums[f"tokens_{number}"]) for sums in (test, other)
            )
            records = np.where(both, test[f"records_{number}"], 0.0)
            weighted = weighted + np.where(both, records * (test_mean - other_mean), 0.0)
            total = total + records
        return np.divide(weighted, total)


def matched_share(test: Sums, other: Sums) -> float:
    """Fraction of the test records in bins of length that `other` has records in too."""
    shared = (test[f"records_{number}"] for number in _bins(test) if other[f"records_{number}"] > 0)
    return float(sum(shared) / test["records"])


def _bins(sums: Sums) -> range:
    return range(sum(name.startswith("records_") for name in sums))
