"""BERTScore against its equations written out, and encoders that will not do."""

import shutil

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from patientdx.core.errors import UserError
from patientdx.lm.bertscore import bertscore, load_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tiny_base, tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                            intermediate_size=16, max_position_embeddings=24, initializer_range=0.5)  # fmt: skip
        BertModel(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def by_hand(encoder, text: str, reference: str) -> float:
    """Equations 1 to 3 of Zhang et al., token by token, each text on its own."""
    sides = []
    for one in (text, reference):
        ids = encoder.tokenizer(one, return_tensors="pt")["input_ids"][:, : encoder.limit]
        sides.append(encoder.model(input_ids=ids).last_hidden_state[0])
    cosine = [[float(torch.cosine_similarity(a, b, dim=0)) for b in sides[1]] for a in sides[0]]
    precision = sum(max(row) for row in cosine) / len(cosine)
    recall = sum(max(row[j] for row in cosine) for j in range(len(cosine[0]))) / len(cosine[0])
    return 2 * precision * recall / (precision + recall)


def test_it_is_what_the_equations_say_however_texts_are_put_together(folder):
    encoder = load_encoder(str(folder), CPU)
    texts = ["The heart rate is 118", "No", "sodium of 139 mEq/L, outside the interval", "lactate " * 30]
    references = ["Heart rate 118 bpm", "yes, the patient does", "No", "The quick brown fox " * 10]
    found = bertscore(encoder, texts, references)
    with torch.inference_mode():
        assert found == pytest.approx(
            [by_hand(encoder, a, b) for a, b in zip(texts, references, strict=True)], abs=1e-5
        )
    assert bertscore(encoder, texts, texts) == pytest.approx([1.0] * 4)
    assert bertscore(encoder, ["", "No"], ["No", "No"]) == [0.0, pytest.approx(1.0)]


@pytest.mark.parametrize("kept", [0, 5, 4000])
def test_weights_that_were_not_copied_whole_are_refused(folder, tmp_path, kept):
    place = tmp_path / "half"
    shutil.copytree(folder, place)
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"task\.bertscore=.*half cannot be loaded as an encoder: ."):
        load_encoder(str(place), CPU)


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(UserError, match=r"task\.bertscore=.* cannot be loaded as an encoder: "):
        load_encoder(str(tmp_path), CPU)
