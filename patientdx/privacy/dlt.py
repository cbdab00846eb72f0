"""The leakage test of Skywork (Wei et al. 2023, section 5.2), which PatientDx calls DLT.

L is the mean loss of a set of texts in nats a token. Δ1 = L(test) - L(reference) and Δ2 = L(test) - L(train), where
the reference holds fresh texts of the same kind. A clean model has both near 0. Δ1 clearly below 0: the test texts
were seen. Δ2 clearly above 0: the train texts were learned by heart. A set that is merely easier moves them as well,
so the same Δ of the model before is taken away (`over_base`), in which the sets' own differences cancel.

All that is needed of a set are sums over its records (`columns`). With weights those are the sums of a resample, so
every function here takes a set's own sums, floats, and those of its resamples, (resamples,), alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Sums = Mapping[str, Any]

BINS = 5  # of length, with as many records of both sets together in each


def columns(total: ArrayLike, tokens: ArrayLike, edges: ArrayLike = ()) -> dict[str, NDArray[np.float64]]:
    """What is summed over a set's records: each column (n,).

    total: (n,) loss of a record, the sum over its tokens, in nats. tokens: (n,) how many tokens that is.
    edges: inner edges of the bins of length, as `length_edges` has them.
    """
    total, tokens = np.asarray(total, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    found = {"total": total, "tokens": tokens, "records": np.ones_like(total), "mean": total / tokens}
    edges = np.asarray(edges, dtype=np.float64)
    bin_of = np.searchsorted(edges, tokens, side="right")
    for place in range(len(edges) + 1):
        inside = (bin_of == place).astype(np.float64)
        found |= {f"total_{place}": total * inside, f"tokens_{place}": tokens * inside, f"records_{place}": inside}
    return found


def length_edges(*tokens: ArrayLike, bins: int = BINS) -> NDArray[np.float64]:
    """Inner edges (fewer than `bins`) that part all sets together into bins of about as many records each."""
    together = np.concatenate([np.asarray(one, dtype=np.float64) for one in tokens])
    return np.unique(np.quantile(together, np.arange(1, bins) / bins))


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
    """Loss of `test` minus that of `other` with its lengths reweighted to those of `test`, in nats a token.

    The difference is taken within each bin of length and averaged with the bin's share of test records; a bin that
    either set leaves empty counts for nothing (`matched_share` says how much was left). NaN where no bin is shared.
    """
    places = range(sum(name.startswith("records_") for name in test))
    held, shares = 0.0, 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        for place in places:
            both = (np.asarray(test[f"records_{place}"]) > 0) & (np.asarray(other[f"records_{place}"]) > 0)
            here, there = (np.divide(one[f"total_{place}"], one[f"tokens_{place}"]) for one in (test, other))
            share = np.where(both, test[f"records_{place}"], 0.0)
            held = held + np.where(both, share * (here - there), 0.0)
            shares = shares + share
        return np.divide(held, shares)


def matched_share(test: Sums, other: Sums) -> float:
    """Share of the test records in bins of length that `other` has records in too."""
    places = range(sum(name.startswith("records_") for name in test))
    return float(sum(test[f"records_{p}"] for p in places if other[f"records_{p}"] > 0) / test["records"])


def reading(name: str, delta1: Mapping[str, Any], delta2: Mapping[str, Any], *, over: str | None) -> str:
    """One sentence: what the two differences say of the model `name`.

    delta1, delta2: estimates with low and high; contrasts to the model `over`, or None for plain differences, which
    also move when one set is easier than another.
    """
    said = []
    if delta1.get("high") is None or delta2.get("low") is None:
        return f"{name}: no interval, so nothing can be read."
    if delta1["high"] < 0:
        said.append("Δ1 is below 0 beyond its interval: a sign that test records were seen")
    if delta2["low"] > 0:
        said.append("Δ2 is above 0 beyond its interval: a sign that train records were memorised")
    if not said:
        said.append("neither Δ1 below 0 nor Δ2 above 0 beyond its interval: no sign of leakage was found")
    against = f"against {over}" if over else "not set against another model, so easier texts alone could do this"
    return f"{name}, {against}: {'; '.join(said)}."
