import json
import re
import shutil
from html.parser import HTMLParser
from itertools import combinations, pairwise

import numpy as np
import pytest
from made_studies import rows_in, write_made_run, write_sweep
from result_folders import reseal

from patientdx.evaluation.store import write_sealed_json
from patientdx.reporting import write_report
from patientdx.reporting.chart_style import COLOURS, DARK, PARENT_COLOURS
from patientdx.reporting.figures import figures
from patientdx.reporting.groups import groups
from patientdx.reporting.runs import read


class Page(HTMLParser):
    """The tables of a page by name, cell by cell as (text, attributes), and its headings, figures and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, dict]]]] = {}
        self.tags: list[tuple[str, dict]] = []
        self._rows: list | None = None
        self._cell: dict | None = None
        self._text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "table":
            self._rows = self.tables.setdefault(given["data-name"], [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._cell, self._text = given, ""

    def handle_data(self, data):
        self._text += data

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._rows is not None:
            self._rows[-1].append((self._text.strip(), self._cell))
        elif tag == "table":
            self._rows = None


@pytest.fixture(scope="module")
def text(made_page) -> str:
    return made_page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(text) -> Page:
    return Page(text)


def stored(study) -> dict[tuple, dict]:
    return {
        (row["role"], row["method"], row["lambda"], row["split"]): row
        for folder in sorted(study.glob("*/metrics.json"))
        for row in rows_in(folder.parent)
    }


def test_every_number_of_the_table_is_the_stored_one_to_the_last_digit(made_study, parsed):
    head, *lines = parsed.tables["models"]
    assert [cell for cell, _ in head][:4] == ["model", "split", "AUROC", "AUPRC"]
    rows = stored(made_study)
    assert len(lines) == len(rows) == 2 * (4 + 2)
    for line in lines:
        name, split = line[0][0], line[1][0]
        method, _, place = name.partition(" λ=")
        merged = ("merged", method, float(place)) if place else (name, None, {"base": 0.0, "pivot": 1.0}[name])
        row = rows[*merged, split]
        for (shown, given), metric in zip(line[2:4], ("auroc", "auprc"), strict=True):
            value, low, high = (row[f"{metric}{end}"] for end in ("", "_ci_low", "_ci_high"))
            assert (float(given["data-value"]), float(given["data-low"]), float(given["data-high"])) == (
                value,
                low,
                high,
            )
            assert shown == f"{value:.3f} [{low:.3f}, {high:.3f}]"


def test_what_the_evaluation_for_the_clinic_found_is_in_its_tables(made_study, parsed):
    found = json.loads((made_study / "mortality_slerp_0.6" / "clinical.json").read_text())
    model = found["models"]["merged"]
    assert value_in(parsed.tables["threshold"], 2, "slerp λ=0.6") == model["threshold"]["sensitivity"]["value"]
    slope = model["calibration"]["logistic"]["slope"]["value"]
    assert value_in(parsed.tables["calibration"], 3, "slerp λ=0.6", "logistic") == slope
    difference = found["comparisons"][0]["auroc"]["value"]
    assert value_in(parsed.tables["comparisons"], 3, "slerp λ=0.6", "base", "AUROC") == difference
    rows = stored(made_study)
    both = [rows["merged", method, 0.6, "test"]["auroc"] for method in ("linear", "slerp")]
    assert value_in(parsed.tables["comparisons"], 3, "linear λ=0.6", "slerp λ=0.6", "AUROC") == both[0] - both[1]
    n = model["subgroups"]["sex"]["cells"]["F"]["n"]
    assert value_in(parsed.tables["subgroups"], 3, "slerp λ=0.6", "sex", "F") == n


def value_in(table, column: int, *first: str) -> float:
    """The full value in a column of the line that begins with these cells."""
    (line,) = (line for line in table if tuple(cell for cell, _ in line[: len(first)]) == first)
    return float(line[column][1]["data-value"])


def test_small_cells_are_named_and_not_shown(text, parsed):
    assert "ward, suppressed for fewer than 10 stays: B" in text
    assert all(line[2][0] != "B" for line in parsed.tables["subgroups"])


def test_every_part_is_there_with_its_charts(parsed):
    figures = [given for tag, given in parsed.tags if tag == "figure"]
    assert len(figures) == 4 + 2 + 2 + 2 + 2 + 4 + 1 + 1
    drawings = [given for tag, given in parsed.tags if tag == "svg" and given.get("role") == "img"]
    assert len(drawings) == len(figures)
    assert all(len(given["aria-label"]) > 40 for given in drawings)
    assert set(parsed.tables) == {
        "chosen", "comparisons", "models", "fit", "calibration", "threshold", "subgroups", "gaps", "abstention",
        "angles", "cohort", "parents", "settings", "runs", "splits", "discrimination", "net_benefit",
        "smooth_calibration",
    }  # fmt: skip


def test_ids_are_unique_and_links_lead_to_them(parsed):
    ids = [given["id"] for _, given in parsed.tags if "id" in given]
    assert len(ids) == len(set(ids))
    links = [given["href"] for tag, given in parsed.tags if tag == "a"]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_headings_go_down_one_at_a_time_and_headers_have_a_scope(parsed):
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(given["scope"] in ("col", "row") for tag, given in parsed.tags if tag == "th")


def test_the_page_asks_nobody_for_anything(text, parsed):
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    assert {"src", "srcset", "data", "action"}.isdisjoint(name for _, given in parsed.tags for name in given)
    policy = next(given for tag, given in parsed.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_names_are_escaped_and_the_page_is_small(made_page, text):
    assert "<title>made &lt;study&gt;, mortality: small and small_numeric – PatientDx</title>" in text
    assert "Does &lt;it&gt; &amp; work?" in text
    assert "<study>" not in text
    assert made_page.stat().st_size < 600_000


def test_no_path_and_no_id_of_a_stay_or_patient(text, made_study):
    assert "/home/someone" not in text
    assert "patientdx run -m merge=slerp,linear lambda=0.2,0.6" in text
    answers = read(made_study).runs[0].predictions.values()
    ids = {value for one in answers for value in (*one.id, *one.subject)}
    assert len(ids) > 400
    assert not [one for one in ids if one in text]


def test_the_same_files_give_the_same_bytes(made_study, made_page, tmp_path):
    study = tmp_path / made_study.name
    shutil.copytree(made_study, study, ignore=shutil.ignore_patterns("report.html"))
    assert write_report(study).read_bytes() == made_page.read_bytes()


def test_one_run_without_an_evaluation_has_a_page_too(tmp_path):
    folder = write_made_run(tmp_path / "mortality_slerp", "slerp", 0.4, 1, open_data=False)
    text = write_report(folder).read_text(encoding="utf-8")
    found = Page(text)
    assert "1 run, 1 merged model; data: credentialed." in text
    assert {"models", "chosen", "comparisons"} <= set(found.tables)
    assert {"calibration", "subgroups"}.isdisjoint(found.tables)
    assert "The command was not kept with this run" in text
    assert not list(tmp_path.glob(".*"))


def test_a_model_without_a_lambda_and_a_study_of_two_questions(tmp_path):
    folders = [
        write_made_run(tmp_path / "a", "karcher", None, 1),
        write_made_run(tmp_path / "b", "slerp", 0.4, 1, task={"template": "paper"}),
    ]
    write_sweep(tmp_path, folders)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert [group.title for group in groups(read(tmp_path))] == [
        "mortality, small + small_numeric, task.template=None",
        "mortality, small + small_numeric, task.template=paper",
    ]
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert '<a href="#g2">mortality, small + small_numeric, task.template=paper</a>' in text


def test_what_is_missing_from_a_sweep_stands_on_top(tmp_path):
    folder = write_made_run(tmp_path / "a", "slerp", 0.4, 1)
    write_made_run(tmp_path / "old", "slerp", 0.6, 1)
    write_sweep(tmp_path, [folder])
    write_sealed_json(
        {"failed": "no memory for /home/me/x.bin: 3 GB", "traceback": ["secret"]}, tmp_path / "sweep" / "1.json"
    )
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Run 1 of the sweep is not in this report: no memory for PATH: 3 GB" in text
    assert "1 finished run in the folder from before the last sweep is not in this report." in text
    assert "secret" not in text


def test_search_wordings_and_leakage_are_shown_where_a_run_has_them(tmp_path):
    folder = write_made_run(tmp_path / "a", "slerp", 0.4, 1)
    value = {"value": 0.125, "low": -0.25, "high": 0.5}
    (folder / "search.json").write_text(json.dumps({
        "strategy": "racing", "metric": "auroc", "split": "pilot", "chosen": {"label": "0.4"}, "looked_at": 2,
        "forwards": 150, "grid_forwards": 200, "share": 0.75, "corrected": {**value, "corrected": 0.0625},
        "candidates": [{"label": "0.4", "lambda": 0.4, "value": 0.75, "rows": 120, "dropped": None},
                       {"label": "0.6", "lambda": 0.6, "value": None, "rows": 30, "dropped": "cannot win"}],
    }))  # fmt: skip
    (folder / "privacy.json").write_text(json.dumps({
        "models": {"merged": {"dlt": {key: {"loss": value} for key in ("delta1", "delta2")},
                              "mia": {"loss": {"auc": value, "tpr": {"0.01": {"value": None, "reason": "few"}}}}}},
        "reading": ["0 is no leakage"],
    }))  # fmt: skip
    (folder / "prompt_variants.json").write_text(json.dumps({
        "role": "merged", "split": "test", "auroc": value, "auroc_spread": 0.5,
        "spearman": {"names": ["question", "survival"], "values": [[1.0, -0.5]]},
        "wordings": {"survival": {"reverses": True, "auroc": value, "difference": value,
                                  "not_reversed": {"value": 0.25}}},
    }))  # fmt: skip
    reseal(folder)
    text = write_report(folder).read_text(encoding="utf-8")
    found = Page(text)
    assert [cell for cell, _ in found.tables["search"][2]] == ["0.6", "–", "30", "cannot win"]
    assert "150 forward passes, 75.0% of the 200 of the grid" in text
    assert "search=racing, 2 candidates on pilot" in text
    assert [cell for cell, _ in found.tables["chosen"][1]][3] == "0.062 [−0.250, 0.500]"
    assert [cell for cell, _ in found.tables["leakage"][1]][2] == "+0.125 [−0.250, +0.500]"
    assert [cell for cell, _ in found.tables["membership"][1]][3] == "–"
    assert found.tables["prompt_variants"][2][0][0] == "survival (inverted)"
    assert "0 is no leakage" in text
    assert "<figcaption>Candidates of slerp λ=0.4</figcaption>" in text


def test_tabular_models_alone_have_a_page(tmp_path):
    folder = write_made_run(tmp_path / "a", "slerp", 0.4, 1)
    metrics = json.loads((folder / "metrics.json").read_text())
    own = [row for row in metrics["rows"] if row["role"] == "merged"]
    alone = {"role": "tabular_gbm", "method": "tabular_gbm", "base": None, "pivot": None, "lambda": None}
    metrics["rows"] = [row | alone | {"abstention_mass": None} for row in own]
    reseal(folder, metrics)
    found = Page(write_report(folder).read_text(encoding="utf-8"))
    assert [line[0][0] for line in found.tables["models"][1:]] == ["tabular_gbm", "tabular_gbm"]
    assert {"chosen", "comparisons"}.isdisjoint(found.tables)


def test_the_page_begins_with_task_parents_date_and_conclusion(made_study, text):
    head = text[text.index("<header>") : text.index("</header>")]
    assert "<h1>mortality: small and small_numeric</h1>" in head
    days = {run.date for run in read(made_study).runs}
    assert f"Study made &lt;study&gt;, {days.pop()}. 4 runs, 4 merged models; data: open." in head
    lines = re.findall(r'<p class="verdict">(.*?)</p>', head)
    assert [line.partition(" is ")[0] for line in lines] == ["linear λ=0.6", "slerp λ=0.6"]
    assert lines == re.findall(r'<p class="verdict">(.*?)</p>', text)  # and nowhere else


def test_the_prompt_of_a_synthetic_record_is_shown_and_escaped(tmp_path):
    folder = write_made_run(tmp_path / "r", "slerp", 0.2, 1)
    assert "<details" not in write_report(folder).read_text(encoding="utf-8")
    (folder / "prompt.txt").write_text("HR < 88\nWill the patient die?\n")
    shown = write_report(folder).read_text(encoding="utf-8")
    assert '<pre tabindex="0">HR &lt; 88\nWill the patient die?\n</pre>' in shown


def test_a_line_joins_what_was_measured_at_most_a_tenth_apart(tmp_path):
    for weight in (0.1, 0.2, 0.3, 0.6, 0.9):
        write_made_run(tmp_path / "s" / f"slerp_{weight}", "slerp", weight, 1)
    (group,) = groups(read(tmp_path / "s"))
    figure = figures(group, "g")["curve"][0]
    layers = figure.chart.to_dict()["layer"]
    (line,) = [layer["data"]["values"] for layer in layers if layer["mark"]["type"] == "line"]
    assert [(a["x"], b["x"]) for a, b in zip(line[::2], line[1::2], strict=True)] == [
        (0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.9, 1.0),
    ]  # fmt: skip
    assert sorted(row["lambda"] for row in figure.rows) == [0.0, 0.1, 0.2, 0.3, 0.6, 0.9, 1.0]


# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as protanopes and deuteranopes see it.
BLINDNESS = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("dark", [False, True])
def test_the_colours_of_base_and_pivot_differ_for_every_reader(kind, dark):
    """In CIELAB, where 2.3 is just noticeable: far more, and from the two commonest methods too."""
    colours = [DARK[colour] if dark else colour for colour in (*PARENT_COLOURS.values(), *COLOURS[:2])]
    seen = [lab(np.clip(np.array(BLINDNESS[kind]) @ linear(colour), 0, 1)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


def linear(colour: str) -> np.ndarray:
    """Linear RGB of a colour of sRGB."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 216 / 24389))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
