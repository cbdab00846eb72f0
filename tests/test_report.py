"""Tables on a terminal, csv files, pictures, and the choice of λ, from rows of results."""

import csv
import math
import re

import numpy as np
import pytest

from patientdx.core.errors import UserError
from patientdx.core.tables import Table, interval, make_table, word
from patientdx.evaluation.analyses import prompt_variants_tables
from patientdx.evaluation.analyses.entries import Entry
from patientdx.metrics.prompt_variants import VariantScores, variant_spread
from patientdx.reporting import choose, lambda_charts, lambda_curve, write_csv
from patientdx.reporting.tables import cohort, models
from patientdx.reporting.terminal import text


def row(role: str, place: float | None, value: float, *, split: str = "test", method: str = "slerp", **more):
    return {
        "task": "mortality",
        "split": split,
        "method": method if role == "merged" else None,
        "lambda": place,
        "role": role,
        "auroc": value,
        "auroc_ci_low": value - 0.09,
        "auroc_ci_high": value + 0.08,
        "auprc": value / 3,
        "auprc_ci_low": value / 3 - 0.05,
        "auprc_ci_high": value / 3 + 0.05,
        "n": 68 if split == "test" else 40,
        "events": 9,
        "prevalence": 9 / 68,
        "patients": 50,
        "abstention_mass": 0.9812,
        "distinct_scores": 67,
        "fingerprint": f"{role}-{method}-{place}-{split}",
        **more,
    }


def sweep(*places: float, methods=("slerp",), splits=("pilot", "test")) -> list[dict]:
    rows = []
    for split in splits:
        rows.append(row("base", 0.0, 0.61, split=split))
        for method in methods:
            rows += [
                row("merged", place, 0.62 + 0.3 * place * (1 - place), split=split, method=method) for place in places
            ]
        rows.append(row("pivot", 1.0, 0.64, split=split))
    return rows


def cells_of(shown: str) -> list[list[str]]:
    """The cells of each line: they are two or more blanks apart, and the intervals' own blanks are single."""
    return [re.split(r"\s{2,}", line.strip()) for line in shown.splitlines() if line.strip()]


def test_a_table_has_a_line_a_model_with_intervals():
    shown = text(models(sweep(0.1, 0.4, splits=("test",))))
    for heading in ("model", "AUROC", "AUPRC", "yes+no", "mass", "distinct", "scores", "Models, mortality"):
        assert heading in shown
    lines = cells_of(shown)
    assert ["base", "test", "0.61 [0.52, 0.69]†", "0.20 [0.15, 0.25]†", "0.981", "67"] in lines
    assert ["slerp λ=0.4", "test", "0.69 [0.60, 0.77]†", "0.23 [0.18, 0.28]†", "0.981", "67"] in lines
    assert "test: n = 68, 50 patients, 9 events, prevalence 0.132" in shown


def test_an_absent_value_is_a_dash_and_each_split_has_its_size():
    rows = sweep(0.4)
    rows[0] |= {"abstention_mass": None, "distinct_scores": None, "auprc": float("nan"), "auprc_ci_low": None}
    shown = text(models(rows))
    assert ["base", "pilot", "0.61 [0.52, 0.69]†", "–", "–", "–"] in cells_of(shown)
    assert "pilot: n = 40, 50 patients" in shown
    assert "test: n = 68, 50 patients" in shown


@pytest.mark.parametrize("method", ["slerp", "breadcrumbs_ties"])
def test_a_table_that_is_too_wide_loses_a_digit_and_no_word(method):
    tabular = row("tabular_logistic", None, 1.0, split="pilot", abstention_mass=None)
    shown = text(models([*sweep(0.25, methods=(method,)), tabular]))
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for part in ("yes+no", "mass", "distinct", "scores", method, "λ=0.25"):
        assert part in shown
    lines = cells_of(shown)
    place = lines.index(["tabular_logistic", "pilot", "1.00†", "0.33†", "–", "67"])
    assert lines[place + 1] == ["0.91–1.08", "0.28–0.38"]  # intervals go below their values where the mark takes room


def wide(rows: int, columns: int) -> Table:
    line = [interval(0.5, 0.25, 0.75) for _ in range(columns)]
    names = ["model", "split", *(f"metric {i}" for i in range(columns))]
    return make_table("wide", "Wide", names, [[word(f"m{i}"), word("test"), *line] for i in range(rows)], keys=2)


@pytest.mark.parametrize(("rows", "columns"), [(2, 12), (12, 12), (30, 6), (1, 1), (0, 3)])
def test_every_form_of_a_wide_table_fits_and_shows_each_cell(rows, columns):
    shown = text(wide(rows, columns))
    assert max(map(len, shown.splitlines())) <= 80
    assert len(re.findall(r"0\.50+\b", shown)) == rows * columns
    assert shown.count("Wide") == 1
    for index in range(columns):
        assert re.search(rf"metric\s+(.*\s)?{index}\b", shown, re.DOTALL)


def test_the_attrition_table_shows_the_steps_that_removed_stays():
    rows = [
        {"step": "icu stays of adults, of which many were shorter than a text of forty-eight hours needs, or so it is",
         "stays": 140, "patients": "100", "events": 12},
        {"step": "the same", "stays": 140, "patients": "100", "events": 12},
        {"step": "still there after 54 h", "stays": 68, "patients": "60", "events": 9},
    ]  # fmt: skip
    shown = text(cohort(rows))
    assert ["step", "stays", "patients", "events"] in cells_of(shown)
    assert ["still there after 54 h", "68", "60", "9"] in cells_of(shown)
    assert max(map(len, shown.splitlines())) <= 80
    assert "1 more steps removed nothing: cohort.csv" in shown
    assert "the same" not in shown
    assert "the same" in text(cohort(rows, every_step=True))


def test_other_prompts_are_a_table():
    random = np.random.default_rng(0)
    label, score = np.arange(60) % 3 // 2, random.random(60)
    variants = {"reworded": VariantScores(score**2), "survival": VariantScores(score, inverted=True)}
    spread = variant_spread(score, variants, label, [str(i) for i in range(60)], resamples=100)
    (table,) = prompt_variants_tables.tables([Entry("merged", "merged", {"role": "merged", "split": "test"} | spread)])
    shown = text(table)
    lines = {line[0]: line for line in cells_of(shown)}
    assert max(map(len, shown.splitlines())) <= 80
    assert lines["reworded"][-2:] == ["1.000", "0.000"]  # the same order
    assert lines["survival (inverted)"][-2:] == ["-1.000", "1.000"]  # an order that should be inverted, and is not
    assert lines["reworded"][1] == lines["the task's question"][1]


def test_csv_keeps_every_digit_and_replaces_the_file_whole(tmp_path):
    rows = sweep(0.1, 1 / 3)
    rows[1]["extra"] = "a, b"
    file = tmp_path / "new" / "sweep.csv"
    write_csv([{"old": 1}], file)
    write_csv(rows, file)
    with file.open(newline="") as opened:
        back = list(csv.DictReader(opened))
    assert len(back) == len(rows)
    for before, after in zip(rows, back, strict=True):
        assert list(after) == [*rows[0], "extra"]
        for key, value in before.items():
            if isinstance(value, float):
                assert float(after[key]) == value
            else:
                assert after[key] == ("" if value is None else str(value))
    assert [path.name for path in file.parent.iterdir()] == ["sweep.csv"]


def test_a_csv_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    class Breaks:
        def __str__(self):
            raise OSError("no space left on device")

    file = tmp_path / "sweep.csv"
    write_csv([{"a": 1}], file)
    with pytest.raises(OSError, match="no space"):
        write_csv([{"a": 2}, {"a": Breaks()}], file)
    assert file.read_text() == "a\n1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


@pytest.mark.parametrize("places", [(0.4,), (0.3, 0.7), tuple(i / 10 for i in range(11))])
@pytest.mark.parametrize("metric", ["auroc", "auprc"])
def test_the_curve_is_one_picture_with_both_splits(tmp_path, places, metric):
    file = tmp_path / "pictures" / "curve.png"
    lambda_curve(sweep(*places), file, metric=metric, chosen=places[0])
    content = file.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert str(tmp_path).encode() not in content
    assert int.from_bytes(content[16:20], "big") >= 1200  # its width
    assert [path.name for path in file.parent.iterdir()] == ["curve.png"]


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_a_picture_has_the_form_of_its_suffix(tmp_path, suffix):
    lambda_curve(sweep(0.4), tmp_path / f"curve.{suffix}")
    assert (tmp_path / f"curve.{suffix}").read_bytes()[:5] in (b"%PDF-", b"<svg ")


def values_of(spec: object, key: str) -> list:
    """All values of a key in a chart's specification."""
    if isinstance(spec, list):
        return [value for part in spec for value in values_of(part, key)]
    if not isinstance(spec, dict):
        return []
    return ([spec[key]] if key in spec else []) + [value for part in spec.values() for value in values_of(part, key)]


def test_the_chart_holds_the_values_intervals_chance_and_the_ring():
    rows = lambda_charts.on_curve(sweep(0.4, methods=("slerp", "linear")), "auprc")
    looks = lambda_charts.curve_looks(rows)
    panels = lambda_charts.panels(rows, "auprc", looks, {"slerp": 0.4})
    assert list(panels) == ["pilot", "test"]
    spec = panels["test"].to_dict()
    heights = {value for value in values_of(spec, "y") if isinstance(value, float)}
    assert {0.61 / 3, (0.62 + 0.3 * 0.24) / 3, 0.64 / 3} <= heights
    assert 9 / 68 in values_of(spec, "at")
    assert True in values_of(spec, "ring")
    assert {"slerp", "linear"} <= {value for value in values_of(spec, "model") if isinstance(value, str)}
    key = lambda_charts.key_looks(rows, "auprc", looks, {"slerp": 0.4})
    assert list(key) == ["slerp", "linear", "base", "pivot", "chosen on pilot", "chance (0.132)"]


def test_one_point_of_one_split_without_parents_or_interval(tmp_path):
    single = row("merged", 0.4, 0.7, auroc_ci_low=None, auroc_ci_high=None)
    lambda_curve([single], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (sweep(0.4), {"metric": "brier"}, "with a single λ and a value of brier to draw"),
        ([*sweep(0.4), row("merged", 0.4, 0.7, task="icu")], {}, "these rows hold icu, mortality: name one of them"),
        (sweep(0.4), {"task": "icu"}, "for the task icu to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, rows, arguments, message):
    with pytest.raises(UserError, match=message):
        lambda_curve(rows, tmp_path / "curve.png", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_choose_takes_the_best_on_pilot_and_reports_test():
    rows = [
        row("base", 0.0, 0.99, split="pilot"),
        row("merged", 0.1, 0.60, split="pilot"),
        row("merged", 0.2, 0.70, split="pilot"),
        row("merged", None, 0.95, split="pilot"),
        row("merged", 0.3, math.nan, split="pilot"),
        row("merged", 0.1, 0.90),
        row("merged", 0.2, 0.65),
    ]
    chosen = choose(rows)
    assert chosen.pop("row") is rows[-1]
    assert chosen == {
        "lambda": 0.2,
        "method": "slerp",
        "metric": "auroc",
        "chosen_on": "pilot",
        "value": 0.70,
        "reported_on": "test",
    }
    assert choose(rows, higher_is_better=False)["lambda"] == 0.1


def test_choose_gives_ties_to_the_smaller_lambda():
    rows = [
        row("merged", place, 0.7, split=split, method=method)
        for split in ("pilot", "test")
        for place, method in ((0.8, "linear"), (0.4, "slerp"), (0.4, "linear"), (0.6, "slerp"))
    ]
    chosen = choose(rows)
    assert (chosen["lambda"], chosen["method"]) == (0.4, "linear")
    assert chosen["row"]["fingerprint"] == "merged-linear-0.4-test"


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (sweep(0.4), {"chosen_on": "test"}, "λ cannot be chosen on the test split and reported on it"),
        (sweep(0.4), {"reported_on": "pilot"}, "λ cannot be chosen on the pilot split and reported on it"),
        (
            sweep(0.4, splits=("test",)),
            {},
            "no merged model with a λ has a value of auroc on the pilot split",
        ),
        (sweep(0.4, splits=("pilot",)), {}, "λ=0.4 was chosen on pilot but has no result on the test split"),
        (sweep(0.4), {"metric": "brier"}, "a value of brier on the pilot split"),
        (
            [*sweep(0.4), row("base", 0, 0.5, task="icu")],
            {},
            "one task at a time; these rows hold icu, mortality",
        ),
    ],
)
def test_choose_refuses(rows, arguments, message):
    with pytest.raises(UserError, match=message):
        choose(rows, **arguments)
