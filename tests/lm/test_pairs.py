"""Yes/no of pairs: a document runs once, and the scores are those of every prompt read alone."""

import numpy as np
import pytest
import torch

from patientdx.lm.binary import score
from patientdx.lm.load import load_model, load_tokenizer
from patientdx.lm.prompts import tokenise
from patientdx.lm.ranking import score_pairs, tokenise_pairs
from patientdx.tasks.clinical import OPTIONS

DOCUMENTS = ("Heart rate 118 bpm (60-100), lactate 2.4 mmol/L.", "Sodium 139 mEq/L (136-145).", "Nothing.")
ASKED = ((0, "high heart rate"), (1, "high heart rate"), (0, "sodium"), (2, "sodium"), (0, "a lactate above 2"))


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(tiny_base, dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def pairs(tokenizer):
    parts = [("Text:\n", DOCUMENTS[d], f"\n\nSearch: {query}\nYes or No?") for d, query in ASKED]
    return parts, tokenise_pairs(tokenizer, parts, OPTIONS, [d for d, _ in ASKED])


def test_scores_are_those_of_prompts_read_one_by_one(tokenizer, model, pairs):
    parts, prompts = pairs
    plain = tokenise(tokenizer, parts, OPTIONS)
    assert (prompts.ids, prompts.options) == (plain.ids, plain.options)
    places, alone = score(model, plain, range(5), batch_tokens=1)
    wanted = dict(zip(places, alone, strict=True))
    for size in (1, 4096):
        places, found = score_pairs(model, prompts, range(5), batch_tokens=size)
        assert sorted(places) == list(range(5))
        for place, row in zip(places, found, strict=True):
            assert row == pytest.approx(wanted[place], abs=1e-4)


def test_a_document_runs_once(model, pairs, monkeypatch):
    _, prompts = pairs
    assert len(DOCUMENTS[0]) // 3 < prompts.prefixes[0] < min(len(prompts.ids[i]) for i in (0, 2, 4))
    assert prompts.prefixes[1] == prompts.prefixes[2] == 0  # nothing to shard
    read = []
    forward = type(model.get_decoder()).forward

    def counted(self, *arguments, input_ids, **rest):
        read.append(input_ids.numel())
        return forward(self, *arguments, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(model.get_decoder()), "forward", counted)
    score_pairs(model, prompts, range(5), batch_tokens=1)
    total = sum(map(len, prompts.ids))
    assert sum(read) == total - 2 * prompts.prefixes[0]


def test_shards_of_several_processes_make_up_the_whole(model, pairs):
    _, prompts = pairs
    rows = [1, 2, 3, 4]
    places, whole = score_pairs(model, prompts, rows, batch_tokens=1)
    wanted = whole[np.argsort(places)]
    found = np.empty_like(whole)
    for rank in range(3):
        own, values = score_pairs(model, prompts, rows, batch_tokens=1, shard=(rank, 3))
        found[own] = values
    assert found == pytest.approx(wanted, abs=1e-6)
    assert score_pairs(model, prompts, [], batch_tokens=1)[1].shape == (0, 2)


def test_other_documents_are_another_tokenization(tokenizer, pairs):
    parts, prompts = pairs
    other = tokenise_pairs(tokenizer, parts, OPTIONS, [0, 1, 2, 3, 4])
    assert other.ids == prompts.ids
    assert other.fingerprint != prompts.fingerprint
