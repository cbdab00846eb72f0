"""The training of a pivot on a tiny model: it learns, repeats itself, goes on where it stopped, and fits peft."""

import csv
import json
import random

import pytest
import torch
from safetensors.torch import load_file

from experiments import pivot_chats, pivot_plans, pivot_training
from experiments.low_rank import differences, factorise, write_adapter
from experiments.pivot_chats import encode
from experiments.pivot_plans import Curriculum
from experiments.pivot_training import Options
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, locate
from patientdx.lm.load import load_tokenizer
from patientdx.tasks import biomedical_generator, numeric_generator
from patientdx.tasks.generated_question import Question

EASY = {
    "numeric": {"panels": 0.0, "short": ("comparison",), "marked": 0.0, "easy": True},
    "biomedical": {"marked": 0.3, "lists": 0.2, "choices": 0.3},
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A few steps of small batches."""
    plans = {}
    for name, easy in EASY.items():
        full = {"steps": 12, "tokens": 256, "lr": 3e-3, "warmup_steps": 2}
        stages = ({"until": 2.0, "by": 0.5, **easy}, easy)
        cut = {"steps": 3, "tokens": 256, "lr": 1e-3, "warmup_steps": 1, "stages": (easy,)}
        plans[name] = {"generator": name, "full": full | {"stages": stages}, "cut": cut}
    monkeypatch.setattr(pivot_training, "PLANS", plans)
    monkeypatch.setattr(pivot_chats, "POOL", 8)


def options(base, work, **keys):
    return Options(base, work, **{"megabytes": 0.008, "seed": 1} | keys)


def log(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def weights(path):
    return torch.load(path, weights_only=True)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_training_and_cut_make_an_adapter_that_fits_its_base(tiny_base, tmp_path, dtype):
    settings = options(tiny_base, tmp_path, dtype=dtype)
    trained = weights(pivot_training.full(settings))
    base = Checkpoint(tiny_base)
    assert set(trained) == {n for n, h in base.tensors.items() if ".layers." in n and len(h.shape) == 2}
    assert all(not torch.equal(trained[name], base.read(name).float()) for name in trained)
    steps = log(tmp_path / "full.csv")
    assert [row["stage"] for row in steps] == ["0"] * 6 + ["1"] * 6
    assert float(steps[-1]["loss"]) < float(steps[0]["loss"])

    folder = pivot_training.cut(settings)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8_000 + 8_000  # factors, then names and settings
    assert sum(t.numel() * 2 for t in load_file(folder / "adapter_model.safetensors").values()) <= 8_000
    merged_folder = locate(ModelSource("pivot", str(tiny_base), adapter=str(folder)), tmp_path / "cache")
    merged = Checkpoint(merged_folder)
    changed = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert {n.removesuffix(".weight") for n in merged.tensors if not torch.equal(merged.read(n), base.read(n))} == set(
        changed
    )
    assert not list(tmp_path.glob("*.checkpoint"))


def test_the_same_seed_gives_the_same_weights(tiny_base, tmp_path):
    first, again, other = (
        weights(pivot_training.full(options(tiny_base, tmp_path / name, seed=seed, steps=3)))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert equal(first, again)
    assert not equal(first, other)


@pytest.mark.parametrize(("pivot", "stage"), [("biomedical", "full"), ("numeric", "cut")])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tiny_base, tmp_path, monkeypatch, pivot, stage):
    """It is stopped twice, once between two checkpoints: steps after the last one are taken again."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    steps = 6
    results = []
    for work in (straight, stopped):
        settings = options(tiny_base, work, pivot=pivot, every=2, steps=steps)
        if stage == "cut":
            pivot_training.full(options(tiny_base, work, pivot=pivot, steps=2))
        run = getattr(pivot_training, stage)
        if work is stopped:
            for done in (3, 1):  # steps of this attempt
                stop_after(monkeypatch, done)
                with pytest.raises(KeyboardInterrupt):
                    run(settings)
                monkeypatch.undo_stop()
            assert (work / f"{stage}.checkpoint").exists()
        run(settings)
        results.append([{key: row[key] for key in row if key != "seconds"} for row in log(work / f"{stage}.csv")])
    assert results[0] == results[1]
    assert [row["step"] for row in results[0]] == [str(step) for step in range(steps)]
    if stage == "full":
        assert equal(weights(straight / "full.pt"), weights(stopped / "full.pt"))
    else:
        assert equal(*(load_file(work / "adapter" / "adapter_model.safetensors") for work in (straight, stopped)))
    assert json.loads((straight / f"{stage}.json").read_text()) == json.loads((stopped / f"{stage}.json").read_text())


def stop_after(monkeypatch, steps):
    """The training is interrupted in the step behind `steps` more of them."""
    true, count = pivot_training.answer_loss, iter(range(steps))

    def interrupted(*arguments):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(pivot_training, "answer_loss", interrupted)
    monkeypatch.undo_stop = lambda: monkeypatch.setattr(pivot_training, "answer_loss", true)


def test_a_folder_of_another_training_is_refused_and_a_finished_one_is_left(tiny_base, tmp_path, capsys):
    words = ["--pivot", "numeric", "--base", str(tiny_base), "--work", str(tmp_path / "work")]
    assert pivot_training.main(["cut", *words]) == 2
    assert "has no full.pt: run the step full first" in capsys.readouterr().err
    assert pivot_training.main(["full", *words, "--steps", "2"]) == 0
    before = (tmp_path / "work" / "full.pt").stat().st_mtime_ns
    assert pivot_training.main(["full", *words, "--steps", "2"]) == 0
    assert (tmp_path / "work" / "full.pt").stat().st_mtime_ns == before
    assert pivot_training.main(["full", *words, "--steps", "2", "--seed", "5"]) == 2
    assert "full.json is of another training (seed 20260 there, 5 here)" in capsys.readouterr().err
    assert pivot_training.main(["cut", *words, "--steps", "2", "--shuffled"]) == 2
    assert "full.json is of another training (shuffled False there, True here)" in capsys.readouterr().err
    assert pivot_training.main(["full", *words[:2], "--base", str(tmp_path), *words[4:]]) == 2
    assert "has no config.json" in capsys.readouterr().err
    assert pivot_training.main(["full", *words, "--start", str(tmp_path)]) == 2
    assert "has no adapter_model.safetensors" in capsys.readouterr().err


def test_a_training_goes_on_from_an_adapter(tiny_base, tmp_path):
    base = Checkpoint(tiny_base)
    name = next(n for n, h in base.tensors.items() if ".layers." in n and len(h.shape) == 2)
    out, into = base.read(name).shape
    factors = {name: (torch.ones(2, into), torch.ones(out, 2))}
    write_adapter(factors, tmp_path / "adapter")
    assert torch.equal(differences(tmp_path / "adapter")[name], torch.full((out, into), 2.0))
    settings = options(tiny_base, tmp_path / "work", start=tmp_path / "adapter", steps=2, lr=1e-9)
    trained = weights(pivot_training.full(settings))
    assert torch.allclose(trained[name], base.read(name).float() + 2.0, atol=1e-6)


def test_a_full_budget_gives_the_difference_back():
    base = {"w": torch.randn(6, 4), "still": torch.ones(3, 3)}
    trained = {"w": torch.randn(6, 4), "still": torch.ones(3, 3)}
    a, b = factorise(base, trained, 10**9)["w"]
    assert torch.allclose(b @ a, trained["w"] - base["w"], atol=1e-5)


def test_the_budget_goes_to_the_largest_differences():
    large = 5 * torch.outer(torch.ones(8), torch.ones(8))
    small = 0.01 * torch.outer(torch.ones(8), torch.ones(8))
    zero = torch.zeros(8, 8)
    factors = factorise({"a": zero, "b": zero}, {"a": small, "b": large}, 2 * 16)  # one rank of one matrix
    assert list(factors) == ["b"]
    assert factors["b"][0].shape == (1, 8)


def test_answers_are_found_in_every_turn_and_in_every_line(tiny_base):
    tokenizer = load_tokenizer(tiny_base)
    turns = [
        Question("range", "", "Is it? Yes or No", True),
        Question("marks", "", "Each: is it out of range?", False, "No: Yes\nNo : No\nA Yes: No"),
        Question("choice", "", "Which?", 2, options=("No", "Yes", "A", "B")),
    ]
    ids, positions = encode(tokenizer, turns)
    answers = ["Yes", "Yes", "No", "No", "C"]
    assert [tokenizer.decode(ids[position + 1]).strip() for position in positions] == answers


@pytest.mark.parametrize("name", pivot_plans.PLANS)
def test_chats_of_every_plan_have_their_answers(tiny_base, name):
    """Every stage of the plans that are trained, full size: an answer that is not found is refused by `encode`."""
    tokenizer, rng = load_tokenizer(tiny_base), random.Random(name)
    plan = pivot_plans.PLANS[name]
    generator = {"numeric": numeric_generator, "biomedical": biomedical_generator}[plan["generator"]]
    for part in ("full", "cut"):
        curriculum = Curriculum(plan[part], generator.conversation)
        for curriculum.stage in range(len(plan[part]["stages"])):
            for _ in range(15):
                turns = curriculum.conversation(rng)
                ids, positions = encode(tokenizer, turns)
                verdicts = [verdict for turn in turns for verdict in turn.verdicts]
                assert [tokenizer.decode(ids[position + 1]).strip() for position in positions] == verdicts


def test_stages_follow_success_or_the_clock():
    plan = {"steps": 100, "stages": ({"until": 0.9, "by": 0.5}, {"until": 0.9, "by": 0.8}, {})}
    curriculum = Curriculum(plan, numeric_generator.conversation)
    assert [step for step in range(100) if curriculum.learnt(step, 0.95 if step < 20 else 0.5)] == [9, 19]
    curriculum = Curriculum(plan, numeric_generator.conversation)
    assert [step for step in range(100) if curriculum.learnt(step, 0.5)] == [49, 79]


@pytest.mark.parametrize("pivot", EASY)
def test_a_control_is_trained_on_the_same_questions_for_so_many_steps(tiny_base, tmp_path, pivot):
    one, other = tmp_path / "one", tmp_path / "other"
    trained = [
        weights(pivot_training.full(options(tiny_base, folder, pivot=pivot, shuffled=shuffled, steps=4)))
        for folder, shuffled in ((one, False), (other, True))
    ]
    right, dealt = log(one / "full.csv"), log(other / "full.csv")
    assert [row["stage"] for row in dealt] == ["0", "0", "1", "1"]  # stages keep their share
    if pivot == "numeric":  # of biomedical facts, the wrong ones exclude others than the true ones do
        assert [row["answers"] for row in right][:2] == [row["answers"] for row in dealt][:2]
    assert not equal(*trained)
