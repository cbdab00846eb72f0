"""What a certificate claims of a study and of parents is computed from what is there, and edits of it are noticed."""

import json
import math
import shutil
from pathlib import Path

import pytest
from command_line import settings
from in_process import run, session
from result_folders import reseal
from test_certify import certified, put, said, searched, words_of

from patientdx.checkpoints.patient_mark import mark
from patientdx.cli.certify import FILE, PAGE
from patientdx.cli.save import save
from patientdx.cli.verify import CANNOT_TELL, DIFFERS
from patientdx.core.checksums import sha256


@pytest.fixture(scope="module")
def made(tiny_base, tiny_pivot, tmp_path_factory) -> tuple[Path, Path]:
    """A merged folder and the result folder of the run that scored it, on pilot and test."""
    place = tmp_path_factory.mktemp("claims")
    merge = settings(tiny_base, tiny_pivot, place / "outputs", f"save={place / 'merged'}", "lambda=0.4")
    save(session(), merge)
    return place / "merged", run(merge).folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy of the merged folder that a test may change."""
    return shutil.copytree(made[0], tmp_path / "merged")


@pytest.fixture
def study(made, tmp_path) -> Path:
    """A copy of the result folder, alone in its study."""
    return shutil.copytree(made[1], tmp_path / "outputs" / "default" / made[1].name)


def test_a_search_that_chose_another_lambda_is_refused(folder, study, capsys):
    put(study, "search.json", searched() | {"chosen": {"lambda": 0.7}})
    status, _, words = said(capsys, folder, "--study", study)
    assert (status, "the search chose λ=0.7, and the folder holds λ=0.4" in words) == (CANNOT_TELL, True)
    assert not (folder / FILE).exists()
    put(study, "search.json", searched() | {"chosen": {"lambda": 0.4}})
    certified(capsys, folder, "--study", study)


def test_models_that_were_scored_on_test_alone_count_as_candidates(folder, study, capsys):
    runs = [study, *(shutil.copytree(study, study.with_name(f"other{number}")) for number in (1, 2))]
    for number, one in enumerate(runs):
        metrics = json.loads((one / "metrics.json").read_text())
        metrics["rows"] = [row for row in metrics["rows"] if row["split"] == "test"]
        for row in metrics["rows"]:
            row["fingerprint"] += f" {number}"
        reseal(one, metrics)
    found = certified(capsys, folder, "--study", study)
    assert found["choice"] == {"how": "sweep", "splits": ["test"], "candidates": 3, "log2_candidates": math.log2(3)}
    text = words_of((folder / PAGE).read_text())
    assert "λ was chosen from 3 models on the test patients" in text
    assert "put no information on patients in it" not in text


def test_an_edited_page_is_noticed(folder, capsys):
    certified(capsys, folder)
    page = folder / PAGE
    page.write_text(page.read_text().replace("not stated", "apache-2.0"))
    status, _, words = said(capsys, folder, "--check", folder / FILE)
    assert (status, "is not the page of certificate.json" in words) == (DIFFERS, True)


def test_parents_have_the_hashes_of_their_files_and_say_how_they_were_located(folder, tiny_base, tiny_pivot, capsys):
    found = certified(capsys, folder, "--parent", f"pivot={tiny_pivot}")
    hashes = [{"model.safetensors": sha256(parent / "model.safetensors")} for parent in (tiny_base, tiny_pivot)]
    assert [parent["files"] for parent in found["parents"]] == hashes
    assert [parent["located"] for parent in found["parents"]] == ["by its source", "by whoever certifies"]
    assert "unknown_pivot: located by whoever made this certificate" in words_of((folder / PAGE).read_text())


def test_a_model_that_holds_patients_is_certified_in_red(folder, capsys):
    mark(folder)
    assert said(capsys, folder)[0] == DIFFERS
    assert json.loads((folder / FILE).read_text())["model"]["holds_patients"]
    assert "trained on patients" in words_of((folder / PAGE).read_text())
    status, _, words = said(capsys, folder, "--check", folder / FILE)
    assert (status, "a parent was trained on patients' records: do not release it" in words) == (DIFFERS, True)
