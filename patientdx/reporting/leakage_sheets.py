"""Tables of what the runs measured of leakage, as privacy.json has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from patientdx.core.tables import Table, estimate, make_table, word
from patientdx.reporting.groups import Group, Reported

_NOTHING = {"value": None}


def leakage(group: Group) -> Table | None:
    """The leakage test: how much likelier records are that a model may have seen, in nats a token."""
    rows = []
    for name, one in _models(group):
        for key, shown in (("delta1", "Δ1: test − reference"), ("delta2", "Δ2: test − train")):
            delta = one.get("dlt", {}).get(key)
            if delta:
                cells = [estimate(delta["loss"]), estimate(delta.get("over_base") or _NOTHING)]
                rows.append([word(name), word(shown), *cells])
    if not rows:
        return None
    columns = ["model", "difference", "nats a token", "less that of its start"]
    return make_table("leakage", "Leakage test", columns, rows, notes=_reading(group), subject=group.title)


def membership(group: Group) -> Table | None:
    """Attacks that guess whether a record was trained on."""
    rows = []
    for name, one in _models(group):
        for attack, found in one.get("mia", {}).items():
            rate = found.get("tpr", {}).get("0.01") or _NOTHING
            over = found.get("over_base") or _NOTHING
            rows.append([word(name), word(attack), *(estimate(cell) for cell in (found["auc"], rate, over))])
    if not rows:
        return None
    columns = ["model", "attack", "AUC", "TPR at 1 % FPR", "AUC less that of its start"]
    return make_table("membership", "Membership inference", columns, rows, notes=_reading(group), subject=group.title)


def _measured(group: Group) -> list[Reported]:
    return [one for one in group.chosen if one.run.privacy]


def _models(group: Group) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, what was measured) of the chosen models and, once, of what stands beside them."""
    seen = set()
    for one in _measured(group):
        for role, measured in one.run.privacy["models"].items():
            name = one.name if role == "merged" else role
            if name not in seen:
                seen.add(name)
                yield name, measured


def _reading(group: Group) -> list[str]:
    return [line for one in _measured(group) for line in one.run.privacy.get("reading", [])]
