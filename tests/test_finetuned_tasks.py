"""Fine-tuning on answers that are no yes or no: options, and references in the model's own place to answer."""

import json
from dataclasses import replace

import pytest
from benchmark_files import questions
from command_line import parsed, rows_of, tiny
from in_process import change_task, plan, run, session
from training_here import one_thread, train_here

from patientdx.core.errors import UserError
from patientdx.evaluation import finetuned
from patientdx.lm.load import load_tokenizer

TUNED = ("finetune=lora", "finetune.examples=6", "finetune.epochs=2", "finetune.batch=2", "finetune.patience=null",
         "finetune.learning_rate=5e-3", "parents=false", "baselines=[]")  # fmt: skip
RECORDS = ("task=record_qa_short", "task.synthetic.stays=40", "task.new_tokens=4", "task.threads=1", "task.limit=6")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Trains in this process; returns the list of what was trained."""
    return train_here(monkeypatch)


@pytest.fixture
def make(tiny_base, tiny_pivot, tmp_path):
    """RunConfig of a run of tiny models, with a cache of their own for what is trained."""

    def made(*words: str):
        return parsed(*tiny(tiny_base, tiny_pivot, f"output={tmp_path}/outputs", *TUNED, *words))

    return made


@pytest.fixture
def give(monkeypatch):
    """Changes what the task is: `give(function of the data)`."""
    return lambda change: change_task(monkeypatch, change)


def job_of(asked):
    (job,) = (point.job for point in asked.systems if point.role == "finetuned")
    return job


def test_a_reference_is_taught_behind_the_prompt_that_scoring_continues(make, here, tiny_base):
    given = make(*RECORDS, "finetune.patience=2", "finetune.pilot_examples=4")
    asked = plan(given)
    job, tokenizer = job_of(asked), load_tokenizer(tiny_base)
    (point,) = (point for point in asked.systems if point.role == "finetuned")
    assert {asked.data.examples[i].split for i in point.trained_on} == {"train"}
    for i, one in zip(point.trained_on, job.texts, strict=True):
        prompt, answer = one.ids[: one.first], one.ids[one.first :]
        assert prompt == asked.context.prompts.ids[i]
        assert tokenizer.decode(answer[:-1]) == asked.data.examples[i].reference
        assert answer[-1] == tokenizer.eos_token_id
    assert (len(job.pilot), job.options) == (4, ())
    outcome = run(given)
    (own,) = (row for row in outcome.rows if row["role"] == "finetuned")
    assert (own["method"], 0 <= own["exact_match"] <= 1) == ("lora(base) 6", True)
    assert len(here) == 1
    cost = json.loads((outcome.folder / "finetune.json").read_text())
    assert cost["train"][-1][1] < cost["train"][0][1]
    assert [(step, rank) for step, _, rank in cost["pilot"]] == [(3, None), (6, None)]
    told = json.loads((outcome.folder / "provenance.json").read_text())["finetune"]
    assert told["n"] == 6
    assert "events" not in told
    assert rows_of(outcome.folder) == outcome.rows
    assert run(given).reused


def test_the_whole_text_may_count_and_draws_are_nested(make):
    few, more = (job_of(plan(make(*RECORDS, f"finetune.examples={n}", "finetune.loss=record"))) for n in (3, 6))
    assert few.texts == more.texts[:3]
    assert {one.first for one in more.texts} == {1}


def long_records(data):
    """Half of each question becomes a record, which may be cut; and the answer has several tokens."""
    return replace(
        data,
        examples=tuple(
            replace(one, prefix=one.prefix[:40], context=one.prefix[40:], reference=f"{one.reference} and no more")
            for one in data.examples
        ),
    )


def test_a_prompt_and_its_reference_are_no_longer_than_asked_for(make, give):
    give(long_records)
    whole, asked = job_of(plan(make(*RECORDS))), plan(make(*RECORDS, "finetune.max_tokens=200"))
    lengths = [len(one.ids) for one in job_of(asked).texts]
    assert max(lengths) <= 200 < max(len(one.ids) for one in whole.texts)
    for one, before in zip(job_of(asked).texts, whole.texts, strict=True):
        assert one.ids[one.first :] == before.ids[before.first :]  # of the answer nothing is cut
        assert len(one.ids) in (200, len(before.ids)) or len(one.ids) > 190


def test_the_right_option_is_taught_as_it_is_scored(make, tmp_path):
    folder = questions(tmp_path / "questions", train=12, test=6)
    words = ("task=medqa", f"task.path={folder}", "task.answer=text", "task.train_limit=8", "task.chat=false")
    given = make(*words)
    asked = plan(given)
    (point,) = (point for point in asked.systems if point.role == "finetuned")
    assert sum(one.split == "train" for one in asked.data.examples) == 8
    for i, one in zip(point.trained_on, point.job.texts, strict=True):
        right = asked.context.prompts.continuations[i][asked.data.examples[i].gold]
        assert (one.ids[: one.first], one.ids[one.first :]) == (asked.context.prompts.ids[i], right)
    outcome = run(given)
    assert {"merged", "finetuned"} == {row["role"] for row in outcome.rows}
    assert json.loads((outcome.folder / "finetune.json").read_text())["train"][-1][1] > 0
    with pytest.raises(
        UserError, match=r"finetune\.max_tokens=40 is too small for the question, its answer and something"
    ):
        plan(make(*words, "finetune.max_tokens=40"))


def test_without_train_limit_a_benchmark_has_nothing_to_teach_and_is_what_it_was(make, tmp_path):
    folder = questions(tmp_path / "questions", train=12, test=6)
    words = ("task=medqa", f"task.path={folder}", "finetune=none")
    old, new = (parsed(*words[:2], *more).task_config.call().load() for more in ((), ("task.train_limit=3",)))
    assert {one.split for one in old.examples} == {"test"}
    assert old.fingerprint != new.fingerprint
    assert "train_limit" not in old.provenance["settings"]
    with pytest.raises(
        UserError, match=r"no examples in the train split\. Change task\.fractions or task\.train_limit\."
    ):
        plan(make(*words[:2]))
    with pytest.raises(UserError, match=r"task\.train_limit=-1: a whole number of 0 or more"):
        plan(make(*words[:2], "task.train_limit=-1"))


def silent(share: int):
    return lambda data: replace(
        data,
        examples=tuple(replace(one, reference=one.reference * (i % share > 0)) for i, one in enumerate(data.examples)),
    )


def test_what_cannot_be_taught_is_refused(make, give):
    with pytest.raises(
        UserError, match=r"too small for the question, .* has \d+ tokens .* the longest answer has \d+\)"
    ):
        plan(make(*RECORDS, "finetune.max_tokens=20"))
    give(silent(1))
    with pytest.raises(
        UserError, match=r"finetune=lora: task=record_qa has no answers to teach\. Choose a task of yes/no"
    ):
        plan(make(*RECORDS))
    give(silent(2))
    with pytest.raises(
        UserError, match=r"finetune=lora: \d of 6 examples of task=record_qa have no reference to teach"
    ):
        plan(make(*RECORDS))


def test_a_question_that_does_not_fit_the_model_at_all_is_refused(make, give):
    asked = make(*RECORDS)
    data = session().task_data(asked.task_config.call)
    context = plan(asked).context
    start = {"parent": context.parents.hashes[0]}
    wordy = replace(data, examples=tuple(replace(one, reference="no " * 2100) for one in data.examples))
    finetuned.rows(asked.finetune, context)
    with pytest.raises(
        UserError, match=r"a question and its reference are longer than the model's context of 2048 tokens"
    ):
        finetuned.job(
            session(), asked, replace(context, data=wordy), start, rows=finetuned.rows(asked.finetune, context)
        )
