"""Which model a sweep says pilot chose, and which value it reports for it."""

import csv
import json
from pathlib import Path

import pytest
from sweeps_by_hand import PARENTS, finish, point, row, said, shown

from patientdx.cli.sweep_summary import choices


def test_each_method_has_its_choice(study):
    for job, (method, weight, pilot, test) in enumerate(
        [("slerp", 0.2, 0.7, 0.5), ("slerp", 0.4, 0.72, 0.71), ("linear", 0.2, 0.8, 0.66), ("linear", 0.4, 0.1, 0.99)]
    ):
        finish(study, job, [*point(weight, pilot, test, method=method), *PARENTS])
    lines = said(study).splitlines()
    start = lines.index("chosen on pilot: linear λ=0.2, test AUROC 0.66 [0.56, 0.76]")
    assert lines[start + 1 : start + 4] == [
        "chosen on pilot: slerp λ=0.4, test AUROC 0.71 [0.61, 0.81]",
        "chosen from 4 models on pilot: at most 2.00 bits of its patients are in that choice",
        "the rest of the test curve is exploratory",
    ]


def test_several_pairs_of_parents_have_choices_and_pictures_of_their_own(study):
    other = {"pivot": "math"}
    finish(study, 0, [*point(0.2, 0.7, 0.5), *point(0.4, 0.6, 0.6), *PARENTS])
    theirs = [*point(0.2, 0.7, 0.5, **other), *point(0.4, 0.8, 0.6, **other), *(one | other for one in PARENTS)]
    finish(study, 1, theirs)
    lines = said(study).splitlines()
    assert "mortality instruct numeric: chosen on pilot: slerp λ=0.2, test AUROC 0.50 [0.40, 0.60]" in lines
    assert "mortality instruct math: chosen on pilot: slerp λ=0.4, test AUROC 0.60 [0.50, 0.70]" in lines
    assert {path.name for path in study.glob("*.png")} == {
        "lambda_curve_auroc_mortality_instruct_numeric.png",
        "lambda_curve_auroc_mortality_instruct_math.png",
    }
    # The base is the same model, with the same fingerprint, and stands in both.
    places = [(one["pivot"], one["role"]) for one in shown(study)]
    assert all(places.count((pivot, "base")) == 2 for pivot in ("numeric", "math"))


def configured(study: Path, job: int, config: dict) -> None:
    (study / f"result_{job}" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML


def test_what_pilot_chose_is_reported_and_not_its_namesake(study):
    """Two densities share method and λ: the test value is that of the density that is better on pilot."""
    for job, (density, pilot, test) in enumerate([(0.2, 0.95, 0.6), (0.5, 0.6, 0.8)]):
        for at, weight in enumerate((0.5, 1.0)):
            finish(study, 2 * job + at, point(weight, pilot - weight / 10, test, method="ties"))
            configured(study, 2 * job + at, {"merge": {"density": density}, "lambda": weight})
    assert "chosen on pilot: ties λ=0.5 density=0.2, test AUROC 0.60 [0.50, 0.70]" in said(study).splitlines()
    with (study / "sweep.csv").open() as file:
        assert {one["variant"] for one in csv.DictReader(file)} == {"density=0.2", "density=0.5"}


def test_each_setting_has_its_choice(study):
    for job, (seed, weight, pilot, test) in enumerate(
        [(0, 0.2, 0.9, 0.6), (0, 0.4, 0.8, 0.7), (1, 0.2, 0.5, 0.55), (1, 0.4, 0.6, 0.65)]
    ):
        finish(study, job, point(weight, pilot, test))
        configured(study, job, {"seed": seed, "lambda": weight})
    lines = said(study).splitlines()
    assert "mortality instruct numeric seed=0: chosen on pilot: slerp λ=0.2, test AUROC 0.60 [0.50, 0.70]" in lines
    assert "mortality instruct numeric seed=1: chosen on pilot: slerp λ=0.4, test AUROC 0.65 [0.55, 0.75]" in lines
    assert {path.name for path in study.glob("*.png")} == {
        f"lambda_curve_auroc_mortality_instruct_numeric_{place}.png" for place in (1, 2)
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brier", ["chosen on pilot: slerp λ=0.4, test Brier 0.07 [-0.03, 0.17]"]),
        ("length_ratio", []),
    ],
)
def test_less_is_better_where_the_metric_says_so(study, name, expected):
    for job, (weight, pilot, test) in enumerate([(0.2, 0.2, 0.21), (0.4, 0.05, 0.07)]):
        rows = [{key.replace("auroc", name): value for key, value in one.items()} for one in point(weight, pilot, test)]
        finish(study, job, rows)
        target = {"brier": "calibration.brier", "length_ratio": "overlap.ratio"}[name]
        configured(study, job, {"task": {"metrics": {name: f"patientdx.metrics.{target}"}}, "lambda": weight})
    assert [line for line in said(study).splitlines() if "chosen on pilot" in line] == expected


@pytest.mark.parametrize(
    "rows",
    [
        [*point(0.4, 0.7, 0.7), *PARENTS],
        [row("merged", weight, 0.6) for weight in (0.1, 0.2)],
        [row("merged", weight, 0.6, split="pilot") for weight in (0.1, 0.2)],
        [*(row("merged", None, 0.6, split=split, method="none") for split in ("pilot", "test")), *PARENTS],
        [],
    ],
    ids=["one λ", "no pilot", "no test", "no λ", "nothing"],
)
def test_nothing_is_chosen_where_there_is_no_choice(rows):
    assert choices(rows) == []
