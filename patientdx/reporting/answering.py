"""Tables of how a model answers: the probability on yes and no, what other wordings of the question change, and which
groups of questions it gets right."""

from __future__ import annotations

from patientdx.core.tables import Cell, Table, count, estimate, format_value, make_table, metric_title, plain, word
from patientdx.reporting.groups import Group
from patientdx.reporting.tables import evaluated


def abstention(group: Group) -> Table | None:
    """Probability on yes and no together, which shows a model that no longer answers."""
    rows = []
    for name, model, _ in evaluated(group):
        one = model["abstention"]
        if one:
            quantiles = [plain(one["quantiles"][share]) for share in ("0.05", "0.5", "0.95")]
            rows.append([word(name), plain(one["mean"]), *quantiles, plain(100 * one["below_half"], 1)])
    columns = ["model", "mean", "5 %", "median", "95 %", "% of stays below 0.5"]
    if not rows:
        return None
    return make_table("abstention", "Probability on yes and no together", columns, rows, subject=group.title,
                 notes=["the rest of the probability is on other words"])  # fmt: skip


def wordings(group: Group) -> list[Table]:
    """How much hangs on the wording of the question, of each chosen model that was asked in other words."""
    found = []
    for one in group.chosen:
        spread = one.run.metrics.get("probes")
        if spread is None:
            continue
        rows = [[word("as asked"), estimate(spread["auroc"]), Cell(""), Cell(""), Cell("")]]
        ranks = dict(zip(spread["spearman"]["names"], spread["spearman"]["values"][0], strict=True))
        for name, other in spread["wordings"].items():
            wrong = other["not_reversed" if other["reverses"] else "not_kept"]
            cells = [word(f"{name} (reversed)" if other["reverses"] else name), estimate(other["auroc"])]
            rows.append([*cells, estimate(other["difference"]), plain(ranks.get(name)), plain(wrong.get("value"))])
        columns = ["wording", "AUROC", "difference", "rank correlation", "pairs out of order"]
        notes = [f"on {spread['split']}; AUROC spread {format_value(spread['auroc_spread'], '.3f')} over all wordings"]
        title = f"{one.name} asked in other words"
        found.append(make_table("wordings", title, columns, rows, notes=notes, subject=f"{group.title}, {one.name}"))
    return found


def graded(group: Group) -> list[Table]:
    """Groups of questions, of a task whose answers are right or wrong: every metric of each chosen model's run."""
    found = []
    for one in group.chosen:
        for name, groups in (one.run.metrics.get("graded") or {"groups": {}})["groups"].items():
            rows = []
            for value, part in groups.items():
                for role, measured in part["models"].items():
                    cells = [word(value), word(one.name if role == "merged" else role), count(part["n"])]
                    rows.append([*cells, *(estimate(measured[metric]) for metric in group.metrics)])
            columns = [name, "model", "n", *map(metric_title, group.metrics)]
            title = f"By {name}, {one.name}"
            found.append(make_table("graded", title, columns, rows, subject=f"{group.title}, {one.name}"))
    return found
