import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from tasks_by_yaml import load

from patientdx.core.checksums import sha256
from patientdx.core.errors import UserError
from patientdx.records.synthetic import hospital, illness, population, tables


@pytest.fixture(scope="module")
def many(store: Path):
    """2,000 eligible stays, as the task sees them."""
    return load("mortality", cache=store, synthetic={"stays": 2000, "seed": 0})


def out_of_interval(record: str) -> int:
    loaded = re.findall(r"^.+? (-?[\d.]+) \(([\d.]+)-([\d.]+)\)", record, re.MULTILINE)
    return sum(not float(low) <= float(value) <= float(high) for value, low, high in loaded)


def auroc(label: np.ndarray, score: np.ndarray) -> float:
    difference = score[label == 1][:, None] - score[label == 0][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def test_the_same_numbers_make_the_same_bytes_in_any_process(ward, tmp_path):
    program = (
        "import sys; from pathlib import Path; from patientdx.records.synthetic.hospital import hospital\n"
        "print(hospital(Path(sys.argv[1]), stays=150, seed=3))"
    )
    run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    other = Path(run.stdout.strip())
    assert other.name == ward.name
    manifests = [json.loads((root / hospital.MANIFEST).read_text()) for root in (ward, other)]
    assert manifests[0] == manifests[1]
    assert len(manifests[0]["sha256"]) == 12
    for file, digest in manifests[0]["sha256"].items():
        assert sha256(other / file) == digest


def test_a_larger_hospital_begins_with_the_smaller_one_and_seeds_differ(ward, tmp_path):
    large = hospital.hospital(tmp_path, stays=600, seed=3)
    small = pd.read_parquet(ward / "icu/chartevents.parquet")
    complete = pd.read_parquet(large / "icu/chartevents.parquet")
    assert len(complete) > 3 * len(small)
    known = complete[complete["subject_id"] <= small["subject_id"].max()].reset_index(drop=True)
    pd.testing.assert_frame_equal(known, small)
    assert not complete["stay_id"].isin(small["stay_id"]).all()
    other = pd.read_parquet(hospital.hospital(tmp_path, stays=150, seed=4) / "hosp/patients.parquet")
    assert list(other["anchor_age"][:50]) != list(pd.read_parquet(ward / "hosp/patients.parquet")["anchor_age"][:50])


def test_it_is_as_ill_as_an_intensive_care_unit(many):
    first, last = many.cohort[0], many.cohort[-1]
    adult = next(row for row in many.cohort if row["step"] == "aged 18 or over")
    assert 2000 <= last["stays"] <= 2002
    assert 0.12 < last["events"] / last["stays"] < 0.19
    assert 1.2 < first["stays"] / first["patients"] < 1.5
    assert first["stays"] > adult["stays"] > last["stays"] > 0.4 * first["stays"]


def test_counting_readings_out_of_range_ranks_deaths_but_does_not_give_them_away(many):
    label = np.array([example.label for example in many.examples])
    count = np.array([out_of_interval(example.context) for example in many.examples])
    assert 0.75 < auroc(label, count) < 0.85
    lengths = np.array([example.context.count("\n") for example in many.examples])
    assert auroc(label, lengths) < 0.70
    for word in ("Norepinephrine", "Vasopressin", "Continuous dialysis", "Invasive ventilation"):
        has = np.array([word in example.context for example in many.examples])
        assert 0.02 < label[has].mean() < 0.7
        assert label[~has].mean() > 0.02


def test_readings_are_missing_here_and_there_and_records_stay_short(many):
    printed = np.array([len(re.findall(r"\(.+(?:-| to ).+\)", example.context)) for example in many.examples])
    assert printed.min() >= 5
    assert printed.max() == 10
    left_out = [re.search(r"and (\d+) more readings", example.context) for example in many.examples]
    assert len({match[1] for match in left_out if match}) > 5
    assert not all("\nCr " in example.context for example in many.examples)
    assert max(len(example.context) for example in many.examples) < 700


def test_times_and_keys_are_those_of_a_hospital(ward):
    names = ("hosp/patients", "hosp/admissions", "icu/icustays")
    names += ("icu/chartevents", "icu/inputevents", "icu/d_items")
    read = {name: pd.read_parquet(ward / f"{name}.parquet") for name in names}
    patients, admissions, stays = read["hosp/patients"], read["hosp/admissions"], read["icu/icustays"]
    for frame, key in ((patients, "subject_id"), (admissions, "hadm_id"), (stays, "stay_id")):
        assert frame[key].is_unique
    assert (stays.groupby("hadm_id").size() > 1).any()
    complete = stays.merge(admissions, on=["subject_id", "hadm_id"]).merge(patients, on="subject_id")
    assert len(complete) == len(stays)
    assert (complete["admittime"] <= complete["intime"]).all()
    assert (complete["outtime"] <= complete["dischtime"]).all()
    gone = complete[complete["deathtime"].notna()]
    assert (gone["deathtime"] > gone["intime"]).all()
    assert (gone["deathtime"].dt.normalize() == pd.to_datetime(gone["dod"])).all()
    ordered = complete.sort_values(["subject_id", "intime"])
    same = ordered["subject_id"].eq(ordered["subject_id"].shift())
    assert (ordered["intime"] > ordered["outtime"].shift())[same].all()
    assert ordered["deathtime"].shift()[same & ~ordered["hadm_id"].eq(ordered["hadm_id"].shift())].isna().all()
    assert (patients["anchor_age"] < 18).any()
    for name in ("icu/chartevents", "icu/inputevents"):
        assert read[name]["itemid"].isin(read["icu/d_items"]["itemid"]).all()
        assert read[name]["stay_id"].isin(stays["stay_id"]).all()


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 10**6, 10**6))
    with pytest.raises(UserError) as refused:
        hospital.hospital(tmp_path, stays=480)
    assert str(refused.value) == (
        f"The synthetic hospital of 480 stays needs up to 31 MB in {tmp_path}/synthetic, and 1 MB are free. "
        "Free some space, or set cache=… (or PATIENTDX_CACHE) to a folder on another disk."
    )
    assert list((tmp_path / "synthetic").iterdir()) == []


def test_a_disk_that_fills_up_while_writing_leaves_no_half_hospital(tmp_path, monkeypatch):
    write = pyarrow.parquet.ParquetWriter.write_table

    def full(self, table, *rest):
        if "charttime" in table.column_names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, table, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet.ParquetWriter, "write_table", full)
        with pytest.raises(UserError) as refused:
            hospital.hospital(tmp_path, stays=20)
    assert str(refused.value) == (
        f"The synthetic hospital cannot be written to {tmp_path}/synthetic: No space left on device. "
        "Nothing was left behind. Free some space, or set cache=… (or PATIENTDX_CACHE) to a folder on "
        "another disk."
    )
    assert list((tmp_path / "synthetic").iterdir()) == []
    assert (hospital.hospital(tmp_path, stays=20) / hospital.MANIFEST).is_file()


def test_an_unfinished_folder_is_made_anew(ward, tmp_path):
    (tmp_path / "synthetic" / ward.name / "icu").mkdir(parents=True)
    made = hospital.hospital(tmp_path, stays=150, seed=3)
    assert (made / hospital.MANIFEST).read_bytes() == (ward / hospital.MANIFEST).read_bytes()


def test_rows_that_nothing_reads_come_on_top_and_change_nothing_else(ward, tmp_path):
    dense = hospital.hospital(tmp_path, stays=150, seed=3, unread=2)
    for path in ward.rglob("*.parquet"):
        name = path.relative_to(ward)
        each, two = pd.read_parquet(path), pd.read_parquet(dense / name)
        if name.stem == "chartevents":
            stays = pd.read_parquet(ward / "icu/icustays.parquet")
            hours = (stays["outtime"] - stays["intime"]).dt.total_seconds() / 3600
            assert len(two) - len(each) == pytest.approx(2 * hours.sum(), rel=0.01)
            two = two[two["itemid"] < 240_000].reset_index(drop=True)
        pd.testing.assert_frame_equal(each, two)


def test_patients_come_back_soon_where_that_is_asked_for_and_the_sick_sooner(tmp_path):
    few, many = ([population.block(0, number, returns)[0] for number in range(4)] for returns in (None, 0.5))
    few, many = ({name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in (few, many))
    soon = {}
    for name, stays in (("few", few), ("many", many)):
        later = np.flatnonzero((np.diff(stays["subject_id"]) == 0) & ~stays["again"][1:])
        days = (stays["admitted"][later + 1] - stays["discharged"][later]) / (24 * tables.HOUR)
        assert days.min() >= (10 if name == "few" else 1)
        assert days.max() <= 250
        soon[name] = days <= 30
    assert 0.03 < soon["few"].mean() < 0.16
    assert 0.35 < soon["many"].mean() < 0.6
    sick = many["severity"][later]
    assert sick[soon["many"]].mean() > sick[~soon["many"]].mean() + 0.3
    # Who is there, how ill and for how long, hangs on nothing of this.
    for name in ("person", "severity", "los", "died", "ventilated"):
        np.testing.assert_array_equal(few[name], many[name])
    made = hospital.hospital(tmp_path, stays=20, returns=0.5)
    assert json.loads((made / hospital.MANIFEST).read_text())["parameters"]["returns"] == 0.5


def test_a_case_mix_changes_why_patients_come_and_how_many_die_as_documented():
    share = {}
    for mix in illness.MIXES:
        stays = [population.block(0, number, mix=mix)[0] for number in range(3)]
        case, died = (np.concatenate([part[name] for part in stays]) for name in ("case", "died"))
        share[mix] = {row["name"]: np.mean(case == number) for number, row in enumerate(illness.cases())}
        share[mix]["planned surgery"] = share[mix]["cardiac surgery"] + share[mix]["elective surgery"]
        share[mix]["death"] = died.mean()
    general, referral, surgical = (share[mix] for mix in ("general", "referral", "surgical"))
    assert referral["planned surgery"] < 0.7 * general["planned surgery"]
    assert surgical["planned surgery"] > 1.5 * general["planned surgery"]
    for case in ("sepsis", "heart", "lungs"):
        assert referral[case] > 1.2 * general[case]
        assert surgical[case] < general[case]
    assert referral["death"] > general["death"] > surgical["death"]


def test_a_case_mix_is_part_of_the_fingerprint_and_general_is_the_default(store):
    made = {}
    for mix in (None, *illness.MIXES):
        synthetic = {"stays": 150, "seed": 3} | ({} if mix is None else {"case_mix": mix})
        made[mix] = load("mortality", cache=store, synthetic=synthetic)
    assert made[None].fingerprint == made["general"].fingerprint
    assert len({data.fingerprint for data in made.values()}) == len(illness.MIXES)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("returns", 0.0, "task.synthetic.returns=0.0: a share between 0 and 1 is needed, or null."),
        ("returns", 1.0, "task.synthetic.returns=1.0: a share between 0 and 1 is needed, or null."),
        ("returns", "many", "task.synthetic.returns='many': a share between 0 and 1 is needed, or null."),
        ("stays", 0, "task.synthetic.stays=0: a whole number of 1 or more is needed."),
        ("stays", 1.5, "task.synthetic.stays=1.5: a whole number of 1 or more is needed."),
        ("seed", -1, "task.synthetic.seed=-1: a whole number of 0 or more is needed."),
        ("case_mix", "rural", "task.synthetic.case_mix='rural': it is one of general, referral, surgical."),
        ("case_mix", None, "task.synthetic.case_mix=None: it is one of general, referral, surgical."),
        ("form", "csv", "synthetic hospital as 'csv': tables can be written as parquet or csv.gz."),
    ],
)
def test_numbers_that_make_no_hospital_are_refused(tmp_path, key, value, expected):
    with pytest.raises(UserError) as refused:
        hospital.hospital(tmp_path, **{key: value})
    assert str(refused.value) == expected
    assert list(tmp_path.iterdir()) == []
