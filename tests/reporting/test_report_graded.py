"""Tasks whose answers are right or wrong: questions in place of stays, no probability, no event."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_studies import write_made_run
from result_folders import reseal

from patientdx.evaluation.store import write_json
from patientdx.metrics.accuracy import accuracy
from patientdx.metrics.bootstrap import interval
from patientdx.reporting import best, write_report

N = 200


def answers(share: float, seed: int) -> np.ndarray:
    """Numbers of options, of which so large a share is right; the easy questions are the same for every model."""
    random = np.random.default_rng(seed)
    right = np.arange(N) / N + 0.1 * random.random(N) < share
    return np.where(right, 2.0, 1.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    place = tmp_path_factory.mktemp("graded")
    truth, subject = np.full(N, 2.0), [f"{i:04}" for i in range(N)]
    for method, share in (("slerp", 0.9), ("linear", 0.6)):
        folder = write_made_run(place / method, method, 0.5, 1, splits=("test",))
        metrics = json.loads((folder / "metrics.json").read_text())
        parts = []
        for row in metrics["rows"]:
            given = answers({"merged": share, "base": 0.4, "pivot": 0.5}[row["role"]], 0)
            one = interval(accuracy, given, truth, subject, resamples=60)
            row |= {"task": "medqa", "acc": one.value, "acc_ci_low": one.low, "acc_ci_high": one.high, "n": N}
            for name in ("auroc", "auprc"):
                for end in ("", "_ci_low", "_ci_high"):
                    del row[name + end]
            for name in ("events", "prevalence", "patients", "abstention_mass", "distinct_scores"):
                del row[name]
            parts.append(pa.table({
                "id": subject, "subject": subject, "split": ["test"] * N, "role": [row["role"]] * N, "acc": given,
                "acc_right": truth,
            }))  # fmt: skip
        value = {"value": 0.25, "low": 0.125, "high": 0.5}
        difference = value | {"p_value": 0.01}
        comparisons = [{"a": "merged", "b": "base", "metric": "acc", "difference": difference}]
        write_json({"split": "test", "comparisons": comparisons}, folder / "paired.json")
        groups = {"subject": {"surgery": {"n": 40, "models": {"merged": {"acc": value}}}}}
        write_json({"split": "test", "groups": groups}, folder / "groups.json")
        reseal(folder, metrics)
        pq.write_table(pa.concat_tables(parts), folder / "predictions.parquet")
        config = (folder / "config.yaml").read_text()
        named = ("acc: patientdx.metrics.accuracy.accuracy", "bertscore: patientdx.metrics.text_overlap.mean")
        # The second is one that a task can give and was not asked for.
        config = re.sub(r"    auroc: .*\n    auprc: .*\n", "".join(f"    {one}\n" for one in named), config)
        (folder / "config.yaml").write_text(config)
        reseal(folder, metrics)
    return place


def test_the_best_is_found_by_what_was_answered(study):
    folders = [study / "slerp", study / "linear"]
    rows = [row for folder in folders for row in json.loads((folder / "metrics.json").read_text())["rows"]]
    slerp = next(row for row in rows if row["method"] == "slerp")
    assert best(rows, folders).bold == {(slerp["fingerprint"], "acc")}


def test_the_page_has_what_there_is_and_no_empty_column(study):
    text = write_report(study).read_text(encoding="utf-8")
    assert "test: n = 200</li>" in text
    assert "yes+no mass" not in text
    assert "prevalence" not in text
    assert ">By subject, test</caption>" in text
    assert re.search(r"<th[^>]*>slerp λ=0\.5</th><td[^>]*>base</td><td[^>]*>acc</td><td[^>]*data-value=\"0\.25\"", text)
    assert re.search(r"<th[^>]*>linear λ=0\.5</th><td[^>]*>slerp λ=0\.5</td>", text)
    assert "DeLong" not in text
