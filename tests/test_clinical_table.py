"""The clinical evaluation as a reader sees it: tables on a terminal, clinical.txt and pictures."""

import re

import numpy as np
import pytest
from result_folders import reseal
from scipy.special import expit

from patientdx.evaluation.analyses import clinical_tables
from patientdx.evaluation.analyses.entries import Entry
from patientdx.evaluation.store import write_json
from patientdx.metrics.clinical import Scored, evaluate
from patientdx.reporting import pictures
from patientdx.reporting.run_tables import show_run
from patientdx.reporting.terminal import text

ROLES = ("merged", "base", "tabular_gbm")
PICTURES = ["calibration.png", "decision_curve.png", "roc_pr.png", "distribution.png"]


def scored_models(n: int = 400, splits=("pilot", "test"), roles=ROLES):
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
def result():
    groups = {"sex": ["F", "M"] * 200, "insurance": ["Medicare"] * 200 + ["Medicaid"] * 191 + ["Other"] * 9}
    return evaluate(scored_models(), groups=groups, resamples=60)


def entries(result) -> list[Entry]:
    return [Entry(role, role, result) for role in result["models"]]


def tables(result) -> dict:
    return {table.name: table for table in clinical_tables.tables(entries(result))}


def value(table, column: str, *names: str):
    """The full value in a column of the row that begins with these names."""
    (line,) = (line for line in table.rows if tuple(cell.text for cell in line[: len(names)]) == names)
    return line[[column.name for column in table.columns].index(column)].value


@pytest.mark.parametrize("width", [80, 100])
def test_everything_fits_and_nothing_is_cut(result, width):
    shown = text(*clinical_tables.tables(entries(result)), width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    titles = ["Splits", "Discrimination", "Overall fit", "Calibration", "At a threshold", "Net benefit per 100 stays",
              "Subgroups", "Largest gaps between groups", "Probability on yes and no together"]  # fmt: skip
    positions = [shown.index(title) for title in titles]
    assert positions == sorted(positions)
    assert "secret" not in shown


def test_the_cells_are_the_numbers_of_the_result(result):
    made, merged, base = tables(result), result["models"]["merged"], result["models"]["base"]
    assert value(made["discrimination"], "AUROC", "merged") == merged["discrimination"]["auroc"]["value"]
    assert value(made["fit"], "Brier", "base", "as predicted") == base["calibration"]["raw"]["brier"]["value"]
    logistic = merged["calibration"]["logistic"]
    assert value(made["calibration"], "slope", "merged", "logistic") == logistic["slope"]["value"]
    assert value(made["calibration"], "noise", "merged", "logistic") == logistic["ece_if_calibrated"]
    assert value(made["threshold"], "threshold", "merged") == merged["threshold"]["value"]
    curve = base["decision_curve"]["raw"]
    assert curve["threshold"][19] == 0.2
    assert value(made["net_benefit"], "20%", "base", "as predicted") == 100 * curve["model"][19]
    sex = merged["subgroups"]["sex"]
    assert value(made["subgroups"], "events", "merged", "sex", "F") == sex["cells"]["F"]["events"]
    assert value(made["gaps"], "gap", "merged", "sex", "AUROC") == sex["gaps"]["auroc"]["value"]
    assert "insurance, suppressed for fewer than 10 stays: Other" in made["subgroups"].notes


def test_the_overview_has_a_line_a_model(result):
    (table,) = clinical_tables.overview(entries(result))
    raw, at = result["models"]["base"]["calibration"]["raw"], result["models"]["base"]["threshold"]
    assert value(table, "Brier", "base") == raw["brier"]["value"]
    assert value(table, "sensitivity", "base") == at["sensitivity"]["value"]
    assert "sensitivity, specificity: at a threshold chosen on pilot" in table.notes
    assert max(map(len, text(table).splitlines())) <= 80


def test_what_is_missing_is_explained_below_its_table():
    scored = scored_models(n=60, splits=("test",), roles=("base",))["base", "test"]
    flat = {("base", "test"): Scored(np.full(60, 0.3), scored.label, scored.subject)}
    result = evaluate(flat, pilot=None, resamples=30)
    shown = " ".join(text(*clinical_tables.tables(entries(result)), width=100).split())
    assert "base, logistic recalibration: no pilot split was given to fit it on" in shown
    assert "base: no pilot split was given to fit it on" in shown
    assert "base, raw: no slope can be fitted: the score is constant" in shown
    assert not any(absent in shown for absent in ("Subgroups", "yes and no"))
    (overview,) = clinical_tables.overview(entries(result))
    assert any("need the pilot split: 'splits=[pilot,test]'" in note for note in overview.notes)


def test_a_run_leaves_the_text_and_four_pictures(result, tmp_path, capsys):
    write_json(result, tmp_path / "clinical.json")
    reseal(tmp_path, {"rows": []})
    show_run(tmp_path)
    shown = (tmp_path / "clinical.txt").read_text()
    auroc = result["models"]["merged"]["discrimination"]["auroc"]
    assert f"{auroc['value']:.3f} [{auroc['low']:.3f}, {auroc['high']:.3f}]" in shown
    assert re.search(r"merged +base +AUROC, DeLong", shown)
    assert max(map(len, shown.splitlines())) <= 100
    assert {path.name for path in tmp_path.glob("*.png")} == set(PICTURES)
    assert "Clinical evaluation, test" in capsys.readouterr().out


def test_pictures_without_pilot_and_of_constant_scores(tmp_path):
    scored = scored_models(n=60, splits=("test",), roles=("base",))["base", "test"]
    for name, score in (("flat", np.full(60, 1.0)), ("plain", scored.probability)):
        result = evaluate({("base", "test"): Scored(score, scored.label, scored.subject)}, pilot=None, resamples=30)
        paths = pictures.clinical(result, tmp_path / name)
        assert [path.name for path in paths] == PICTURES
        assert all(path.stat().st_size > 5000 for path in paths)
    again = pictures.clinical(result, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
