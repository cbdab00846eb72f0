"""The case study from its own command to its table: numbers, patients where they are open, and what it refuses."""

import json
import re

import pytest
import yaml
from command_line import composed
from in_process import run
from result_folders import reseal

from experiments import case_study
from patientdx.evaluation.config.run_config import parse
from patientdx.evaluation.store import write_sealed_json


@pytest.fixture(scope="module")
def study(make_tiny, tmp_path_factory):
    """What the sweep leaves, its three jobs one after the other in this process."""
    output = tmp_path_factory.mktemp("case_study")
    long = {"max_position_embeddings": 4096}  # a record of single bytes is long
    words = [f"base_model.source={make_tiny(**long)}", f"pivot_model.source={make_tiny(noise_seed=1, **long)}"]
    words += ["experiment=case_study", "size=small", "pivot_model.adapter=null", "dtype=float32", f"output={output}"]
    words += ["task.threads=1", "task.limit=5", "bootstrap.resamples=100", "tracking=none"]
    swept = composed(*words, return_hydra_config=True).hydra.sweeper.params
    jobs = [parse(composed(*words, f"task={task}"), sweep=True) for task in swept.task.split(",")]
    for number, job in enumerate(jobs):
        write_sealed_json({"folder": run(job).folder.name}, output / "case_study_small" / "sweep" / f"{number}.json")
    return output


def read(study, capsys, *more):
    code = case_study.main(["--output", str(study), "--name", "case_study_small", *more])
    return code, capsys.readouterr()


def runs_of(study):
    return {path.name.partition("_slerp")[0]: path for path in (study / "case_study_small").glob("*_slerp_*")}


def test_numbers_of_all_three_and_patients_with_every_answer(study, capsys):
    code, printed = read(study, capsys, "--patients", "2")
    assert code == 0, printed.err
    text = printed.out
    rows = {name: json.loads((folder / "metrics.json").read_text())["rows"] for name, folder in runs_of(study).items()}
    assert rows.keys() == {"record_qa", "record_search", "mortality"}
    by_role = {row["role"]: row for row in rows["record_search"]}
    assert by_role.keys() == {"merged", "base", "pivot", "bm25"}
    assert f"{by_role['bm25']['mrr']:.3f}" in text
    assert text.count("Probability of death in intensive care"[:11]) >= 2
    assert len(re.findall(r"^Patient \d$", text, re.MULTILINE)) == 2
    assert "Course over the first 48 h" in text
    assert "no number of it is published" in text
    assert "Not recovered" in text


def test_closed_records_are_counted_and_never_shown(study, capsys):
    folder = runs_of(study)["record_qa"]
    content = json.loads((folder / "metrics.json").read_text())
    closed = content | {"rows": [row | {"data": "credentialed"} for row in content["rows"]]}
    reseal(folder, closed)
    try:
        code, printed = read(study, capsys)
        assert code == 0
        assert "No patient is shown: their records are not open." in printed.out
        assert "Course over" not in printed.out
        code, printed = read(study, capsys, "--patients", "1")
        assert code == 2
        assert "patients can be shown of open data alone" in printed.err
        assert printed.out == ""
    finally:
        reseal(folder, content)


def test_records_that_are_no_longer_the_same_are_refused(study, capsys):
    path = runs_of(study)["record_qa"] / "config.yaml"
    kept = path.read_text()
    config = yaml.safe_load(kept)
    config["task"]["per_stay"] = 1
    path.write_text(yaml.safe_dump(config))
    reseal(path.parent)
    try:
        code, printed = read(study, capsys)
    finally:
        path.write_text(kept)
        reseal(path.parent)
    assert code == 2
    assert "are not those that the models were asked about. Run it again." in printed.err


def test_a_sweep_without_a_task_or_with_two_merges_is_refused(study, capsys):
    folder = study / "case_study_small"
    pointers = sorted((folder / "sweep").glob("*.json"))
    kept = {path: path.read_text() for path in pointers}
    try:
        pointers[-1].unlink()
        code, printed = read(study, capsys)
        assert code == 2
        assert re.search(r"has no (mortality|record_search|record_qa): a case study is of", printed.err)
    finally:
        for path, text in kept.items():
            path.write_text(text)
    other = folder / "other"
    source = runs_of(study)["mortality"]
    rows = json.loads((source / "metrics.json").read_text())["rows"]
    rows = [row | ({"lambda": 0.9, "fingerprint": "x"} if row["role"] == "merged" else {}) for row in rows]
    reseal(other, {"rows": rows})
    write_sealed_json({"folder": "other"}, folder / "sweep" / "9.json")
    try:
        code, printed = read(study, capsys)
    finally:
        (folder / "sweep" / "9.json").unlink()
    assert code == 2
    assert "has 2 merges for mortality, and a case study shows one" in printed.err
