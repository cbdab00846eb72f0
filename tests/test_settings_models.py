"""Which models a config names: parents, their ancestor, and tabular models."""

import inspect

import pytest
from test_settings import composed, errors

from patientdx.evaluation.config.run_config import parse

TABULAR = ("tabular_gbm", "tabular_logistic")
SCORES = ("sofa", "oasis", "news2")
TUNED = tuple(f"{name}_tuned{end}" for name in TABULAR for end in ("", "_train_pilot"))
ALL = tuple(sorted((*TABULAR, *SCORES, *TUNED)))


@pytest.mark.parametrize(
    ("base", "pivot", "ancestor"),
    [
        ("smollm2_135m_instruct", "smollm2_135m_numeric", "smollm2_135m_instruct"),  # the base itself
        ("llama_3_1_8b_instruct", "gatortron_llama", "llama_3_1_8b"),  # a third that both name
        ("mistral_7b_instruct_v0_1", "biomistral_7b", None),
    ],
)
def test_the_ancestor_is_the_one_that_all_parents_name(base, pivot, ancestor):
    cfg = composed("merge=ties", f"base_model={base}", f"pivot_model={pivot}")
    if ancestor is None:
        assert "they name no common one" in errors(cfg)[0]
    else:
        assert parse(cfg).merge.ancestor.name == ancestor
    assert parse(composed(f"base_model={base}", f"pivot_model={pivot}")).merge.ancestor is None  # slerp sets none


def test_an_ancestor_can_be_given():
    assert parse(composed("merge=ties", "base_model@ancestor=llama_3_1_8b")).merge.ancestor.name == "llama_3_1_8b"


def test_further_parents():
    (third,) = parse(composed("merge=linear", "extra_models=[/models/third]")).merge.extra
    assert (third.name, third.source) == ("third", "/models/third")


@pytest.mark.parametrize(
    ("words", "names", "needed"),
    [
        ([], (*TABULAR, *SCORES), False),
        (["baselines=all"], ALL, True),
        (["baselines=[]"], (), True),
        (["baselines=tabular_logistic"], TABULAR[1:], True),
        (["baselines=[tabular_logistic,tabular_gbm,tabular_logistic]"], TABULAR[::-1], True),
        (["model=tabular_gbm"], TABULAR[:1], True),
        (["model=tabular_gbm", "baselines=[tabular_logistic,tabular_gbm]"], TABULAR, True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_tabular_models(words, names, needed):
    config = parse(composed(*words))
    assert (tuple(name for name, _ in config.systems.baselines), config.systems.needs_features) == (names, needed)
    assert (config.systems.model, config.method) == (
        ("merged", "slerp") if words[:1] != ["model=tabular_gbm"] else TABULAR[:1] * 2
    )


def test_a_tabular_model_alone_takes_its_keys_and_leaves_those_of_a_merge_out_of_its_record():
    config = parse(composed("model=tabular_gbm", "model.max_iter=7"))
    ((_, call),) = config.systems.baselines
    assert (call.target, call.keywords["max_iter"]) == ("patientdx.training.tabular.tabular_gbm", 7)
    assert config.weight is None
    assert config.composed["model"]["max_iter"] == 7
    assert not {"merge", "lambda", "base_model", "pivot_model", "dtype", "scoring"} & config.composed.keys()
    assert {"task", "seed", "bootstrap", "splits"} <= config.composed.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_baseline_is_what_its_yaml_says(name):
    alone, beside = parse(composed(f"model={name}")), parse(composed(f"baselines={name}"))
    assert alone.systems.baselines == beside.systems.baselines
    ((_, call),) = beside.systems.baselines
    defaults = {key: one.default for key, one in inspect.signature(call.function).parameters.items()}
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in call.keywords.items()}
    own = {"score": name} if name in SCORES else {"fit_on": ("train", "pilot")} if name.endswith("pilot") else {}
    assert given == {key: value for key, value in defaults.items() if key != "seed"} | own


def test_a_pair_beside_a_study_is_accepted_with_parents_of_the_command():
    overrides = ["pair=patientdx_7b", "base_model=x", "pivot_model.source=y"]
    config = parse(composed("experiment=fewshot", "pair=patientdx_7b"), overrides=overrides)
    assert config.merge.base.name == "smollm2_135m_numeric"
