"""The pivot's training, end to end on a tiny model: it learns, repeats itself, and its adapter is peft's."""

import csv
import json
import random

import pytest
import torch
from safetensors.torch import load_file

from experiments import numeric_pivot_training
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, locate
from patientdx.lm.load import load_tokenizer
from patientdx.tasks.numeric_generator import Question

EASY = {"panels": 0.0, "short": ("comparison",), "marked": 0.0, "easy": True}


@pytest.fixture
def short(monkeypatch):
    """A few steps of small batches."""
    stages = ({"until": 2.0, "by": 0.5, **EASY}, EASY)
    monkeypatch.setattr(numeric_pivot_training, "FULL", {"steps": 12, "lr": 3e-3, "warmup_steps": 2, "stages": stages})
    monkeypatch.setattr(numeric_pivot_training, "CUT", {"steps": 3, "lr": 1e-3, "warmup_steps": 1, "stages": (EASY,)})
    monkeypatch.setattr(numeric_pivot_training, "TOKENS_A_STEP", 512)
    monkeypatch.setattr(numeric_pivot_training, "BYTES", 8_000)


def log(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_training_and_cut_make_an_adapter_that_fits_its_base(tiny_base, tmp_path, short):
    trained = torch.load(numeric_pivot_training.full(tiny_base, tmp_path, 1), weights_only=True)
    base = Checkpoint(tiny_base)
    assert set(trained) == {n for n, h in base.tensors.items() if ".layers." in n and len(h.shape) == 2}
    assert all(not torch.equal(trained[name], base.read(name).float()) for name in trained)
    steps = log(tmp_path / "full.csv")
    assert [row["stage"] for row in steps] == ["0"] * 6 + ["1"] * 6
    assert float(steps[-1]["loss"]) < float(steps[0]["loss"])

    folder = numeric_pivot_training.cut(tiny_base, tmp_path, 1)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8_000 + 8_000  # factors, then names and settings
    assert sum(t.numel() * 2 for t in load_file(folder / "adapter_model.safetensors").values()) <= 8_000
    merged_folder = locate(ModelSource("pivot", str(tiny_base), adapter=str(folder)), tmp_path / "cache")
    merged = Checkpoint(merged_folder)
    changed = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert {n.removesuffix(".weight") for n in merged.tensors if not torch.equal(merged.read(n), base.read(n))} == set(
        changed
    )


def test_the_same_seed_gives_the_same_weights(tiny_base, tmp_path, short):
    weights = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        file = numeric_pivot_training.full(tiny_base, tmp_path / name, seed)
        weights.append(torch.load(file, weights_only=True))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_a_full_budget_gives_the_difference_back(monkeypatch):
    monkeypatch.setattr(numeric_pivot_training, "BYTES", 10**9)
    base = {"w": torch.randn(6, 4), "still": torch.ones(3, 3)}
    trained = {"w": torch.randn(6, 4), "still": torch.ones(3, 3)}
    factors = numeric_pivot_training.factorise(base, trained)
    a, b = factors["w"]
    assert torch.allclose(b @ a, trained["w"] - base["w"], atol=1e-5)


def test_the_budget_goes_to_the_largest_differences(monkeypatch):
    large = 5 * torch.outer(torch.ones(8), torch.ones(8))
    small = 0.01 * torch.outer(torch.ones(8), torch.ones(8))
    monkeypatch.setattr(numeric_pivot_training, "BYTES", 2 * 16)  # one rank of one matrix
    zero = torch.zeros(8, 8)
    factors = numeric_pivot_training.factorise({"a": zero, "b": zero}, {"a": small, "b": large})
    assert list(factors) == ["b"]
    assert factors["b"][0].shape == (1, 8)


def test_answers_are_found_in_every_turn_and_in_every_line(tiny_base):
    tokenizer = load_tokenizer(tiny_base)
    turns = [
        Question("range", "", "Is it? Yes or No", True),
        Question("marks", "", "Each: is it out of range?", False, "Iron: Yes\nZinc: No"),
    ]
    ids, positions = numeric_pivot_training.encode(tokenizer, turns)
    assert [tokenizer.decode(ids[position + 1]).strip() for position in positions] == ["Yes", "Yes", "No"]


def test_stages_follow_success_or_the_clock():
    plan = {"steps": 100, "stages": ({"until": 0.9, "by": 0.5}, {"until": 0.9, "by": 0.8}, {})}
    curriculum = numeric_pivot_training.Curriculum(plan)
    moved = [step for step in range(100) if curriculum.learnt(step, 0.95 if step < 20 else 0.5)]
    assert moved == [9, 19]
    curriculum = numeric_pivot_training.Curriculum(plan)
    assert [step for step in range(100) if curriculum.learnt(step, 0.5)] == [49, 79]


def test_a_coin_answers_the_same_questions():
    questions = [
        Question("comparison", "", "Is 2 larger than 1?", True),
        Question("marks", "Load 5 (1-3) V", "For each reading: is it out of range?", False, "Load: Yes\nTorque: No"),
    ] * 40
    answered = numeric_pivot_training.shuffled(questions, random.Random("coin 1"))
    assert [turn.prompt for turn in answered] == [turn.prompt for turn in questions]
    assert {turn.target for turn in answered[::2]} == {"Yes", "No"}
    assert {turn.target for turn in answered[1::2]} == {
        f"Load: {a}\nTorque: {b}" for a in ("Yes", "No") for b in ("Yes", "No")
    }
    assert answered == numeric_pivot_training.shuffled(questions, random.Random("coin 1"))


def test_a_control_is_trained_on_the_same_questions_for_so_many_steps(tiny_base, tmp_path, short):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, coin in ((one, False), (other, True)):
        folder.mkdir()
        numeric_pivot_training.full(tiny_base, folder, 1, coin=coin, steps=4)
    right, dealt = log(one / "full.csv"), log(other / "full.csv")
    assert [row["stage"] for row in dealt] == ["0", "0", "1", "1"]  # stages keep their share
    # The first batch is of the same chats; then what was answered rightly may change when a stage begins.
    assert [row["answers"] for row in right][:2] == [row["answers"] for row in dealt][:2]
    weights = [torch.load(folder / "full.pt", weights_only=True) for folder in (one, other)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
