"""Damaged and impossible files of a model end in one message that names the file, before work without end."""

import contextlib
import io
import json
import shutil
import struct
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from command_line import forked, small
from in_process import new_session, run

from patientdx.checkpoints.architecture import check_architecture
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.tokenizer_files import read_tokens
from patientdx.core.errors import UserError
from patientdx.evaluation.store import Store, read_json
from patientdx.lm import chat
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.prompts import tokenise

NESTED = "[" * 100_000


@pytest.fixture
def folder(tmp_path, tiny_base):
    return shutil.copytree(tiny_base, tmp_path / "model")


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("content", [NESTED, "[]", "3", "{", b"\xff\xfe{"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_json_that_is_none(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"{folder}/{name} "):
        read_tokens(folder) if name == "tokenizer.json" else Checkpoint(folder)


def test_a_folder_in_the_place_of_a_file(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()
    with pytest.raises(UserError, match=f"{folder} has no tokenizer that can be read"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000, and it is no more than 20"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers='two', and it is a whole number"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers=2.0"),
        ({"hidden_size": 10**12}, "hidden_size=1000000000000"),
        ({"vocab_size": True}, "vocab_size=True"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings='long'"),
        ({"architectures": 3}, "architectures=3, and it is a list"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes'"),
    ],
)
def test_numbers_of_a_config_are_bounded_by_its_tensors(folder, values, words):
    change(folder / "config.json", **values)
    with pytest.raises(UserError) as error:
        Checkpoint(folder)
    assert words in str(error.value)
    assert str(error.value).startswith(f"{folder}/config.json says ")


@pytest.mark.parametrize("values", [{"rope_parameters": 3}, {"hidden_act": "no such"}, {"model_type": "no such"}])
def test_what_makes_no_model_is_named(folder, values):
    change(folder / "config.json", **values)
    with pytest.raises(UserError, match=f"{folder} has no model that can be built"):
        load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


def test_code_that_comes_with_a_model_is_never_run_whatever_is_answered(folder, monkeypatch):
    code = f"open({str(folder / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\nclass Tokenizer: pass\n"
    (folder / "own.py").write_text(code)
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
    change(folder / "config.json", model_type="own", auto_map=own)
    change(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map=own)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    for load in (
        lambda: load_model(folder, dtype=torch.float32, device=torch.device("cpu")),
        lambda: check_architecture(Checkpoint(folder), "own", None),
    ):
        with pytest.raises(UserError, match="Code that comes with a model is never run") as refused:
            load()
        assert len(str(refused.value)) < 700  # transformers lists all that it knows
    with contextlib.suppress(UserError):  # tokenizer.json alone may do for a tokenizer
        load_tokenizer(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("numbers", [{"data_offsets": [0.0, 4.0]}, {"data_offsets": [0, 4.5]}, {"shape": [1.0]},
                                     {"shape": [-1]}, {"data_offsets": [True, 4]}, {"shape": "1"}])  # fmt: skip
def test_a_header_of_numbers_that_are_no_whole_ones(folder, numbers):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | numbers}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(UserError, match=r"model\.safetensors is truncated or damaged"):
        Checkpoint(folder)


def test_a_missing_tokenizer_is_named_before_anything_is_scored(tmp_path, folder, tiny_pivot):
    (folder / "tokenizer.json").unlink()
    (run,) = forked(tmp_path, [small(folder, tiny_pivot, "lambda=0.4")], models_may_load=False)
    assert run.returncode == 2
    assert f"{folder} has no tokenizer that can be read" in run.stderr
    assert "Traceback" not in run.stderr


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "words"),
    [("{% for %}", "without a system message (TemplateSyntaxError"),
     ("{{ messages[7].content.x }}", "without a system message ("),
     ("{{ raise_exception('no system') }}", "no system"), (LOOP, "does not end within 0.3 s")],
)  # fmt: skip
def test_a_chat_template_that_cannot_be_rendered(folder, monkeypatch, template, words):
    monkeypatch.setattr(chat, "SECONDS", 0.3)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = template
    begun = time.monotonic()
    with pytest.raises(UserError) as error:
        tokenise(tokenizer, [("", "a record", "")], [["yes"], ["no"]])
    assert words in str(error.value)
    assert str(folder) in str(error.value)
    assert time.monotonic() - begun < 5


def test_a_template_that_fails_on_a_record_does_not_quote_it(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = (
        "{% if 'record' in messages[0].content %}{{ raise_exception(messages[0].content) }}{% endif %}"
    )
    with pytest.raises(UserError, match="cannot render") as error:
        tokenise(tokenizer, [("", "a record", "")], [["yes"], ["no"]])
    assert "a record" not in str(error.value)


@pytest.mark.parametrize("table", [pa.table({}), pa.table({"a": ["x", "y"]}), pa.table({"a": [[1], [2]]})])
def test_a_score_file_of_something_else_counts_as_absent(tmp_path, table):
    store = Store(tmp_path)
    pyarrow.parquet.write_table(table, store.path("k"))
    assert store.load("k", 2) is None
    store.save("k", np.zeros((2, 1)))
    assert store.load("k", 2) is not None


def test_a_result_of_deep_brackets_counts_as_absent(tmp_path):
    (tmp_path / "metrics.json").write_text(NESTED)
    assert read_json(tmp_path / "metrics.json") is None


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_where_a_prompt_needs_one(make, make_tiny):
    base, pivot = make_tiny(vocab_size=300), make_tiny(vocab_size=300, noise_seed=1)
    with new_session(), pytest.raises(UserError, match=r"writes a prompt with token \d+, and the model has 300 tokens"):
        run(make(base=base, pivot=pivot))
