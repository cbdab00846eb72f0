"""What the five clinical tasks share: switches and presets, splits, probes, groups, features, their yaml files."""

import inspect
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml

from patientdx.core.errors import UserError
from patientdx.records import splits as split
from patientdx.tasks import length_of_stay, mortality, mortality_hospital, phenotype, readmission_30d
from patientdx.tasks.example import Example, TaskData
from patientdx.tasks.prediction import OPTIONS, PRESETS, switches

CONF = Path(__file__).parents[2] / "conf/task"
TASKS = (mortality, mortality_hospital, readmission_30d, length_of_stay, phenotype)
# Enough generated stays for both outcomes of every task in pilot and test.
MANY = {"stays": 1500, "seed": 0}


def name_of(task: ModuleType) -> str:
    return task.__name__.rpartition(".")[2]


@pytest.fixture(params=TASKS, ids=name_of)
def task(request) -> ModuleType:
    return request.param


@pytest.fixture(scope="module")
def loaded(store) -> Callable[[ModuleType], TaskData]:
    """The task on a larger synthetic hospital, loaded once."""
    kept: dict[str, TaskData] = {}

    def load(task: ModuleType) -> TaskData:
        name = name_of(task)
        if name not in kept:
            kept[name] = task.load(cache=store, synthetic=MANY)
        return kept[name]

    return load


@pytest.fixture(scope="module")
def demo() -> list[str]:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root = Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"
    return [str(root), str(root / "rebuilt")]


def by_split(examples: tuple[Example, ...]) -> dict[str, list[Example]]:
    return {name: [example for example in examples if example.split == name] for name in split.SPLITS}


def check(data: TaskData) -> None:
    """What holds for every task and every source."""
    count = len(data.examples)
    assert len({example.uid for example in data.examples}) == count > 0
    for name, examples in by_split(data.examples).items():
        assert {example.label for example in examples} == {0, 1}, name
    last = data.cohort[-1]
    assert (last["stays"], last["patients"]) == (count, len({example.subject for example in data.examples}))
    assert last["events"] == sum(example.label for example in data.examples)
    stays = [row["stays"] for row in data.cohort]
    assert stays == sorted(stays, reverse=True)
    for example in data.examples:
        assert example.context
        assert example.options == OPTIONS
        assert "{" not in example.suffix
    assert data.features.values.shape == (count, len(data.features.names))
    assert {name: len(values) for name, values in data.groups.items()} == dict.fromkeys(
        ("age", "sex", "race", "insurance"), count
    )
    assert len(data.times) == count


def test_every_task_runs_on_the_synthetic_hospital(task, loaded):
    data = loaded(task)
    assert (data.name, data.kind, data.open_data) == (name_of(task), "binary", True)
    assert data.provenance["source"] == ["synthetic hospital"]
    check(data)


def test_every_task_runs_on_the_demo(task, demo, store):
    data = task.load(cache=store, mimic_root=demo)
    assert data.open_data
    check(data)


def test_every_task_runs_as_the_paper_s_data_was_made(task, demo, store):
    rest = {"diagnoses": "prior"} if task is phenotype else {}  # its discharge codes are the answer
    data = task.load(cache=store, mimic_root=demo, preset="paper", **rest)
    check(data)
    used = data.provenance["settings"]
    assert used["preset"] == "paper"
    expected = PRESETS["paper"] | rest
    assert {key: used[key] for key in expected if key != "template"} == {
        key: value for key, value in expected.items() if key != "template"
    }
    assert used["template"].startswith("paper/")


def test_no_patient_is_on_both_sides_of_a_split(task, loaded):
    splits: dict[str, set[str]] = {}
    for example in loaded(task).examples:
        splits.setdefault(example.subject, set()).add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "pilot", "test"}


def test_a_split_by_stay_parts_patients_and_says_so(store):
    data = mortality.load(cache=store, split_by="stay")
    pairs = {(example.subject, example.split) for example in data.examples}
    assert len(pairs) > len({subject for subject, _ in pairs})
    assert data.provenance["settings"]["split_by"] == "stay"


def test_a_value_given_wins_over_the_preset():
    nothing = dict.fromkeys(PRESETS[None])
    assert switches(None, nothing) == {
        "death": "deathtime", "age": "admission", "diagnoses": "none", "split_by": "patient", "outliers": "range",
        "template": "intervals",
    }  # fmt: skip
    assert switches("paper", nothing) == {
        "death": "dod", "age": "anchor", "diagnoses": "discharge", "split_by": "stay", "outliers": "cohort",
        "template": "paper",
    }  # fmt: skip
    assert switches("paper", nothing | {"split_by": "patient"}) == PRESETS["paper"] | {"split_by": "patient"}
    assert switches(None, nothing | {"death": "dod"}) == PRESETS[None] | {"death": "dod"}


def test_the_preset_is_its_switches(store):
    one = mortality.load(cache=store, preset="paper")
    two = mortality.load(cache=store, **PRESETS["paper"])
    assert one.examples == two.examples
    assert one.fingerprint == two.fingerprint  # so that what was scored under one name is not scored again
    assert [data.provenance["settings"]["preset"] for data in (one, two)] == ["paper", None]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"preset": "2024"},
            "task.preset='2024': it is null (safe settings) or paper (as PatientDx's data was made).",
        ),
        ({"split_by": "ward"}, "task.split_by='ward': choose patient or stay."),
        ({"outliers": "no"}, "task.outliers='no': choose range or train or cohort."),
        ({"source": "eicu"}, "task.source='eicu': choose mimic or meds."),
        (
            {"prompt_variants": [{"name": "a"}]},
            "task.prompt_variants[0]={'name': 'a'}: a prompt variant has a name of its own, a question and, where Yes then says that the "
            "outcome did not happen, inverted: true.",
        ),
        (
            {"prompt_variants": [{"name": "a", "question": "?"}, {"name": "a", "question": "!"}]},
            "task.prompt_variants[1]={'name': 'a', 'question': '!'}: a prompt variant has a name of its own, a question and, where Yes "
            "then says that the outcome did not happen, inverted: true.",
        ),
    ],
)
def test_parameters_that_make_no_task_are_refused(tmp_path, change, expected):
    with pytest.raises(UserError) as refused:
        mortality.load(cache=tmp_path, **change)
    assert str(refused.value) == expected
    assert list(tmp_path.iterdir()) == []


def test_limits_cannot_be_fitted_on_an_empty_train(store):
    with pytest.raises(UserError) as refused:
        mortality.load(cache=store, outliers="train", fractions={"pilot": 0.5, "test": 0.5})
    assert str(refused.value) == "task.outliers=train: no stay is in train. Give train a share in task.fractions."
    assert mortality.load(cache=store, fractions={"pilot": 0.5, "test": 0.5}).features is None


@pytest.mark.parametrize(("window_hours", "gap_hours"), [(66, 6), (48, 24), (96, 0)])
def test_a_window_that_gives_the_length_of_stay_away_is_refused(tmp_path, window_hours, gap_hours):
    with pytest.raises(UserError) as refused:
        length_of_stay.load(cache=tmp_path, days=3, window_hours=window_hours, gap_hours=gap_hours)
    assert str(refused.value) == (
        f"task.window_hours={window_hours} and task.gap_hours={gap_hours} reach as far as task.days=3, when all stays "
        "left are long ones. Shorten them, or ask about more days."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"diagnoses": "discharge"}, {"preset": "paper"}])
def test_a_phenotype_is_not_asked_of_a_text_that_names_it(tmp_path, change):
    with pytest.raises(UserError) as refused:
        phenotype.load(cache=tmp_path, **change)
    assert str(refused.value) == (
        "task.diagnoses=discharge: the codes given at discharge are the answer that task=phenotype asks for. "
        "Set task.diagnoses=none or prior."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("load", "change", "expected"),
    [
        (length_of_stay.load, {"days": 0}, "task.days=0: a whole number of 1 or more is needed."),
        (length_of_stay.load, {"window_hours": "24"}, "task.window_hours='24': a whole number of 1 or more is needed."),
        (readmission_30d.load, {"readmission": "ward"}, "task.readmission='ward': choose hospital or icu."),
        (
            phenotype.load,
            {"condition": "gout"},
            "task.condition='gout': there are heart_failure, kidney_disease, copd, coronary_disease.",
        ),
    ],
)
def test_what_only_one_task_takes_is_checked_too(tmp_path, load, change, expected):
    with pytest.raises(UserError) as refused:
        load(cache=tmp_path, **change)
    assert str(refused.value) == expected


def test_questions_name_what_they_ask(store):
    def asked(data: TaskData) -> list[str]:
        return [data.examples[0].suffix.strip(), *(probe.suffix.strip() for probe in data.prompt_variants)]

    week = asked(length_of_stay.load(cache=store, days=7))
    assert week[0] == "Did this patient stay in the intensive care unit for more than 7 days? Answer Yes or No."
    assert all("7 days" in question for question in week)
    back = asked(readmission_30d.load(cache=store, synthetic=MANY, planned=True))
    assert back[0] == "Was this patient readmitted to the hospital within 30 days of discharge? Answer Yes or No."
    lung = asked(phenotype.load(cache=store, condition="copd"))
    assert lung[0] == "Does this patient have chronic obstructive pulmonary disease? Answer Yes or No."


def test_probes_are_a_rewording_the_other_order_and_the_opposite(task, loaded):
    probes = loaded(task).prompt_variants
    assert [probe.inverted for probe in probes] == [False, False, True]
    assert all(probe.options == OPTIONS for probe in probes)
    own = loaded(task).examples[0].suffix
    assert probes[1].suffix == own.replace("Answer Yes or No.", "Answer No or Yes.")
    assert len({own, *(probe.suffix for probe in probes)}) == 4


def test_probes_can_be_left_out(store):
    for probes in (None, []):
        assert mortality.load(cache=store, prompt_variants=probes).prompt_variants == ()


def test_groups_and_features_follow_the_examples(store, loaded):
    data = loaded(mortality)
    few = mortality.load(cache=store, synthetic=MANY, limit=30)
    place = {example.uid: number for number, example in enumerate(data.examples)}
    rows = [place[example.uid] for example in few.examples]
    assert few.groups == {name: tuple(values[row] for row in rows) for name, values in data.groups.items()}
    ages = list(data.features.names).index("age")
    np.testing.assert_array_equal(few.features.values[:, ages], data.features.values[rows, ages])
    for example, sex in zip(few.examples, few.groups["sex"], strict=True):
        assert f", {sex}." in example.context.splitlines()[0]


def test_deaths_to_come_change_no_text_and_no_feature(store, ward_csv, spoil):
    def spared(column: str) -> Callable[[bytes], bytes]:
        """A quarter of the patients never die."""

        def change(text: bytes) -> bytes:
            table = pd.read_csv(io.BytesIO(text), dtype=str)
            table.loc[table["subject_id"].astype(int) % 4 == 0, column] = None
            return table.to_csv(index=False).encode()

        return change

    root = spoil("hosp/admissions", spared("deathtime"))
    spoil("hosp/patients", spared("dod"))
    one, two = (mortality.load(cache=store, mimic_root=str(folder), window_hours=24) for folder in (ward_csv, root))
    places = {example.uid: place for place, example in enumerate(two.examples)}
    rows = [places[example.uid] for example in one.examples]
    for example, row in zip(one.examples, rows, strict=True):
        other = two.examples[row]
        assert (example.context, example.suffix, example.split) == (other.context, other.suffix, other.split)
    assert sum(two.examples[row].label for row in rows) < sum(example.label for example in one.examples)
    shared = sorted(set(one.features.names) & set(two.features.names))
    assert len(shared) > 100
    left, right = ([list(data.features.names).index(name) for name in shared] for data in (one, two))
    np.testing.assert_array_equal(one.features.values[:, left], two.features.values[rows][:, right])


def test_the_yaml_says_what_load_takes(task):
    text = (CONF / f"{name_of(task)}.yaml").read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("# ")]
    assert head[0].startswith(f"# python run.py task={name_of(task)} ")
    assert any(line.startswith("# Unit: ") for line in head)
    assert any(line.startswith("# Label 1: ") for line in head)
    config = yaml.safe_load(text)
    named = {key: config.pop(key) for key in ("name", "kind", "_target_", "metrics")}
    assert (named["name"], named["kind"]) == (name_of(task), "binary")
    assert named["_target_"] == f"{task.__name__}.{task.load.__name__}"
    defaults = {name: p.default for name, p in inspect.signature(task.load).parameters.items()}
    assert config.keys() == defaults.keys()
    assert (config.pop("cache"), config.pop("seed")) == ("${cache}", "${seed}")
    config["prompt_variants"] = tuple(config["prompt_variants"])
    for name, value in config.items():
        assert value == defaults[name], name
