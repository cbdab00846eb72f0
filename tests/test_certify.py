"""python -m patientdx.cli certify: what is known of a model before it is released, and that it is still that model."""

import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command_line import settings
from in_process import run, session
from result_folders import reseal

from patientdx.cli.certify import FILE, PAGE, digest, main
from patientdx.cli.save import save
from patientdx.cli.verify import CANNOT_TELL, DIFFERS, IDENTICAL
from patientdx.privacy import ledger
from patientdx.reporting.certificate import LIMITS, page


def said(capsys, *arguments):
    """Exit status, what was printed on stdout, what on stderr."""
    capsys.readouterr()
    status = main([str(one) for one in arguments])
    out = capsys.readouterr()
    return status, out.out.strip(), out.err.strip()


def certified(capsys, folder, *more) -> dict:
    assert said(capsys, folder, *more)[0] == IDENTICAL
    return json.loads((folder / FILE).read_text())


class Words(HTMLParser):
    """The text of a page, and every address in it."""

    def __init__(self, text):
        super().__init__()
        self.words, self.addresses = "", []
        self.feed(text)

    def handle_data(self, data):
        self.words += data

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]


def words_of(text: str) -> str:
    return " ".join(Words(text).words.split())


def put(scored, name, content):
    (scored / name).write_text(json.dumps(content))
    reseal(scored)


def searched(strategy="grid", **facts):
    """search.json as a search leaves it, as far as a certificate reads it."""
    return {"strategy": strategy, "split": "pilot", "outcomes": 11, "looked_at": 11, "bits": math.log2(11),
            "facts": facts, "pilot": {"value": 0.77777}}  # fmt: skip


PRIVATE = {"mechanism": "exponential", "epsilon": 0.5, "delta": 0.0, "max_stays": 1, "sensitivity": 1, "draw": "system",
           "guaranteed": True, "epsilon_spent": 0.5, "draws": 1, "draws_by_seed": 0, "loss_bound": 4.8}  # fmt: skip
ESTIMATE = {"value": 0.0123, "low": -0.01, "high": 0.02, "dropped": 0}
LEAKAGE = {
    "fingerprint": "f", "reported": "test", "sets": {"train": {"n": 20}}, "role": "merged",
    "reading": ["merged, against base: Δ1 is not below 0.", "merged: found by none.", "base: Δ1 is below 0."],
    "blind": {"length": {"auc": {"value": 0.51, "low": 0.4, "high": 0.6}}},
    "models": {
        "merged": {
            "dlt": {"delta1": {"loss": ESTIMATE, "over_base": ESTIMATE}, "delta2": {"loss": ESTIMATE}},
            "mia": {"loss": {"auc": {"value": 0.503, "low": 0.44, "high": 0.56},
                             "tpr": {"0.01": {"value": None, "reason": "not resolvable with 23 non-members"}},
                             "over_base": None}},
        },
        "base": {"dlt": {}, "mia": {}},
    },
}  # fmt: skip


def test_a_certificate_holds_the_proof_the_parents_and_the_recipe(folder, capsys):
    found = certified(capsys, folder)
    record = json.loads((folder / "provenance.json").read_text())
    assert found["proof"]["status"] == "identical"
    assert found["proof"]["words"].startswith("The folder is slerp λ=0.4 of unknown_base and unknown_pivot")
    assert [one["sha256"] for one in found["parents"]] == [model["sha256"] for model in record["models"]]
    assert [one["licence"] for one in found["parents"]] == ["", ""]  # other weights than the cards'
    assert (found["recipe"]["lambda"], found["recipe"]["method"]) == (0.4, "patientdx.merge.slerp.slerp")
    assert "model.safetensors" in found["model"]["files"]
    assert digest(found) == found["sha256"]


def test_without_a_study_everything_else_is_said_to_be_absent(folder, capsys):
    found = certified(capsys, folder)
    for section in ("study", "choice", "leakage", "membership"):
        assert found[section] == {"absent": "no study was given (--study)"}
    text = words_of((folder / PAGE).read_text())
    assert "How λ was chosen is not known: no study was given (--study)." in text
    assert text.count("Not measured: no study was given (--study).") == 2


def test_the_same_model_and_study_give_the_same_certificate_byte_for_byte(folder, scored, capsys):
    certified(capsys, folder, "--study", scored)
    first = [(folder / name).read_bytes() for name in (FILE, PAGE)]
    certified(capsys, folder, "--study", scored, "--threads", "2")
    assert [(folder / name).read_bytes() for name in (FILE, PAGE)] == first


def test_a_certificate_names_no_place_of_this_machine(folder, scored, tmp_path, tiny_base, tiny_pivot, capsys):
    certified(capsys, folder, "--study", scored)
    text = (folder / FILE).read_text() + (folder / PAGE).read_text()
    for place in (tmp_path, tiny_base, tiny_pivot, Path.home()):
        assert str(place) not in text
    assert "read from a folder, not from a public source" in text


def test_one_model_scored_on_pilot_is_no_choice(folder, scored, capsys):
    found = certified(capsys, folder, "--study", scored)
    assert found["choice"] == {"how": "given", "splits": ["pilot", "test"], "candidates": 1, "log2_candidates": 0.0}
    assert found["study"]["result"]["metric"] == "auroc"
    assert found["leakage"] == {"absent": "the study was run without privacy=dlt"}
    assert found["membership"] == {"absent": "the study was run without privacy=mia"}


def test_every_model_of_the_study_that_saw_the_pilot_counts(folder, scored, capsys):
    for number in (1, 2, 3):
        other = shutil.copytree(scored, scored.with_name(f"other{number}"))
        metrics = json.loads((other / "metrics.json").read_text())
        for row in metrics["rows"]:
            row["fingerprint"] += f" {min(number, 2)}"  # the last two are one model
        reseal(other, metrics)
    found = certified(capsys, folder, "--study", scored)
    assert found["choice"] == {
        "how": "sweep", "splits": ["pilot", "test"], "candidates": 3, "log2_candidates": math.log2(3),
    }  # fmt: skip
    assert "λ was chosen from 3 models" in words_of((folder / PAGE).read_text())


def test_a_search_says_how_many_bits_its_patients_can_have_left(folder, scored, capsys):
    put(scored, "search.json", searched())
    found = certified(capsys, folder, "--study", scored)
    assert (found["choice"]["candidates"], found["choice"]["strategy"]) == (11, "grid")
    text = words_of((folder / PAGE).read_text())
    assert "at most log2(11) = 3.46 bits, for all of them together" in text
    assert "Beside the search, 1 merged models of this study were scored on the same pilot." in text
    assert "0.77777" not in (folder / FILE).read_text()


def test_a_private_search_says_what_one_patient_can_change(folder, scored, capsys):
    put(scored, "search.json", searched("private", **PRIVATE, secret_auroc=0.8123))
    text = certified(capsys, folder, "--study", scored) and words_of((folder / PAGE).read_text())
    assert "ε = 0.5, δ = 0" in text
    assert "a probability at most 1.65 times larger or smaller (2.72 times for one patient exchanged" in text
    assert "0.8123" not in (folder / FILE).read_text() + text
    put(scored, "search.json", searched("private", **PRIVATE | {"epsilon_spent": 1.5, "draws": 3, "draws_by_seed": 2}))
    text = certified(capsys, folder, "--study", scored) and words_of((folder / PAGE).read_text())
    assert "It is one of 3 draws from these patients. Together they spend ε = 1.5, a factor of 4.48." in text
    assert "2 more were drawn from a known seed: do not release any of them." in text


def test_a_model_with_a_privately_drawn_lambda_from_the_command_to_the_certificate(
    tiny_base, tiny_pivot, tmp_path, session_cache, capsys
):
    """λ is drawn, the model is saved with it, and nothing but λ of the pilot is in search.json or the certificate."""
    words = ("search=private", "search.points=[0.3,0.6]", "search.epsilon=0.7", "splits=test", "parents=false")
    outcome = run(settings(tiny_base, tiny_pivot, tmp_path / "outputs", *words))
    told = json.loads((outcome.folder / "search.json").read_text())
    weight = told["chosen"]["lambda"]
    (kept,) = (
        one
        for one in (json.loads(file.read_text()) for file in (session_cache / "private_search").glob("*.json"))
        if one["asked"]["epsilon"] == 0.7
    )
    assert weight == [0.3, 0.6][kept["chosen"]]
    hidden = kept["not for release"]
    secret = [one[key] for one in hidden["candidates"] for key in ("auroc", "probability")] + [hidden["auroc_loss"]]
    assert all(str(one) not in (outcome.folder / "search.json").read_text() for one in secret)
    assert {one["value"] for one in told["candidates"]} == {None}
    assert [told[key] for key in ("n", "events", "patients", "forwards", "pilot", "corrected")] == [None] * 6
    assert {row["split"] for row in outcome.rows} == {"test"}
    asked = settings(tiny_base, tiny_pivot, tmp_path / "o", f"save={tmp_path / 'merged'}", f"lambda={weight}")
    save(session(), asked)
    found = certified(capsys, tmp_path / "merged", "--study", outcome.folder)
    assert found["choice"]["private"]["epsilon"] == 0.7
    assert found["choice"]["private"]["guaranteed"] is True
    assert (found["choice"]["candidates"], found["choice"]["scored_beside"]) == (2, 0)
    assert all(str(one) not in (tmp_path / "merged" / FILE).read_text() for one in secret)
    text = words_of((tmp_path / "merged" / PAGE).read_text())
    assert "λ was drawn with differential privacy, ε = 0.7, δ = 0." in text
    assert "at most log2(2) = 1.00 bits" in text


def test_the_ledger_is_read_when_the_certificate_is_made(folder, scored, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(ledger.PLACE, str(tmp_path / "ledger.jsonl"))
    drawn = ledger.Draw("St. Mary", "2024", 0.5, guaranteed=True)
    put(scored, "search.json", searched("private", **PRIVATE, hospital="St. Mary", ledger_entry=ledger.append(drawn)))
    ledger.append(ledger.Draw("St. Mary", "2025", 2.5, guaranteed=True))  # after the study
    assert certified(capsys, folder, "--study", scored)["choice"]["private"]["ledger"]["epsilon_spent"] == 3
    text = words_of((folder / PAGE).read_text())
    assert "It is one of 2 draws from these patients. Together they spend ε = 3," in text
    assert "tables with the same content or declared as those of St. Mary. It cannot know draws" in text
    ledger.ledger_file().unlink()
    certified(capsys, folder, "--study", scored)
    assert "The ledger of ε on this machine lacks this draw" in words_of((folder / PAGE).read_text())
    put(scored, "privacy.json", LEAKAGE | {"reference": "resampled"})
    assert certified(capsys, folder, "--study", scored)["leakage"]["found"].keys() == {"delta2"}


def test_a_draw_from_a_known_seed_promises_nothing(folder, scored, capsys):
    put(scored, "search.json", searched("private", **PRIVATE | {"guaranteed": False, "draw": "seed"}))
    certified(capsys, folder, "--study", scored)
    text = words_of((folder / PAGE).read_text())
    assert "the guarantee of differential privacy does not hold" in text
    assert "δ = 0" not in text


def test_leakage_and_membership_are_repeated_as_measured(folder, scored, capsys):
    put(scored, "privacy.json", LEAKAGE)
    found = certified(capsys, folder, "--study", scored)
    assert found["leakage"]["found"]["delta1"]["loss"]["value"] == 0.0123
    text = words_of((folder / PAGE).read_text())
    assert "0.012 [-0.010, 0.020]" in text
    assert "0.503 [0.440, 0.560]" in text
    assert "–: not resolvable with 23 non-members." in text
    assert "blind: length0.510 [0.400, 0.600]" in text
    assert found["leakage"]["reading"] == ["merged, against base: Δ1 is not below 0."]
    assert found["membership"]["reading"] == ["merged: found by none."]
    assert "base: Δ1 is below 0" not in text.replace("against base", "")


def test_a_page_loads_nothing_from_elsewhere_and_says_its_limits(folder, capsys):
    found = certified(capsys, folder)
    text = (folder / PAGE).read_text()
    assert Words(text).addresses == []
    assert all(one not in text for one in ("http", "url(", "@import", "<script"))
    assert all(" ".join(one.split()) in words_of(text) for one in LIMITS)
    assert found["sha256"] in text
    hostile = found | {"model": found["model"] | {"title": "<img src=x onerror=alert(1)>"}}
    assert "<img" not in page(hostile)


def test_a_certificate_is_found_whole_and_of_its_folder(folder, scored, capsys):
    found = certified(capsys, folder, "--study", scored)
    status, out, _ = said(capsys, folder, "--check", folder / FILE)
    assert status == IDENTICAL
    assert out.endswith(
        f"is the folder it was made for: {len(found['model']['files'])} files, SHA-256 {found['sha256']}"
    )


def test_a_changed_certificate_is_noticed(folder, capsys):
    found = certified(capsys, folder)
    found["recipe"]["lambda"] = 0.1
    (folder / FILE).write_text(json.dumps(found))
    status, _, err = said(capsys, folder, "--check", folder / FILE)
    assert status == DIFFERS
    assert err.endswith(f"was changed: its content has the hash {digest(found)}, and it states {found['sha256']}.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json was changed."),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is absent."),
        (lambda folder: (folder / "more.bin").write_bytes(b"x"), "more.bin is not in the certificate."),
    ],
    ids=["changed", "absent", "more"],
)
def test_another_folder_is_noticed(folder, capsys, change, words):
    certified(capsys, folder)
    change(folder)
    status, _, err = said(capsys, folder, "--check", folder / FILE)
    assert status == DIFFERS
    assert err.endswith(f"is not the certificate of {folder}: {words}")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "another"}'])
def test_what_is_no_certificate_cannot_be_checked(folder, tmp_path, capsys, content):
    (tmp_path / "x.json").write_text(content)
    status, _, err = said(capsys, folder, "--check", tmp_path / "x.json")
    assert status == CANNOT_TELL
    assert err.startswith("cannot tell: ")


def test_weights_that_were_changed_are_certified_as_such(folder, capsys):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert said(capsys, folder)[0] == DIFFERS
    found = json.loads((folder / FILE).read_text())
    assert found["proof"]["status"] == "differs"
    assert "Not what its record states: do not release" in words_of((folder / PAGE).read_text())
    status, _, err = said(capsys, folder, "--check", folder / FILE)
    assert status == DIFFERS
    assert err.endswith("But the weights were not shown to be what their record says: differs.")


def test_a_model_whose_parents_are_gone_is_certified_as_not_proved(folder, capsys, tmp_path):
    status, _, _ = said(capsys, folder, "--parent", f"base={tmp_path / 'gone'}")
    assert status == CANNOT_TELL
    found = json.loads((folder / FILE).read_text())
    assert found["proof"]["status"] == "cannot tell"
    assert str(tmp_path) not in json.dumps(found)
    assert "Not proved" in words_of((folder / PAGE).read_text())


@pytest.mark.parametrize(
    ("key", "value", "words"), [("lambda", 0.5, "λ"), ("method", "linear", "method"), ("seed", 3, "seed")]
)
def test_a_study_of_another_model_is_refused(folder, scored, capsys, key, value, words):
    provenance = json.loads((scored / "provenance.json").read_text())
    provenance["merge"][key] = value
    put(scored, "provenance.json", provenance)
    status, _, err = said(capsys, folder, "--study", scored)
    assert status == CANNOT_TELL
    assert f"is about another model than the folder: {words} differ." in err
    assert not (folder / FILE).exists()


def test_what_is_no_study_or_no_merge_is_refused(folder, tmp_path, capsys):
    status, _, err = said(capsys, folder, "--study", tmp_path)
    assert (status, "holds no finished run: give the folder that has its metrics.json" in err) == (CANNOT_TELL, True)
    status, _, err = said(capsys, tmp_path)
    assert (status, "it was not written by `save=`" in err) == (CANNOT_TELL, True)
    status, _, err = said(capsys, folder, "--parent", "base=")
    assert (status, "write it as name=folder" in err) == (CANNOT_TELL, True)
