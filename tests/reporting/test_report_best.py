import io

import pyarrow.parquet as pq
import pytest
from made_studies import rows_in, write_made_run
from result_folders import reseal
from rich.console import Console

from patientdx.metrics.bootstrap import bootstrap_p, replicates
from patientdx.metrics.paired import holm
from patientdx.metrics.ranking import auroc
from patientdx.reporting import best
from patientdx.reporting.groups import groups
from patientdx.reporting.runs import Run, read
from patientdx.reporting.tables import models
from patientdx.reporting.terminal import rendered

TESTED = "(paired, by patient, Holm's correction, p < 0.05)"


def rows_of_all(folders) -> list[dict]:
    return [row for folder in folders for row in rows_in(folder)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    study = tmp_path_factory.mktemp("study")
    asked = (("slerp", 0.2, 0.5), ("slerp", 0.6, 1.6), ("linear", 0.6, 0.52))
    return [write_made_run(study / f"{m}{w}", m, w, force) for m, w, force in asked]


def bold(rows, found) -> list[tuple]:
    marked = [
        (row, metric) for row in rows for metric in ("auroc", "auprc") if (row["fingerprint"], metric) in found.bold
    ]
    return sorted({(row["method"], row["lambda"], row["split"], metric) for row, metric in marked})


def test_a_model_that_beats_every_other_is_bold_in_each_split(folders):
    rows = rows_of_all(folders)
    found = best(rows, folders)
    assert bold(rows, found) == [
        ("slerp", 0.6, split, metric) for split in ("pilot", "test") for metric in ("auprc", "auroc")
    ]
    assert found.notes == ("bold: better than every other model " + TESTED,)


def test_a_paired_bootstrap_with_holm_says_the_same(folders):
    """For one column: every p-value of the leader against the others, corrected, is below 0.05."""
    drawn = {}
    for folder in folders[:2]:
        for (role, split), one in Run(folder).predictions.items():
            if split == "test":
                name = folder.name if role == "merged" else role
                drawn[name] = replicates({"": auroc}, *one.of("auroc"), one.subject, resamples=300)[""]
                patients = len(set(one.subject))
    p = holm(
        {name: bootstrap_p(drawn["slerp0.6"] - one, patients) for name, one in drawn.items() if name != "slerp0.6"}
    )
    assert max(p.values()) < 0.05
    assert len(p) == 3


def test_where_the_leader_differs_from_some_only_nothing_is_bold(folders):
    some = [folders[0], folders[2]]
    rows = rows_of_all(some)
    values = {row["auroc"] for row in rows if row["split"] == "test"}
    assert len(values) == 4  # one of them is the largest, and that is not enough
    found = best(rows, some)
    assert found.bold == frozenset()
    assert found.notes[0].startswith("nothing is bold: no model differs from all others")


def test_two_names_of_one_model_are_one_model_and_both_are_bold(folders, tmp_path):
    twin = write_made_run(tmp_path / "twin", "linear", 0.9, 1.6)
    predictions = pq.read_table(folders[1] / "predictions.parquet")
    pq.write_table(predictions, twin / "predictions.parquet")
    reseal(twin)
    own, other = (row for row in rows_in(folders[1]) if row["role"] == "merged"), rows_in(twin)
    same = {row["split"]: {key: row[key] for key in row if key.startswith("au")} for row in own}
    rows = rows_in(folders[1]) + [row | same[row["split"]] for row in other if row["role"] == "merged"]
    found = best(rows, [folders[1], twin])
    assert {one[:2] for one in bold(rows, found)} == {("slerp", 0.6), ("linear", 0.9)}


def test_without_predictions_or_with_other_stays_nothing_is_bold_and_that_is_said(folders, tmp_path):
    bare = write_made_run(tmp_path / "bare", "slerp", 0.7, 1.6)
    (bare / "predictions.parquet").unlink()
    reseal(bare)
    said = "not all models could be compared: other stays, or no predictions.parquet"
    assert best(rows_in(bare), [bare]) == best(rows_in(bare), [])
    assert best(rows_in(bare), [bare]).notes == (said,)
    other = write_made_run(tmp_path / "other", "slerp", 0.8, 1.6)
    predictions = pq.read_table(other / "predictions.parquet")
    renamed = ["z" + name for name in predictions["id"].to_pylist()]
    pq.write_table(predictions.set_column(0, "id", [renamed]), other / "predictions.parquet")
    reseal(other)
    rows = rows_of_all([folders[0], other])
    assert best(rows, [folders[0], other]).bold == frozenset()
    assert said in best(rows, [folders[0], other]).notes


def test_one_model_alone_is_neither_best_nor_worth_a_word(folders):
    rows = [row for row in rows_in(folders[0]) if row["role"] == "base"]
    assert best(rows, folders[:1]).notes == ()


def test_the_order_of_rows_and_folders_changes_nothing(folders):
    rows = rows_of_all(folders)
    assert best(rows, folders) == best(rows[::-1], folders[::-1])


def test_the_terminal_prints_bold_only_what_is_best_and_fits(folders):
    rows = [row for row in rows_of_all(folders) if row["split"] == "test"]
    for shown, count in ((best(rows, folders), 2), (None, 0)):
        console = Console(file=io.StringIO(), record=True, width=80, force_terminal=True, color_system="standard")
        console.print(rendered(models(rows, best=shown)))
        styled, plain = console.export_text(styles=True, clear=False), console.export_text()
        best_lines = [line for line in styled.splitlines() if line.startswith("slerp λ=0.6")]
        assert len(best_lines) == 1
        assert styled.count("\x1b[1m0.") == best_lines[0].count("\x1b[1m0.") == count
        assert max(map(len, plain.splitlines())) <= 80
        assert ("bold: better than every other model" in plain) == (shown is not None)


def test_the_page_and_the_terminal_make_the_same_bold(folders):
    study = folders[0].parent
    (group,) = groups(read(study))
    assert group.best == best(rows_of_all(folders), folders)
    cells = [cell for row in models(group.rows, best=group.best).rows for cell in row if cell.bold]
    assert len(cells) == 4
