"""The labels of the five outcomes equal an independent count in pandas, on generated tables and on the open demo."""

import os
from pathlib import Path

import pandas as pd
import pytest
from meds_hospital import write_meds
from tasks_by_yaml import outcome

from patientdx.records import cohort, tables
from patientdx.records.cohort import Outcome
from patientdx.records.source import SourceConfig, opened_source

TIMES = ["intime", "outtime", "admittime", "dischtime", "deathtime", "dod"]
HOUR = pd.Timedelta(hours=1)


@pytest.fixture(scope="module")
def demo() -> Path:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    return Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"


@pytest.fixture(params=["ward_csv", "demo"])
def hospital(request) -> Path:
    return request.getfixturevalue(request.param)


def read(root: Path, name: str) -> pd.DataFrame:
    table = pd.read_csv(root / f"{name}.csv.gz", dtype={"icd_code": str}, low_memory=False)
    for column in set(TIMES) & set(table.columns):
        table[column] = pd.to_datetime(table[column])
    return table


def chosen(root: Path, spill: Path, rule: Outcome, **keys) -> cohort.Cohort:
    needed = {**cohort.NEEDED, **rule.needed}
    loaded = tables.find([root], needed)
    with tables.opened(loaded, needed, memory_limit="1GB", threads=1, spill=spill) as con:
        return cohort.select(con, rule, **keys)


def stays(root: Path, window_hours: int, gap_hours: int) -> pd.DataFrame:
    """Adult stays of at least window and gap hours whose patients are alive at their end, with all their columns."""
    patients, admissions = read(root, "hosp/patients"), read(root, "hosp/admissions").drop(columns="subject_id")
    full = read(root, "icu/icustays").merge(patients, on="subject_id").merge(admissions, on="hadm_id")
    end = full["intime"] + (window_hours + gap_hours) * HOUR
    adult = full["anchor_age"] + full["intime"].dt.year - full["anchor_year"] >= 18
    return full[adult & (full["outtime"] >= end) & ~(full["deathtime"] < end)].sort_values("stay_id")


def triples(kept: pd.DataFrame, label: pd.Series) -> tuple[tuple[int, int, int], ...]:
    kept = kept.assign(label=label.astype(int))
    return tuple(kept[["stay_id", "subject_id", "label"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("window_hours", [24, 48])
def test_death_in_hospital(hospital, tmp_path, window_hours):
    kept = stays(hospital, window_hours, 6)
    result = chosen(hospital, tmp_path, outcome("mortality_hospital"), window_hours=window_hours, gap_hours=6)
    in_icu = kept["deathtime"].isna() & (kept["dod"] >= kept["intime"]) & (kept["dod"] <= kept["outtime"])
    assert result.stays == triples(kept, (kept["hospital_expire_flag"] == 1) | in_icu)
    icu = chosen(hospital, tmp_path, outcome("mortality"), window_hours=window_hours, gap_hours=6)
    assert {row[0] for row in icu.stays if row[2]} <= {row[0] for row in result.stays if row[2]}


def test_death_in_hospital_by_the_date_of_death(hospital, tmp_path):
    kept = stays(hospital, 48, 0)
    result = chosen(
        hospital, tmp_path, outcome("mortality_hospital", death="dod"), window_hours=48, gap_hours=0, death="dod"
    )
    everyone = {row[0]: row[2] for row in result.stays}
    expected = (kept["dod"] >= kept["intime"]) & (kept["dod"] <= kept["dischtime"])
    assert {stay: everyone[stay] for stay in kept["stay_id"]} == dict(
        zip(kept["stay_id"], expected.astype(int), strict=True)
    )


@pytest.mark.parametrize("days", [3, 7])
def test_a_long_stay(hospital, tmp_path, days):
    kept = stays(hospital, 24, 6)
    result = chosen(hospital, tmp_path, outcome("length_of_stay", days=days), window_hours=24, gap_hours=6)
    assert result.stays == triples(kept, kept["outtime"] - kept["intime"] > 24 * days * HOUR)
    assert 0 < sum(row[2] for row in result.stays) < len(result.stays)


@pytest.mark.parametrize("readmission", ["hospital", "icu"])
@pytest.mark.parametrize("planned", [False, True])
def test_a_readmission(hospital, tmp_path, readmission, planned):
    kept = stays(hospital, 24, 0)
    last = read(hospital, "icu/icustays").sort_values(["intime", "stay_id"]).groupby("hadm_id")["stay_id"].last()
    kept = kept[kept["stay_id"].isin(last) & kept["deathtime"].isna() & (kept["hospital_expire_flag"] == 0)]
    admissions = read(hospital, "hosp/admissions")
    if not planned:
        admissions = admissions[~admissions["admission_type"].isin(["ELECTIVE", "SURGICAL SAME DAY ADMISSION"])]
    beds = read(hospital, "icu/icustays").groupby("hadm_id")["intime"].apply(list)

    def comes_back(stay: pd.Series) -> bool:
        for other in admissions[admissions["subject_id"] == stay["subject_id"]].itertuples():
            begins = [other.admittime] if readmission == "hospital" else beds.get(other.hadm_id, [])
            soon = any(begin - stay["dischtime"] <= pd.Timedelta(days=30) for begin in begins)
            if soon and other.hadm_id != stay["hadm_id"] and other.admittime >= stay["dischtime"]:
                return True
        return False

    result = chosen(
        hospital,
        tmp_path,
        outcome("readmission_30d", readmission=readmission, planned=planned),
        window_hours=24,
        gap_hours=0,
    )
    assert result.stays == triples(kept, kept.apply(comes_back, axis=1))
    steps = [row["step"] for row in result.attrition]
    alive, known = steps.index("discharged alive"), steps.index("discharge time known")
    assert known < alive
    assert result.attrition[alive - 1]["stays"] > result.attrition[alive]["stays"]


@pytest.mark.parametrize(
    ("condition", "roots"),
    [
        ("heart_failure", {9: ["428"], 10: ["I50"]}),
        ("kidney_disease", {9: ["585"], 10: ["N18"]}),
        ("copd", {9: ["4912", "4932", "496"], 10: ["J44"]}),
        (
            "coronary_disease",
            {9: ["410", "411", "412", "413", "414", "4292", "42979"], 10: [f"I2{n}" for n in range(6)]},
        ),
    ],
)
def test_a_condition(hospital, tmp_path, condition, roots):
    kept, codes = stays(hospital, 24, 0), read(hospital, "hosp/diagnoses_icd")
    kept = kept[kept["hadm_id"].isin(codes["hadm_id"])]
    hit = codes.apply(lambda row: row["icd_code"].strip().startswith(tuple(roots[row["icd_version"]])), axis=1)
    with_it = set(codes.loc[hit, "hadm_id"])
    result = chosen(hospital, tmp_path, outcome("phenotype", condition=condition), window_hours=24, gap_hours=0)
    assert result.stays == triples(kept, kept["hadm_id"].isin(with_it))
    step = next(row for row in result.attrition if row["step"] == "admission has discharge codes")
    assert step["stays"] >= len(kept)


@pytest.fixture(scope="module")
def meds(ward, store) -> Path:
    """The synthetic hospital as a MEDS folder."""
    return write_meds(ward, store / "meds_outcomes")


@pytest.mark.parametrize(
    "rule",
    [
        outcome("mortality"),
        outcome("mortality_hospital"),
        outcome("readmission_30d"),
        outcome("readmission_30d", readmission="icu", planned=True),
        outcome("length_of_stay"),
        outcome("phenotype", condition="copd"),
    ],
    ids=["mortality", "mortality_hospital", "readmission", "icu_readmission", "length_of_stay", "phenotype"],
)
def test_meds_gives_the_same_stays_and_labels_as_the_tables(ward, meds, store, rule):
    needed = {**cohort.NEEDED, **rule.needed}
    loaded = []
    for source, root in (("mimic", ward), ("meds", meds)):
        with opened_source(SourceConfig(cache=store, source=source, mimic_root=root), needed) as opened:
            loaded.append(cohort.select(opened.con, rule, window_hours=24, gap_hours=6))
    assert loaded[0].stays == loaded[1].stays
    assert loaded[0].attrition == loaded[1].attrition


def test_the_demo_s_deaths_in_hospital_are_the_known_ones(demo, tmp_path):
    result = chosen(demo, tmp_path, outcome("mortality_hospital"), window_hours=48, gap_hours=6)
    first, last = result.attrition[0], result.attrition[-1]
    assert (first["stays"], first["events"]) == (140, 20)
    assert (last["stays"], last["events"]) == (68, 12)
