"""Does a merge tell more about the records that a parent was trained on than that parent tells itself?

A parent that was made for it can undo what keeps another from giving its records away (a "phishing" parent: Guo et al.,
Be Cautious When Merging Unfamiliar LLMs, 2025). So the same attacks are tried on the merge and on the parent itself, on
records of which it is known whether the parent saw them, and their areas are compared, paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from patientdx.metrics.bootstrap import Bootstrap
from patientdx.metrics.paired import holm, paired_estimate
from patientdx.metrics.ranking import auroc
from patientdx.privacy.estimates import auc


def compared(
    merged: Mapping[str, ArrayLike],
    parent: Mapping[str, ArrayLike],
    member: NDArray[Any],
    subject: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, dict[str, Any]]:
    """By attack: the area of `merged`, that of `parent`, and `difference`, merged minus parent with its p-value.

    merged, parent: by attack the scores (n,) of that model, higher means member. member (n,) of 0 and 1, subject (n,).
    """
    label = member.astype(int)
    return {
        name: {
            "merged": auc(score, label, subject, bootstrap),
            "parent": auc(parent[name], label, subject, bootstrap),
            "difference": paired_estimate(auroc, score, parent[name], label, subject, **bootstrap.keywords),
        }
        for name, score in merged.items()
    }


def reading(parent: str, areas: Mapping[str, Mapping[str, Any]], bootstrap: Bootstrap) -> str:
    """What the comparison means, in a sentence: only differences that survive Holm's correction for all attacks."""
    differences = {name: attack["difference"] for name, attack in areas.items()}
    tests = {name: change for name, change in differences.items() if change.get("p_value") is not None}
    corrected = holm({name: change["p_value"] for name, change in tests.items()})
    clear = [name for name in tests if corrected[name] < 1 - bootstrap.level]
    more, less = ([name for name in clear if sign * tests[name]["value"] > 0] for sign in (1, -1))
    words = f"not shown to tell more or less about {parent}'s own records than {parent} itself"
    if more:
        words = f"tells more about {parent}'s own records than {parent} itself, by {', '.join(more)}"
    elif less:
        words = f"tells less about {parent}'s own records than {parent} itself, by {', '.join(less)}"
    return f"merged, records of a parent: {words} (corrected for {len(tests)} attacks)."
