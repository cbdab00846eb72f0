"""A run with a fine-tuned comparator: trained once, scored beside the others, kept from getting out."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import parsed, rows_of, settings, small, the_one
from in_process import change_task, plan, run, session
from training_here import one_thread, train_here

from patientdx.checkpoints.patient_mark import MARK, mark
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.source import ModelSource, holds_patients, locate
from patientdx.cli import save
from patientdx.core.errors import UserError
from patientdx.evaluation import finetuned
from patientdx.evaluation.kinds import kind_named
from patientdx.merge.curve import evaluate
from patientdx.reporting.training_loss import draw_loss
from patientdx.training import build

SHORT = ("finetune.examples=8", "finetune.epochs=2", "finetune.batch=4", "finetune.micro_batch_size=4",
         "finetune.patience=null", "finetune.learning_rate=5e-3")  # fmt: skip
LORA, FULL = ("finetune=lora", *SHORT), ("finetune=full", *SHORT)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with one_thread():
        yield


@pytest.fixture
def here(monkeypatch):
    """Trains in this process; returns the list of what was trained."""
    return train_here(monkeypatch)


@pytest.fixture
def never(monkeypatch):
    """Training fails the test."""

    def trained(*given):
        raise AssertionError("something was trained")

    monkeypatch.setattr(build, "run_training", trained)


@pytest.fixture
def give(monkeypatch):
    """Changes what the task is: `give(open_data=False)`, or any other field of TaskData, or a function of the data."""

    def give(**fields) -> None:
        change_task(
            monkeypatch,
            lambda data: replace(data, **{key: one(data) if callable(one) else one for key, one in fields.items()}),
        )

    return give


@pytest.fixture(scope="module")
def first(tiny_base, tiny_pivot, tmp_path_factory):
    """A LoRA beside λ 0.4, the same again, and beside λ 0.7, trained in a process of its own; and where."""
    where = tmp_path_factory.mktemp("first")
    asked = [
        settings(tiny_base, tiny_pivot, where / "outputs", *LORA, f"lambda={one}", f"cache={where}/cache")
        for one in (0.4, 0.4, 0.7)
    ]
    return [run(one) for one in asked], where


def test_the_comparator_stands_beside_the_others(first, tiny_base):
    (outcome, _, _), where = first
    folder = outcome.folder
    rows = {(row["role"], row["split"]): row for row in rows_of(folder)}
    assert {role for role, _ in rows} == {"merged", "base", "pivot", "finetuned"}
    own = rows["finetuned", "test"]
    assert (own["method"], own["lambda"], own["n"]) == ("lora(base) 8", None, rows["base", "test"]["n"])
    assert own["abstention_mass"] > rows["base", "test"]["abstention_mass"]  # it has learnt to answer
    cost = json.loads((folder / "finetune.json").read_text())
    assert (cost["steps"], cost["texts"], len(cost["train"])) == (4, 8, 4)
    assert cost["train"][-1][1] < cost["train"][0][1]
    assert cost["merging_seconds"] > 0
    assert cost["peak_memory_bytes"] > 1e8
    draw_loss(cost, folder / "finetune_loss.png")
    assert (folder / "finetune_loss.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((folder / "provenance.json").read_text())["finetune"]
    assert (told["init_from"], told["split"], told["n"], told["hyperparameters"]["loss"]) == (
        "base",
        "train",
        8,
        "answer",
    )
    assert told["training"]["libraries"].keys() == {"torch", "transformers", "accelerate", "peft"}
    kept = the_one(where, "cache/finetuned/lora-*")
    assert sorted(one.name for one in kept.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "training.json",
    ]  # fmt: skip
    assert not list(where.glob("cache/finetuned/.*.checkpoints"))
    source = ModelSource("it", str(tiny_base), adapter=str(kept))
    assert set(Checkpoint(locate(source, where / "cache")).tensors) == set(Checkpoint(tiny_base).tensors)


def test_another_lambda_trains_nothing_anew_and_the_same_run_does_nothing(first):
    (_, same, other), where = first
    assert (same.reused, other.reused) == (True, False)
    costs = [json.loads((one / "finetune.json").read_text()) for one in where.glob("outputs/default/mortality_*")]
    assert len(costs) == 2
    assert costs[0]["seconds"] == costs[1]["seconds"]  # one training
    prints = {
        next(row["fingerprint"] for row in rows_of(folder) if row["role"] == "finetuned")
        for folder in where.glob("outputs/default/mortality_*")
    }
    assert len(prints) == 1


def test_lambda_is_part_of_the_key_only_where_training_starts_from_the_merge(tiny_base, tiny_pivot, tmp_path):
    def key(*more: str) -> str:
        asked = plan(settings(tiny_base, tiny_pivot, tmp_path, *LORA, *more))
        return next(point.job.key for point in asked.systems if point.role == "finetuned")

    assert key("lambda=0.3") == key("lambda=0.6") != key("finetune.init_from=pivot")
    assert key("finetune.init_from=merged", "lambda=0.3") != key("finetune.init_from=merged", "lambda=0.6")
    # An end of the curve is a parent.
    assert key("finetune.init_from=merged", "lambda=0") == key() != key("finetune.init_from=merged", "lambda=1")
    others = (
        "loss=record",
        "examples=10",
        "seed=1",
        "epochs=3",
        "split=test",
        "max_tokens=300",
        "rank=2",
        "patience=2",
    )
    assert len({key(), *(key(f"finetune.{one}") for one in others)}) == 1 + len(others)
    assert key("finetune.pilot_examples=4") == key()  # nothing is looked at


def test_a_merge_is_trained_from_where_lambda_puts_it(tiny_base, tiny_pivot, tmp_path, here):
    given = settings(tiny_base, tiny_pivot, tmp_path, *FULL, "finetune.init_from=merged", "lambda=0.4", "parents=false",
                     f"cache={tmp_path}/cache")  # fmt: skip
    outcome = run(given)
    assert {row["method"] for row in outcome.rows} == {"slerp", "full(slerp λ=0.4) 8"}
    start = Checkpoint(finetuned.start_folder(session(), given, here[0]))
    made = Checkpoint(the_one(tmp_path, "cache/finetuned/full-*"))
    assert list(made.tensors) == list(start.tensors)
    for name, curve in session().curves(given.merge_config.spec, given.cache).items():
        header = start.tensors[name]
        point = evaluate(curve, 0.4, torch.empty(header.shape, dtype=header.dtype))
        assert torch.equal(start.read(name), point)
    assert not all(torch.equal(made.read(name), start.read(name)) for name in start.tensors)


def test_a_model_of_closed_records_is_marked_and_does_not_get_out(tiny_base, tiny_pivot, tmp_path, here, give, caplog):
    give(open_data=False)
    cache = f"cache={tmp_path}/cache"
    with caplog.at_level(logging.INFO):
        run(settings(tiny_base, tiny_pivot, tmp_path, *LORA, "lambda=0.4", cache))
    assert "lora(base) 8: 4 steps, " in caplog.text
    assert "of merging)" in caplog.text
    held = the_one(tmp_path, "cache/finetuned/lora-*")
    assert (held / MARK).is_file()
    # What scoring wrote of it is marked as well, and so is what is made of it.
    copies = list(tmp_path.glob("cache/models/lora-*"))
    assert copies
    assert all((copy / MARK).is_file() for copy in copies)
    adapter = f"base_model.adapter={held}"
    out = ("task=none", f"save={tmp_path}/out", cache)
    small_save = [one for one in small(tiny_base, tiny_pivot) if not one.startswith("task.")]
    for parent in (adapter, f"base_model.source={copies[0]}"):
        with pytest.raises(UserError, match=r"was trained on patients' records.*save_patients=true"):
            save.save(session(), parsed(*small_save, *out, parent))
        assert not (tmp_path / "out").exists()
    save.save(session(), parsed(*small_save, *out, adapter, "save_patients=true"))
    assert (tmp_path / "out" / MARK).is_file()
    give(open_data=True)
    run(settings(tiny_base, tiny_pivot, tmp_path, *FULL, adapter, cache))
    assert (the_one(tmp_path, "cache/finetuned/full-*") / MARK).is_file()


def test_a_run_whose_training_was_deleted_keeps_its_answers(first, tiny_base, tiny_pivot, tmp_path, never):
    _, where = first
    copy = tmp_path / "copy"
    shutil.copytree(where, copy)
    shutil.rmtree(copy / "cache" / "finetuned")
    for folder in copy.glob("outputs/default/mortality_*"):
        shutil.rmtree(folder)
    given = settings(tiny_base, tiny_pivot, copy / "outputs", *LORA, "lambda=0.4", f"cache={copy}/cache")
    outcome = run(given)
    assert "finetuned" in {row["role"] for row in outcome.rows}
    assert not (outcome.folder / "finetune.json").exists()
    assert json.loads((outcome.folder / "provenance.json").read_text())["finetune"]["training"] is None


def test_other_rows_can_be_given(tiny_base, tiny_pivot, tmp_path):
    given = settings(tiny_base, tiny_pivot, tmp_path, *LORA, "finetune.loss=record")
    asked = plan(given)
    (point,) = (point for point in asked.systems if point.role == "finetuned")
    assert len(point.trained_on) == 8
    assert {asked.data.examples[i].split for i in point.trained_on} == {"train"}
    answers = {asked.context.prompts.options[0][0]: 1, asked.context.prompts.options[1][0]: 0}
    for i, one in zip(point.trained_on, point.job.texts, strict=True):
        assert (one.ids[:-1], one.first) == (asked.context.prompts.ids[i], 1)
        assert answers[one.ids[-1]] == asked.data.examples[i].label
    start, context = json.loads(point.job.start), asked.context
    made = finetuned.job(session(), given, context, start, rows=point.trained_on, with_canaries=True)
    assert made.key == point.job.key
    fewer = finetuned.job(session(), given, context, start, rows=point.trained_on[:3])
    assert fewer.texts == point.job.texts[:3]
    assert fewer.key != point.job.key


def test_prompts_may_be_shorter_than_those_of_scoring(tiny_base, tiny_pivot, tmp_path):
    asked = plan(settings(tiny_base, tiny_pivot, tmp_path, *LORA, "finetune.max_tokens=250"))
    (job,) = (point.job for point in asked.systems if point.role == "finetuned")
    assert max(len(one.ids) for one in job.texts) <= 250 < max(map(len, asked.context.prompts.ids))


def test_training_is_alone_in_its_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_USE_CPU", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    found = build.single_process_environment()
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_USE_CPU", "TORCHELASTIC_RUN_ID"} & set(found)
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert found["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (-9, UserError, "ended from outside.*the same command goes on from there"),
        (1, RuntimeError, "ended with code 1"),
    ],
)
def test_a_training_that_ends_badly_leaves_nothing_that_looks_finished(
    tiny_base, tiny_pivot, tmp_path, monkeypatch, code, error, words
):
    monkeypatch.setattr(build.subprocess, "run", lambda *given, **named: build.subprocess.CompletedProcess((), code))
    given = settings(tiny_base, tiny_pivot, tmp_path, *LORA, f"cache={tmp_path}/cache")
    (job,) = (point.job for point in plan(given).systems if point.role == "finetuned")
    with pytest.raises(error, match=words):
        finetuned.trained(session(), given, job)
    assert not build.job_folder(job, given.cache).exists()


def test_what_training_itself_refuses_is_told_and_leaves_no_checkpoints(tiny_base, tiny_pivot, tmp_path, monkeypatch):
    def refuse(command, *, input, **named):
        assert len(json.loads(input)["texts"]) == 8
        (Path(command[-1]) / "result.json").write_text('{"error": "it cannot be."}')
        return build.subprocess.CompletedProcess((), 0)

    monkeypatch.setattr(build.subprocess, "run", refuse)
    given = settings(tiny_base, tiny_pivot, tmp_path, *LORA, f"cache={tmp_path}/cache")
    (job,) = (point.job for point in plan(given).systems if point.role == "finetuned")
    with pytest.raises(UserError, match=r"^it cannot be\.$"):
        finetuned.trained(session(), given, job)
    assert list((given.cache / "finetuned").iterdir()) == []


def _one_label(data):
    return tuple(replace(one, label=0) if one.split == "train" else one for one in data.examples)


def _without(split):
    return lambda data: tuple(one for one in data.examples if one.split != split)


@pytest.mark.parametrize(
    ("more", "fields", "words"),
    [
        ((), {"examples": _without("train")}, r"finetune=lora: task=mortality has no examples in the train split"),
        ((), {"examples": _one_label}, r"both outcomes are needed, but of the 8 examples of the train split 0 are pos"),
        (("finetune.examples=900",), {}, r"finetune\.examples=900: the train split has \d+\. Give no more"),
        (("finetune.patience=1", "splits=[test]"), {"examples": _without("pilot")}, r"pilot split.*patience=null"),
        (("finetune.patience=1", "finetune.pilot_examples=99"), {}, r"finetune\.pilot_examples=99: the pilot split"),
        (("finetune.max_tokens=20",), {}, r"finetune\.max_tokens=20 is too small for the question, its answer"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_refused_before_training(
    tiny_base, tiny_pivot, tmp_path, give, never, more, fields, words
):
    give(**fields)
    with pytest.raises(UserError, match=words):
        run(settings(tiny_base, tiny_pivot, tmp_path, *LORA, *more))


def test_a_task_without_answers_to_choose_from_is_refused(tiny_base, tiny_pivot, tmp_path):
    given = settings(tiny_base, tiny_pivot, tmp_path, *LORA)
    context = replace(plan(given).context, kind=kind_named("ranking"))
    with pytest.raises(UserError, match=r"finetune=lora: task=mortality has no answers to teach"):
        finetuned.rows(given.finetune, context)


def test_a_mark_goes_with_the_folder_that_a_source_names(tmp_path):
    mark(tmp_path)
    assert holds_patients(ModelSource("it", str(tmp_path)))
    assert holds_patients(ModelSource("it", "org/name", adapter=str(tmp_path)))
    (tmp_path / "it.gguf").touch()
    assert holds_patients(ModelSource("it", str(tmp_path / "it.gguf")))
    assert not holds_patients(ModelSource("it", "org/name"))
    assert not holds_patients(ModelSource("it", None))


def test_the_cost_is_said_in_one_line_of_what_was_measured():
    facts = {"steps": 4, "tokens": 900, "seconds": 30.0, "peak_memory_bytes": 2_500_000_000,
             "peak_gpu_memory_bytes": None, "energy_joules": None}  # fmt: skip
    assert finetuned.cost("lora(base)", facts, 0.5) == (
        "lora(base): 4 steps, 900 tokens, 30.0 s (60 times the 0.50 s of merging), 2.50 GB of memory at its peak"
    )
    facts |= {"peak_gpu_memory_bytes": 10**9, "energy_joules": 7200.0}
    assert finetuned.cost("it", facts, None).endswith(
        "30.0 s, 2.50 GB of memory at its peak, 1.00 GB of the GPU's, 2.00 Wh of the whole processor"
    )
