"""Table 1, missingness and the sample size, against pandas and by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from patientdx.metrics import description, sample_size

SPLITS = ("train", "test")


@pytest.fixture(scope="module")
def stays() -> pd.DataFrame:
    random = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame({
        "split": random.choice(SPLITS, n), "label": (random.random(n) < 0.3).astype(int),
        "age": random.normal(60, 10, n), "sex": random.choice(["F", "M"], n),
        "unit": np.where(np.arange(n) < 8, "small", random.choice(["A", "B"], n)),
    })  # fmt: skip
    frame.loc[random.random(n) < 0.25, "age"] = np.nan
    return frame


def test_numbers_are_the_quartiles_of_each_column(stays):
    made = description.numbers({"age": stays["age"].to_numpy()}, stays["split"], stays["label"], SPLITS, 10)["age"]
    sizes = description.columns(list(stays["split"]), list(stays["label"]), SPLITS)
    assert [(one["split"], one["event"]) for one in sizes] == [("train", 0), ("train", 1), ("test", 0), ("test", 1)]
    for cell, column in zip(made, sizes, strict=True):
        part = stays[(stays["split"] == column["split"]) & (stays["label"] == column["event"])]
        assert column["n"] == len(part)
        expected = part["age"].quantile([0.25, 0.5, 0.75]).tolist()
        assert [cell[key] for key in ("low", "median", "high")] == pytest.approx(expected)
        assert cell["missing"] == pytest.approx(part["age"].isna().mean())
    nine = np.where(np.arange(400) < 9, 1.0, np.nan)
    few = description.numbers({"age": nine}, ["train"] * 400, [0] * 400, ("train",), 10)
    assert few["age"] == [{"suppressed": True}] * 2


def test_groups_are_counted_and_a_small_one_cannot_be_worked_out(stays):
    values = {name: stays[name].tolist() for name in ("sex", "unit")}
    made = description.groups(values, stays["split"], stays["label"], SPLITS, 10, {})
    column = stays[(stays.split == "train") & (stays.label == 0)]
    assert made["sex"]["F"][0] == {"n": (column.sex == "F").sum(), "share": pytest.approx((column.sex == "F").mean())}
    hidden = [group for group, cells in made["unit"].items() if cells[0] == {"suppressed": True}]
    assert "small" in hidden
    assert len(hidden) == 2  # the smaller of the others is hidden with it
    assert json.loads(json.dumps(made["unit"])) == made["unit"]


def test_what_the_subgroups_hide_is_hidden_here_too(stays):
    made = description.groups(
        {"sex": stays["sex"].tolist()}, stays["split"], stays["label"], SPLITS, 10, {("test", "sex"): {"F"}}
    )
    assert made["sex"]["F"][2:] == made["sex"]["M"][2:] == [{"suppressed": True}] * 2
    assert all("n" in cell for group in "FM" for cell in made["sex"][group][:2])


def test_missing_is_a_share_of_the_split(stays):
    made = description.missing({"age": stays["age"].to_numpy()}, list(stays["split"]), SPLITS)
    assert made["age"] == pytest.approx(stays["age"].isna().groupby(stays["split"]).mean().to_dict())


def test_the_standard_error_is_the_spread_of_simulated_areas():
    """Hanley and McNeil's model is exact for exponential scores, whose AUROC is the ratio of the rates."""
    random, rate = np.random.default_rng(0), 4.0  # AUROC = rate / (1 + rate) = 0.8
    areas = []
    for _ in range(4000):
        events, others = random.exponential(1, 30), random.exponential(1 / rate, 70)
        areas.append((events[:, None] > others).mean())
    assert np.mean(areas) == pytest.approx(0.8, abs=0.005)
    assert sample_size.standard_error(0.8, 100, 30) == pytest.approx(np.std(areas), rel=0.06)


def test_a_statement_of_the_sample_size():
    told = sample_size.statement(200, 24)
    assert told["half_width"] == pytest.approx(0.110, abs=0.001)  # prevalence 12 %, as tabulated for planning
    needed = told["rows_for_auroc"]
    widths = [1.96 * sample_size.standard_error(0.8, size, 0.12 * size) for size in (needed, needed - 1)]
    assert widths[0] <= 0.05 + 1e-5 <= widths[1] + 2e-5
    assert told["rows_for_ratio"] == pytest.approx(0.88 / 0.12 / (0.1 / 1.96) ** 2, rel=1e-3)
    assert (told["enough"], sample_size.statement(1000, 100)["enough"]) == (False, True)
    assert sample_size.statement(50, 0)["half_width"] is None
