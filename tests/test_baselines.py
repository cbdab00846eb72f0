"""A run beside whose language models stand tabular ones, other wordings and an evaluation, in this process.

The task's records are those of the synthetic hospital; features, groups and wordings are given here.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from command_line import rows_of
from in_process import change_task, plan, run, session

from patientdx.core.errors import UserError
from patientdx.records.features import Features
from patientdx.tasks.example import PromptVariant

TABULAR = ("tabular_gbm", "tabular_logistic")
BOTH = "baselines=[tabular_gbm,tabular_logistic]"
NO_FEATURES = (
    "tabular_gbm: a tabular model is fitted on numbers, and task=mortality gives none. Leave model and baselines out, "
    "or use a task that has features."
)


pytestmark = pytest.mark.usefixtures("fresh_session")


@pytest.fixture
def give(monkeypatch):
    """Changes what the task is: `give(features=None)`, or any other field of TaskData, or a function of the data."""

    def give(**fields) -> None:
        def changed(data):
            usual = {
                "features": features(data),
                "severity": None,
                "groups": groups(data),
                "prompt_variants": probes(data),
            }
            return replace(data, **(usual | {k: v(data) if callable(v) else v for k, v in fields.items()}))

        change_task(monkeypatch, changed)

    give()
    return give


def features(data) -> Features:
    """Four numbers a stay; the first knows something of its label, of the others a fifth is missing."""
    random = np.random.default_rng(0)
    values = random.normal(size=(len(data.examples), 4))
    values[random.random(values.shape) < 0.2] = np.nan
    values[:, 0] = [random.normal() + 3 * example.label for example in data.examples]
    return Features(("lactate", "heart rate", "age", "sodium"), values)


def groups(data) -> dict[str, tuple[str, ...]]:
    return {"sex": tuple("FM"[i % 2] for i in range(len(data.examples)))}


def probes(data) -> tuple[PromptVariant, ...]:
    after, options = data.examples[0].suffix, data.examples[0].options
    return (
        PromptVariant("same", after, options),
        PromptVariant("turned", after, options, inverted=True),
        PromptVariant("other", "\n\nIs it a no? Answer No or Yes.", options),
    )


@pytest.fixture
def make(give, make):
    """Settings of a small run on the task above."""
    return make


def test_tabular_models_stand_in_the_same_table(make):
    rows = run(make(BOTH)).rows
    places = [(row["role"], row["method"], row["lambda"], row["base"], row["pivot"]) for row in rows[::2]]
    pair = ("unknown_base", "unknown_pivot")
    assert places == [
        ("merged", "slerp", 0.4, *pair), ("base", None, 0.0, *pair), ("pivot", None, 1.0, *pair),
        ("tabular_gbm", "tabular_gbm", None, None, None), ("tabular_logistic", "tabular_logistic", None, None, None),
    ]  # fmt: skip
    assert [row["split"] for row in rows] == ["pilot", "test"] * 5
    for row in rows[6:]:
        assert row.keys() == rows[0].keys()
        assert (row["abstention_mass"], row["dtype"]) == (None, "float64")
        merged = rows[row["split"] == "test"]
        assert (row["n"], row["events"]) == (merged["n"], merged["events"])
        assert row["auroc_ci_low"] <= row["auroc"] <= row["auroc_ci_high"]
    assert {row["role"]: row["auroc"] for row in rows}["tabular_logistic"] > 0.7


def test_the_predictions_hold_the_tabular_ones(make):
    outcome = run(make(BOTH))
    told = pyarrow.parquet.read_table(outcome.folder / "predictions.parquet").to_pandas()
    assert set(told["role"]) == {"merged", "base", "pivot", *TABULAR}
    own = told[told["role"] == "tabular_logistic"]
    assert own["mass"].isna().all()
    np.testing.assert_allclose(1 / (1 + np.exp(-own["margin"])), own["probability"])
    facts = json.loads((outcome.folder / "provenance.json").read_text())["baselines"]
    assert [(one["name"], one["features"], one["fitted_on"]) for one in facts] == [
        (name, 4, "train") for name in TABULAR
    ]
    assert facts[0]["arguments"]["max_iter"] == 200


def test_they_are_fitted_once_and_their_numbers_repeat(make, counted, tmp_path):
    first = run(make(BOTH, "lambda=0.1")).rows
    assert counted["fit"] == 2
    second = run(make(BOTH, "lambda=0.2")).rows
    assert counted["fit"] == 2
    assert second[6:] == first[6:]
    shutil.rmtree(tmp_path / "outputs")
    assert run(make(BOTH, "lambda=0.2", "task.template=paper", "parents=false")).rows[2:] == first[6:]
    assert counted["fit"] == 4


@pytest.mark.parametrize(("split", "changed"), [("train", {"pilot", "test"}), ("test", {"test"}), ("pilot", {"pilot"})])
def test_a_number_changes_the_scores_that_depend_on_it(make, give, split, changed):
    before = plan(make(BOTH)).keys

    def other(data):
        found = features(data)
        found.values[next(i for i, example in enumerate(data.examples) if example.split == split), 1] = 9
        return found

    give(features=other)
    after = plan(make(BOTH)).keys
    assert {(role, one) for role, one in before if before[role, one] != after[role, one]} == {
        (role, one) for role in TABULAR for one in changed
    }


def test_what_else_changes_a_tabular_model(make):
    usual = plan(make("model=tabular_gbm")).keys
    for words in (["seed=1"], ["model.max_iter=20"]):
        assert plan(make("model=tabular_gbm", *words)).keys.values() != usual.values()
    seeds = [plan(make("model=tabular_logistic", "task.seed=0", f"seed={seed}")).keys for seed in (0, 1)]
    assert seeds[0] == seeds[1]  # it draws nothing
    assert plan(make("model=tabular_gbm", "lambda=0.1", "dtype=bfloat16")).keys == usual


def test_another_split_to_report_is_another_run(make):
    both, turned = (plan(make("model=tabular_gbm", f"splits=[{order}]")) for order in ("pilot,test", "test,pilot"))
    assert both.keys == turned.keys  # the answers are the same
    assert both.key != turned.key


def test_a_tabular_model_alone_opens_no_language_model(make, counted, tmp_path):
    outcome = run(make("model=tabular_gbm", base=tmp_path / "nowhere"))
    assert [(row["role"], row["split"]) for row in outcome.rows] == [("tabular_gbm", "pilot"), ("tabular_gbm", "test")]
    assert (counted["locate"], counted["load_model"], counted["score"]) == (0, 0, 0)
    assert outcome.folder.name.startswith("mortality_tabular_gbm_")
    assert "merge" not in yaml.safe_load((outcome.folder / "config.yaml").read_text())
    facts = json.loads((outcome.folder / "provenance.json").read_text())
    assert facts.keys() == {"baselines", "task", "seed", "seconds", "versions"}
    assert run(make("model=tabular_gbm")).reused
    beside = run(make(BOTH, "parents=false")).rows
    assert [row for row in beside if row["role"] == "tabular_gbm"] == outcome.rows


def test_train_holds_no_score_of_a_tabular_model(make):
    rows = run(make("baselines=null", "splits=[train,test]", "parents=false", "clinical=true")).rows
    assert [(row["role"], row["split"]) for row in rows] == [
        ("merged", "train"), ("merged", "test"), *((name, "test") for name in TABULAR)
    ]  # fmt: skip
    left = run(make("baselines=null", "splits=train", "parents=false", "clinical=true"))
    assert [row["role"] for row in left.rows] == ["merged"]
    assert left.analyses["clinical"]["models"].keys() == {"merged"}


def one_outcome(data):
    return tuple(replace(one, label=0) if one.split == "train" else one for one in data.examples)


def infinite(data):
    return Features(features(data).names, np.where(np.arange(4) == 2, np.inf, features(data).values))


@pytest.mark.parametrize(
    ("fields", "words", "said"),
    [
        ({"features": None}, ["baselines=tabular_gbm"], NO_FEATURES),
        ({"features": None}, ["model=tabular_gbm"], NO_FEATURES),
        (
            {},
            ["model=tabular_gbm_tuned_train_pilot", "splits=[pilot]"],
            "tabular_gbm_tuned_train_pilot: a tabular model is fitted on train and pilot, so its scores there say "
            "nothing about it. Give another split, as in splits=[test].",
        ),
        (
            {},
            [BOTH, "splits=train"],
            "tabular_gbm, tabular_logistic: a tabular model is fitted on train, so its scores there say nothing about "
            "it. Give another split, as in splits=[test].",
        ),
        (
            {"examples": one_outcome},
            ["baselines=null"],
            "tabular_gbm, tabular_logistic: a tabular model needs both outcomes in the train split, which has 0 "
            "positives and 19 negatives. Use more stays, another seed or other task.fractions, or do without: "
            "baselines=[].",
        ),
        (
            {"features": infinite},
            ["model=tabular_logistic"],
            "tabular_logistic: these features of task=mortality hold infinite values: age.",
        ),
        (
            {"prompt_variants": ()},
            ["prompt_variants=true"],
            "prompt_variants=true asks the question of task=mortality in other words, and it has none. Leave "
            "prompt_variants out, or use a task that has.",
        ),
    ],
    ids=["no features", "no features, alone", "pilot", "train", "one outcome", "infinite", "no probes"],
)
def test_what_cannot_be_done_is_refused(make, give, fields, words, said, counted):
    give(**fields)
    with pytest.raises(UserError) as refused:
        run(make(*words))
    assert str(refused.value) == said
    assert counted["load_model"] == counted["fit"] == 0


def test_baselines_that_nobody_asked_for_are_left_out_where_there_are_no_features(make, give):
    give(features=None)
    assert {point.role for point in plan(make("baselines=null")).systems} == {"merged", "base", "pivot"}


def test_other_wordings_are_asked_once_and_told(make, counted):
    plain = run(make("splits=test", "parents=false"))
    asked = run(make("splits=test", "parents=false", "prompt_variants=true"))
    assert counted["score"] == 3  # "turned" has the words of "same", and so its answers
    assert asked.rows == plain.rows
    assert asked.folder != plain.folder
    found = json.loads((asked.folder / "prompt_variants.json").read_text())
    assert found == asked.analyses["prompt_variants"]
    assert "prompt_variants" not in plain.analyses
    assert (found["role"], found["split"], found["spearman"]["names"]) == (
        "merged", "test", ["question", "same", "turned", "other"],
    )  # fmt: skip
    same, turned, other = (found["wordings"][name] for name in ("same", "turned", "other"))
    assert (same["auroc"]["value"], same["difference"]["value"]) == (asked.rows[0]["auroc"], 0)
    assert same["fingerprint"] == turned["fingerprint"]
    assert turned["auroc"]["value"] == pytest.approx(1 - asked.rows[0]["auroc"])  # it did not reverse at all
    assert turned["not_reversed"]["value"] == 1
    assert other["fingerprint"] != same["fingerprint"]
    assert 0 < other["abstention_mass"] < 1
    again = run(make("splits=test", "parents=false", "prompt_variants=true", "name=again"))
    assert (again.analyses["prompt_variants"], counted["score"]) == (found, 3)


def test_a_run_leaves_its_evaluation_and_its_cohort(make, counted):
    outcome = run(make("baselines=null", "clinical=true"))
    found = json.loads((outcome.folder / "clinical.json").read_text())
    assert found == json.loads(json.dumps(outcome.analyses["clinical"]))  # JSON has no tuples
    assert (found["reported"], found["pilot"]) == ("test", "pilot")
    assert found["models"].keys() == {"merged", "base", "pivot", *TABULAR}
    rows = {row["role"]: row for row in rows_of(outcome.folder) if row["split"] == "test"}
    for role, model in found["models"].items():
        assert model["discrimination"]["auroc"]["value"] == rows[role]["auroc"]
        assert model["calibration"]["logistic"].get("reason", "on pilot").startswith("on pilot")
        assert (model["abstention"] is None) == (role in TABULAR)
    lines = (outcome.folder / "cohort.csv").read_text().splitlines()
    cohort = session().task_data(make().task_config.call).cohort
    assert lines[0].split(",") == list(cohort[0])
    assert len(lines) == 1 + len(cohort) == 1 + len(outcome.cohort)
    score = counted["score"]
    (outcome.folder / "clinical.json").unlink()  # without it the run is not what was asked for
    again = run(make("baselines=null", "clinical=true"))
    assert (again.reused, counted["score"]) == (False, score)
    assert run(make("baselines=null", "clinical=true")).analyses["clinical"] == found


def test_other_groups_are_another_evaluation_of_the_same_answers(make, give):
    before = plan(make("clinical=true")), plan(make())
    give(groups={"sex": ("F",) * len(session().task_data(make().task_config.call).examples)})
    after = plan(make("clinical=true")), plan(make())
    assert after[0].key != before[0].key
    assert (after[0].keys, after[1].key) == (before[0].keys, before[1].key)


def test_without_a_pilot_split_an_evaluation_says_what_it_lacks(make):
    found = run(make("splits=test", "parents=false", "clinical=true")).analyses["clinical"]
    assert found["pilot"] is None
    assert found["models"]["merged"]["threshold"]["value"] is None
    assert found["models"]["merged"]["calibration"]["logistic"]["reason"] == "no pilot split was given to fit it on"


def test_an_evaluation_that_nobody_wants_is_not_made(make):
    outcome = run(make("parents=false"))
    assert "clinical" not in outcome.analyses
    assert not (outcome.folder / "clinical.json").exists()


def points_of(data) -> Features:
    """What two scores take: one is 4 or 0 points, the other 0 or 3; platelets are missing in every other stay."""
    label = np.array([example.label for example in data.examples], dtype=float)
    platelets = np.where(np.arange(len(label)) % 2, np.nan, 200)
    values = np.column_stack([np.where(label, 5.5, 1.0), platelets, np.where(label, 70, 140)])
    return Features(("Creatinine maximum", "Platelets minimum", "Heart rate last"), values)


FAIR = ("tabular_logistic_tuned", "tabular_logistic_tuned_train_pilot", "sofa", "news2")


def test_tuned_models_and_severity_scores_are_systems(make, give, counted):
    give(severity=points_of)
    words = [f"baselines=[{','.join(FAIR)}]", "clinical=true", "parents=false"]
    outcome = run(make(*words))
    rows = {(row["role"], row["split"]): row for row in outcome.rows}
    assert {split for role, split in rows if role == FAIR[1]} == {"test"}  # pilot is a part of its fit
    assert {split for role, split in rows if role == FAIR[0]} == {"pilot", "test"}
    assert rows["sofa", "test"]["auroc"] == 1
    assert rows["news2", "test"]["auroc"] == 0  # in train it points the other way, and its order stays
    facts = {part["name"]: part for part in json.loads((outcome.folder / "provenance.json").read_text())["baselines"]}
    assert [facts[name]["fitted_on"] for name in FAIR] == ["train", "train+pilot", "train", "train"]
    assert facts[FAIR[1]]["n"] > facts[FAIR[0]]["n"] == facts["sofa"]["n"]
    assert facts[FAIR[0]]["chosen"].keys() == {"C", "auroc", "folds"}
    stays = facts["sofa"]["missing_components"]["of"]
    assert facts["sofa"]["missing_components"] == {
        "mean": pytest.approx(4.5, abs=0.01),
        "stays": stays,
        "of": stays,
    }
    models = outcome.analyses["clinical"]["models"]
    assert models[FAIR[0]]["calibration"]["logistic"].keys() == models["merged"]["calibration"]["logistic"].keys()
    assert models[FAIR[1]]["threshold"]["reason"] == "there are no scores of this model on the pilot split to fit it on"
    fits = counted["fit"]
    other = run(make(*words, "lambda=0.3", "name=other"))  # the responses are there, and with them what was chosen
    again = {part["name"]: part for part in json.loads((other.folder / "provenance.json").read_text())["baselines"]}
    assert (again, counted["fit"]) == (facts, fits)


def test_another_patient_of_a_row_is_another_tuned_model(make, give):
    words = ("baselines=[tabular_logistic,tabular_logistic_tuned]", "splits=test", "parents=false")
    before = plan(make(*words)).keys
    give(examples=lambda data: tuple(replace(one, subject=f"{one.subject}-1") for one in data.examples))
    after = plan(make(*words)).keys
    changed = {role for role, split in before if before[role, split] != after[role, split]}
    assert changed - {"merged"} == {"tabular_logistic_tuned"}
