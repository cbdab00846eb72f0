"""The measures of leakage in a whole run on tiny models: parents, a merge, and a model that was taught too well."""

import json

import numpy as np
import pytest
from command_line import settings
from in_process import plan, run, session

from patientdx.core.errors import UserError
from patientdx.evaluation.analyses.entries import Entry
from patientdx.evaluation.analyses.privacy_tables import roles, summary, tables
from patientdx.evaluation.inference import Timer
from patientdx.evaluation.leakage import losses
from patientdx.evaluation.leakage.records import measured_records
from patientdx.evaluation.plan import Run
from patientdx.records.synthetic.hospital import hospital
from patientdx.reporting.terminal import text as terminal_text

# Resamples too few for ten tests at once, but not for a clear finding.
SHORT = ("task.template=compact", "splits=[test]", "bootstrap.resamples=380")
TAUGHT = ("finetune=full", "finetune.loss=record", "finetune.epochs=15", "finetune.batch=16",
          "finetune.micro_batch_size=16", "finetune.learning_rate=6e-3", "finetune.patience=null")  # fmt: skip
ALL = ("privacy=all", "privacy.neighbours=1", "privacy.canaries=[1,16]", "privacy.canaries_each=2",
       "privacy.candidates=15", "privacy.extraction=2")  # fmt: skip


@pytest.fixture(scope="module")
def outcome(tiny_base, tiny_pivot, tmp_path_factory):
    """One run that measures everything but LiRA."""
    return run(settings(tiny_base, tiny_pivot, tmp_path_factory.mktemp("leaks"), *SHORT, *TAUGHT, *ALL))


def told(outcome):
    return json.loads((outcome.folder / "privacy.json").read_text())


def test_a_run_leaves_every_measure_of_every_model(outcome):
    found = told(outcome)
    assert found == outcome.analyses["privacy"]
    assert {role: one["against"] for role, one in found["models"].items()} == {
        "merged": "base", "base": None, "pivot": "base", "finetuned": "base"
    }  # fmt: skip
    for role, one in found["models"].items():
        names = ["loss", "zlib", "reference", "rmia", "min_k", "min_k_pp", "recall", "neighbour"]
        assert list(one["mia"]) == [name for name in names if role != "base" or name not in ("reference", "rmia")]
        for delta in one["dlt"].values():
            assert {"loss", "perplexity", "record_loss", "matched", "answer"} <= delta.keys()
            assert delta["loss"]["low"] <= delta["loss"]["value"] <= delta["loss"]["high"]
            assert ("over_base" in delta) == (role != "base")
        for attack in one["mia"].values():
            assert attack["tpr"]["0.01"]["reason"].startswith("not resolvable with")
    assert set(found["blind"]) == {"bag_of_words", "length"}


def test_the_fine_tuned_model_memorises_and_the_merge_does_not(outcome):
    models = told(outcome)["models"]
    assert models["finetuned"]["dlt"]["delta2"]["over_base"]["low"] > 0
    assert models["finetuned"]["mia"]["reference"]["auc"]["low"] > 0.5
    for delta in models["merged"]["dlt"].values():
        assert delta["over_base"]["low"] < 0 < delta["over_base"]["high"]
    said = " ".join(told(outcome)["reading"])
    assert "merged, against base: not decided: 380 resamples are too few for so many tests (corrected" in said
    assert "merged, against base: of 8 attacks, membership is found by none." in said
    assert "finetuned, against base: Δ2 is above 0: a sign that train records were memorised" in said


def test_canaries_are_sought_in_the_model_and_in_what_it_started_from(outcome):
    models = told(outcome)["models"]
    assert "canaries" not in models["merged"]
    base, taught = (models[role]["canaries"] for role in ("base", "finetuned"))
    assert base["most"] == taught["most"] == 4.0
    assert {times: one["n"] for times, one in taught["copies"].items()} == {"1": 2, "16": 2}
    assert taught["copies"]["16"]["exposure"] > base["copies"]["16"]["exposure"]
    assert models["finetuned"]["extraction"]["n"] == 2


def test_neither_text_nor_id_is_in_it(outcome, tiny_base, tiny_pivot):
    data = session().task_data(settings(tiny_base, tiny_pivot, outcome.folder.parents[1], *SHORT).task_config.call)
    written = (outcome.folder / "privacy.json").read_text()
    assert not any(example.uid in written or example.subject in written for example in data.examples)
    assert "HR" not in written
    assert "Study number" not in written


def test_the_same_run_is_found_finished_and_another_request_is_measured(outcome, tiny_base, tiny_pivot):
    folder = outcome.folder.parents[1]
    again = run(settings(tiny_base, tiny_pivot, folder, *SHORT, *TAUGHT, *ALL))
    assert again.reused
    assert again.analyses["privacy"] == outcome.analyses["privacy"]
    other = run(settings(tiny_base, tiny_pivot, folder, *SHORT, *TAUGHT, *ALL, "privacy.extraction=0"))
    assert not other.reused
    assert "extraction" not in other.analyses["privacy"]["models"]["finetuned"]
    assert other.analyses["privacy"]["models"]["merged"] == outcome.analyses["privacy"]["models"]["merged"]


def test_the_tables_fit_a_terminal_and_the_summary_has_the_agreed_keys(outcome):
    found = outcome.analyses["privacy"]
    text = terminal_text(*tables([Entry(role, role, found) for role in roles(found)]), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for word in ("Leakage test", "Membership inference", "Min-K%++", "Canaries", "not resolvable with", "without the"):
        assert word in text
    found = summary(found)
    assert {"leakage/delta1", "leakage/delta1_ci_low", "leakage/delta2_over_base", "mia/loss/auc", "mia/members",
            "mia/zlib/auc_over_base_ci_high", "mia/blind/length/auc", "finetuned/leakage/delta2",
            "finetuned/canary/exposure_16"} <= found.keys()  # fmt: skip
    assert all(isinstance(value, int | float) for value in found.values())


def state(base, pivot, folder, *more) -> Run:
    """The run, before anything is computed."""
    config = settings(base, pivot, folder, *more)
    return Run(session(), config, plan(config), Timer())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("splits=[train]",), "the train split is set against train, and they are the same records"),
        (("task.fractions={train: 0, pilot: 0.5, test: 0.5}",), "no record is in train"),
        (("scoring.max_tokens=100",), "of 60 records are longer than 100 tokens"),
        (("finetune=full", "finetune.split=test", "splits=[pilot]"), r"Report it: splits=\[test\]"),
        (("privacy.reference=resampled", "task.template=compact/1"), "do not split into pieces"),
    ],
)
def test_records_that_will_not_do_are_refused_before_a_model_is_loaded(more, words, tiny_base, tiny_pivot, tmp_path):
    with pytest.raises(UserError, match=words):
        measured_records(state(tiny_base, tiny_pivot, tmp_path, "privacy=all", *SHORT, *more))


def test_a_source_that_is_not_generated_lends_its_words_to_the_reference(
    tiny_base, tiny_pivot, tmp_path, session_cache
):
    ward = f"task.mimic_root={hospital(session_cache, stays=60)}"
    asked = state(tiny_base, tiny_pivot, tmp_path, "privacy=dlt", "splits=[test]", ward)
    found = measured_records(asked)
    fresh = [found.examples[i] for i in found.sets["reference"]]
    assert found.kind == "resampled"
    assert len(fresh) == len(found.sets["test"])
    assert not {one.context for one in fresh} & {one.context for one in asked.plan.data.examples}
    with pytest.raises(UserError, match="only the synthetic hospital can admit new patients"):
        measured_records(state(tiny_base, tiny_pivot, tmp_path, "privacy=dlt", ward, "privacy.reference=fresh"))


def test_the_control_taught_on_test_has_its_members_there(tiny_base, tiny_pivot, tmp_path):
    more = (*SHORT, *TAUGHT, "finetune.split=test", "privacy=mia")
    found = measured_records(state(tiny_base, tiny_pivot, tmp_path, *more))
    of_member = {found.examples[i].split for i in found.sides.rows[found.sides.member]}
    assert of_member == {"test"}
    assert {found.examples[i].split for i in found.sides.rows[~found.sides.member]} == {"train"}


def test_each_shadow_model_is_taught_its_own_half_of_the_patients(tiny_base, tiny_pivot, tmp_path, monkeypatch):
    asked = state(tiny_base, tiny_pivot, tmp_path, *SHORT, *TAUGHT, "privacy=mia", "privacy.shadows=4")
    found, jobs = measured_records(asked), []

    def measured(run, system, ids, **rest):
        jobs.append(system.job)
        return np.zeros((len(ids), 1))

    monkeypatch.setattr(losses, "mean_losses", measured)
    _, inside = losses.shadow_losses(asked, found)
    own = [found.ids[i] for i in found.sides.rows]
    for job, half in zip(jobs, inside, strict=True):
        assert {text.ids for text in job.texts} == {ids for ids, seen in zip(own, half, strict=True) if seen}
    assert len({job.key for job in jobs}) == 4
