import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_studies import rows_in, write_made_run

from patientdx.cli.report import main
from patientdx.core.tables import Cell, Table, interval, make_table, word
from patientdx.reporting import export, write_report
from patientdx.reporting.groups import groups
from patientdx.reporting.runs import read
from patientdx.reporting.tables import models

ROOT = Path(__file__).resolve().parents[2]
ODD = r"50% & $5 #1 a_b {x} ~ ^ \ <é> λ − °"


def printed(capsys, *arguments) -> str:
    assert main([str(one) for one in arguments]) == 0
    return capsys.readouterr().out


def stored(study) -> list[dict]:
    return [row for folder in sorted(study.glob("*/metrics.json")) for row in rows_in(folder.parent)]


def shown(row, metric: str) -> str:
    value, low, high = (row[f"{metric}{end}"] for end in ("", "_ci_low", "_ci_high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def test_latex_and_markdown_hold_the_stored_numbers_rounded_once(made_study, capsys):
    latex = printed(capsys, made_study, "--format", "latex")
    markdown = printed(capsys, made_study, "--format", "markdown")
    for row in stored(made_study):
        for metric in ("auroc", "auprc"):
            assert shown(row, metric) in latex
            assert shown(row, metric).replace("[", r"\[").replace("]", r"\]") in markdown
    best = next(
        row for row in stored(made_study) if (row["method"], row["lambda"], row["split"]) == ("slerp", 0.6, "test")
    )
    assert rf"\textbf{{{shown(best, 'auroc')}}}" in latex
    assert latex.count(r"\textbf") == markdown.count("**") / 2 == 4


def test_latex_is_a_booktabs_table_with_n_events_and_prevalence_in_its_caption(made_study, capsys):
    latex = printed(capsys, made_study, "--format", "latex")
    assert re.findall(r"\\(toprule|midrule|bottomrule)", latex) == ["toprule", "midrule", "bottomrule"]
    caption = next(line for line in latex.splitlines() if "caption" in line)
    assert "Test: n = 180, 170 patients, 45 events, prevalence 0.250." in caption
    assert "better than every other model (paired, by patient" in caption
    body = latex[latex.index("midrule") : latex.index("bottomrule")]
    lines = [line for line in body.splitlines() if "&" in line]
    assert len(lines) == 12
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {5}
    assert latex.count("{") == latex.count("}")


def test_csv_holds_every_digit(made_study, capsys):
    found = list(csv.DictReader(io.StringIO(printed(capsys, made_study, "--format", "csv"))))
    values = {(float(line["AUROC"]), float(line["AUROC low"]), float(line["AUROC high"])) for line in found}
    assert values == {tuple(row[f"auroc{end}"] for end in ("", "_ci_low", "_ci_high")) for row in stored(made_study)}
    assert [line["model"] for line in found if line["AUROC bold"] == "True"] == ["slerp λ=0.6"] * 2
    assert {line["subject"] for line in found} == {"mortality, small + small_numeric"}


def odd() -> Table:
    return make_table(
        "odd", ODD, ["what", "x | y"], [[word("a|b*c_"), interval(-0.5, -0.75, None, bold=True)]], notes=[ODD]
    )


def test_letters_that_mean_something_are_escaped():
    latex = export.latex(odd())
    assert r"50\% \& \$5 \#1 a\_b \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{}é" in latex
    assert r"$\lambda$ $-$ $^\circ$" in latex
    assert r"a\textbar{}b*c\_ & \textbf{$-$0.500} \\" in latex
    markdown = export.markdown(odd())
    assert r"| a\|b\*c\_ | **-0.500** |" in markdown
    assert r"| what | x \| y |" in markdown


def test_a_dash_stands_for_what_is_absent_and_csv_leaves_it_empty():
    one = make_table("a", "A", ["model", "x"], [[word("b"), Cell("–")], [word("c"), interval(1, 0, 2)]])
    assert "b & -- \\\\" in export.latex(one)
    assert export.csv([one]) == "model,x,x low,x high\nb,,,\nc,1,0,2\n"


@pytest.mark.parametrize("name", ["chosen", "comparisons", "fit", "calibration", "threshold", "subgroups", "gaps",
                                  "abstention", "angles", "cohort", "parents", "settings", "runs"])  # fmt: skip
def test_every_table_can_be_exported(made_study, capsys, name):
    for form in ("latex", "markdown", "csv"):
        text = printed(capsys, made_study, "--format", form, "--table", name)
        assert len(text.splitlines()) > 1
        assert "None" not in text
        assert "nan" not in text


def test_tables_of_several_groups_follow_one_another(made_study):
    (group,) = groups(read(made_study))
    twice = export.csv([models(group.rows), models(group.rows)]).splitlines()
    assert len(twice) == 1 + 2 * 12


def test_a_split_alone_has_its_rows_and_no_column_of_splits(made_study, capsys):
    lines = printed(capsys, made_study, "--format", "csv", "--split", "test").splitlines()
    assert "split" not in lines[0].split(",")
    values = {row["auroc"] for row in stored(made_study) if row["split"] == "test"}
    assert {float(line["AUROC"]) for line in csv.DictReader(lines)} == values
    latex = printed(capsys, made_study, "--format", "latex", "--split", "test")
    assert ("Test: n = 180" in latex, "pilot" in latex.lower()) == (True, False)
    assert latex.count(r"\label{tab:models-mortality-small-small-numeric}") == 1


@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_every_chart_of_the_page_is_a_file_with_what_it_shows_as_csv(made_study, tmp_path, capsys, form):
    study = shutil.copytree(made_study, tmp_path / "study")
    written = [Path(line.removeprefix("written: ")) for line in printed(capsys, study, "--format", form).splitlines()]
    assert {path.parent for path in written} == {study / "charts"}
    begins = {"svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG"}[form]
    charts = [path for path in written if path.suffix == f".{form}"]
    assert len(charts) == 18  # as many as on the page
    assert all(path.read_bytes().startswith(begins) for path in charts)
    rows = list(csv.DictReader((study / "charts/lambda-auroc-test.csv").read_text(encoding="utf-8").splitlines()))
    made = {
        (row["model"], float(row["lambda"])): [float(row[name]) for name in ("AUROC", "low", "high")] for row in rows
    }
    ends = ("auroc", "auroc_ci_low", "auroc_ci_high")
    assert made == {
        (row["method"] or row["role"], row["lambda"]): [row[name] for name in ends]
        for row in stored(made_study) if row["split"] == "test"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["STUDY", "--format", "csv", "--table", "cohort", "--split", "test"], "the table cohort has no column split"),
        (["STUDY", "--format", "csv", "--split", "tset"], "--split tset: the table models has pilot, test."),
        (["nowhere"], "nowhere holds no finished run: a report needs metrics.json in it"),
        (
            ["STUDY", "--format", "csv", "--table", "search"],
            "has no table search (--table): its runs hold the tables chosen, comparisons, models,",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_message(made_study, capsys, arguments, said):
    given = [str(made_study) if one == "STUDY" else one for one in arguments]
    assert main(given) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_the_command_writes_the_page_beside_the_run_and_loads_no_model(tmp_path):
    folder = write_made_run(tmp_path / "run", "slerp", 0.4, 1)
    page = write_report(folder)
    before = page.read_bytes()
    page.unlink()
    code = (
        "import sys; from patientdx.cli.report import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'transformers', 'hydra', 'sklearn', 'matplotlib'} & set(sys.modules)), code)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == [f"written: {page}", "[] 0"]
    assert page.read_bytes() == before


def test_importing_the_report_loads_nothing_that_draws_or_computes():
    code = (
        "import sys, patientdx.reporting; print(sorted({'altair', 'jinja2', 'vl_convert', 'numpy', 'scipy', 'pyarrow', "
        "'matplotlib', 'sklearn', 'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
