"""conf/finetune as a run takes it: typed, and refused in one message where it cannot be."""

import pytest
from command_line import parsed as given

from patientdx.core.errors import UserError


def test_nothing_is_trained_unless_asked_for():
    assert given().finetune is None


def test_the_yamls_say_what_is_trained_and_how():
    lora, full = given("finetune=lora").finetune, given("finetune=full", "seed=3").finetune
    assert (lora.init_from, lora.split, lora.examples) == ("base", "train", None)
    assert (lora.hyperparameters.method, lora.hyperparameters.rank, lora.hyperparameters.alpha) == ("lora", 8, 16.0)
    assert lora.hyperparameters.targets[:2] == ("q_proj", "k_proj")
    assert (
        full.hyperparameters.method,
        full.hyperparameters.rank,
        full.hyperparameters.targets,
        full.hyperparameters.seed,
    ) == ("full", None, None, 3)
    assert given("finetune=lora", "finetune.split=test").finetune.split == "test"


# What is wrong with a key, all at once; a key can be wrong in one way at a time.
VALUES = (
    {
        "finetune.learning_rate=0": "finetune.learning_rate=0: give a number above 0.",
        "finetune.epochs=0": "finetune.epochs=0: give a number above 0.",
        "finetune.steps=0": "finetune.steps=0: give a whole number of at least 1.",
        "finetune.examples=1": "finetune.examples=1: give a whole number of at least 2.",
        "finetune.batch=0": "finetune.batch=0: give a whole number of at least 1.",
        "finetune.warmup_ratio=1": "finetune.warmup_ratio=1: give a number of at least 0 and below 1.",
        "finetune.loss=both": "finetune.loss=both: it is answer or record.",
        "finetune.init_from=pilot": "finetune.init_from=pilot: it is base, pivot or merged.",
        "finetune.split=pilot": "finetune.split=pilot: it is train or test.",
        "finetune.precision=float16": "finetune.precision=float16: it is float32 or bfloat16.",
        "finetune.monitor=accuracy": "finetune.monitor=accuracy: it is loss or auroc.",
        "finetune.patience=0": "finetune.patience=0: give a whole number of at least 1.",
        "finetune.max_tokens=3": "finetune.max_tokens=3: give a whole number of at least 16.",
        "finetune.gradient_checkpointing=1": "finetune.gradient_checkpointing=1: it is true or false.",
        "finetune.rank=0": "finetune.rank=0: give a whole number of at least 1.",
        "finetune.alpha=0": "finetune.alpha=0: give a number above 0.",
        "finetune.dropout=1": "finetune.dropout=1: give a number of at least 0 and below 1.",
        "finetune.targets=[]": "finetune.targets=[]: give a list of names of linear layers, as in [q_proj,v_proj].",
    },
    {
        "finetune.learning_rate=-1e-4": "finetune.learning_rate=-0.0001: give a number above 0.",
        "finetune.micro_batch_size=3": "finetune.micro_batch_size=3: a batch of 8 cannot be split so. Give a "
        "divisor of it.",
        "finetune.epochs=many": "finetune.epochs=many: give a number above 0.",
    },
    {"finetune.learning_rate=inf": "finetune.learning_rate=inf: give a number above 0."},
)
FAULTS = {
    "+finetune.momentum=1": "finetune.momentum: finetune=lora has no such key.",
    "~finetune.batch": "finetune.batch is missing.",
    "model=tabular_gbm": "finetune=lora: model=tabular_gbm is scored alone, and is no language model.",
    "save=out": "finetune=lora: save and dry_run are of the merged model",
    "dry_run=true": "finetune=lora: save and dry_run are of the merged model",
    "task=none": "finetune=lora: without a task there is nothing to train on.",
}


@pytest.mark.parametrize("errors", VALUES)
def test_every_value_that_cannot_be_is_said_at_once(errors):
    with pytest.raises(UserError, match=rf"^{len(errors)} problems? in this configuration") as fault:
        given("finetune=lora", *errors)
    assert [words for words in errors.values() if f"  {words}\n" not in f"{fault.value}\n"] == []


@pytest.mark.parametrize("override", FAULTS)
def test_what_cannot_be_is_said(override):
    with pytest.raises(UserError) as fault:
        given("finetune=lora", override)
    assert FAULTS[override] in str(fault.value)


def test_lora_s_numbers_are_not_full_s():
    with pytest.raises(UserError, match=r"finetune\.rank: finetune=full has no such key"):
        given("finetune=full", "+finetune.rank=4")
