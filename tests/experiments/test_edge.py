"""What merging and a merged model cost: one real merge watched, one real model in every precision, and the tables."""

import importlib.util

import pytest
import torch
from benchmark_files import questions

from experiments import edge, edge_precision
from experiments.benchmarks.merge_watch import Watched


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
    shown = edge.merge_table([found])
    assert list(shown.columns[0].cells) == ["linear"]


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
    told = [(one, Watched(1.0, 1.0, 2**28, None, None, "")) for one in found.values()]
    shown = edge.precision_table(told, {"resamples": 200, "level": 0.95, "seed": 0})
    cells = {column.header.replace("\n", " "): list(column.cells) for column in shown.columns}
    assert cells[""] == ["float32", "bfloat16"]
    assert cells["less float32's"][0] == "–"
    assert cells["answers that differ"][0] == "0 of 6"
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


def test_what_cannot_be_measured_is_refused_before_anything_is_merged(tiny_base, medqa, monkeypatch, capsys):
    given = asked(medqa, tiny_base)
    assert edge.main(["--merges", "linear,slerping", *given]) == 2
    assert "there is no conf/merge/published/slerping.yaml" in capsys.readouterr().err
    assert edge.main(["--precisions", "int4", *given]) == 2
    assert "precision int4 does not exist; it is one of float32, bfloat16, int8" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert edge.main(["--precisions", "float32,int8", *given]) == 2
    assert "pip install -r requirements-int8.txt" in capsys.readouterr().err
    monkeypatch.undo()
    assert edge.main(["--precisions", "float32", "task=numeric_questions", f"base_model.source={tiny_base}"]) == 2
    assert "task=numeric_questions is not multiple choice" in capsys.readouterr().err
    assert edge.main(["--precisions", "float32", *given, "task.pth=x"]) == 2
    assert "Could not override 'task.pth'" in capsys.readouterr().err
