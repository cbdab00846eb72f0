"""Training on tiny models: it learns, repeats itself, stops when it should, and survives a kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from command_line import ROOT, environment
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, locate
from patientdx.core.errors import UserError
from patientdx.training import trainer
from patientdx.training.hyperparameters import Hyperparameters
from patientdx.training.job import Job
from patientdx.training.loss import inputs_and_targets, target_losses
from patientdx.training.texts import Text, text
from patientdx.training.train import train

YES, NO = 40, 50
FULL = Hyperparameters(
    method="full", loss="answer", epochs=4, steps=None, learning_rate=3e-3, warmup_ratio=0.1, batch=4,
    micro_batch_size=2, seed=0, precision="float32", gradient_checkpointing=False,
    patience=None, monitor="loss", check_every=None,
)  # fmt: skip
LORA = replace(FULL, method="lora", learning_rate=1e-2, rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "up_proj"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(generator: random.Random, label: int, loss: str) -> Text:
    """Noise, and a word at its end that tells the answer."""
    noise = [generator.randrange(60, 300) for _ in range(generator.randrange(8, 24))]
    return text((*noise, *([30] * 3 if label else [35] * 3)), YES if label else NO, loss)


def records(n: int, seed: int, loss: str = "answer") -> list[Text]:
    generator = random.Random(seed)
    return [record(generator, i % 2, loss) for i in range(n)]


def job_of(settings: Hyperparameters, loss: str = "answer", wrong: bool = False) -> Job:
    """A job of 12 texts and 8 pilot texts. wrong: pilot has the other answers, so that training makes it worse."""
    pilot, labels = records(8, 1, loss), [i % 2 for i in range(8)]
    if wrong:
        pilot = [
            Text((*item.ids[:-1], NO if label else YES), item.first) for item, label in zip(pilot, labels, strict=True)
        ]
        labels = [1 - label for label in labels]
    texts = tuple(records(12, 0, loss))
    return Job("{}", settings, texts, tuple(pilot), tuple(labels), ((YES, 41), (NO,)), True, "cpu", 1)


@pytest.fixture
def trained(tiny_base, tmp_path):
    """`trained(settings)`: what `train` returns and the folder that it filled, each run in new folders unless named."""

    def run(settings: Hyperparameters, name: str | None = None, loss: str = "answer", wrong: bool = False):
        into, work = (tmp_path / f"{name or len(os.listdir(tmp_path))}-{what}" for what in ("model", "work"))
        into.mkdir()
        work.mkdir(exist_ok=True)
        return train(job_of(settings, loss, wrong), tiny_base, into, work), into

    return run


def weights(folder) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def same(folder, other) -> bool:
    first, second = weights(folder), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_full_training_learns_and_leaves_a_folder_like_the_one_it_began_with(trained, tiny_base):
    course, folder = trained(FULL)
    losses = [loss for _, loss in course["train"]]
    assert course["steps"] == len(losses) == 12
    assert losses[-1] < losses[0] / 2
    assert course["tokens"] == 4 * sum(len(text.ids) for text in records(12, 0))
    assert (course["best_step"], course["stopped_early"], course["pilot"]) == (None, False, [])
    assert course["peak_memory_bytes"] > 100_000_000
    before, after = Checkpoint(tiny_base), Checkpoint(folder)
    assert [(n, h.shape, h.dtype) for n, h in after.tensors.items()] == [
        (n, h.shape, h.dtype) for n, h in before.tensors.items()
    ]
    assert not any(torch.equal(before.read(name), after.read(name)) for name in before.tensors)
    assert (folder / "tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()
    AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's
def test_an_adapter_means_the_same_to_peft_and_to_this_package(trained, tiny_base, tmp_path):
    course, folder = trained(LORA)
    assert [loss for _, loss in course["train"]][-1] < course["train"][0][1]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["target_modules"], config["base_model_name_or_path"]) == (["q_proj", "up_proj"], None)
    assert sorted(file.name for file in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    ours = Checkpoint(locate(ModelSource("ours", str(tiny_base), adapter=str(folder)), tmp_path / "cache"))
    base = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    theirs = dict(PeftModel.from_pretrained(base, folder).merge_and_unload().named_parameters())
    for name in ours.tensors:
        torch.testing.assert_close(ours.read(name), theirs[name].to(torch.bfloat16))
    changed = {n for n in ours.tensors if not torch.equal(ours.read(n), Checkpoint(tiny_base).read(n))}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "up_proj"}


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(trained):
    settings = replace(LORA, dropout=0.2, epochs=1)
    (course, first), (again, second) = trained(settings), trained(settings)
    _, other = trained(replace(settings, seed=1))
    assert same(first, second)
    assert course["train"] == again["train"]
    assert not same(first, other)


def test_texts_in_memory_at_a_time_change_nothing_but_the_last_digits(trained):
    """Records have different lengths: a mean of means would weigh their tokens differently."""
    runs = [trained(replace(FULL, micro_batch_size=n, epochs=1, loss="record"), loss="record")[0] for n in (1, 4)]
    single, four = ([loss for _, loss in course["train"]] for course in runs)
    assert single == pytest.approx(four, rel=1e-4)


def test_checkpointed_activations_give_the_same_losses(trained):
    plain, again = (trained(replace(FULL, epochs=1, gradient_checkpointing=on))[0] for on in (False, True))
    assert [loss for _, loss in again["train"]] == pytest.approx([loss for _, loss in plain["train"]], rel=1e-5)


def test_half_precision_is_of_the_products_alone(trained):
    course, folder = trained(replace(LORA, precision="bfloat16", epochs=1))
    assert {tensor.dtype for tensor in weights(folder).values()} == {torch.float32}
    exact, _ = trained(replace(LORA, epochs=1))
    assert course["train"] != exact["train"]
    assert [loss for _, loss in course["train"]] == pytest.approx([loss for _, loss in exact["train"]], rel=0.05)


def test_training_stops_once_pilot_gets_no_better_and_keeps_the_best_weights(trained):
    settings = replace(FULL, epochs=12, patience=2, check_every=2)
    course, folder = trained(settings, wrong=True)
    steps, losses, auroc = zip(*course["pilot"], strict=True)
    assert steps == tuple(range(2, course["steps"] + 1, 2))
    assert course["stopped_early"]
    assert 2 < course["best_step"] == steps[losses.index(min(losses))] == course["steps"] - 4
    assert auroc[-1] < 0.5
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    pilot = [Text((*item.ids[:-1], YES if i % 2 == 0 else NO), item.first) for i, item in enumerate(records(8, 1))]
    losses_N, _ = target_losses(model, *inputs_and_targets(pilot))
    assert losses_N.mean().item() == pytest.approx(min(losses), rel=0.05)  # they were rounded to bfloat16


def test_the_rate_rises_and_falls_and_no_step_is_wasted(trained):
    assert [round(trainer.rate(i, 6, 0.3), 3) for i in range(6)] == [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert [trainer.rate(i, 2, 0.1) for i in range(2)] == [1.0, 0.5]
    assert trainer.rate(0, 1, 0.0) == trainer.rate(0, 1, 0.9) == 1.0
    course, _ = trained(replace(FULL, batch=12, micro_batch_size=12, steps=2))
    assert course["train"][1][1] < 0.9 * course["train"][0][1]


class Killed(Exception):
    """Stands for the end of a process."""


def test_one_whose_starter_is_gone_ends_and_goes_on_with_the_same_numbers(trained, monkeypatch):
    settings = replace(LORA, dropout=0.2, epochs=3, patience=5, check_every=2)
    uninterrupted, undisturbed = trained(settings)
    calls = []
    monkeypatch.setattr(trainer.os, "getppid", lambda: calls.append(1) or (7 if len(calls) <= 6 else 8))

    def end(code):
        raise Killed

    monkeypatch.setattr(trainer.os, "_exit", end)
    with pytest.raises(Killed):
        trained(settings, "stopped")
    monkeypatch.undo()
    stopped = undisturbed.parent / "stopped-model"
    stopped.rmdir()
    assert sorted(path.name for path in (stopped.parent / "stopped-work").glob("checkpoint-*"))
    course, folder = trained(settings, "stopped")
    assert same(folder, undisturbed)
    for key in ("steps", "best_step", "tokens", "train", "pilot"):
        assert course[key] == uninterrupted[key], key


def test_a_kill_is_survived_and_a_torn_checkpoint_is_not_taken(trained, tiny_base, tmp_path):
    settings = replace(FULL, steps=16, check_every=4)
    into, work = tmp_path / "killed-model", tmp_path / "killed-work"
    into.mkdir()
    work.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "patientdx.training.train", str(tiny_base), str(into), str(work)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        text=True,
    )
    process.stdin.write(job_of(settings).to_json())
    process.stdin.close()
    while not list(work.glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (work / "result.json").exists()
    torn = work / "checkpoint-15"
    torn.mkdir(exist_ok=True)
    (torn / "trainer_state.json").write_text('{"global_step": 3')
    into.rmdir()
    course, folder = trained(settings, "killed")
    assert course["steps"] == 16
    assert same(folder, trained(settings)[1])


def test_what_cannot_be_trained_is_refused(trained):
    with pytest.raises(UserError, match=r"finetune\.targets: lm_head, w_proj is no linear layer .* It has down_proj, "):
        trained(replace(LORA, targets=("q_proj", "w_proj", "lm_head")))
    with pytest.raises(
        UserError, match=r"the training's loss is (nan|inf) at step \d+\. Set finetune\.learning_rate lower"
    ):
        trained(replace(FULL, learning_rate=1e20))


def test_a_model_without_checkpointing_of_activations_says_so(trained, monkeypatch):
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match=r"finetune\.gradient_checkpointing=true: LlamaForCausalLM cannot do it"):
        trained(replace(FULL, gradient_checkpointing=True))


def test_a_lack_of_memory_has_a_message(trained, monkeypatch):
    def full(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(trainer, "target_losses", full)
    with pytest.raises(
        UserError, match=r"finetune=full: the training does not fit into memory .* finetune\.micro_batch_size"
    ):
        trained(FULL)
