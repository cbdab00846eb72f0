"""Runs that compare answers with what somebody wrote: metrics, predictions, tables."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from in_process import compared, run
from sacrebleu.metrics import BLEU, CHRF

from patientdx import reporting
from patientdx.core.errors import UserError
from patientdx.core.tables import Table, metric_cell
from patientdx.evaluation.kinds.generation import TEXTS
from patientdx.metrics.text_overlap import NUMBERS, compare
from patientdx.reporting.groups import groups
from patientdx.reporting.run_tables import run_tables
from patientdx.reporting.runs import Run, read
from patientdx.reporting.tables import models
from patientdx.reporting.terminal import text as terminal_text

NAMES = (*NUMBERS, "cut_off")
WRITTEN = [
    "The heart rate is 118 bpm.",
    "Sodium of 139 mEq/L.",
    "Lactate 2.4 mmol/L.",
    "No.",
    "Yes, she is 71 years old.",
]


def table(path: Path, header: list[str], rows: list[tuple]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def lines(*tables: Table) -> list[str]:
    """What a terminal of 80 columns shows."""
    shown = terminal_text(*tables, width=80).splitlines()
    assert max(map(len, shown)) <= 80
    return shown


@pytest.fixture(scope="module")
def task_words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dialogues")
    rows = [("CC" if i % 2 else "PLAN", text, f"Doctor: {i}, is it?\nPatient: {i}.") for i, text in enumerate(WRITTEN)]
    path = table(folder / "test.csv", ["section_header", "section_text", "dialogue"], rows)
    return "task=dialogue_to_section", f"task.path={path}", "task.new_tokens=8"


def test_metrics_are_those_of_the_answers_that_are_left(outcome):
    said = [json.loads(line) for line in (outcome.folder / TEXTS).read_text().splitlines()]
    for row in outcome.rows:
        answers = [one["answer"] for one in said if one["role"] == row["role"]]
        assert len(answers) == row["n"] == 5
        found = [compare(a, b) for a, b in zip(answers, WRITTEN, strict=True)]
        assert row["rouge1"] == pytest.approx(np.mean([one["rouge1"][0] for one in found]))
        assert row["bleu"] == pytest.approx(BLEU().corpus_score(answers, [WRITTEN]).score)
        assert row["chrf"] == pytest.approx(CHRF().corpus_score(answers, [WRITTEN]).score)
        words = sum(len(text.split()) for text in WRITTEN)
        assert row["length_ratio"] == pytest.approx(sum(len(text.split()) for text in answers) / words)
        assert row["empty"] == np.mean([not text.strip() for text in answers])
        assert row["cut_off"] == pytest.approx(1 - row["ended"])
        assert row["mean_tokens"] <= 8
        for name in NAMES:
            assert row[f"{name}_ci_low"] <= row[name] <= row[f"{name}_ci_high"]
        assert "bertscore" not in row
    assert max(row["chrf"] for row in outcome.rows) > 0  # something is shared


def test_models_are_compared_in_every_metric_and_by_section(outcome):
    assert [(one["b"], one["metric"]) for one in compared(outcome)["comparisons"]] == [
        (role, metric) for role in ("base", "pivot") for metric in NAMES
    ]
    value = {(row["role"], name): row[name] for row in outcome.rows for name in NAMES}
    for one in compared(outcome)["comparisons"]:
        apart = value["merged", one["metric"]] - value[one["b"], one["metric"]]
        assert one["difference"]["value"] == pytest.approx(apart)
        assert 0 < one["difference"]["p_value"] <= 1
        assert "mcnemar" not in one
    groups = compared(outcome)["groups"]["section"]
    assert {name: one["n"] for name, one in groups.items()} == {"PLAN": 3, "CC": 2}
    assert set(groups["CC"]["models"]["merged"]) == set(NAMES)


def test_the_tables_of_a_run_and_of_a_sweep_show_every_metric_in_80_columns(config_of, outcome):
    own = lines(*run_tables(Run(outcome.folder)))
    wide = lines(models([*outcome.rows, *(row | {"role": f"finetuned_{i}", "method": "lora(base) 64"}
                                          for i, row in enumerate(outcome.rows))]))  # fmt: skip
    swept = lines(models([row | {"lambda": 0.45} for row in outcome.rows] * 3, title="a sweep"))
    for shown in (own, wide, swept):
        assert all(any(name.split("_")[0] in line for line in shown) for name in NAMES)
        together = "\n".join(shown)
        for row in outcome.rows:
            for name in NAMES:
                cell = metric_cell(row, name)
                forms = [re.findall(r"-?\d+\.\d+", form) for form in (cell.text, cell.short)]
                assert any(len(form) == 3 and all(number in together for number in form) for form in forms), name
    assert sum("Models" in line for line in own) == 1
    assert "finetuned_1 lora(base) 64" in " ".join("\n".join(wide).split())
    assert not any("McNemar" in line for line in own)


def test_predictions_hold_the_numbers_and_reports_work_from_them_alone(config_of, outcome):
    found = pq.read_table(outcome.folder / "predictions.parquet").to_pandas()
    for row in outcome.rows:
        own = found[found["role"] == row["role"]]
        assert own["rouge1"].mean() == pytest.approx(row["rouge1"])
        assert np.stack(own["bleu"]).shape == (5, 5)
        assert np.stack(own["chrf"]).shape == (5, 7)
    best = reporting.best(outcome.rows, [outcome.folder])
    assert not any(metric == "length_ratio" for _, metric in best.bold)  # neither more nor less is better
    assert any("paired, by patient" in note for note in best.notes)
    assert not any("could be compare" in note for note in best.notes)
    (group,) = groups(read(outcome.folder))
    shown = [[cell.text for cell in row] for row in models(group.rows).rows]
    chrf = {row["role"]: f"{row['chrf']:.3f} [" for row in outcome.rows}
    assert all(any(cell.startswith(start) for row in shown for cell in row) for start in chrf.values())


def test_an_encoder_adds_its_score(config_of, outcome, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(config_of().merge_config.base.source)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = run(config_of(f"task.bertscore={tmp_path}"))
    for row, other in zip(found.rows, outcome.rows, strict=True):
        assert -1 <= row["bertscore_ci_low"] <= row["bertscore"] <= row["bertscore_ci_high"] <= 1
        assert row["rouge1"] == other["rouge1"]
        assert row["fingerprint"] != other["fingerprint"]


def test_a_metric_by_another_name_is_refused(config_of, outcome):
    with pytest.raises(
        UserError, match=r"task\.metrics names meteor; task=dialogue_to_section has rouge1, rouge2, rougeL, "
    ):
        run(config_of("+task.metrics.meteor=patientdx.metrics.text_overlap.mean"))
