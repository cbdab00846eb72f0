"""Predictions in the schema of MEDS' evaluation, and the commands of the MEDS-DEV entry as they stand."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from command_line import ROOT, environment, rows_of, small
from own_files import QUESTION
from own_hospitals import concepts, hospital, meds

from patientdx.cli.predictions import main
from patientdx.metrics.ranking import auroc

ENTRY = ROOT / "experiments/meds_dev/patientdx"
SCHEMA = pa.schema(
    {
        "subject_id": pa.int64(),
        "prediction_time": pa.timestamp("us"),
        "boolean_value": pa.bool_(),
        "predicted_boolean_value": pa.bool_(),
        "predicted_boolean_probability": pa.float64(),
    }
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a hospital in MEDS, its labels and concepts, and the hospital itself."""
    folder, house = tmp_path_factory.mktemp("meds"), hospital(stays=120)
    labels, records = meds(folder, house, splits=True)
    return folder, house, labels, records, concepts(folder / "concepts.csv")


@pytest.fixture(scope="module")
def entry(site, tiny_base, tiny_pivot):
    """Both commands of model.yaml, run as MEDS-DEV runs them: filled in, by a shell. The folder of the predictions."""
    folder, _, labels, records, file = site
    commands = yaml.safe_load((ENTRY / "model.yaml").read_text())["commands"]["supervised"]
    words = [
        word for word in small(tiny_base, tiny_pivot) if not word.startswith(("task.synthetic", "splits", "tracking"))
    ]
    words = [word for word in words if word != "clinical=false"]
    env = environment() | {
        "PATIENTDX_HOME": str(ROOT), "PATIENTDX_CONCEPTS": str(file), "PATIENTDX_QUESTION": QUESTION,
        "PATIENTDX_OVERRIDES": " ".join([*words, "search=grid", "search.points=[0.2,0.8]"]),
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    }  # fmt: skip
    values = {"dataset_dir": records, "labels_dir": labels, "split": "held_out"}
    for name, more in (
        ("train", {"output_dir": folder / "train"}),
        ("predict", {"output_dir": folder / "predict", "model_initialization_dir": folder / "train"}),
    ):
        command = commands[name].format(**values | more)
        end = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, timeout=600)
        assert end.returncode == 0, (command, end.stderr)
    return folder / "predict"


def test_the_commands_of_the_entry_write_the_schema(entry, site):
    table = pq.read_table(entry / "predictions.parquet")
    assert table.schema.equals(SCHEMA)
    labels = site[2]
    known = {(row["subject_id"], row["prediction_time"]): row["boolean_value"]
             for row in pq.read_table(labels / "0.parquet").to_pylist() if row["subject_id"] % 3 == 2}  # fmt: skip
    rows = table.to_pylist()
    assert {(row["subject_id"], row["prediction_time"]): row["boolean_value"] for row in rows} == known
    assert len(rows) == len(known)
    assert {type(row["predicted_boolean_value"]) for row in rows} == {bool}


def test_the_predictions_are_those_of_the_run(entry, site):
    table = pq.read_table(entry / "predictions.parquet")
    (run,) = (site[0] / "train/merge").glob("labelled_stays_*")
    (row,) = [row for row in rows_of(run) if (row["role"], row["split"]) == ("merged", "test")]
    score, label = (
        table["predicted_boolean_probability"].to_numpy(),
        table["boolean_value"].to_numpy(zero_copy_only=False),
    )
    assert auroc(score, label) == pytest.approx(row["auroc"])
    threshold = json.loads((run / "clinical.json").read_text())["models"]["merged"]["threshold"]["value"]
    assert table["predicted_boolean_value"].to_pylist() == [value >= threshold for value in score]


def test_the_entry_has_the_files_of_its_layout():
    assert {path.name for path in ENTRY.iterdir()} == {"model.yaml", "README.md", "requirements.txt", "refs.bib"}
    model = yaml.safe_load((ENTRY / "model.yaml").read_text())
    assert set(model) == {"metadata", "commands"}
    assert {"description", "links", "contacts"} <= set(model["metadata"])
    assert set(model["commands"]) == {"unsupervised", "supervised"}


def test_what_is_not_there_is_refused(entry, site, tmp_path, capsys, monkeypatch):
    (run,) = (site[0] / "train/merge").glob("labelled_stays_*")
    out = str(tmp_path / "out")
    for words, message in (
        ([out, str(tmp_path)], "holds 0 finished runs"),
        ([out, str(run), "role=tabular_gbm"], "tabular_gbm was not scored on test; there are base on pilot"),
        ([out, str(run), "split=third"], "split=third: it is one of train, tuning, held_out"),
        ([out, str(run), "rows=3"], "rows: predictions takes role=<role> and split=<split>"),
        ([str(ROOT / "outputs"), str(run)], "is inside this repository"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    labels = site[2] / "0.parquet"
    before = labels.read_bytes()
    rows = pq.read_table(labels).to_pylist()
    rows[0]["boolean_value"] = not rows[0]["boolean_value"]
    pq.write_table(pa.Table.from_pylist(rows), labels)
    assert main([out, str(run)]) == 2
    assert "its data are no longer what they were" in capsys.readouterr().err
    labels.write_bytes(before)
    assert main([out, str(run), "role=base", "split=tuning"]) == 0
    assert not (tmp_path / "out/labels").exists()
