"""What a run or a sweep comes to in words: better, not shown to be better, worse, a parent; few events, low mass."""

import html
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from made_studies import rows_in, write_made_run
from result_folders import reseal
from rich.console import Console
from scipy.stats import t

from patientdx.core.tables import FEW, FEW_NOTE, metric_cell
from patientdx.metrics.bootstrap import replicates
from patientdx.metrics.ranking import auroc
from patientdx.reporting import headlines, write_report
from patientdx.reporting.export import latex
from patientdx.reporting.run_tables import show_run
from patientdx.reporting.runs import Run, read
from patientdx.reporting.tables import models
from patientdx.reporting.terminal import text


def lines(folder: Path) -> list[str]:
    return headlines(read(folder))


def with_rows(folder: Path, role: str = "", **changes) -> Path:
    """The folder with other numbers in its rows (of one role)."""
    rows = [row | changes if role in ("", row["role"]) else row for row in rows_in(folder)]
    reseal(folder, {"fingerprint": json.loads((folder / "metrics.json").read_text())["fingerprint"], "rows": rows})
    return folder


def answering_as(folder: Path, parent: str) -> Path:
    """The folder with the parent's answers as those of its merged model."""
    table = pq.read_table(folder / "predictions.parquet")
    merged = table.filter(pc.field("role") == parent)
    merged = merged.set_column(merged.schema.get_field_index("role"), "role", [["merged"] * len(merged)])
    rest = table.filter(pc.field("role") != "merged")
    pq.write_table(pa.concat_tables([merged, rest]), folder / "predictions.parquet")
    reseal(folder)
    return folder


@pytest.mark.parametrize(
    ("strength", "words"),
    [
        (1.6, ["is better than the base", "is better than the pivot"]),
        (0.5, ["is better than the base", "is not shown to be better than the pivot"]),
        (-0.8, ["is worse than the base", "is worse than the pivot"]),
    ],
)
def test_a_merge_is_better_not_shown_to_be_better_or_worse_than_each_parent(tmp_path, strength, words):
    (line,) = lines(write_made_run(tmp_path / "run", "slerp", 0.4, strength))
    assert line.count("slerp λ=0.4") == 2
    for part, expected in zip(line.split("; "), words, strict=True):
        assert f"slerp λ=0.4 {expected} on test (difference in AUROC " in part


def test_the_difference_is_the_paired_one(tmp_path):
    folder = write_made_run(tmp_path / "run", "slerp", 0.4, 0.7)
    run = Run(folder)
    merged, pivot = (run.predictions[role, "test"] for role in ("merged", "pivot"))
    drawn = [replicates({"": auroc}, *one.of("auroc"), one.subject, resamples=2000)[""] for one in (merged, pivot)]
    value = auroc(*merged.of("auroc")) - auroc(*pivot.of("auroc"))
    reach = t.ppf(0.975, len(set(merged.subject)) - 1) * (drawn[0] - drawn[1]).std()
    part = lines(folder)[0].split("; ")[1]
    low, high = map(float, part.split("[")[1].split("]")[0].split(", "))
    assert f"difference in AUROC {value:.3f} [" in part
    assert (low, high) == pytest.approx((value - reach, value + reach), abs=0.01)


@pytest.mark.parametrize(("place", "parent", "other"), [(0.0, "base", "pivot"), (1.0, "pivot", "base")])
def test_an_end_of_the_curve_is_called_a_parent(tmp_path, place, parent, other):
    folder = answering_as(write_made_run(tmp_path / "run", "slerp", place, 0.3), parent)
    first, second = lines(folder)[0].split("; ")
    assert first == f"slerp λ={place:g} is the {parent} itself: a parent, and no merge"
    assert f"the {other} on test" in second


def test_a_merge_that_answers_as_a_parent_is_not_called_better(tmp_path):
    (line,) = lines(answering_as(write_made_run(tmp_path / "run", "slerp", 0.3, 0.9), "pivot"))
    assert line.startswith("slerp λ=0.3 answers every row as the pivot does; ")


def test_without_predictions_nothing_is_compared_and_that_is_said(tmp_path):
    folder = write_made_run(tmp_path / "run", "slerp", 0.3, 0.9)
    (folder / "predictions.parquet").unlink()
    reseal(folder)
    assert lines(folder) == ["slerp λ=0.3 is not compared with its parents, which have no scores of the same rows here"]


def test_several_weights_that_no_pilot_chose_from_are_not_compared(tmp_path):
    for weight in (0.2, 0.6):
        write_made_run(tmp_path / f"w{weight}", "slerp", weight, 1.0, splits=("test",))
    assert lines(tmp_path) == []


def test_few_events_and_low_mass_are_in_the_headline_of_terminal_and_page(tmp_path):
    folder = write_made_run(tmp_path / "run", "slerp", 0.4, 1.6)
    with_rows(with_rows(folder, events=11, n=104), "merged", abstention_mass=0.04)
    warnings = [line for line in lines(folder) if line.startswith("warning: ")]
    assert warnings[0].startswith("warning: few events: 11 of 104 on test")
    assert warnings[1].startswith("warning: slerp λ=0.4 hardly answers: yes and no together have a probability of 0.04")
    console = Console(file=io.StringIO(), record=True, width=200)
    show_run(folder, console=console)
    printed = " ".join(console.export_text().split())  # sentences are broken where the terminal ends
    page = write_report(folder).read_text(encoding="utf-8")
    for line in lines(folder):
        assert line in printed
        assert html.escape(line.removeprefix("warning: "), quote=False) in page
    assert page.index("hardly answers") < page.index("<h3")


def test_every_number_of_few_events_is_marked_and_the_mark_explained(tmp_path):
    rows = rows_in(with_rows(write_made_run(tmp_path / "run", "slerp", 0.4, 1.6), events=29, n=104))
    table = models(rows)
    marked = [cell for row in table.rows for cell in row if cell.low is not None]
    assert all(cell.text.endswith(f"]{FEW}") and cell.short.endswith(FEW) for cell in marked)
    assert FEW_NOTE in table.notes
    assert text(table).count(FEW) == len(marked) + 1
    assert latex(table).count(r"$^\dagger$") == len(marked) + 1
    assert FEW not in metric_cell(rows[0] | {"events": 30}, "auroc").text
    assert FEW in metric_cell(rows[0] | {"events": 90}, "auroc").text  # 14 without the event
    assert FEW not in metric_cell({key: rows[0][key] for key in ("auroc", "auroc_ci_low")}, "auroc").text
