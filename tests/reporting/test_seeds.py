"""Runs that differ in their seed end in one table: the spread over seeds, and the interval by patient beside it."""

import io
import re
from statistics import mean, stdev

import pytest
import yaml
from made_studies import rows_in, write_made_run
from result_folders import reseal
from rich.console import Console

from patientdx.cli.sweep_summary import summarise
from patientdx.reporting import over_seeds, write_report
from patientdx.reporting.groups import sizes
from patientdx.reporting.runs import read


@pytest.fixture
def study(tmp_path):
    for seed, strength in enumerate((0.8, 1.0, 1.4)):
        folder = write_made_run(tmp_path / f"seed{seed}", "slerp", 0.4, strength)
        config = yaml.safe_load((folder / "config.yaml").read_text()) | {"seed": seed}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        reseal(folder)
    return tmp_path


def test_the_table_has_the_spread_over_seeds_beside_the_interval_by_patient(study):
    table = over_seeds(read(study))
    rows = [row for seed in range(3) for row in rows_in(study / f"seed{seed}")]
    rows = [row for row in rows if (row["role"], row["split"]) == ("merged", "test")]
    (line,) = [
        cells for cells in table.rows if [one.text for one in cells[:3]] == ["mortality: slerp λ=0.4", "test", "AUROC"]
    ]
    _, _, _, seeds, value, spread, ends = line
    values = [row["auroc"] for row in rows]
    assert seeds.value == 3
    assert (value.value, spread.value) == (pytest.approx(mean(values)), pytest.approx(stdev(values)))
    assert value.low == pytest.approx(mean(row["auroc_ci_low"] for row in rows))
    assert value.high == pytest.approx(mean(row["auroc_ci_high"] for row in rows))
    assert ends.text == f"{min(values):.3f} to {max(values):.3f}"
    assert "no standard error" in table.notes[0]
    assert table.notes[1].startswith("interval by patient: ")


def test_it_is_in_the_summary_of_a_sweep_and_on_the_page(study):
    console = Console(file=io.StringIO(), record=True, width=120)
    jobs = {i: {"folder": f"seed{i}", "reused": False, "seconds": {}, "overrides": [f"seed={i}"]} for i in range(3)}
    summarise(study, jobs, console=console)
    shown = console.export_text()
    assert "Over seeds" in shown
    for seed in range(3):  # whose row is whose, though all models are called the same
        assert re.search(rf"^seed={seed} +slerp λ=0.4 +test ", shown, re.MULTILINE)
    assert 'id="seeds"' in write_report(study).read_text(encoding="utf-8")


def test_one_seed_has_no_such_table(tmp_path):
    write_made_run(tmp_path / "one", "slerp", 0.4, 1.0)
    assert over_seeds(read(tmp_path)) is None


def test_sizes_are_told_of_each_seed_where_they_differ():
    row = {"task": "mortality", "split": "test", "n": 50, "patients": 40, "events": 6, "prevalence": 0.12}
    alike = [row | {"setting": f"seed={seed}"} for seed in range(2)]
    (sentence,) = sizes(alike)
    assert sentence.startswith("test: n = 50")
    first, second = sizes([alike[0], alike[1] | {"n": 60}])
    assert first.startswith("test, seed=0: n = 50")
    assert second.startswith("test, seed=1: n = 60")
