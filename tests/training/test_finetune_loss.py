"""The loss of the targets equals that of the model's forward pass over all positions."""

import pytest
import torch

from patientdx.lm.binary import score
from patientdx.lm.load import load_model
from patientdx.lm.prompts import Prompts
from patientdx.training import loss
from patientdx.training.loss import IGNORED, evaluate_texts, inputs_and_targets, target_losses
from patientdx.training.texts import Text

OPTIONS = ((40, 41), (50,))


@pytest.fixture(scope="module")
def model(tiny_base):
    return load_model(tiny_base, dtype=torch.float32, device=torch.device("cpu")).requires_grad_(True)


def texts(loss: str) -> list[Text]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for n in (12, 30, 21):
        ids = tuple(torch.randint(5, 300, (n,), generator=generator).tolist())
        made.append(Text((*ids, 40), n if loss == "answer" else 1))
    return made


@pytest.mark.parametrize(("counted", "rows"), [("answer", 256), ("record", 256), ("record", 7)])
def test_losses_and_gradients_are_those_of_the_full_forward_pass(model, monkeypatch, counted, rows):
    monkeypatch.setattr(loss, "_ROWS", rows)
    losses, _ = target_losses(model, *inputs_and_targets(texts(counted)))
    expected = []
    for text in texts(counted):
        logits_LV = model(torch.tensor([text.ids])).logits[0].float()
        targets = torch.tensor(text.ids[text.first :])
        expected.append(torch.nn.functional.cross_entropy(logits_LV[text.first - 1 : -1], targets, reduction="none"))
    torch.testing.assert_close(losses, torch.cat(expected), rtol=1e-5, atol=1e-5)
    weight = model.model.layers[0].mlp.up_proj.weight
    ours, theirs = (torch.autograd.grad(part.sum(), weight)[0] for part in (losses, torch.cat(expected)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_padding_and_prompts_do_not_count():
    ids_BL, targets_BL = inputs_and_targets(texts("answer"))
    assert ids_BL.shape == targets_BL.shape == (3, 30)
    assert (targets_BL != IGNORED).sum(1).tolist() == [1, 1, 1]
    assert targets_BL[0, 11] == 40
    assert (inputs_and_targets(texts("record"))[1] != IGNORED).sum(1).tolist() == [12, 30, 21]


def test_an_evaluation_gives_sums_counts_and_the_margin_that_scoring_gives(model):
    for counted in ("answer", "record"):
        sums_B3 = evaluate_texts(model, *inputs_and_targets(texts(counted)), OPTIONS)
        prompts = Prompts(tuple(text.ids[:-1] for text in texts(counted)), OPTIONS, 0, 100)
        positions, mass = score(model, prompts, range(3), batch_tokens=1000)
        margin = torch.empty(3)
        margin[positions] = torch.tensor(mass[:, 0] - mass[:, 1]).float()
        torch.testing.assert_close(sums_B3[:, 2], margin, rtol=1e-4, atol=1e-4)
        each, _ = target_losses(model, *inputs_and_targets(texts(counted)))
        assert sums_B3[:, 1].tolist() == [len(text.ids) - text.first for text in texts(counted)]
        assert sums_B3[:, 0].sum().item() == pytest.approx(each.sum().item(), rel=1e-5)


def test_answers_that_are_no_yes_or_no_have_sums_and_counts_and_no_margin(model):
    sums_B3, with_options_B3 = (
        evaluate_texts(model, *inputs_and_targets(texts("record")), options) for options in ((), OPTIONS)
    )
    assert torch.equal(sums_B3[:, :2], with_options_B3[:, :2])
    assert sums_B3[:, 2].tolist() == [0, 0, 0]
