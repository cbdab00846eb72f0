"""Each parent is scored as transformers runs it alone, and what cannot be is refused in words."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_line import settings
from in_process import new_session, plan, run
from plain_forward import plain_scores

from patientdx.checkpoints.reader import Checkpoint
from patientdx.core.errors import UserError
from patientdx.evaluation.seal import read_sealed
from patientdx.lm.load import load_tokenizer

LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip
ARCHITECTURES = {
    "llama": {}, "llama 3.1": {"kind": "llama", "rope_parameters": LLAMA3}, "mistral": {"sliding_window": 24},
    "qwen2": {}, "qwen3": {"head_dim": 8}, "gemma2": {"head_dim": 8, "sliding_window": 24, "query_pre_attn_scalar": 8},
    "phi3": {}, "olmo2": {}, "granite": {"logits_scaling": 2.0, "attention_multiplier": 0.3},
    "mixtral": {"num_local_experts": 4},
}  # fmt: skip
REFUSED = {
    "mixtral": "is a mixture of experts",
    "gemma2": "final_logit_softcapping",
    "granite": "logits_scaling",
}


def build(folder: Path, tokenizer: Path, kind: str, seed: int, **config) -> Path:
    """A random model of two layers of width 32 with the tiny tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    words = load_tokenizer(tokenizer)
    values = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 2048, "tie_word_embeddings": True,
              "initializer_range": 0.2, "vocab_size": len(words), "bos_token_id": words.bos_token_id,
              "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}  # fmt: skip
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(values | config)), dtype=torch.float32)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def margins_alone(folder: Path, prompts) -> np.ndarray:
    """(n, 2) log masses of the options, by transformers' own forward pass of each prompt alone."""
    from transformers import AutoModelForCausalLM

    return plain_scores(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), prompts)


def stored(folder: Path, key: str) -> np.ndarray:
    table = pq.read_table(folder / "scores" / f"{key}.parquet")
    return np.stack([column.to_numpy() for column in table.columns], axis=1)


def scored(base: Path, pivot: Path, output: Path, *words: str):
    """The settings of a small run, its plan and its result."""
    config = settings(base, pivot, output, "splits=[test]", "task.synthetic.stays=24", "lambda=0.3", *words)
    with new_session():
        return config, plan(config), run(config)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ten_architectures_alone_and_through_us(name, tiny_base, tmp_path):
    config = dict(ARCHITECTURES[name])
    kind = config.pop("kind", name)
    base, pivot = (build(tmp_path / part, tiny_base, kind, seed, **config) for seed, part in enumerate("ab"))
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            scored(base, pivot, tmp_path / "out")
        return
    given, planned, _ = scored(base, pivot, tmp_path / "out")
    rows = planned.context.rows["test"]
    for role, folder in (("base", base), ("pivot", pivot)):
        alone = margins_alone(folder, planned.context.prompts)[rows]
        assert np.abs(stored(given.output, planned.keys[role, "test"]) - alone).max() < 1e-4


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, "rope_parameters"),
        ({"rope_parameters": LLAMA3}, "rope_parameters"),
        ({"rms_norm_eps": 0.1}, "rms_norm_eps"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"never_heard_of": 3}, "never_heard_of"),
    ],
)
def test_parents_that_compute_differently(changed, word, tiny_base, make_tiny, tmp_path):
    """Refused with both values; with config_from the merge has the one that is named, and each parent its own."""
    base, pivot = make_tiny(dtype=torch.float32), tmp_path / "pivot"
    shutil.copytree(make_tiny(noise_seed=1, dtype=torch.float32), pivot)
    file = pivot / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UserError, match=rf"compute differently(.|\n)*{word}: (.|\n)*config_from=base"):
        scored(base, pivot, tmp_path / "out")
    responses = {}
    for config_from in ("base", "pivot"):
        given, planned, result = scored(base, pivot, tmp_path / "out", f"config_from={config_from}")
        told = json.loads((result.folder / "provenance.json").read_text())["merge"]
        assert (told["config_from"], word in told["config_differences"][0]) == (config_from, True)
        rows = planned.context.rows["test"]
        for role, folder in (("base", base), ("pivot", pivot)):
            alone = margins_alone(folder, planned.context.prompts)[rows]
            assert np.abs(stored(given.output, planned.keys[role, "test"]) - alone).max() < 1e-4
        responses[config_from] = stored(given.output, planned.keys["merged", "test"])
    if word != "never_heard_of":
        assert np.abs(responses["base"] - responses["pivot"]).max() > 1e-4


@pytest.mark.parametrize(
    "changed",
    [{"use_cache": False}, {"attention_dropout": 0.5}, {"eos_token_id": 1}, {"max_position_embeddings": 4096}],
)
def test_values_that_cannot_matter_do_not(changed, tiny_base, tiny_pivot, tmp_path):
    pivot = shutil.copytree(tiny_pivot, tmp_path / "pivot")
    file = pivot / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    _, planned, result = scored(tiny_base, pivot, tmp_path / "out")
    assert planned.context.opened.differences == []
    assert read_sealed(result.folder)["rows"]
    assert Checkpoint(pivot).config != Checkpoint(tiny_pivot).config


def test_one_model_under_two_names_is_said(tiny_base, tiny_pivot, tmp_path, caplog):
    copy = shutil.copytree(tiny_base, tmp_path / "copy")
    with new_session() as session:
        for pivot, words in (
            (tiny_pivot, ""),
            (copy, "unknown_pivot has the content of unknown_base: the two are one"),
        ):
            caplog.clear()
            config = settings(tiny_base, pivot, tmp_path / "out")
            assert len(session.parents(config.merge_config.spec, config.cache).hashes) == 2
            assert words in caplog.text
            assert bool(words) == ("the two are one model" in caplog.text)
