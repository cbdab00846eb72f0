"""What a certificate claims of a study and of parents is computed from what is there, and edits of it are noticed."""

import json
import math
import shutil

from result_folders import reseal
from test_certify import certified, put, said, searched, words_of

from patientdx.checkpoints.patient_mark import mark
from patientdx.cli.certify import FILE, PAGE
from patientdx.cli.verify import CANNOT_TELL, DIFFERS
from patientdx.core.checksums import sha256


def test_a_search_that_chose_another_lambda_is_refused(folder, scored, capsys):
    put(scored, "search.json", searched() | {"chosen": {"lambda": 0.7}})
    status, _, words = said(capsys, folder, "--study", scored)
    assert (status, "the search chose λ=0.7, and the folder holds λ=0.4" in words) == (CANNOT_TELL, True)
    assert not (folder / FILE).exists()
    put(scored, "search.json", searched() | {"chosen": {"lambda": 0.4}})
    certified(capsys, folder, "--study", scored)


def test_models_that_were_scored_on_test_alone_count_as_candidates(folder, scored, capsys):
    runs = [scored, *(shutil.copytree(scored, scored.with_name(f"other{number}")) for number in (1, 2))]
    for number, one in enumerate(runs):
        metrics = json.loads((one / "metrics.json").read_text())
        metrics["rows"] = [row for row in metrics["rows"] if row["split"] == "test"]
        for row in metrics["rows"]:
            row["fingerprint"] += f" {number}"
        reseal(one, metrics)
    found = certified(capsys, folder, "--study", scored)
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
