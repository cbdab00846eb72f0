"""The loss of a fine-tuned model during training, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw_loss(record: Mapping[str, Any], path: Path) -> None:
    """The loss against the step as PNG: of every step's texts, and on pilot where it was evaluated."""
    import altair as alt

    train, pilot = "train, each step", "pilot"
    rows = [{"step": step, "loss": loss, "texts": train} for step, loss in record["train"]]
    rows += [{"step": step, "loss": loss, "texts": pilot} for step, loss, _ in record["pilot"]]
    colour = alt.Color("texts:N", scale=alt.Scale(domain=[train, pilot], range=["#999999", "#1f77b4"]), title=None)
    axes = {
        "x": alt.X("step:Q", axis=alt.Axis(tickMinStep=1)),
        "y": alt.Y("loss:Q", title="loss (nats a token)", scale=alt.Scale(zero=False)),
    }
    lines = alt.Chart(alt.Data(values=rows)).mark_line().encode(**axes, color=colour)
    points = lines.transform_filter(alt.datum.texts == pilot).mark_point(filled=True)
    chart = lines + points
    if record["best_step"] is not None:
        best = alt.Chart(alt.Data(values=[{"step": record["best_step"]}])).mark_rule(strokeDash=[2, 2])
        chart += best.encode(x="step:Q")
    chart.properties(width=500, height=260).save(str(path), format="png", ppi=150)
