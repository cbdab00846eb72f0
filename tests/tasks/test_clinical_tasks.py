"""The clinical tasks: switches and presets, splits, prompt variants, groups, features, fingerprints, errors."""

import dataclasses
import io
import os
import shutil
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from tasks_by_yaml import load, task

from patientdx.core.errors import UserError
from patientdx.records import splits
from patientdx.tasks.clinical import OPTIONS, PRESETS
from patientdx.tasks.example import TaskData
from patientdx.tasks.outcomes import OUTCOMES

# Enough generated stays for both outcomes of every task in pilot and test.
MANY = {"stays": 1500, "seed": 0}
clinical = pytest.mark.parametrize("name", OUTCOMES)


@pytest.fixture(scope="module")
def loaded(store) -> Callable[[str], TaskData]:
    """The task on a larger synthetic hospital, loaded once."""
    return cache(lambda name: load(name, cache=store, synthetic=MANY))


@pytest.fixture(scope="module")
def default(store) -> TaskData:
    return load("mortality", cache=store)


@pytest.fixture(scope="module")
def demo() -> list[str]:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root = f"{os.environ['PATIENTDX_SHARED']}/data/mimic-iv-demo"
    return [root, f"{root}/rebuilt"]


def check(data: TaskData) -> None:
    """The properties of every task and every source."""
    count = len(data.examples)
    assert len({example.uid for example in data.examples}) == count > 0
    for split in splits.SPLITS:
        assert {example.label for example in data.examples if example.split == split} == {0, 1}, split
    last = data.cohort[-1]
    assert (last["stays"], last["patients"]) == (count, len({example.subject for example in data.examples}))
    assert last["events"] == sum(example.label for example in data.examples)
    stays = [row["stays"] for row in data.cohort]
    assert stays == sorted(stays, reverse=True)
    for example in data.examples:
        assert example.prefix == ""
        assert example.context.startswith("Age ") or data.provenance["settings"]["template"] != "brief/2"
        assert example.options == OPTIONS
        assert "{" not in example.suffix
    assert data.features.values.shape == (count, len(data.features.names))
    assert {name: len(values) for name, values in data.groups.items()} == dict.fromkeys(
        ("age", "sex", "race", "insurance"), count
    )
    assert len(data.times) == count


@clinical
def test_every_task_runs_on_the_synthetic_hospital(name, loaded):
    data = loaded(name)
    assert (data.name, data.kind, data.open_data) == (name, "binary", True)
    assert data.provenance["source"] == ["synthetic hospital"]
    check(data)


@clinical
def test_every_task_runs_on_the_demo(name, demo, store):
    data = load(name, cache=store, mimic_root=demo)
    assert data.open_data
    check(data)


@clinical
def test_every_task_runs_as_the_paper_s_data_was_made(name, demo, store):
    rest = {"diagnoses": "prior"} if name == "phenotype" else {}  # its discharge codes are the answer
    data = load(name, cache=store, mimic_root=demo, preset="paper", **rest)
    check(data)
    used = data.provenance["settings"]
    assert used["preset"] == "paper"
    expected = PRESETS["paper"] | rest | {"template": used["template"]}
    assert {key: used[key] for key in expected} == expected
    assert used["template"].startswith("paper/")


@clinical
def test_no_patient_is_in_two_splits(name, loaded):
    pairs = {(example.subject, example.split) for example in loaded(name).examples}
    assert len(pairs) == len({subject for subject, _ in pairs})
    assert {split for _, split in pairs} == {"train", "pilot", "test"}


def test_a_split_by_stay_separates_the_stays_of_a_patient(store):
    data = load("mortality", cache=store, split_by="stay")
    pairs = {(example.subject, example.split) for example in data.examples}
    assert len(pairs) > len({subject for subject, _ in pairs})
    assert data.provenance["settings"]["split_by"] == "stay"


def test_a_switch_of_the_user_has_priority_over_the_preset():
    def switches(**keys) -> dict[str, str]:
        return task("mortality", **keys).switches()

    assert switches() == {
        "death": "deathtime", "age": "admission", "stays": "all", "stepdown": "exclude", "diagnoses": "none",
        "split_by": "patient", "outliers": "range", "clock": "charttime", "template": "brief/2",
    }  # fmt: skip
    assert switches(preset="paper") == {
        "death": "dod", "age": "anchor", "stays": "all", "stepdown": "keep", "diagnoses": "discharge",
        "split_by": "stay", "outliers": "pipeline", "clock": "charttime", "template": "paper",
    }  # fmt: skip
    assert switches(preset="paper", split_by="patient") == PRESETS["paper"] | {"split_by": "patient"}
    assert switches(death="dod") == PRESETS[None] | {"death": "dod"}


def test_the_preset_is_its_switches(store):
    preset, switches = (load("mortality", cache=store, **keys) for keys in ({"preset": "paper"}, PRESETS["paper"]))
    assert preset.examples == switches.examples
    assert preset.fingerprint == switches.fingerprint  # so that scores of one are reused for the other
    assert [data.provenance["settings"]["preset"] for data in (preset, switches)] == ["paper", None]


NUMBER = "a whole number of {} or more is needed."
REFUSED = {  # before any file is read: task, keys, message
    "preset": ("mortality", {"preset": "2024"}, "task.preset='2024': it is null (safe settings) or paper ("),
    "split_by": ("mortality", {"split_by": "ward"}, "task.split_by='ward': choose patient or stay."),
    "outliers": ("mortality", {"outliers": "no"}, "task.outliers='no': choose range or train or cohort or pipeline."),
    "clock": ("mortality", {"clock": "ordertime"}, "task.clock='ordertime': choose charttime or storetime."),
    "old text": (
        "mortality",
        {"clock": "storetime", "template": "intervals/1"},
        "task.clock=storetime: task.template=intervals/1 tells of the first hours",
    ),
    "old text at discharge": (
        "readmission_30d",
        {"template": "narrative/1"},
        "task.predict_at=hospital_discharge: task.template=narrative/1 tells of the first hours",
    ),
    "stays": (
        "mortality",
        {"stays": "last"},
        "task.stays='last': choose all or first_of_admission or first_of_patient.",
    ),
    "stepdown": ("mortality", {"stepdown": "no"}, "task.stepdown='no': choose exclude or keep."),
    "competing": (
        "readmission_30d",
        {"competing_death": "no"},
        "task.competing_death='no': choose exclude or no_event or event.",
    ),
    "discharges": (
        "readmission_30d",
        {"excluded_discharges": ["home"]},
        "task.excluded_discharges='home': choose hospice or against_advice or transfer.",
    ),
    "source": ("mortality", {"source": "eicu"}, "task.source='eicu': choose mimic or meds."),
    "window": ("mortality", {"window_hours": 0}, "task.window_hours=0: " + NUMBER.format(1)),
    "gap": ("mortality", {"gap_hours": -1}, "task.gap_hours=-1: " + NUMBER.format(0)),
    "half an hour": ("mortality", {"window_hours": 24.5}, "task.window_hours=24.5: " + NUMBER.format(1)),
    "a text": ("length_of_stay", {"window_hours": "24"}, "task.window_hours='24': " + NUMBER.format(1)),
    "limit": ("mortality", {"limit": 0}, "task.limit=0: " + NUMBER.format(1)),
    "seed": ("mortality", {"seed": "a"}, "seed='a': " + NUMBER.format(0)),
    "roots": (
        "mortality",
        {"mimic_root": []},
        "task.mimic_root=[]: name at least one folder, or null for the synthetic",
    ),
    "synthetic": (
        "mortality",
        {"synthetic": {"beds": 3}},
        "task.synthetic has no beds: it takes stays, seed, returns, case_mix.",
    ),
    "a variant without question": (
        "mortality",
        {"prompt_variants": [{"name": "a"}]},
        "task.prompt_variants[0]={'name': 'a'}: a prompt variant has a name of its own, a question and, where Yes then "
        "means that the outcome did not happen, inverted: true.",
    ),
    "a name twice": (
        "mortality",
        {"prompt_variants": [{"name": "a", "question": "?"}, {"name": "a", "question": "!"}]},
        "task.prompt_variants[1]={'name': 'a', 'question': '!'}: a prompt variant has a name of its own",
    ),
    "a parameter of another outcome": (
        "mortality",
        {"days": 3},
        "task.days: task=mortality has no such key. Leave it out.",
    ),
    "days": ("length_of_stay", {"days": 0}, "task.days=0: " + NUMBER.format(1)),
    "readmission": ("readmission_30d", {"readmission": "ward"}, "task.readmission='ward': choose hospital or icu."),
    "condition": (
        "phenotype",
        {"condition": "gout"},
        "task.condition='gout': there are heart_failure, kidney_disease, copd, coronary_disease.",
    ),
    "codes of discharge": ("phenotype", {"diagnoses": "discharge"}, "task.diagnoses=discharge: the codes given at"),
    "codes by preset": ("phenotype", {"preset": "paper"}, "task.diagnoses=discharge: the codes given at discharge are"),
} | {
    f"window {window} and gap {gap}": (
        "length_of_stay",
        {"window_hours": window, "gap_hours": gap},
        f"task.window_hours={window} and task.gap_hours={gap} reach as far as task.days=3, when all stays left are "
        "long ones. Shorten them, or ask about more days.",
    )
    for window, gap in ((66, 6), (48, 24), (96, 0))
}


@pytest.mark.parametrize("case", REFUSED)
def test_keys_that_are_not_valid_are_refused(tmp_path, case):
    name, keys, message = REFUSED[case]
    with pytest.raises(UserError) as refused:
        load(name, cache=tmp_path, **keys)
    assert str(refused.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_splits_without_train_or_without_deaths(store):
    no_train = {"pilot": 0.5, "test": 0.5}
    with pytest.raises(UserError) as refused:
        load("mortality", cache=store, outliers="train", fractions=no_train)
    assert str(refused.value) == "task.outliers=train: no stay is in train. Give train a share in task.fractions."
    assert load("mortality", cache=store, fractions=no_train).features is None
    with pytest.raises(UserError, match=r"AUROC needs both outcomes in every scored split: test has [01] pos"):
        load("mortality", cache=store, limit=1)


def test_a_synthetic_hospital_that_was_changed_is_refused(ward, tmp_path):
    folder = tmp_path / "synthetic" / ward.name
    shutil.copytree(ward, folder)
    patients = pd.read_parquet(folder / "hosp/patients.parquet")
    patients["anchor_age"] += 1
    patients.to_parquet(folder / "hosp/patients.parquet")
    with pytest.raises(UserError) as refused:
        load("mortality", cache=tmp_path, synthetic={"stays": 150, "seed": 3})
    assert (
        str(refused.value) == f"The synthetic hospital in {folder} was changed since it was made. Delete that folder."
    )


def _implausible(text: bytes) -> bytes:
    rows = pd.read_csv(io.BytesIO(text), dtype=str, keep_default_na=False)
    return rows.assign(valuenum="-99999").to_csv(index=False).encode()


def _first_half(text: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2])


@pytest.mark.parametrize("change", [lambda text: text[: text.index(b"\n") + 1], _implausible], ids=["none", "wrong"])
def test_records_without_a_usable_reading_are_refused(spoil, tmp_path, change):
    with pytest.raises(UserError, match=r"none of the \d+ stays has a reading in its first 48 h"):
        load("mortality", cache=tmp_path, template="intervals/1", mimic_root=[str(spoil("icu/chartevents", change))])


def test_stays_without_a_reading_are_counted(spoil, tmp_path, caplog):
    data = load("mortality", cache=tmp_path, mimic_root=[str(spoil("icu/chartevents", _first_half))])
    count = data.provenance["stays_without_readings"]
    assert 0 < count < len(data.examples)
    assert f"{count} of {len(data.examples)} stays have no reading in the window of 48 h" in caplog.text


def test_the_split_follows_the_seed_and_nothing_else_does(default, store):
    assert 300 <= len(default.examples) <= 302
    again, other = load("mortality", cache=store), load("mortality", cache=store, seed=1)
    for mine, theirs in ((again.features, default.features), (again.severity, default.severity)):
        assert (mine.names, mine.values.tobytes()) == (theirs.names, theirs.values.tobytes())
    again, same = (dataclasses.replace(data, features=None, severity=None) for data in (again, default))
    assert again == same
    first, second = ({e.uid: e for e in data.examples} for data in (default, other))
    assert first.keys() == second.keys()
    assert all(dataclasses.replace(second[uid], split=first[uid].split) == first[uid] for uid in first)
    assert any(first[uid].split != second[uid].split for uid in first)


def test_a_limit_keeps_the_first_of_each_split(default, store):
    few = load("mortality", cache=store, limit=40)
    for split in splits.SPLITS:
        of_split = [example for example in default.examples if example.split == split]
        assert [example for example in few.examples if example.split == split] == of_split[:40]


CHANGES = [
    {"seed": 1}, {"limit": 40}, {"window_hours": 24}, {"gap_hours": 12}, {"death": "dod"}, {"age": "anchor"},
    {"split_by": "stay"}, {"outliers": "train"}, {"clock": "storetime", "template": "intervals"}, {"stepdown": "keep"},
    {"stays": "first_of_patient"}, {"template": "intervals"}, {"preset": "paper"}, {"sections": {"readings": 60}},
    {"diagnoses": "prior"}, {"diagnoses": "discharge"}, {"template": "paper"},
    {"question": "Was it fatal? Answer Yes or No."}, {"fractions": {"train": 0.2, "pilot": 0.4, "test": 0.4}},
    {"synthetic": {"seed": 1}},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_fingerprint_changes_with_what_changes_a_prompt(default, store, change):
    assert load("mortality", cache=store, **change).fingerprint != default.fingerprint


def test_the_fingerprint_does_not_change_with_what_does_not(default, store):
    assert load("mortality", cache=store, memory_limit="1GB", threads=1).fingerprint == default.fingerprint


def test_questions_name_what_they_ask(store):
    def questions(data: TaskData) -> list[str]:
        return [data.examples[0].suffix.strip(), *(variant.suffix.strip() for variant in data.prompt_variants)]

    week = questions(load("length_of_stay", cache=store, days=7))
    assert week[0] == "Did this patient stay in the intensive care unit for more than 7 days? Answer Yes or No."
    assert all("7 days" in question for question in week)
    back = questions(load("readmission_30d", cache=store, synthetic=MANY, planned=True))
    assert back[0] == "Was this patient readmitted to the hospital within 30 days of discharge? Answer Yes or No."
    lung = questions(load("phenotype", cache=store, condition="copd"))
    assert lung[0] == "Does this patient have chronic obstructive pulmonary disease? Answer Yes or No."


@clinical
def test_prompt_variants_are_a_rewording_the_other_order_and_the_opposite(name, loaded):
    variants, suffix = loaded(name).prompt_variants, loaded(name).examples[0].suffix
    assert [variant.inverted for variant in variants] == [False, False, True]
    assert all(variant.options == OPTIONS for variant in variants)
    assert variants[1].suffix == suffix.replace("Answer Yes or No.", "Answer No or Yes.")
    assert len({suffix, *(variant.suffix for variant in variants)}) == 4


def test_prompt_variants_can_be_left_out_or_replaced(store):
    assert load("mortality", cache=store, prompt_variants=[]).prompt_variants == ()
    (variant,) = load("mortality", cache=store, prompt_variants=[{"name": "a", "question": "Dead?"}]).prompt_variants
    assert (variant.name, variant.suffix, variant.inverted) == ("a", "\n\nDead?", False)


def test_groups_and_features_follow_the_examples(store, loaded):
    data = loaded("mortality")
    few = load("mortality", cache=store, synthetic=MANY, limit=30)
    row_of = {example.uid: row for row, example in enumerate(data.examples)}
    rows = [row_of[example.uid] for example in few.examples]
    assert few.groups == {name: tuple(values[row] for row in rows) for name, values in data.groups.items()}
    ages = list(data.features.names).index("age")
    np.testing.assert_array_equal(few.features.values[:, ages], data.features.values[rows, ages])
    for example, sex in zip(few.examples, few.groups["sex"], strict=True):
        assert f", {sex}." in example.context.splitlines()[0]
