"""Every method that has a yaml, on whole models: tied heads and heads of their own, grouped and single attention."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from merged_folders import recipe_of

from patientdx.checkpoints.merge_plan import SUPPLIED
from patientdx.checkpoints.reader import Checkpoint
from patientdx.checkpoints.save import save
from patientdx.core.functions import dotted
from patientdx.merge.curve import evaluate
from patientdx.merge.method import method_spec

YAMLS = sorted((Path(__file__).parents[2] / "conf/merge").glob("*.yaml"))
KINDS = {
    "grouped, tied": {},
    "grouped, untied": {"tie_word_embeddings": False},
    "single heads": {"num_key_value_heads": 4, "tie_word_embeddings": False, "num_hidden_layers": 3},
}


def spec(path: Path):
    return method_spec(dotted(f"patientdx.merge.{path.stem}.{path.stem}"))


every_method = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
with_lambda = pytest.mark.parametrize("path", [p for p in YAMLS if spec(p).lambda_range], ids=lambda path: path.stem)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def models(make_tiny) -> dict[str, tuple[Path, Path, Path]]:
    """Ancestor, base and pivot of each kind."""
    made = {}
    for kind, config in KINDS.items():
        made[kind] = tuple(make_tiny(**config, noise_seed=noise) for noise in (None, 1, 2))
    return made


def recipe(path: Path, parents, ancestor, weight=None, seed=0):
    """The merge that the yaml asks for, at its own λ unless another is given."""
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    node = {key: value for key, value in whole["merge"].items() if key not in ("name", "_target_")}
    method = dotted(whole["merge"]["_target_"])
    named = [name for name in inspect.signature(method).parameters if name in SUPPLIED]
    has_weight = spec(path).lambda_range is not None
    return recipe_of(
        *parents,
        method=method,
        weight=(whole["lambda"] if weight is None else weight) if has_weight else None,
        arguments=node,
        seed=seed,
        ancestor=Checkpoint(ancestor) if "ancestor" in named else None,
    )


def weights(found, groups=None) -> dict[str, bytes]:
    """The merged tensors in the dtype of the base, worked out in memory."""
    made = {}
    for group in found.groups if groups is None else groups:
        for name, curve in found.curves(group).items():
            header = found.parents[0].tensors[name]
            out = evaluate(curve, found.weight_of(name), torch.empty(header.shape, dtype=header.dtype))
            made[name] = out.view(-1).view(torch.uint8).numpy().tobytes()
    return made


def stored(folder: Path) -> dict[str, bytes]:
    opened = Checkpoint(folder)
    return {name: opened.read_bytes(name).numpy().tobytes() for name in opened.tensors}


@every_method
@every_kind
def test_what_is_written_loads_and_is_what_is_merged_in_memory(path, kind, models, session_cache, tmp_path):
    from transformers import AutoModelForCausalLM

    ancestor, *pair = models[kind]
    found = recipe(path, pair, ancestor)
    folder = save(found, tmp_path / "merged", cache=session_cache)
    assert stored(folder) == weights(found)
    tied = KINDS[kind].get("tie_word_embeddings", True)
    assert ("lm_head.weight" in stored(folder)) != tied
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


@every_method
@every_kind
def test_a_model_merged_with_itself_is_itself(path, kind, models):
    ancestor, base, _ = models[kind]
    draws = "seed" in inspect.signature(dotted(f"patientdx.merge.{path.stem}.{path.stem}")).parameters
    trims = draws or path.stem in {"ties", "breadcrumbs", "breadcrumbs_ties", "sce", "task_arithmetic"}
    # What drops or adds elements of the way from the ancestor comes back to a model that never left it.
    start = base if trims else ancestor
    assert weights(recipe(path, [base, base], start)) == stored(base)


@with_lambda
@every_kind
def test_lambda_0_is_where_the_curve_begins(path, kind, models):
    ancestor, *pair = models[kind]
    starts_at = ancestor if recipe(path, pair, ancestor).ancestor is not None and not spec(path).exact_ends else pair[0]
    assert weights(recipe(path, pair, ancestor, weight=0.0)) == stored(starts_at)
    if spec(path).exact_ends:
        assert weights(recipe(path, pair, ancestor, weight=1.0)) == stored(pair[1])


@every_method
def test_order_threads_and_processes_change_no_byte(path, models, session_cache, tmp_path):
    ancestor, *pair = models["grouped, untied"]
    found = recipe(path, pair, ancestor)
    expected = weights(found)
    assert weights(found, reversed(found.groups)) == expected
    for rank in (1, 0):
        save(found, tmp_path / "two", cache=session_cache, process=(rank, 2), shard_bytes=20_000, threads=3)
    assert stored(tmp_path / "two") == expected


@every_method
def test_a_seed_changes_what_draws_and_nothing_else(path, models):
    ancestor, *pair = models["grouped, tied"]
    one, other = (weights(recipe(path, pair, ancestor, seed=seed)) for seed in (0, 1))
    draws = "seed" in inspect.signature(dotted(f"patientdx.merge.{path.stem}.{path.stem}")).parameters
    assert (one != other) == draws
