"""A pipe, socket, device, folder or broken link where a file is expected is refused by name, never taken as absent.

Whoever opens a pipe without a writer waits without end, so a test of a reader that does not look first would hang.
"""

import os
import shutil
import socket
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet
import pytest
from command_line import forked, parsed, tiny
from own_files import notes, write

from patientdx.checkpoints import patient_mark
from patientdx.checkpoints.model_card import describe
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, open_checkpoint
from patientdx.cli import certify, report, verify
from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.core.json_files import read_object
from patientdx.core.regular_files import is_regular
from patientdx.evaluation.config import merge
from patientdx.evaluation.store import read_json
from patientdx.records import tables
from patientdx.records.labelled.concept_file import concept_file
from patientdx.records.meds.folder import meds_folder
from patientdx.tasks.data_files import digests, located, split_files
from patientdx.tasks.stay_labels import label_files


def pipe(path):
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


KINDS = {
    "a pipe": pipe,
    "a socket": a_socket,
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/null"),
    "a link to nowhere, and nothing is there": lambda path: path.symlink_to("nowhere"),
    "a link to .*, and nothing is there": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_named(tmp_path, kind):
    path = tmp_path / "config.json"
    assert not is_regular(path)
    assert not is_regular(path / "below")
    KINDS[kind](path)
    for read in (is_regular, read_object, read_json, sha256):
        with pytest.raises(UserError, match=f"^{path} is {kind}"):
            read(path)


def test_a_link_to_a_file_is_one(tmp_path):
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "config.json").symlink_to("blob")
    assert is_regular(tmp_path / "config.json")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
     "vocab.txt", "tokenizer.model", "added_tokens.json", "adapter_config.json", "model.safetensors",
     "model-00001-of-00002.safetensors", "model.safetensors.index.json"],
)  # fmt: skip
def test_every_file_of_a_model(tiny_base, tmp_path, name, kind):
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    KINDS[kind](folder / name)
    for opened in (lambda: Checkpoint(folder), lambda: describe(str(folder), "base_model")):
        with pytest.raises(UserError, match=f"^{folder / name} is a "):
            opened()


def test_hidden_entries_and_folders_of_a_model_do_not_count(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    (folder / ".#config.json").symlink_to("user@host.1234")  # as an editor locks a file
    (folder / "original").mkdir()
    assert Checkpoint(folder).tensors


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_the_files_of_an_adapter(tiny_base, tmp_path, name):
    pipe(tmp_path / "adapter" / name)
    model = ModelSource("adapted", str(tiny_base), adapter=str(tmp_path / "adapter"))
    with pytest.raises(UserError, match=f"{name} is a pipe" if name == "adapter_config.json" else "is a pipe"):
        open_checkpoint(model, tmp_path)


def test_a_gguf_file_and_a_card(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"m\.gguf is a pipe"):
        describe(str(pipe(tmp_path / "m.gguf")), "base_model")
    with pytest.raises(UserError, match=r"m\.gguf is a pipe"):
        open_checkpoint(ModelSource("m", str(tmp_path / "m.gguf")), tmp_path)
    monkeypatch.setattr(merge, "MODELS", tmp_path)
    pipe(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"mine\.yaml is a pipe"):
        parsed("base_model.name=mine", "task=none")


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a link to nowhere, and nothing is there"])
def test_the_mark_of_patients_counts_whatever_it_is(tmp_path, kind):
    KINDS[kind](tmp_path / patient_mark.MARK)
    assert patient_mark.marked(tmp_path)


def test_a_pivots_tokenizer_by_the_command(tiny_base, tiny_pivot, tmp_path):
    pivot = shutil.copytree(tiny_pivot, tmp_path / "pivot")
    pipe(pivot / "tokenizer.json")
    pipe(tmp_path / "out")
    words = ["task=none", "lambda=0.4", "save=merged"]
    commands = [[*tiny(tiny_base, pivot), *words], [*tiny(tiny_base, tiny_pivot), "task=none", "save=out"],
                [*tiny(tiny_base, tiny_pivot), "lambda=0.4", "output=out"]]  # fmt: skip
    tokenizer, save, output = forked(tmp_path, commands, models_may_load=False)
    for run in (tokenizer, save, output):
        assert run.returncode == 2
        assert "Traceback" not in run.stderr
    assert f"{pivot / 'tokenizer.json'} is a pipe, where a file is expected" in tokenizer.stderr
    assert not (tmp_path / "merged").exists()
    for run in (save, output):
        assert "out" in run.stderr


def test_tables_and_texts(tmp_path):
    needed = {"icu/chartevents": {"stay_id": "BIGINT"}}
    with pytest.raises(UserError, match=r"chartevents\.csv is a pipe"):
        tables.locate([pipe(tmp_path / "mimic/icu/chartevents.csv").parents[1]], next(iter(needed)))
    pipe(tmp_path / "texts/test.csv")
    for read in (split_files, digests, label_files):
        with pytest.raises(UserError, match=r"test\.csv is a pipe"):
            read(tmp_path / "texts")
    for read in (lambda path: located("yes_no", str(path), ""), concept_file):
        with pytest.raises(UserError, match=r"notes\.csv is a pipe"):
            read(pipe(tmp_path / "notes.csv"))


def test_a_table_written_in_parts_is_still_read(tmp_path):
    write(tmp_path / "test.csv" / "part-0.csv", notes())
    assert [name for _, name, _ in split_files(tmp_path)] == ["test.csv/part-0.csv"]
    assert list(digests(tmp_path)) == ["test.csv/part-0.csv"]


@pytest.mark.parametrize(
    "name", ["metadata/dataset.json", "data/0.parquet", "metadata/codes.parquet", "metadata/subject_splits.parquet"]
)
def test_a_meds_folder(tmp_path, name):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/dataset.json").write_text('{"meds_version": "0.4.0"}')
    columns = {"subject_id": [1], "time": [datetime(2180, 1, 1)], "code": ["x"], "numeric_value": [1.0]}
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "data/1.parquet")
    pipe(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is a pipe"):
        meds_folder(tmp_path)


def test_results_and_certificates(saved_merge, tmp_path, capsys):
    pipe(tmp_path / "study/run/metrics.json")
    assert report.main([str(tmp_path / "study")]) == 2
    assert "metrics.json is a pipe" in capsys.readouterr().err
    folder = shutil.copytree(saved_merge, tmp_path / "merge")
    pipe(folder / "README.md")
    assert verify.main([str(folder)]) == verify.CANNOT_TELL
    assert "README.md is a pipe" in capsys.readouterr().err
    assert certify.main([str(folder), "--check", str(pipe(folder / "certificate.json"))]) != 0
    assert "is a pipe" in capsys.readouterr().err
