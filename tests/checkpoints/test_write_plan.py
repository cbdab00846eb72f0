"""What is refused before a weight is read, and what a dry run says."""

import json
import re

import pytest
import torch
from merged_folders import recipe_of, sources
from safetensors.torch import save_file

from patientdx.checkpoints.estimate import estimate
from patientdx.checkpoints.layout import header_bytes, index, lay_out
from patientdx.checkpoints.merge_plan import Recipe
from patientdx.checkpoints.reader import Checkpoint, TensorHeader
from patientdx.checkpoints.save import save
from patientdx.checkpoints.write_plan import plan_write
from patientdx.checkpoints.writer import FORMAT
from patientdx.core.errors import UserError
from patientdx.merge import ties
from patientdx.merge.linear import linear
from patientdx.merge.none import none
from patientdx.merge.schedule import schedule
from patientdx.merge.slerp import slerp


def refusal(recipe, tmp_path, **given):
    with pytest.raises(UserError) as caught:
        plan_write(recipe, tmp_path / "merged", cache=tmp_path, **given)
    return str(caught.value)


@pytest.fixture(scope="module")
def pair(tiny_base, tiny_pivot):
    return tiny_base, tiny_pivot


def test_dtypes_and_shards_that_cannot_be(pair, tmp_path):
    recipe = recipe_of(*pair)
    assert refusal(recipe, tmp_path, dtype="int8") == (
        "save_dtype=int8 cannot be written: give bfloat16, float16, float32, or none for the base's own."
    )
    assert refusal(recipe, tmp_path, shard_bytes=0) == (
        "shard_bytes=0 holds no tensor: give the bytes of one file, as 5000000000."
    )


@pytest.mark.parametrize(
    ("method", "weight", "words"),
    [
        (slerp, 1.5, "lambda=1.5 of model.embed_tokens.weight is outside [0, 1] of merge=slerp."),
        (
            slerp,
            schedule({"mlp": 2, "rest": 0.5}),
            "lambda=2 of model.layers.0.mlp.down_proj.weight is outside [0, 1] of merge=slerp.",
        ),
        (linear, None, "merge=linear needs a λ: give lambda=<a number from 0 to 1>."),
        (none, 0.3, "lambda=0.3: merge=none has no λ. Leave lambda out."),
        (
            slerp,
            schedule({"mlp": 0.5}),
            'lambda has no value for model.embed_tokens.weight: add "*" for the tensors that no filter names',
        ),
    ],
)
def test_a_lambda_that_cannot_be(pair, tmp_path, method, weight, words):
    assert refusal(recipe_of(*pair, method=method, weight=weight), tmp_path) == words


def folder_with(place_, tensors, **config):
    place_.mkdir()
    (place_ / "config.json").write_text(json.dumps(config))
    save_file(tensors, place_ / "model.safetensors")
    return Checkpoint(place_)


def test_quantised_parents_are_refused(tmp_path):
    plain = folder_with(tmp_path / "a", {"w": torch.ones(2)})
    packed = folder_with(tmp_path / "b", {"w": torch.ones(2)}, quantization_config={"quant_method": "gptq"})
    described = sources(first=plain.folder, second=packed.folder)
    assert refusal(Recipe((plain, packed), ("w",), linear, weight=0.5), tmp_path, sources=described) == (
        "second is quantised (gptq), and quantised weights cannot be merged: give the model that it was made from, in "
        "bfloat16, float16 or float32."
    )


def test_weights_of_eight_bits_are_refused(tmp_path):
    eight = folder_with(tmp_path / "a", {"w": torch.ones(2).to(torch.float8_e4m3fn)})
    assert refusal(Recipe((eight, eight), ("w",), linear, weight=0.5), tmp_path) == (
        f"{tmp_path}/a stores w as float8_e4m3fn, which is no plain floating-point number: give a copy in "
        "bfloat16, float16 or float32."
    )


def huge(folder):
    """A sharded Llama 8B of true headers whose 16 GB of data are holes."""
    shapes = {"model.embed_tokens.weight": (128256, 4096), "lm_head.weight": (128256, 4096)}
    for layer in range(32):
        start = f"model.layers.{layer}."
        shapes |= {f"{start}{name}_layernorm.weight": (4096,) for name in ("input", "post_attention")}
        shapes |= {f"{start}mlp.{name}_proj.weight": (14336, 4096) for name in ("gate", "up")}
        shapes |= {f"{start}mlp.down_proj.weight": (4096, 14336)}
        shapes |= {f"{start}self_attn.{name}_proj.weight": (4096, 4096) for name in "qo"}
        shapes |= {f"{start}self_attn.{name}_proj.weight": (1024, 4096) for name in "kv"}
    shapes["model.norm.weight"] = (4096,)
    headers = [
        TensorHeader(name, shape, torch.bfloat16, folder, 0, 2 * torch.Size(shape).numel())
        for name, shape in shapes.items()
    ]
    shards = lay_out(headers, 5_000_000_000, FORMAT)
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(index(shards))
    for shard in shards:
        head, _ = header_bytes(shard.tensors, folder, FORMAT)
        with (folder / shard.name).open("wb") as handle:
            handle.write(head)
            handle.truncate(shard.nbytes)
    return folder


def test_eight_billion_parameters_are_laid_out_without_reading_a_weight(tmp_path, monkeypatch):
    folders = [huge(tmp_path / name) for name in ("a", "b")]

    def read(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr(Checkpoint, "read", read)
    monkeypatch.setattr(Checkpoint, "read_bytes", read)
    plan = plan_write(recipe_of(*folders), tmp_path / "merged", cache=tmp_path / "cache")
    assert len(plan.shards) == 9
    assert max(shard.nbytes for shard in plan.shards) < 2_000_100_000
    assert plan.nbytes > 2 * 8_030_261_248
    assert not (tmp_path / "merged").exists()


def test_a_dry_run_says_what_a_merge_takes_and_leaves_nothing(pair, tmp_path):
    given = {"cache": tmp_path / "cache", "sources": sources(instruct=pair[0], numeric=pair[1]), "threads": 2}
    found = estimate(plan_write(recipe_of(*pair), tmp_path / "merged", **given))
    lines = str(found).splitlines()
    size = (pair[0] / "model.safetensors").stat().st_size
    assert found.parameters == sum(header.nbytes // 2 for header in Checkpoint(pair[0]).tensors.values())
    assert found.reads == 4 * found.parameters
    assert 0 < found.writes - size < 100_000
    assert lines[0] == "merge      slerp λ=0.4 of instruct and numeric"
    assert lines[1] == "model      LlamaForCausalLM, 20 tensors, 0.00 billion parameters, bfloat16"
    assert lines[2] == "vocabulary 420, output head shares the embedding"
    assert lines[3] == "reads      0.00 GB in 2 files"
    assert re.fullmatch(rf"writes     0\.00 GB in 1 file to {tmp_path}/merged, [\d.]+ GB free", lines[4])
    assert re.fullmatch(r"memory     [\d.]+ GB of its own; the parents are mapped, not loaded", lines[5])
    assert re.fullmatch(
        r"time       about \d+ s: 0\.00 GB took [\d.]+ s with 2 threads, checksums and disk included", lines[6]
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_what_is_there_and_of_what_cannot_be_tried(pair, tmp_path):
    folder = save(recipe_of(*pair), tmp_path / "merged", cache=tmp_path / "cache")
    assert str(estimate(plan_write(recipe_of(*pair), folder, cache=tmp_path / "cache"))).endswith(
        "time       none, it is there already"
    )
    trimmed = recipe_of(*pair, method=ties.ties, weight=1.0, ancestor=Checkpoint(pair[0]))
    assert str(estimate(plan_write(trimmed, tmp_path / "other", cache=tmp_path / "cache"))).endswith(
        "time       unknown: merge=ties may look at whole models before it joins a tensor"
    )
    with pytest.raises(UserError, match="holds another merge"):
        estimate(plan_write(trimmed, folder, cache=tmp_path / "cache"))


def test_a_tensor_too_large_to_try_makes_the_time_unknown(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("patientdx.checkpoints.estimate.TRIED", 10)
    assert str(estimate(plan_write(recipe_of(*pair), tmp_path / "merged", cache=tmp_path / "cache"))).endswith(
        "time       unknown: no tensor (of those that merge=slerp joins together) has less than 0.00 GB"
    )
