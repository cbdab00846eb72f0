"""The leakage study's table, from result folders as runs leave them."""

import json
import re

import pytest
from command_line import composed, forked, parsed, small
from result_folders import reseal

from experiments import leakage
from patientdx.evaluation.store import write_json, write_sealed_json


def estimate(value, half=0.1):
    return {"value": value, "low": value - half, "high": value + half, "p_value": 0.01}


def entry(against, delta2, area, canaries=None):
    delta = {name: {"loss": estimate(value), "perplexity": estimate(10 * value)} for name, value in
             (("delta1", 0.0), ("delta2", delta2))}  # fmt: skip
    tpr = {"0.01": {"value": None, "reason": "not resolvable with 96 non-members: 1000 are needed"}}
    attack = {"auc": estimate(area), "tpr": tpr, "over_base": None}
    one = {"against": against, "dlt": delta, "mia": {"loss": attack}}
    if against:
        for found in delta.values():
            found["over_base"] = found["loss"]
        one["mia"]["reference"] = attack | {"over_base": estimate(area - 0.5)}
    if canaries:
        copies = {str(times): {"n": 2, "exposure": bits, "extracted": 0} for times, bits in canaries.items()}
        one["canaries"] = {"most": 7.0, "copies": copies}
    return one


def one_run(study, job, merge, tuned):
    """A run of one merge beside one fine-tuned model, with what it left."""
    names = {"base": (None, 0.0), "pivot": (None, 1.0), "merged": (merge, 0.4), "finetuned": (tuned, None)}
    rows = [
        {"task": "mortality", "split": "test", "role": role, "method": method, "lambda": weight, "fingerprint": method,
         **{f"{name}{end}": 0.6 for name in ("auroc", "auprc") for end in ("", "_ci_low", "_ci_high")}}
        for role, (method, weight) in names.items()
    ]  # fmt: skip
    side = {"n": 64, "patients": 60, "mean_tokens": 130.0}
    learned = 0.5 if "record" in tuned else 0.0
    told = {
        "reported": "test", "reference": "fresh", "members": side, "non_members": side | {"n": 96},
        "blind": {name: {"auc": estimate(0.5)} for name in ("bag_of_words", "length")},
        "models": {
            "merged": entry("base", 0.0, 0.5), "base": entry(None, 0.0, 0.5, {1: 1.4, 16: 1.4}),
            "pivot": entry("base", 0.0, 0.5), "finetuned": entry("base", learned, 0.5 + learned, {1: 2.0, 16: 7.0}),
        },
    }  # fmt: skip
    folder = study / f"run {job}"
    write_json(told, folder / "privacy.json")
    reseal(folder, {"rows": rows})
    write_sealed_json({"folder": folder.name}, study / "sweep" / f"{job}.json")
    return folder


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "leakage"
    jobs = [(merge, tuned) for merge in ("slerp", "linear") for tuned in ("lora(base) 64", "lora(base) 64 record")]
    for job, (merge, tuned) in enumerate(jobs):
        one_run(folder, job, merge, tuned)
    return folder


def test_every_model_stands_in_the_table_once(study, capsys):
    assert leakage.main(["--output", str(study.parent)]) == 0
    text = capsys.readouterr().out
    for name in ("base", "pivot", "slerp λ=0.4", "linear λ=0.4", "lora(base) 64 record"):
        assert sum(line.split("  ")[0].strip() == name for line in text.splitlines()) == 2, name  # once in each table
    assert "lora(base) 64 record: Δ2 above 0, against base." in text
    assert "slerp λ=0.4: no sign of leakage, against base." in text
    assert "1 of 2 fine-tuned and 0 of 2 merged models" in text
    assert "fewer signs with merging): same." in text
    assert "not resolvable with 96 non-members" in text
    assert "64 members and 96 non-members" in text


def test_a_merge_that_shows_as_much_is_not_the_papers_direction(study, capsys):
    for file in study.glob("run */privacy.json"):
        told = json.loads(file.read_text())
        told["models"]["merged"] = entry("base", 0.5, 0.9)
        write_json(told, file)
        reseal(file.parent)
    leakage.main(["--output", str(study.parent)])
    assert "fewer signs with merging): not shown." in capsys.readouterr().out


def test_a_study_without_leakage_is_refused(study, capsys):
    (study / "run 1" / "privacy.json").unlink()
    reseal(study / "run 1")
    assert leakage.main(["--output", str(study.parent)]) == 2
    assert "has no privacy.json: run the study with privacy=all" in capsys.readouterr().err
    told = json.loads((study / "run 0" / "privacy.json").read_text())
    del told["models"]["merged"]["mia"]
    write_json(told, study / "run 0" / "privacy.json")
    reseal(study / "run 0")
    assert leakage.main(["--output", str(study.parent)]) == 2
    assert "lacks mia: run the study with privacy=all" in capsys.readouterr().err


def test_the_study_is_every_merge_beside_every_fine_tune():
    cfg = composed("experiment=leakage", return_hydra_config=True)
    given = parsed("experiment=leakage", "finetune=lora", "finetune.loss=record")
    assert dict(cfg.hydra.sweeper.params) == {
        "merge": "slerp,linear,ties", "finetune": "lora,full", "finetune.loss": "answer,record"
    }  # fmt: skip
    assert (given.analyses.privacy.canaries, given.finetune.examples, given.finetune.hyperparameters.loss) == (
        (1, 4, 16),
        64,
        "record",
    )
    assert given.finetune.hyperparameters.patience is None


def test_the_small_study_runs_from_end_to_end_on_tiny_models(tiny_base, tiny_pivot, tmp_path, capsys):
    given = [one for one in small(tiny_base, tiny_pivot) if not one.startswith(("task.synthetic", "splits"))]
    (done,) = forked(tmp_path, [["experiment=leakage", "size=small", "finetune=lora", *given]])
    assert done.returncode == 0, done.stderr
    assert leakage.main(["--output", str(tmp_path / "outputs"), "--name", "leakage_small"]) == 0
    text = capsys.readouterr().out
    for model in ("base", "pivot", "slerp λ=0.4", "lora(base) 8 record"):
        assert model in text
    assert "slerp λ=0.4: no sign of leakage, against base." in text
    assert re.search(r"8 members and 2\d non-members", text)
