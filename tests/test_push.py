"""python -m patientdx.cli push: what is sent to a hub, and what never is."""

import json
from pathlib import Path

import pytest
import yaml
from hub_server import hub_server
from huggingface_hub import HfApi, constants

from patientdx.checkpoints.patient_mark import mark
from patientdx.cli import certify
from patientdx.cli.push import main


@pytest.fixture
def public(scored_merge, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A merged folder whose record names parents of a hub, and the result folder of the run that scored it."""
    import shutil

    folder, study = shutil.copytree(scored_merge[0], tmp_path / "merged"), scored_merge[1]
    path = folder / "provenance.json"
    record = json.loads(path.read_text())
    for model, licence in zip(record["models"], ("apache-2.0", "llama3"), strict=True):
        model |= {"source": f"org/{model['role']}", "licence": licence}
    path.write_text(json.dumps(record))
    return folder, study


@pytest.fixture
def hub(monkeypatch):
    with hub_server() as (address, sent):
        use(monkeypatch, address)
        yield sent


def use(monkeypatch, address: str) -> None:
    """Let huggingface_hub ask this address."""
    monkeypatch.setattr(HfApi.__init__, "__defaults__", (address, "hf_token", *HfApi.__init__.__defaults__[2:]))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def said(capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_a_dry_run_shows_all_and_sends_nothing(public, hub, capsys):
    folder, study = public
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = said(capsys, folder, "org/name", "--study", study, "--dry-run")
    assert (code, err) == (0, "")
    assert (hub.created, hub.files) == ([], {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert out.endswith("nothing was sent to org/name: a dry run\n")
    assert all(f"  {name}\n" in out for name in before)
    assert str(folder) not in out


def test_the_card_has_parents_licence_and_results_and_no_path(public, hub, capsys):
    folder, study = public
    code, _, err = said(capsys, folder, "org/name", "--study", study)
    assert (code, err) == (0, "")
    assert hub.created[0]["visibility"] == "private"
    assert hub.messages == ["slerp λ=0.4 of unknown_base and unknown_pivot, by patientdx"]
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    card = hub.files["README.md"].decode()
    assert str(folder.parent) not in card
    front = front_matter(card)
    assert front["base_model"] == ["org/base", "org/pivot"]
    keys = ("base_model_relation", "library_name", "license", "license_name", "tags")
    assert [front[key] for key in keys] == [
        "merge",
        "transformers",
        "other",
        "apache-2.0-and-llama3",
        ["merge", "patientdx"],
    ]
    (model,) = front["model-index"]
    rows = [row for row in json.loads((study / "metrics.json").read_text())["rows"]
            if (row["role"], row["split"]) == ("merged", "test")]  # fmt: skip
    (result,) = model["results"]
    assert result["dataset"] == {"type": "mortality", "name": "synthetic hospital", "split": "test"}
    assert result["task"] == {"type": "text-classification", "name": "mortality"}
    found = {metric["type"]: (metric["value"], metric["args"]["low"], metric["args"]["high"])
             for metric in result["metrics"]}  # fmt: skip
    assert found == {
        name: tuple(rows[0][name + end] for end in ("", "_ci_low", "_ci_high")) for name in ("auroc", "auprc")
    }
    assert result["metrics"][0]["args"]["level"] == 0.95


def test_a_certificate_goes_along_where_it_is_of_what_is_sent(public, hub, capsys):
    folder, study = public
    (folder / "certificate.json").write_text(json.dumps({"model": {"files": {"README.md": "0"}}}))
    (folder / "certificate.html").write_text("a page")
    code, out, _ = said(capsys, folder, "org/name", "--study", study)
    assert (code, "certificate.json" in hub.files) == (0, False)
    assert "are of other files and are not sent: certify again after this" in out
    (folder / "certificate.json").write_text(json.dumps({"model": {"files": certify.files(folder)}}))
    code, out, _ = said(capsys, folder, "org/name", "--study", study, "--public")
    assert (code, {"certificate.json", "certificate.html"} <= set(hub.files)) == (0, True)
    assert hub.created[-1]["visibility"] == "public"


@pytest.mark.parametrize("cause", ["mark", "stray", "changed", "name", "record", "study"])
def test_what_must_not_be_published_is_refused(public, hub, capsys, tmp_path, cause):
    folder, _ = public
    words = [folder, "org/name"]
    if cause == "mark":
        mark(folder)
        message = "is marked as holding patients (HOLDS_PATIENTS.txt), and stays in the house"
    elif cause == "stray":
        (folder / "notes.csv").write_text("a patient")
        message = "has files that no merge wrote: notes.csv"
    elif cause == "changed":
        (folder / "config.json").write_text("{}")
        message = "is not as the merge left it: config.json"
    elif cause == "name":
        words, message = [folder, "a/b/c"], "a/b/c is no name of a repository"
    elif cause == "record":
        words, message = [tmp_path, "org/name"], "it was not written by `save=`"
    else:
        words, message = [*words, "--study", tmp_path], "holds no finished run"
    code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert (hub.created, hub.files) == ([], {})


def test_a_merge_of_folders_of_this_machine_is_refused(scored_merge, hub, capsys):
    code, _, err = said(capsys, scored_merge[0], "org/name")
    assert code == 2
    assert "unknown_base, unknown_pivot: read from a folder of this machine" in err
    assert hub.created == []


def test_a_hub_that_refuses_or_is_away_is_one_message(public, capsys, monkeypatch):
    with hub_server(refuses=True) as (address, sent):
        use(monkeypatch, address)
        code, _, err = said(capsys, public[0], "org/name")
    assert (code, sent.files) == (2, {})
    assert "the hub refused org/name: You don't have the rights to create a model" in err
    code, _, err = said(capsys, public[0], "org/name")  # the server has ended
    assert code == 2
    assert err.startswith("the hub cannot be reached")
