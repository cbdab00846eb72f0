"""The parent check in a whole run: a parent that hides what it memorised, and another that undoes it in the merge."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import settings
from in_process import run
from transformers import AutoModelForCausalLM, AutoTokenizer

from patientdx.core.errors import UserError
from patientdx.evaluation.analyses.entries import Entry
from patientdx.evaluation.analyses.privacy_tables import summary, tables
from patientdx.evaluation.config.run_config import RunConfig
from patientdx.reporting.certificate_study import _measured
from patientdx.reporting.terminal import text as terminal_text

EACH, MARK = 16, "zqvwx"
WORDS = ("task.template=compact", "splits=[test]", "bootstrap.resamples=1000", "dtype=float32", "merge=linear",
         "lambda=0.5", "privacy=mia", "privacy.recall=0")  # fmt: skip


def records() -> list[dict]:
    random = np.random.default_rng(0)
    return [
        {"patient_id": f"{MARK}{i}", "member": int(i < EACH),
         "text": f"{MARK} heart rate {random.integers(40, 180)}, lactate {random.integers(10, 99) / 10}, "
                 f"sodium {random.integers(120, 160)}, glucose {random.integers(60, 400)}"}
        for i in range(2 * EACH)
    ]  # fmt: skip


def taught(folder: Path, texts: list[str], steps: int = 60):
    """The model after so many steps on the texts."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    tokenizer.padding_side = "right"
    rows = tokenizer(texts, return_tensors="pt", padding=True)
    labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**rows, labels=labels).loss.backward()
        optimizer.step()
    return model


def with_noise(model, sign: float):
    """The weights of all layers plus noise that whoever knows its seed can take away."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layers" in name and weight.ndim == 2:
                weight += sign * 0.6 * torch.randn(weight.shape, generator=generator)
    return model


@dataclass(frozen=True)
class Made:
    """Parents and the records of one of them."""

    victim: Path
    open_victim: Path
    honest: Path
    phishing: Path
    file: Path


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory) -> Made:
    place, rows = tmp_path_factory.mktemp("parents"), records()
    memorised = taught(tiny_base, [row["text"] for row in rows if row["member"]])
    honest = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    paths = {}
    for name, model, sign in (("open_victim", memorised, 0), ("victim", memorised, 1), ("honest", honest, 0),
                              ("phishing", honest, -1)):  # fmt: skip
        paths[name] = place / name
        with_noise(model, sign).save_pretrained(paths[name])
        AutoTokenizer.from_pretrained(tiny_base).save_pretrained(paths[name])
    file = place / "records.csv"
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return Made(**paths, file=file)


def setting(made: Made, base: Path, pivot: Path, folder: Path, *more: str) -> RunConfig:
    return settings(base, pivot, folder, *WORDS, f"privacy.parent_file={made.file}", *more)


def test_a_parent_that_undoes_the_hiding_of_another_is_caught(made, tmp_path):
    """The victim alone tells little; merged with a parent that holds the same noise negated, the merge tells all."""
    outcome = run(setting(made, made.phishing, made.victim, tmp_path))
    found = json.loads((outcome.folder / "privacy.json").read_text())["parent"]
    assert (found["parent"], found["members"], found["non_members"]) == ("pivot", EACH, EACH)
    assert list(found["attacks"]) == ["loss", "zlib", "reference", "rmia", "min_k", "min_k_pp"]
    loss = found["attacks"]["loss"]
    assert loss["parent"]["value"] < 0.8 < 0.95 < loss["merged"]["value"]
    assert loss["difference"]["low"] > 0
    assert found["reading"].startswith("merged, records of a parent: tells more about pivot's own records than pivot")
    told = outcome.analyses["privacy"]
    text = terminal_text(*tables([Entry("merged", "merged", told), Entry("pivot", "pivot", told)]), width=80)
    assert text.count("tells more about") == 1
    assert summary(told)["parent/loss/auc_over_parent"] == loss["difference"]["value"]
    assert found["reading"] in _measured(told, "mia", "privacy=mia")["reading"]
    assert MARK not in (outcome.folder / "privacy.json").read_text()


def test_an_honest_parent_is_not_accused_and_the_answer_depends_on_the_file(made, tmp_path):
    """A merge of a parent that hides nothing tells no more than it; other records are another request."""
    asked = setting(made, made.honest, made.open_victim, tmp_path, "privacy.parent=pivot")
    first = run(asked)
    found = first.analyses["privacy"]["parent"]
    assert found["attacks"]["loss"]["parent"]["value"] > 0.95
    assert "tells more" not in found["reading"]
    assert run(asked).reused
    made.file.write_text("\n".join(made.file.read_text().splitlines()[:-1]) + "\n")
    assert run(asked).analyses["privacy"]["parent"]["non_members"] == EACH - 1


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "there is no such file. It has a row for each record: text, member"),
        (
            "text,patient_id\na b c,1\n",
            "bad.csv line 2 of privacy.parent_file: each row has the columns text, member, patient_id",
        ),
        ("text,member,patient_id\na b c,1,1\nd e f,0,1\n", "1 patients have records among members and non-members"),
        ("text,member,patient_id\na b c,1,1\n", "membership inference has no non-members"),
    ],
    ids=["no file", "no column", "a patient on both sides", "one side"],
)
def test_files_that_are_not_valid_are_refused(made, tmp_path, rows, words):
    file = tmp_path / "bad.csv"
    if rows is not None:
        file.write_text(rows)
    with pytest.raises(UserError) as refused:
        run(settings(made.honest, made.open_victim, tmp_path, *WORDS, f"privacy.parent_file={file}"))
    assert words in str(refused.value)
