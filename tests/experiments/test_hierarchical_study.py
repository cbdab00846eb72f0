"""The study of merge methods: run on tiny models, and the tables that read what it left."""

import itertools
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from benchmark_files import questions
from command_line import tiny_settings as settings
from in_process import run
from result_folders import reseal

from experiments import hierarchical
from experiments.hierarchical_checks import both_orders
from patientdx.evaluation.store import write_sealed_json
from patientdx.tasks.question_sets import SUBJECTS

METHODS = ("linear", "task_arithmetic", "dare_ties")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with a few questions of each of the four sets."""
    folder = tmp_path_factory.mktemp("sets")
    for name in ("medqa", "medmcqa"):
        questions(folder / name, test=5)
    contexts = [
        {"QUESTION": f"Is the sodium {i} high?", "CONTEXTS": ["Sodium was measured."], "final_decision": "yes"}
        for i in range(3)
    ]
    (folder / "pubmedqa").mkdir()
    (folder / "pubmedqa" / "test_set.json").write_text(json.dumps({str(i): one for i, one in enumerate(contexts)}))
    (folder / "mmlu_medical" / "test").mkdir(parents=True)
    for subject in SUBJECTS:
        rows = "".join(f"what of {subject} {i}?,sodium,lactate,fox,dog,{'ABCD'[i]}\n" for i in range(2))
        (folder / "mmlu_medical" / "test" / f"{subject}_test.csv").write_text(rows)
    return folder


@pytest.fixture(scope="module")
def output(sets, make_tiny, tiny_base, tiny_pivot, tmp_path_factory):
    """The folder of a small study: three methods, two seeds, both parents noise around one ancestor."""
    place = tmp_path_factory.mktemp("study")
    third = ["base_model@ancestor=smollm2_135m_instruct", f"ancestor.source={tiny_base}", "ancestor.name=origin"]
    given = ["experiment=hierarchical", "size=small", f"data={sets}", *third, "task.limit=2"]
    base, jobs = make_tiny(noise_seed=2), itertools.product(METHODS, (0, 1))
    for number, (method, seed) in enumerate(jobs):  # as the sweep has them, in this process
        asked = settings(base, tiny_pivot, place, *given, f"merge=published/{method}", f"seed={seed}")
        write_sealed_json({"folder": run(asked).folder.name}, place / asked.name / "sweep" / f"{number}.json")
    return place


@pytest.fixture
def copied(output, tmp_path):
    """The same to be spoilt."""
    return shutil.copytree(output, tmp_path / "out")


def tables(output, capsys, *more):
    code = hierarchical.main(["--output", str(output), "--name", "hierarchical_small", *more])
    found = capsys.readouterr()
    return code, found.out if code == 0 else found.err


def runs(output):
    return sorted(path.parent for path in (output / "hierarchical_small").glob("*/config.yaml"))


def test_every_method_stands_in_the_tables_with_its_draws_and_its_difference(output, capsys):
    code, text = tables(output, capsys)
    assert code == 0
    lines = {line.split("  ")[0].strip(): line for line in text.split("MedQA")[0].splitlines()}
    once = ("base", "pivot", "linear averaging, λ=0.5", "task arithmetic, convex, λ=0.5")
    for title, draws in {**dict.fromkeys(once, 1), "DARE-TIES": 2}.items():
        assert title in lines, text
        cells = re.search(rf"{re.escape(title)}\s+(\d)\s+(0\.\d+) \[", text)
        assert int(cells[1]) == draws
    assert "All questions" in text
    assert re.search(r"medqa\s+medmcqa", text)
    assert "45.8 % accuracy" in text
    assert "Fewer than 3 draws of masks: DARE-TIES." in text
    assert "task.limit=2" in text
    assert "is the ancestor of this pair" not in text
    assert (output / "hierarchical_small" / "hierarchical.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"Of 1 merges that prune or align \d are above .*(same|opposite|not shown)\.", text)


def test_the_accuracy_is_that_of_the_answers_and_a_draw_counts_by_its_share(output, capsys):
    _, text = tables(output, capsys)
    right = []
    for folder in runs(output):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if config["merge"]["name"] == "dare_ties":
            table = pq.read_table(folder / "predictions.parquet", filters=[("role", "=", "merged")])
            right.append(
                np.mean([a == b for a, b in zip(*(table[c].to_pylist() for c in ("acc", "acc_right")), strict=True)])
            )
    assert len(right) == 2
    assert f"{np.mean(right):.3f}" == re.search(r"DARE-TIES\s+2\s+(0\.\d+)", text)[1]


def test_convex_task_arithmetic_is_linear_averaging_bit_for_bit(output, capsys):
    _, text = tables(output, capsys, "--weights")
    assert re.search(
        r"convex, λ=0.5 beside linear averaging: the log-prob.* of 8 questions are equal, bit for bit", text
    )
    assert re.search(r"beside linear averaging: all \d+ weights are equal, bit for bit", text)
    assert re.search(r"convex, λ=0.5 +1 +0\.\d+ \[.*\] +\+0.000 \[\+0.000, \+0.000\] +0 +0 +1", text)


def test_weights_and_answers_that_differ_are_told(copied, capsys):
    for folder in runs(copied):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if config["merge"]["name"] == "task_arithmetic":
            table = pq.read_table(folder / "predictions.parquet")
            moved = [[value + 0.25 for value in row] for row in table["log_p"].to_pylist()]
            table = table.set_column(table.column_names.index("log_p"), "log_p", pa.array(moved))
            pq.write_table(table, folder / "predictions.parquet")
            config["pivot_model"]["source"] = config["ancestor"]["source"]
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            reseal(folder)
    _, text = tables(copied, capsys, "--weights")
    assert "the log-probabilities of 8 of 8 questions differ, by 0.25 at most" in text
    assert re.search(r"beside linear averaging: \d+ of \d+ weights differ", text)


def test_two_orders_of_the_parents_have_a_mean():
    def made(title, right, method="hierarchical", **merge):
        config = {"merge": {"name": method, **merge}, "lambda": None}
        answers = [SimpleNamespace(subject=np.arange(8))]
        return SimpleNamespace(
            title=title, method=method, right=np.array(right), answers=answers, runs=[SimpleNamespace(config=config)]
        )

    linear = made("linear", [[0, 0, 0, 0, 1, 1, 1, 1]], method="linear")
    first = made("literal", [[1, 0, 0, 0, 1, 1, 1, 1]], weighting="literal", order="base_first")
    second = made("literal, pivot first", [[1, 1, 1, 0, 1, 1, 1, 1]], weighting="literal", order="pivot_first")
    alone = made("normalised", [[1] * 8], weighting="normalised", order="base_first")
    draws = {"resamples": 200, "level": 0.95, "seed": 0}
    (said,) = both_orders([linear, first, alone, second], draws)
    assert re.fullmatch(
        # By t with 7 degrees of freedom: 0.25 ± 2.3646 · sqrt(1 / 7 / 8).
        r"Mean of literal and literal, pivot first: 0\.750 \[0\.3\d+, 0\.9\d+\], "
        r"less linear's \+0\.250 \[-0\.066, \+0\.566\]\.",
        said,
    )
    assert list(both_orders([linear, first, alone], draws)) == []


def test_a_study_without_averaging_or_of_two_settings_is_refused(copied, capsys):
    code, text = tables(copied, capsys, "--metric", "f1")
    assert code == 2
    assert "has no metric f1" in text
    kept = {folder.name for folder in runs(copied) if "linear" not in folder.name}
    pointers = list((copied / "hierarchical_small" / "sweep").glob("*.json"))
    for path in pointers:
        if json.loads(path.read_text())["folder"] not in kept:
            path.unlink()
    code, text = tables(copied, capsys)
    assert (code, "which all others are set against" in text) == (2, True)


def test_runs_of_two_dtypes_are_refused(copied, capsys):
    folder = runs(copied)[0]
    told = json.loads((folder / "metrics.json").read_text())
    for row in told["rows"]:
        row["dtype"] = "float16"
    reseal(folder, told)
    code, text = tables(copied, capsys)
    assert (code, "asked more than one question" in text) == (2, True)


def test_runs_of_two_ancestors_are_refused(copied, capsys):
    folder = next(folder for folder in runs(copied) if "dare_ties" in folder.name)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["ancestor"]["name"] = "another"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    reseal(folder)
    code, text = tables(copied, capsys)
    assert (code, "parents, ancestor or dtype" in text) == (2, True)


def test_other_questions_are_no_draws_of_masks(copied, capsys):
    folder = next(folder for folder in runs(copied) if "dare_ties" in folder.name)
    again = folder.with_name(folder.name + "_again")
    shutil.copytree(folder, again)
    told = json.loads((again / "metrics.json").read_text())
    for row in told["rows"]:
        row["fingerprint"] += "x" * (row["role"] == "merged")  # the same seed, and yet another answer
    reseal(again, told)
    pointer = copied / "hierarchical_small" / "sweep" / "99.json"
    write_sealed_json({"folder": again.name, "reused": False, "seconds": {}}, pointer)
    code, text = tables(copied, capsys)
    assert (code, "asked more than one question" in text) == (2, True)


def test_lambda_by_depth_has_a_title(copied, capsys):
    for folder in runs(copied):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if config["merge"]["name"] in ("linear", "task_arithmetic"):
            config["lambda"] = [0.2, 0.8]
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            reseal(folder)
    code, text = tables(copied, capsys)
    assert (code, "linear averaging, λ=0.2-0.8" in text) == (0, True)
