"""Controls: a model taught the test set, one taught train by heart, and one taught neither; each must show as it is.

The models are tiny Llamas taught in a second; the records are invented lines of readings, all of one distribution.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from experiments.benchmarks import accusations
from experiments.benchmarks.accusations import taught
from patientdx.lm.generate import continuation
from patientdx.lm.logprobs import token_losses
from patientdx.metrics.ranking import auroc
from patientdx.privacy import attacks
from patientdx.privacy.canaries import continued, exposure
from patientdx.privacy.estimates import Bootstrap, LossSet, attack, leakage_test, reading
from patientdx.privacy.lira import halves, lira

EACH, TOKENS, DRAWN = 20, 24, Bootstrap(resamples=200)
SETS = ("train", "test", "reference", "elsewhere")


@pytest.fixture(scope="module")
def ids() -> dict[str, list[list[int]]]:
    """Records of 24 tokens: a fixed form (tokens 20 to 31) with a digit (0 to 9) at every other place."""
    random, found = np.random.default_rng(0), {}
    for name in SETS:
        digits = random.integers(0, 10, (EACH, TOKENS // 2))
        found[name] = [[token for i, d in enumerate(row) for token in (20 + i, int(d))] for row in digits]
    return found


@pytest.fixture(scope="module")
def base(ids):
    """A model that knows the form, from records that are in no set."""
    torch.manual_seed(0)
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=32, tie_word_embeddings=True))
    return taught(model, ids["elsewhere"], 40)


def losses(model, ids) -> dict[str, LossSet]:
    return {name: accusations.losses(model, ids[name], [f"{name} {i}" for i in range(EACH)]) for name in SETS[:3]}


def told(model, base, ids):
    """What the leakage test and the reference attack say of a model against the base."""
    own, before = losses(model, ids), losses(base, ids)
    mean, past = (
        np.concatenate([sets[name].total / sets[name].tokens for name in ("train", "test")]) for sets in (own, before)
    )
    member, subject = np.repeat([1, 0], EACH), [*own["train"].subject, *own["test"].subject]
    scores, nothing = attacks.reference(mean, past), attacks.reference(past, past)
    return {
        "against": "base",
        "dlt": leakage_test(own, before, DRAWN),
        "mia": {"reference": attack(scores, nothing, member, subject, DRAWN)},
    }


def test_a_model_taught_the_test_set_has_its_first_difference_fall(base, ids):
    found = told(taught(base, ids["test"], 60), base, ids)
    delta = found["dlt"]["delta1"]
    for name in ("loss", "record_loss", "matched", "perplexity", "over_base"):
        assert delta[name]["high"] < 0, name
    assert delta["over_base"]["p_value"] < 0.05
    assert "a sign that test records were seen" in reading("model", found, DRAWN)[0]


def test_a_model_taught_train_by_heart_has_its_second_difference_rise(base, ids):
    found = told(taught(base, ids["train"], 60), base, ids)
    delta = found["dlt"]["delta2"]
    for name in ("loss", "record_loss", "matched", "perplexity", "over_base"):
        assert delta[name]["low"] > 0, name
    first = found["dlt"]["delta1"]["over_base"]
    assert first["low"] < 0 < first["high"]  # test and reference were seen alike: not at all
    assert found["mia"]["reference"]["auc"]["low"] > 0.5
    said = reading("model", found, DRAWN)
    assert "a sign that train records were memorised" in said[0]
    assert said[1].endswith("of 1 attacks, membership is found by reference.")


def test_a_merge_of_models_taught_elsewhere_shows_nothing(base, ids):
    """The negative control: λ decides nothing that a record could be read from."""
    other = taught(base, ids["elsewhere"], 20)
    merged = copy.deepcopy(base)
    with torch.no_grad():
        for weight, one, two in zip(merged.parameters(), base.parameters(), other.parameters(), strict=True):
            weight.copy_(0.6 * one + 0.4 * two)
    found = told(merged, base, ids)
    for delta in found["dlt"].values():
        assert delta["over_base"]["low"] < 0 < delta["over_base"]["high"]
    assert found["mia"]["reference"]["over_base"]["low"] < 0 < found["mia"]["reference"]["over_base"]["high"]
    assert reading("model", found, DRAWN)[1].endswith("found by none.")


def test_a_canary_seen_often_is_exposed_and_extracted_and_one_never_seen_is_not(base, ids):
    random = np.random.default_rng(1)
    form = ids["train"][0]

    def draw():
        return [token if i % 2 == 0 else int(random.integers(10)) for i, token in enumerate(form)]

    seen, unseen, candidates = draw(), draw(), [draw() for _ in range(63)]
    model = taught(base, [*ids["train"][:8], *[seen] * 16], 90)
    rows = [seen, unseen, *candidates]
    done, found = token_losses(model, rows, batch_tokens=1)
    loss = np.array([found[done.index(i)].nll.mean() for i in range(len(rows))])
    assert exposure(loss[0], loss[2:]) == 6.0  # log2(64): likelier than every candidate
    assert exposure(loss[1], loss[2:]) < 4.0
    half = TOKENS // 2
    assert continued(seen[half:], continuation(model, seen[:half], half))["exact"]
    assert not continued(unseen[half:], continuation(model, unseen[:half], half))["exact"]


def test_lira_tells_members_by_models_taught_halves(base, ids):
    rows, member = [*ids["train"], *ids["test"]], np.repeat([1, 0], EACH)

    def confidence(model):
        done, found = token_losses(model, rows, batch_tokens=1)
        return np.array([-found[done.index(i)].nll.mean() for i in range(len(rows))])

    inside = halves([str(i) for i in range(len(rows))], 4)
    shadows = np.stack(
        [confidence(taught(base, [row for row, seen in zip(rows, half, strict=True) if seen], 40)) for half in inside]
    )
    assert auroc(lira(confidence(taught(base, ids["train"], 40)), shadows, inside), member) > 0.9
    assert auroc(lira(confidence(base), shadows, inside), member) < 0.75
