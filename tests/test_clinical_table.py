"""The clinical evaluation as a reader sees it: tables of 80 characters and pictures."""

import io
import re

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.image import imread
from rich.console import Console
from scipy.special import expit

from patientdx.evaluation.clinical import Scored, Wording, draw, evaluate, table

ROLES = ("merged", "base", "tabular_gbm")


def made(n: int = 400, splits=("pilot", "test"), roles=ROLES):
    random = np.random.default_rng(0)
    scored = {}
    for split in splits:
        risk = random.normal(-1.2, 1.3, n)
        label = (random.random(n) < expit(risk)).astype(int)
        subject = [f"{split}-secret-{number}" for number in random.integers(0, n // 2, n)]
        for role in roles:
            score = expit(0.7 * risk + random.normal(size=n))
            scored[role, split] = Scored(score, label, subject, None if "_" in role else np.full(n, 0.9))
    return scored


@pytest.fixture(scope="module")
def found():
    scored = made()
    groups = {"sex": ["F", "M"] * 200, "insurance": ["Medicare"] * 200 + ["Medicaid"] * 191 + ["Other"] * 9}
    survival = {"survival": Wording(1 - scored["merged", "test"].probability, True)}
    return evaluate(scored, groups=groups, wordings={"merged": survival}, resamples=60)


def printed(shown, width: int = 80) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def section(text: str, title: str) -> list[list[str]]:
    """The cells of each line of one table, which stand two or more blanks apart."""
    after = text[text.index(f"{title} ") :].splitlines()[1:]
    rule = next(index for index, line in enumerate(after) if "──" in line)
    rows = []
    for line in after[rule + 1 :]:
        if not line.strip():
            break
        rows.append(re.split(r"\s{2,}", line.strip()))
    return rows


def cell(one: dict, digits: int = 2) -> str:
    return f"{one['value']:.{digits}f} [{one['low']:.{digits}f}, {one['high']:.{digits}f}]"


def test_everything_fits_eighty_characters_and_nothing_is_cut(found):
    text = printed(table(found))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    titles = ["Cohort", "Discrimination", "Overall fit", "Calibration", "At a threshold", "Net benefit per 100 stays",
              "Subgroups: merged", "Largest gaps: merged", "Differences", "Probability on yes and no together",
              "Wording of the question: merged"]  # fmt: skip
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert "secret" not in text


def test_the_cells_are_the_numbers_found(found):
    text = printed(table(found))
    part = found["models"]["merged"]["discrimination"]
    assert section(text, "Discrimination")[0][:3] == ["merged", cell(part["auroc"]), cell(part["auprc"])]
    raw = found["models"]["base"]["calibration"]["raw"]
    row = next(row for row in section(text, "Overall fit") if row[0] == "base")
    assert row == ["base", cell(raw["brier"], 3), cell(raw["scaled_brier"]), cell(raw["log_loss"])]
    logistic = found["models"]["merged"]["calibration"]["logistic"]
    noise = f"{logistic['ece_if_calibrated']:.2f}"
    shown = section(text, "Calibration")[1]
    assert shown[0] == "logistic"
    assert shown[2:] == [cell(logistic["slope"]), cell(logistic["ece"]), noise]
    cut = found["models"]["merged"]["threshold"]
    assert section(text, "At a threshold")[0][1:3] == [f"{cut['value']:.3g}", f"{cut['sensitivity']['value']:.2f}"]
    curve = found["models"]["base"]["decision_curve"]["raw"]
    benefit = next(row for row in section(text, "Net benefit per 100 stays") if row[0] == "base")
    assert benefit[3] == f"{100 * curve['model'][19]:.2f}"
    assert curve["threshold"][19] == 0.2


def test_subgroups_of_the_merged_model_or_of_those_named(found):
    text = printed(table(found))
    sex = found["models"]["merged"]["subgroups"]["sex"]
    rows = section(text, "Subgroups: merged")
    assert rows[0][:4] == [
        "sex: F",
        "200",
        str(sex["cells"]["F"]["events"]),
        f"{sex['cells']['F']['auroc']['value']:.2f}",
    ]
    assert "insurance, suppressed for fewer than 10 stays: Other" in text
    gap = sex["gaps"]["auroc"]
    assert section(text, "Largest gaps: merged")[0] == [
        "sex", "AUROC", f"{gap['highest']} − {gap['lowest']}", cell(gap),
    ]  # fmt: skip
    assert "Subgroups: base" not in text
    named = printed(table(found, subgroups_of=["base"]))
    assert "Subgroups: base" in named
    assert "Subgroups: merged" not in named


def test_what_is_missing_says_why_below_its_table():
    scored = made(n=60, splits=("test",), roles=("base",))
    one = scored["base", "test"]
    flat = {("base", "test"): Scored(np.full(60, 0.3), one.label, one.subject)}
    text = " ".join(printed(table(evaluate(flat, pilot=None, resamples=30)), width=100).split())
    assert "base, logistic recalibration: no pilot split was given to fit it on" in text
    assert "base: no pilot split was given to fit it on" in text
    assert "base, raw: no slope can be fitted: the score is constant" in text
    for absent in ("Differences", "Subgroups", "yes and no", "Wording"):
        assert absent not in text


def pixels(picture: np.ndarray, colour: str) -> int:
    return int((np.abs(picture[..., :3] - colors.to_rgb(colour)).max(axis=-1) < 0.02).sum())


def test_four_pictures_with_every_model(found, tmp_path):
    paths = draw(found, tmp_path / "pictures")
    assert [path.name for path in paths] == ["calibration.png", "decision_curve.png", "roc_pr.png", "distribution.png"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted(path.name for path in paths)
    for path in paths[:3]:
        picture = imread(path)
        for colour in ("#0072B2", "#D55E00", "#009E73"):
            assert pixels(picture, colour) > 500, (path.name, colour)
    assert imread(paths[0]).shape[1] > 1.5 * imread(paths[0]).shape[0]  # raw and recalibrated side by side


def test_pictures_without_pilot_and_of_constant_scores(tmp_path):
    scored = made(n=60, splits=("test",), roles=("base",))
    one = scored["base", "test"]
    for name, score in (("flat", np.full(60, 1.0)), ("plain", one.probability)):
        found = evaluate({("base", "test"): Scored(score, one.label, one.subject)}, pilot=None, resamples=30)
        paths = draw(found, tmp_path / name)
        assert all(path.stat().st_size > 5000 for path in paths)
    first, second = draw(found, tmp_path / "a"), draw(found, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
