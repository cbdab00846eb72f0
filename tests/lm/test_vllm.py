"""What vLLM is asked and what is made of its answers, by a stand-in of it; and what is said where it is not there."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
import torch
from command_line import tiny_settings as settings
from in_process import plan, run, session
from transformers import AutoTokenizer

from patientdx.core import extras
from patientdx.core.errors import UserError
from patientdx.evaluation.inference import Timer
from patientdx.evaluation.session import Session
from patientdx.lm import vllm
from patientdx.lm.generate import Continuation
from patientdx.lm.prompts import tokenise

PROMPTS = [("", "", text) for text in ("Is the heart rate above?", "Sodium of 139 mEq/L?", "Say No.")]


@dataclass
class Asked:
    """What the stand-in was given, in order."""

    calls: list = field(default_factory=list)


@dataclass
class Answer:
    token_ids: list
    finish_reason: str


@dataclass
class Output:
    outputs: list


@pytest.fixture
def asked(monkeypatch) -> Asked:
    """A module by vLLM's name with the two names that are used of it; every answer is two tokens of its prompt."""
    seen = Asked()

    class LLM:
        def __init__(self, **given):
            self.files = sorted(path.name for path in Path(given["model"]).iterdir())
            seen.calls.append(("LLM", given, self.files))

        def generate(self, prompts, how):
            seen.calls.append(("generate", prompts, how))
            ids = [one["prompt_token_ids"][:2] for one in prompts]
            ends = how["stop_token_ids"][:1]
            return [Output([Answer([*two, *(ends if i % 2 else [])], "stop" if i % 2 else "length")])
                    for i, two in enumerate(ids)]  # fmt: skip

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, dict
    monkeypatch.setitem(sys.modules, "vllm", module)
    return seen


def test_the_request_is_greedy_and_an_end_token_is_no_answer(asked, tiny_base):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    prompts = tokenise(tokenizer, PROMPTS, (), chat=False)
    places, found = vllm.generate(
        tiny_base, tokenizer, prompts, [2, 0, 1], length=7, stops=("\nNote:",), dtype="bfloat16"
    )
    assert places == [0, 1, 2]
    assert found == [Continuation(prompts.ids[i][:2], k == 1) for k, i in enumerate([2, 0, 1])]
    (_, engine, files), (_, texts, how) = asked.calls
    longest = max(map(len, prompts.ids)) + 7
    assert (engine["model"], engine["dtype"], engine["max_model_len"]) == (str(tiny_base), "bfloat16", longest)
    assert "model.safetensors" in files
    assert [one["prompt_token_ids"] for one in texts] == [list(prompts.ids[i]) for i in (2, 0, 1)]
    assert (how["temperature"], how["max_tokens"], how["stop"]) == (0.0, 7, ["\nNote:"])
    assert tokenizer.eos_token_id in how["stop_token_ids"]


def with_vllm(config):
    """As a machine with vLLM and a GPU has it."""
    return config.model_copy(update={"inference": config.inference.model_copy(update={"generator": "vllm"})})


def instructions(path: Path) -> Path:
    """Three prompts with an instruction each."""
    lines = [{"key": i, "prompt": f"Say {i}.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
             for i in range(3)]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_a_run_hands_over_each_model_as_a_folder_that_is_gone_afterwards(asked, tiny_base, tiny_pivot, tmp_path):
    prompts = instructions(tmp_path / "input_data.jsonl")
    words = ["task=ifeval", f"task.path={prompts}", "task.new_tokens=5", f"cache={tmp_path / 'cache'}"]
    plainly = settings(tiny_base, tiny_pivot, tmp_path / "out", *words)
    given = with_vllm(plainly)  # as a machine with vLLM and a GPU has it
    found = run(given)
    assert [row["role"] for row in found.rows] == ["merged", "base", "pivot"]
    folders = [call[1]["model"] for call in asked.calls if call[0] == "LLM"]
    assert len(set(folders)) == 3
    assert all({"config.json", "tokenizer.json"} <= set(call[2]) for call in asked.calls if call[0] == "LLM")
    assert not any((tmp_path / "cache").glob("vllm-*"))
    assert not set(plan(given).keys.values()) & set(plan(plainly).keys.values())  # its answers are its own


def test_where_it_is_not_there_it_is_refused_before_anything_is_read(monkeypatch, tiny_base, tiny_pivot, tmp_path):
    words = ["task=ifeval", "task.path=nowhere", "generator=vllm"]
    with pytest.raises(UserError, match=r"generator=vllm needs the package vllm, .*: pip install 'patientdx\[vllm\]'"):
        settings(tiny_base, tiny_pivot, tmp_path, *words)
    monkeypatch.setattr(extras, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"generator=vllm: vLLM needs a GPU, and this machine shows none"):
        settings(tiny_base, tiny_pivot, tmp_path, *words)
    with pytest.raises(UserError, match="generator=sglang"):
        settings(tiny_base, tiny_pivot, tmp_path, *words[:2], "generator=sglang")


def test_several_processes_are_refused(asked, monkeypatch, tiny_base, tiny_pivot, tmp_path):
    prompts = instructions(tmp_path / "input_data.jsonl")
    given = settings(tiny_base, tiny_pivot, tmp_path, "task=ifeval", f"task.path={prompts}", "task.new_tokens=5")
    asking = plan(given)

    class Two:
        num_processes, process_index, is_main_process = 2, 0, True
        device = torch.device("cpu")

    monkeypatch.setattr(Session, "accelerator", lambda self, device: Two())
    with pytest.raises(UserError, match=r"generator=vllm fills a GPU by itself, but 2 processes run\. Start one"):
        asking.main.respond(session(), with_vllm(given), asking.context, "test", "key", Timer())
    assert asked.calls == []
