import csv
import io
import math
import re

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.image import imread
from rich.console import Console

from patientdx.core.errors import UserError
from patientdx.evaluation.clinical import Scored, evaluate
from patientdx.metrics.prompt_variants import VariantScores, variant_spread
from patientdx.reporting import choose, cohort, evaluation, lambda_curve, probes, table, write_csv, write_evaluation

BLUE, ORANGE = "#0072B2", "#D55E00"


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


def printed(rows: list[dict], width: int = 120) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(table(rows))
    return console.export_text()


def lines_of(text: str) -> list[list[str]]:
    # Cells stand two or more blanks apart; the intervals' own blanks are single.
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return [cells for cells in rows if re.match(r"(base|pivot|slerp|linear)\b", cells[0]) and len(cells) > 2]


def test_table_has_a_line_a_model_with_intervals():
    text = printed(sweep(0.1, 0.4, splits=("test",)))
    for heading in ("model", "AUROC", "AUPRC", "yes+no", "mass", "distinct", "scores"):
        assert heading in text
    assert lines_of(text) == [
        ["base", "test", "0.61 [0.52, 0.69]", "0.20 [0.15, 0.25]", "0.981", "67"],
        ["slerp λ=0.1", "test", "0.65 [0.56, 0.73]", "0.22 [0.17, 0.27]", "0.981", "67"],
        ["slerp λ=0.4", "test", "0.69 [0.60, 0.77]", "0.23 [0.18, 0.28]", "0.981", "67"],
        ["pivot", "test", "0.64 [0.55, 0.72]", "0.21 [0.16, 0.26]", "0.981", "67"],
    ]
    assert "task mortality" in text
    assert "test: n 68, 50 patients, 9 events, prevalence 0.132" in text


def test_what_differs_between_rows_is_a_column_and_what_is_absent_a_dash():
    rows = sweep(0.4)
    rows[0] |= {"abstention_mass": None, "distinct_scores": None, "auprc": float("nan"), "auprc_ci_low": None}
    text = printed(rows)
    cells = lines_of(text)
    assert cells[0] == ["base", "pilot", "0.61 [0.52, 0.69]", "–", "–", "–"]
    assert [line[1] for line in cells] == ["pilot"] * 3 + ["test"] * 3
    assert "pilot: n 40, 50 patients, 9 events, prevalence 0.132" in text
    assert "test: n 68, 50 patients, 9 events, prevalence 0.132" in text


@pytest.mark.parametrize("method", ["slerp", "breadcrumbs_ties"])
def test_the_table_fits_a_narrow_terminal_with_every_word_of_it(method):
    tabular = row("tabular_logistic", None, 1.0, split="pilot", abstention_mass=None)
    text = printed([*sweep(0.25, methods=(method,)), tabular], width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for word in ("yes+no", "mass", "distinct", "scores", method, "λ=0.25", "tabular_logistic"):
        assert word in text
    assert ["tabular_logistic", "pilot", "1.00 [0.91, 1.08]", "0.33 [0.28, 0.38]", "–", "67"] in [
        re.split(r"\s{2,}", line.strip()) for line in text.splitlines()
    ]


def test_the_attrition_table():
    rows = [
        {"step": "icu stays of adults, of which many were shorter than what a text of forty-eight hours needs",
         "stays": 140, "patients": 100, "events": 12},
        {"step": "still there after 54 h", "stays": 68, "patients": 60, "events": 9},
    ]  # fmt: skip
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(cohort(rows))
    text = console.export_text().splitlines()
    lines = [re.split(r"\s{2,}", line.strip()) for line in text]
    assert ["step", "stays", "patients", "events"] in lines
    assert ["still there after 54 h", "68", "60", "9"] in lines
    assert max(map(len, text)) <= 80


def evaluated(pilot: str | None = "pilot", roles=("merged", "base", "tabular_logistic")) -> dict:
    """An evaluation of scores made here."""
    random = np.random.default_rng(0)
    scored = {}
    for split in filter(None, (pilot, "test")):
        label = np.arange(120) % 4 // 3
        subject = [str(i // 2) for i in range(120)]
        for role in roles:
            odds = random.normal(size=120) + label - 1
            scored[role, split] = Scored(1 / (1 + np.exp(-odds)), label, subject, None)
    return evaluate(scored, pilot=pilot, resamples=100)


def test_the_short_evaluation_has_a_line_a_model_and_fits():
    found = evaluated()
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(evaluation(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    lines = {line.split()[0]: re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()}
    raw, at = found["models"]["base"]["calibration"]["raw"], found["models"]["base"]["threshold"]
    (pair,) = (one["auroc"] for one in found["comparisons"] if one["b"] == "base")
    assert lines["base"][1:6] == [
        f"{raw['brier']['value']:.3f}", f"{raw['slope']['value']:.1f}", f"{raw['ece']['value']:.2f}",
        f"{at['sensitivity']['value']:.2f}", f"{at['specificity']['value']:.2f}",
    ]  # fmt: skip
    assert lines["base"][7] == f"{pair['value']:.2f} [{pair['low']:.2f}, {pair['high']:.2f}]"
    assert len(lines["merged"]) == 7  # it is not compared with itself
    assert "sens., spec.: at a threshold chosen on pilot\n" in re.sub(" +\n", "\n", text)


def test_without_pilot_the_short_evaluation_says_how_to_get_the_rest():
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(evaluation(evaluated(None, ("tabular_gbm",))))
    text = " ".join(console.export_text().split())
    assert "sens., spec. and recalibration need the pilot split: 'splits=[pilot,test]'" in text
    assert "merged" not in text


def test_all_of_an_evaluation_is_left_as_text_and_pictures(tmp_path):
    found = evaluated()
    write_evaluation(found, tmp_path)
    text = (tmp_path / "clinical.txt").read_text()
    assert max(map(len, text.splitlines())) <= 100
    auroc = found["models"]["merged"]["discrimination"]["auroc"]
    assert f"{auroc['value']:.2f} [{auroc['low']:.2f}, {auroc['high']:.2f}]" in text
    assert {path.name for path in tmp_path.glob("*.png")} >= {"calibration.png", "decision_curve.png"}


def test_other_wordings_are_a_table():
    random = np.random.default_rng(0)
    label, score = np.arange(60) % 3 // 2, random.random(60)
    wordings = {
        "reworded": VariantScores(score**2),
        "no_or_yes_and_other_words": VariantScores(random.random(60)),
        "survival": VariantScores(score, inverted=True),
    }
    spread = variant_spread(score, wordings, label, [str(i) for i in range(60)], resamples=100)
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(probes({"role": "merged", "split": "test"} | spread))
    text = console.export_text().splitlines()
    assert max(map(len, text)) <= 80
    lines = {line.split("  ")[0]: re.split(r"\s{2,}", line.strip()) for line in text if line.strip()}
    assert lines["reworded"][-2:] == ["1.00", "0.00"]  # the same order
    assert lines["survival (reversed)"][-2:] == ["-1.00", "1.00"]  # an order that should have reversed, and did not
    assert lines["reworded"][1] == lines["the question"][1]


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


def pixels(picture: np.ndarray, colour: str) -> int:
    return int((np.abs(picture[..., :3] - colors.to_rgb(colour)).max(axis=-1) < 0.02).sum())


@pytest.mark.parametrize("places", [(0.4,), (0.3, 0.7), tuple(i / 10 for i in range(11))])
@pytest.mark.parametrize("metric", ["auroc", "auprc"])
def test_the_curve_is_a_picture_with_both_splits(tmp_path, places, metric):
    file = tmp_path / "pictures" / "curve.png"
    lambda_curve(sweep(*places), file, metric=metric, chosen=places[0])
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert str(tmp_path).encode() not in file.read_bytes()
    picture = imread(file)
    height, width, _ = picture.shape
    assert width >= 1200
    assert height >= 800
    for colour in (BLUE, ORANGE, "#AA4499"):
        assert pixels(picture, colour) > 1000
    assert [path.name for path in file.parent.iterdir()] == ["curve.png"]


def test_one_point_of_one_split_without_parents_or_interval(tmp_path):
    alone = row("merged", 0.4, 0.7, auroc_ci_low=None, auroc_ci_high=None)
    lambda_curve([alone], tmp_path / "one.png")
    picture = imread(tmp_path / "one.png")
    assert pixels(picture, BLUE) > 100
    assert pixels(picture, ORANGE) == 0


def test_the_line_of_a_second_method_is_drawn(tmp_path):
    places = (0.2, 0.4, 0.6, 0.8)
    both = sweep(*places, methods=("slerp", "linear"), splits=("test",))
    for each in both:
        if each["method"] == "linear":
            each["auroc"] += 0.1
    lambda_curve([each for each in both if each["method"] != "linear"], tmp_path / "one.png")
    lambda_curve(both, tmp_path / "two.png")
    one, two = (pixels(imread(tmp_path / f"{name}.png"), BLUE) for name in ("one", "two"))
    assert two > 1.3 * one


def test_what_stands_where_in_the_picture(monkeypatch, tmp_path):
    """The figure's own objects, caught before they become pixels."""
    from matplotlib.figure import Figure

    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k)))
    lambda_curve(sweep(0.4), tmp_path / "curve.png", metric="auprc", chosen=0.4)
    (axes,) = kept[0].axes
    (legend,) = kept[0].legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["test", "pilot", "slerp", "base", "pivot", "chance (0.132)", "λ chosen on pilot (0.4)"]
    assert axes.get_title(loc="left") == "mortality: AUPRC from base to pivot"
    test_line, pilot_line = (line for line in axes.lines if len(line.get_xdata()) == 3)
    assert test_line.get_xdata() == pytest.approx([0, 0.4, 1], abs=0.01)
    assert list(test_line.get_ydata()) == [0.61 / 3, (0.62 + 0.3 * 0.24) / 3, 0.64 / 3]
    assert (test_line.get_color(), pilot_line.get_color()) == (BLUE, ORANGE)
    bars = [path.vertices for bar in axes.collections for path in bar.get_paths()]
    assert len(bars) == 6
    assert sorted({round(float(np.ptp(bar[:, 1])), 6) for bar in bars}) == [0.1]
    dashed = next(line for line in axes.lines if line.get_label() == "chance (0.132)")
    assert set(dashed.get_ydata()) == {9 / 68}


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(UserError, match="no point with a λ and a value of brier to draw"):
        lambda_curve(sweep(0.4), tmp_path / "curve.png", metric="brier")
    with pytest.raises(UserError, match="these rows hold icu, mortality: name one of them"):
        lambda_curve([*sweep(0.4), row("merged", 0.4, 0.7, task="icu")], tmp_path / "curve.png")
    with pytest.raises(UserError, match="for the task icu to draw"):
        lambda_curve(sweep(0.4), tmp_path / "curve.png", task="icu")
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
    ("rows", "asked", "message"),
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
def test_choose_refuses(rows, asked, message):
    with pytest.raises(UserError, match=message):
        choose(rows, **asked)
