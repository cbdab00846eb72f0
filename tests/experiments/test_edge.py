"""What merging and a merged model cost: one real merge watched, one real model in every precision, and the tables."""

import importlib.util
import json

import pytest
import torch
from benchmark_files import questions

from experiments import all as every
from experiments import edge, edge_precision
from experiments.benchmarks.watch import Watched
from patientdx.core import extras
from patientdx.evaluation.store import write_json


@pytest.fixture(scope="module")
def medqa(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("sets") / "medqa", test=6)


def asked(medqa, model):
    return ["task=medqa", f"task.path={medqa}", f"base_model.source={model}", "splits=[test]", "clinical=false"]


def test_a_merge_is_watched_in_a_process_of_its_own(tiny_base, tiny_pivot, tmp_path):
    models = [f"base_model.source={tiny_base}", f"pivot_model.source={tiny_pivot}", "pivot_model.adapter=null"]
    found = edge.merged("linear", models, tmp_path, 1)
    assert (tmp_path / "linear" / "model.safetensors").is_file()
    assert found.written == sum(file.stat().st_size for file in (tmp_path / "linear").rglob("*"))
    assert found.watched.wall > 0
    assert found.watched.peak > 2**20
    shown = edge.merge_table([found.facts])
    assert [row[0].text for row in shown.rows] == ["linear"]


def test_half_the_bits_are_half_the_bytes_and_the_answers_are_those_of_the_model(tiny_base, medqa):
    found = {
        name: edge_precision.measure(tiny_base, name, 2, asked(medqa, tiny_base)) for name in ("float32", "bfloat16")
    }
    whole, half = found.values()
    assert whole["memory"] == 2 * half["memory"]
    assert whole["memory"] <= whole["file"] < 1.5 * whole["memory"]
    assert whole["right"] == [i % 4 for i in range(6)]
    assert len(whole["chosen"]) == 6
    assert min(whole["questions"], whole["token"], whole["load"]) > 0
    assert set(whole["sets"]) == {"medqa"}
    told = [one | {"peak": 2**28} for one in found.values()]
    shown = edge.precision_table(told, {"resamples": 200, "level": 0.95, "seed": 0})
    titles = [column.heading.replace("\n", " ") for column in shown.columns]
    cells = {title: [row[number].text for row in shown.rows] for number, title in enumerate(titles)}
    assert cells[""] == ["float32", "bfloat16"]
    assert cells["minus the first's"][0] == "–"
    assert cells["unlike the first"][0] == "0 of 6"
    right = sum(a == b for a, b in zip(whole["chosen"], whole["right"], strict=True)) / 6
    assert cells["accuracy"][0].startswith(f"{right:.3f} [")


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
def test_eight_bits_are_in_the_linear_layers_alone_and_say_nearly_the_same(tiny_base, precision):
    plain, eight = (edge_precision.in_precision(tiny_base, name) for name in ("bfloat16", precision))
    layer = eight.model.layers[0].mlp.up_proj.weight
    assert {one.dtype for one in edge_precision.stored(layer.data)} >= {torch.int8}
    assert eight.get_output_embeddings().weight.dtype == torch.bfloat16
    linear = [one.weight for one in plain.model.layers.modules() if isinstance(one, torch.nn.Linear)]
    saved = edge_precision.sizes(plain)["memory"] - edge_precision.sizes(eight)["memory"]
    assert 0.6 * sum(one.numel() for one in linear) < saved <= sum(one.numel() for one in linear)
    tokens = torch.arange(3, 43)[None]
    with torch.inference_mode():
        a, b = (model(tokens).logits.float() for model in (plain, eight))
    assert 0 < (a - b).abs().max() < 0.2 * a.abs().max()


def left(output, name="edge"):
    """What a measurement leaves: two merges, and one of them in two precisions."""
    seen = Watched(12.5, 20.0, 300 * 2**20, None, None, "")
    merges = [edge.Merged(one, seen, 250 * 2**20).facts for one in ("linear", "della")]
    one = {"memory": 2**28, "file": 2**28, "peak": 2**29, "load": 0.5, "questions": 0.1, "token": 0.02,
           "right": [0, 1, 2, 3], "chosen": [0, 1, 2, 0], "threads": 1}  # fmt: skip
    half = one | {"precision": "int8", "memory": 2**27, "chosen": [0, 1, 0, 0]}
    found = {"command": "python -m experiments.edge data=PATH", "base": "b", "pivot": "p", "task": "medqa",
             "questions": 4, "new_tokens": 32, "machine": "a machine", "merges": merges,
             "draws": {"resamples": 200, "level": 0.95, "seed": 0},
             "precisions": [one | {"precision": "float32"}, half]}  # fmt: skip
    write_json(found, output / name / "edge.json")


def test_what_was_left_is_shown_again_and_on_the_page_of_all_tables(tmp_path, monkeypatch, capsys):
    assert edge.main(["--read", "--output", str(tmp_path)]) == 2
    assert "nothing was measured yet. First:\n  python -m experiments.edge" in capsys.readouterr().err
    left(tmp_path)
    assert edge.main(["--read", "--output", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "della 12.5 20.0 300 250" in text
    assert "int8 128 256 512 0.5 0.100 20.0 0.500 [" in text
    assert "linear, seconds 12.5 not recovered U" in text
    assert "The merged model is merge=published/linear; medqa, 4 questions" in text
    assert every.main(["--output", str(tmp_path), "--to", str(tmp_path / "all.md")]) == 0
    page = (tmp_path / "all.md").read_text()
    assert "`python -m experiments.edge data=PATH`" in page
    assert "della" in page
    assert "`python -m experiments.permuted_heads`" in page[page.index("Not run yet") :]


def test_a_measurement_is_left_with_its_command_and_no_place_of_this_machine(tmp_path, capsys, monkeypatch):
    left(tmp_path, "made")
    found = json.loads((tmp_path / "made" / "edge.json").read_text())
    monkeypatch.setattr(edge, "measure", lambda asked: {key: found[key] for key in found if key != "command"})
    assert edge.main(["--output", str(tmp_path), "--merges", "linear,della", f"data={tmp_path}", "task.limit=50"]) == 0
    kept = json.loads((tmp_path / "edge" / "edge.json").read_text())
    assert kept["command"] == ("python -m experiments.edge --output PATH --merges linear,della data=PATH task.limit=50")
    assert kept | {"command": found["command"]} == found


def test_what_cannot_be_measured_is_refused_before_anything_is_merged(tiny_base, medqa, monkeypatch, capsys):
    given = asked(medqa, tiny_base)
    assert edge.main(["--merges", "linear,slerping", *given]) == 2
    assert "there is no conf/merge/published/slerping.yaml" in capsys.readouterr().err
    assert edge.main(["--precisions", "int4", *given]) == 2
    assert "precision int4 does not exist; it is one of float32, bfloat16, int8" in capsys.readouterr().err
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert edge.main(["--precisions", "float32,int8", *given]) == 2
    assert "pip install 'patientdx[int8]'" in capsys.readouterr().err
    monkeypatch.undo()
    assert edge.main(["--precisions", "float32", "task=numeric_questions", f"base_model.source={tiny_base}"]) == 2
    assert "task=numeric_questions is not multiple choice" in capsys.readouterr().err
    assert edge.main(["--precisions", "float32", *given, "task.pth=x"]) == 2
    assert "Could not override 'task.pth'" in capsys.readouterr().err
