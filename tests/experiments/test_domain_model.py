"""A domain model made on a tiny base, and the two studies that merge it, from the first command to the last table."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from command_line import ROOT, parsed
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from in_process import change_task, plan, run
from training_here import one_thread, train_here

from experiments import domain_model, fewshot, forgetting
from patientdx.checkpoints.patient_mark import MARK
from patientdx.checkpoints.reader import Checkpoint
from patientdx.cli import sweep_order
from patientdx.core.errors import UserError
from patientdx.evaluation.config.run_config import parse
from patientdx.evaluation.store import write_json, write_sealed_json

HOSPITAL = "task.synthetic={stays: 40, seed: 1}"
QUICK = ("finetune.batch=4", "finetune.micro_batch_size=4", "finetune.learning_rate=5e-3", "task.threads=1")


@pytest.fixture(autouse=True, scope="module")
def trained_here():
    """Trains in this process, on one thread; the list of what was trained."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        yield train_here(patch)


def command(base, where, *more: str) -> list[str]:
    """What comes after `python -m experiments.domain_model`, for the tiny base."""
    given = [f"base_model.source={base}", "base_model.adapter=null", HOSPITAL, *QUICK, f"cache={where}/cache"]
    return ["--output", str(where), "--examples", "8", *given, *more]


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """Where the domain model lies."""
    where = tmp_path_factory.mktemp("study")
    assert domain_model.main(command(tiny_base, where)) == 0
    return where


def test_it_is_a_whole_model_with_what_it_took_beside_it(made, tiny_base):
    folder = made / "domain_model"
    ours, base = Checkpoint(folder), Checkpoint(tiny_base)
    assert list(ours.tensors) == list(base.tensors)
    assert not all(torch.equal(ours.read(name), base.read(name)) for name in base.tensors)
    assert (folder / "tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()
    told = json.loads((folder / "training.json").read_text())
    assert (told["title"], told["texts"], told["steps"]) == ("lora(base) 8 on record_qa_short", 8, 2)
    assert told["seconds"] > 0
    assert told["peak_memory_bytes"] > 1e8
    assert told["task"]["settings"]["fractions"]["train"] == 0.9
    assert told["holds_patients"] is False
    assert not (folder / MARK).exists()
    origin = json.loads((folder / "provenance.json").read_text())
    assert "merge" in json.dumps(origin)
    assert str(made) not in json.dumps(told)


def test_the_same_command_trains_once_and_gives_the_same_bits_anywhere(made, tiny_base, tmp_path, trained_here, capsys):
    before, digest = len(trained_here), json.loads((made / "domain_model" / "training.json").read_text())["sha256"]
    assert domain_model.main(command(tiny_base, made)) == 0
    printed = capsys.readouterr().out
    assert f"sha256 {digest}" in printed
    assert "2 steps, " in printed
    assert "GB of memory at its peak" in printed
    assert len(trained_here) == before
    shutil.rmtree(made / "cache" / "finetuned")  # what is written needs no cache
    assert domain_model.main(command(tiny_base, made)) == 0
    assert domain_model.main(command(tiny_base, tmp_path)) == 0
    assert len(trained_here) == before + 1
    assert json.loads((tmp_path / "domain_model" / "training.json").read_text())["sha256"] == digest
    one, other = (next((where / "domain_model").glob("*.safetensors")) for where in (made, tmp_path))
    assert one.read_bytes() == other.read_bytes()


def test_another_model_does_not_take_its_place(made, tiny_base, trained_here, capsys):
    before = len(trained_here)
    assert domain_model.main(command(tiny_base, made, "finetune.seed=1")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{made}/domain_model holds another domain model (lora(base) 8 on record_qa_short): delete it" in said.err
    assert len(trained_here) == before


def test_it_is_not_asked_what_it_was_trained_on(made, tiny_base, tmp_path):
    given = ["task=record_qa_short", f"base_model.source={tiny_base}", "base_model.adapter=null",
             f"pivot_model.source={made}/domain_model", "pivot_model.adapter=null", "splits=[test]", "tracking=none",
             f"cache={tmp_path}/cache", f"output={tmp_path}", "task.fractions={train: 0, pilot: 0, test: 1}",
             "task.limit=null", "baselines=[]", "clinical=false"]  # fmt: skip
    same, other = (parsed(*given, f"task.synthetic={{stays: 40, seed: {seed}}}") for seed in (1, 2))
    with pytest.raises(UserError, match=r"was trained on 8 of the \d+ questions of task=record_qa that the test"):
        plan(same)
    assert plan(other).context.rows["test"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["finetune.init_from=pivot"], "a domain model is a base fine-tuned on train: leave finetune.init_from"),
        (["finetune=none"], "a domain model is a base fine-tuned on train"),
        (["no_such_group=x"], "Could not override 'no_such_group'"),
    ],
)
def test_what_cannot_be_is_one_message(tiny_base, tmp_path, words, said, capsys):
    assert domain_model.main(command(tiny_base, tmp_path, *words)) == 2
    assert said in capsys.readouterr().err


def test_clinical_dialogue_is_read_from_the_folder_that_is_named(tmp_path, capsys):
    assert domain_model.main(["--output", str(tmp_path), "--data", "/nowhere"]) == 2
    assert "data=/nowhere has no folder or file dialogue_to_section" in capsys.readouterr().err


def test_the_model_of_dialogue_lies_where_its_study_looks_for_it(tmp_path, monkeypatch, capsys):
    study = parsed("experiment=forgetting_dialogue", f"output={tmp_path}")
    told = {"fingerprint": "k", "title": "lora", "train": [[1, 2.0]], "sha256": "s", "steps": 1, "tokens": 1,
            "seconds": 1.0, "peak_memory_bytes": 1, "peak_gpu_memory_bytes": None, "energy_joules": None}  # fmt: skip
    write_json(told, tmp_path / "domain_model_dialogue" / "training.json")
    monkeypatch.setattr(domain_model, "training", lambda session, config: SimpleNamespace(key="k"))
    monkeypatch.setattr(domain_model, "taught", lambda session, config: ())
    sets = tmp_path / "sets"
    (sets / "dialogue_to_section").mkdir(parents=True)
    assert domain_model.main(["--output", str(tmp_path), "--data", str(sets)]) == 0
    printed = capsys.readouterr().out
    assert f"domain model: {study.merge.pivot.source}" in printed
    assert f"Next: python run.py experiment=forgetting_dialogue data={sets} output={tmp_path}\n" in printed


def test_patients_records_are_asked_about_first_and_mark_the_folder(tiny_base, tmp_path, monkeypatch, capsys):
    change_task(monkeypatch, lambda data: replace(data, open_data=False))
    assert domain_model.main(command(tiny_base, tmp_path)) == 2
    assert "is not open, and a model can give it away. Say save_patients=true" in capsys.readouterr().err
    assert domain_model.main(command(tiny_base, tmp_path, "save_patients=true")) == 0
    assert (tmp_path / "domain_model" / MARK).is_file()


def swept(stem: str, *more: str):
    """The settings of each job of a study with size=small, in the order that the sweep has them."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        study = [f"experiment={stem}", "size=small", *more]
        cfg = compose("config", study, return_hydra_config=True)
        words = sweep_order.ordered([f"{key}={value}" for key, value in cfg.hydra.sweeper.params.items()])
        axes = OverridesParser.create().parse_overrides(words)
        jobs = [[]]
        for axis in axes:
            one = axis.get_value_element_as_str
            values = list(axis.sweep_string_iterator()) if axis.is_sweep_override() else [one()]
            jobs = [[*job, f"{axis.get_key_element()}={value}"] for job in jobs for value in values]
        for job in jobs:
            yield parse(compose("config", [*study, *job]), sweep=True)


def studied(stem: str, made, tiny_base, *more: str) -> int:
    """Run every job in this process and leave its pointer; how many there were."""
    words = [f"base_model.source={tiny_base}", "base_model.adapter=null", f"output={made}", f"cache={made}/cache",
             "dtype=float32", "tracking=none", *more]  # fmt: skip
    place = None
    for place, settings in enumerate(swept(stem, *words)):
        folder = run(settings).folder
        state = {"folder": folder.name, "reused": False, "seconds": {}}
        write_sealed_json(state, folder.parent / "sweep" / f"{place}.json")
    return place + 1


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")


def test_forgetting_runs_and_reads(made, tiny_base, capsys, wide):
    sweep = "hydra.sweeper.params.merge=slerp"  # both methods over both tasks: the sweep itself is conf's
    assert studied("forgetting", made, tiny_base, "task.limit=4", sweep) == 6
    capsys.readouterr()
    assert forgetting.main(["--output", str(made), "--name", "forgetting_small"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "base ",
        "domain model ",
        "slerp λ=0.5",
        "domain gained",
        "forgotten, numeric_questions",
    ):
        assert line in printed, line
    assert "record_qa_short exact_match" in printed
    assert "numeric_questions accuracy" in printed
    assert (made / "forgetting_small" / "forgetting.png").read_bytes().startswith(b"\x89PNG")


def test_fewshot_runs_and_reads(made, tiny_base, capsys, wide, trained_here):
    before = len(trained_here)
    few = ("non_inferiority.merged=4", "non_inferiority.base=12", "task.limit=24", "task.synthetic.stays=120",
           "finetune.learning_rate=5e-3", "task.threads=1", "finetune.batch=4")  # fmt: skip
    sweep = "hydra.sweeper.params={finetune.init_from: 'base,merged', finetune.examples: '4,12'}"
    assert studied("fewshot", made, tiny_base, sweep, *few) == 4
    assert len(trained_here) == before + 4
    again = ("hydra.sweeper.params={finetune.init_from: 'base,merged', finetune.examples: '4'}", "finetune.steps=3",
             "name=fewshot_small_steps")  # fmt: skip
    assert studied("fewshot", made, tiny_base, *few, *again) == 2
    capsys.readouterr()
    assert fewshot.main(["--output", str(made), "--name", "fewshot_small"]) == 0
    printed = capsys.readouterr().out
    assert "auroc on test, equal epochs" in printed
    assert "auroc on test, equal steps" in printed
    assert printed.count("merged@4") >= 3
    assert "margin -0.050 fixed beforehand" in printed
    assert "64 examples" in printed
    assert (made / "fewshot_small" / "fewshot.png").read_bytes().startswith(b"\x89PNG")
    texts = {len(job.texts): job.texts for job in trained_here[before:]}
    assert texts[12][:4] == texts[4]
