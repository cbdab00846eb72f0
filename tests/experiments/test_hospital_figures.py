import os
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import hospital_figures
from patientdx.core.errors import UserError
from patientdx.records.synthetic.hospital import hospital


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def stays(cache) -> hospital_figures.Stays:
    """Some 800 stays of 54 h or more, and as many shorter ones."""
    return hospital_figures.read_stays([hospital(cache, stays=800)], cache)


def test_every_figure_of_the_demo_is_within_the_sampling_error_of_140_stays(stays, cache):
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    demo = hospital_figures.read_stays(hospital_figures.demo_roots(), cache)
    assert len(demo["age"]) == 140
    rows = hospital_figures.compare(demo, stays, samples=200)
    assert len(rows) >= 25
    assert [row["name"] for row in rows if not hospital_figures.is_within(row)] == []


def test_the_figures_are_those_of_plain_counts(stays):
    rows = {row["name"]: row for row in hospital_figures.compare(stays, stays, samples=20)}
    assert all(row["demo"] == pytest.approx(row["synthetic"], nan_ok=True) for row in rows.values())
    died, young = stays["died"].astype(bool), stays["age"] < 45
    assert rows["death in hospital, under 45 years, %"]["synthetic"] == pytest.approx(100 * died[young].mean())
    pair = stays["creatinine"], stays["urea"]
    both = np.isfinite(pair[0]) & np.isfinite(pair[1])
    expected = np.corrcoef(pair[0][both], pair[1][both])[0, 1]
    assert rows["correlation: creatinine, urea"]["synthetic"] == pytest.approx(expected)
    lactate = np.isfinite(stays["lactate"])
    assert rows["lactate measured, %"]["synthetic"] == pytest.approx(100 * lactate.mean())


def test_a_figure_outside_the_interval_is_marked():
    inside = {"name": "a", "demo": 1.04, "synthetic": 1.3, "low": 1.0, "high": 2.0, "decimals": 1}
    outside = inside | {"name": "b", "demo": 0.94}
    assert hospital_figures.lines([inside, outside])[2:] == [
        "| a | 1.0 | 1.3 | 1.0 to 2.0 |", "| b | 0.9 (outside) | 1.3 | 1.0 to 2.0 |",
    ]  # fmt: skip


def test_the_demo_is_read_where_it_is_named(monkeypatch):
    monkeypatch.delenv("PATIENTDX_SHARED", raising=False)
    with pytest.raises(UserError, match="PATIENTDX_SHARED"):
        hospital_figures.demo_roots()
