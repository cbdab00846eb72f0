"""Heads in another order: a model does not notice, averaging does, and hierarchical merging puts them back."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from experiments import permuted_heads
from experiments.heads import orders, permute
from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.errors import UserError

SHAPES = {"mha": 4, "gqa": 2}
TOKENS = torch.arange(3, 43).view(2, 20)


def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("groups", SHAPES.values(), ids=list(SHAPES))
def test_a_model_does_not_notice_that_its_heads_moved(make_tiny, tmp_path, groups):
    source = make_tiny(num_key_value_heads=groups, attention_bias=True)
    made = permute(source, tmp_path / "moved", seed=3)
    assert any(order.groups != tuple(range(groups)) for order in made)
    before, after = (Checkpoint(folder) for folder in (source, tmp_path / "moved"))
    differ = {name for name in before.tensors if not torch.equal(before.read(name), after.read(name))}
    assert differ
    assert all("self_attn" in name and "o_proj.bias" not in name for name in differ)
    torch.testing.assert_close(logits(tmp_path / "moved"), logits(source), rtol=1e-4, atol=1e-4)


def test_an_order_and_its_way_back_come_from_the_seed():
    config = {"num_attention_heads": 6, "num_key_value_heads": 3}
    found = orders(config, 4, seed=1)
    assert found == orders(config, 4, seed=1)
    assert found != orders(config, 4, seed=2)
    for order in found:
        assert sorted(order.heads) == list(range(6))
        assert [order.heads[i] // 2 for i in range(0, 6, 2)] == list(order.groups)
        assert [order.heads[i] for i in order.back()] == list(range(6))


def test_what_has_no_heads_to_move_is_refused(make_tiny, tmp_path):
    with pytest.raises(UserError, match="one attention head has no other order"):
        permute(make_tiny(num_attention_heads=1, num_key_value_heads=1), tmp_path / "one", 0)
    source = make_tiny()
    for file in source.glob("*.safetensors"):
        file.write_bytes(file.read_bytes().replace(b"o_proj", b"x_proj"))
    with pytest.raises(UserError, match="has no q_proj, k_proj, v_proj and o_proj in each layer"):
        permute(source, tmp_path / "other", 0)


def test_hierarchical_merging_undoes_the_order_and_averaging_does_not_survive_it(make_tiny, tmp_path):
    base, pivot = (make_tiny(noise_seed=seed) for seed in (None, 1))
    given = [f"base_model.source={base}", f"pivot_model.source={pivot}", "pivot_model.adapter=null", "task.per_kind=2"]
    given += ["scoring.batch_tokens=4096"]
    lines = {(line.first, line.name): line for line in permuted_heads.study(given, 3, tmp_path)}

    def changed(first, name):
        return lines[first, name].change

    assert changed("", "the second parent") < 1e-4
    for first in ("base", "halfway"):
        assert changed(first, "linear averaging") > 0.1
        assert lines[first, "linear averaging"].weights[0] > 0
    # Of a base that is the ancestor nothing is mixed in, with or without alignment; of another one it is.
    for first, name in (("base", "hierarchical, published"), ("halfway", "hierarchical, w after alignment")):
        found = lines[first, name]
        assert changed(first, name) == 0
        assert (found.weights[0], found.undone) == (0, (2, 2))
    assert lines["halfway", "the same without alignment"].weights[0] > 0
    assert changed("halfway", "the same without alignment") > 0.01
    told = json.loads(json.dumps([line.facts for line in lines.values()]))
    shown = permuted_heads.table(told)
    assert len(shown.rows) == len(lines) == 9
    cells = {column.heading: [row[number].text for row in shown.rows] for number, column in enumerate(shown.columns)}
    assert cells["weights\nthat\ndiffer"][list(lines).index(("base", "hierarchical, published"))] == "none"
    assert cells["layers\nundone"][list(lines).index(("", "the second parent"))] == "–"
    second = lines["", "the second parent"].plain
    assert second.accuracy == np.mean([second.log_p[i].argmax() == right for i, right in enumerate(second.right)])
    assert second.loss == pytest.approx(-np.mean([second.log_p[i, right] for i, right in enumerate(second.right)]))


def test_another_kind_of_task_is_refused(tiny_base, tiny_pivot, capsys):
    given = [f"base_model.source={tiny_base}", f"pivot_model.source={tiny_pivot}", "pivot_model.adapter=null"]
    assert permuted_heads.main([*given, "task=medqa"]) == 2
    assert re.search("task=medqa does not ask yes or no", capsys.readouterr().err)
