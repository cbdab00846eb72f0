import csv
import io
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from tasks_by_yaml import outcome

from patientdx.core.errors import UserError
from patientdx.records import cohort, concept_table, tables

STEPS = [
    "all ICU stays",
    "patient and admission known",
    "intime and outtime known",
    "outtime after intime",
    "aged 18 or over",
    "intensive care, not a step-down unit",
    "not dead before ICU admission",
    "at least 48 h in the ICU (window)",
    "still in the ICU after 54 h (6 h gap)",
    "not dead before the end of the gap",
]
STAY, ADMISSION, PATIENT = "30000012", "20000012", "10000003"  # the only ones of a patient of the ward, in the cohort


def chosen(roots: list[Path], spill: Path, **rule) -> cohort.Cohort:
    loaded = tables.find(roots, cohort.NEEDED)
    with tables.opened(loaded, cohort.NEEDED, memory_limit="1GB", threads=1, spill=spill) as con:
        return cohort.select(con, outcome("mortality"), **({"window_hours": 48, "gap_hours": 6} | rule))


def altered(column: str, value: str | Callable[[dict[str, str]], str]) -> Callable[[bytes], bytes]:
    """A change of a csv's text for `spoil`: one cell, in the row of STAY, ADMISSION or PATIENT."""

    def change(text: bytes) -> bytes:
        rows = list(csv.DictReader(io.StringIO(text.decode())))
        ids = {"stay_id": STAY, "hadm_id": ADMISSION, "subject_id": PATIENT}.items()
        row = next(row for row in rows if all(row.get(name, number) == number for name, number in ids))
        row[column] = value if isinstance(value, str) else value(row)
        out = io.StringIO()
        writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()

    return change


def later(column: str, **time: float) -> Callable[[dict[str, str]], str]:
    return lambda row: str(pd.Timestamp(row[column]) + pd.Timedelta(**time))


def dropped(attrition: list[dict]) -> dict[str, int]:
    """How many stays each step leaves out."""
    return {after["step"]: before["stays"] - after["stays"] for before, after in pairwise(attrition)}


@pytest.fixture(scope="module")
def demo() -> list[Path]:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root = Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"
    return [root, root / "rebuilt"]


@pytest.mark.parametrize("death", ["deathtime", "dod"])
@pytest.mark.parametrize(("window_hours", "gap_hours"), [(48, 6), (24, 6), (24, 24), (30, 0)])
def test_the_cohort_is_that_of_an_independent_computation(ward, tmp_path, death, window_hours, gap_hours):
    names = ("icu/icustays", "hosp/patients", "hosp/admissions")
    stays, patients, admissions = (pd.read_parquet(ward / f"{name}.parquet") for name in names)
    full = stays.merge(patients, on="subject_id").merge(
        admissions.drop(columns="subject_id"), on="hadm_id", how="inner"
    )
    dod = pd.to_datetime(full["dod"])
    died = full["deathtime"].notna() | (full["hospital_expire_flag"] == 1)
    by_discharge = full["dischtime"].where(full["dischtime"] < dod + pd.Timedelta(days=1), dod + pd.Timedelta(days=1))
    time = dod if death == "dod" else full["deathtime"].where(full["deathtime"].notna(), by_discharge.where(died))
    full["label"] = ((time >= full["intime"]) & (time <= full["outtime"])).astype(int)
    length = full["outtime"] - full["intime"]
    long_enough = length.dt.total_seconds() // 3600 >= window_hours + gap_hours
    adult = full["anchor_age"] + full["intime"].dt.year - full["anchor_year"] >= 18
    alive = ~(full["deathtime"] < full["intime"] + pd.Timedelta(hours=window_hours + gap_hours))
    intensive = ~full["first_careunit"].isin([row["careunit"] for row in concept_table.rows("stepdown_units.csv")])
    kept = full[adult & intensive & long_enough & (alive | (death == "dod"))].sort_values("stay_id")
    assert len(kept) < len(full)
    result = chosen([ward], tmp_path, death=death, window_hours=window_hours, gap_hours=gap_hours)
    assert result.stays == tuple(kept[["stay_id", "subject_id", "label"]].itertuples(index=False, name=None))
    first, last = result.attrition[0], result.attrition[-1]
    last["step"] = result.attrition[-1 if death == "dod" else -2]["step"]
    named = f"still in the ICU after {window_hours + gap_hours} h ({gap_hours} h gap)"
    assert (first["stays"], first["patients"], first["events"]) == (
        len(full), full["subject_id"].nunique(), full["label"].sum(),
    )  # fmt: skip
    assert last == {
        "step": named if gap_hours else f"at least {window_hours} h in the ICU (window)",
        "stays": len(kept), "patients": kept["subject_id"].nunique(), "events": kept["label"].sum(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "change", "step"),
    [
        ("icu/icustays", altered("outtime", ""), "intime and outtime known"),
        ("icu/icustays", altered("intime", ""), "intime and outtime known"),
        ("icu/icustays", altered("outtime", later("intime", seconds=-1)), "outtime after intime"),
        ("icu/icustays", altered("outtime", later("intime", seconds=0)), "outtime after intime"),
        ("icu/icustays", altered("outtime", later("intime", hours=54, seconds=-1)), STEPS[-2]),
        ("icu/icustays", altered("outtime", later("intime", hours=48, seconds=-1)), STEPS[-3]),
        ("icu/icustays", altered("first_careunit", "Neuro Stepdown"), "intensive care, not a step-down unit"),
        ("icu/icustays", altered("hadm_id", "1"), "patient and admission known"),
        ("hosp/patients", altered("anchor_age", ""), "aged 18 or over"),
        ("hosp/patients", altered("dod", "2001-01-01"), "not dead before ICU admission"),
        ("hosp/admissions", altered("deathtime", later("admittime", hours=-1)), "not dead before ICU admission"),
    ],
)
def test_every_exclusion_is_counted_at_its_step(spoil, ward_csv, tmp_path, table, change, step):
    before, after = chosen([ward_csv], tmp_path), chosen([spoil(table, change)], tmp_path)
    assert [row["step"] for row in before.attrition] == [row["step"] for row in after.attrition] == STEPS
    out, still = dropped(before.attrition), dropped(after.attrition)
    gone = {stay for stay, _, _ in before.stays} - {stay for stay, _, _ in after.stays}
    assert gone == {int(STAY)}
    assert still[step] > out[step]
    assert sum(still.values()) - sum(out.values()) == len(gone)
    assert {name for name in STEPS[1:] if still[name] > out[name]} == {step}


def test_a_death_inside_the_gap_is_left_out_only_where_its_time_is_known(spoil, ward_csv, tmp_path):
    intime = pd.read_csv(ward_csv / "icu/icustays.csv.gz", index_col="stay_id")["intime"][int(STAY)]
    died = str(pd.Timestamp(intime) + pd.Timedelta(hours=50))
    root = spoil("hosp/admissions", altered("deathtime", died))
    first_is_in = {
        death: int(STAY) in {stay for stay, _, _ in chosen([root], tmp_path, death=death).stays}
        for death in ("deathtime", "dod")
    }
    assert first_is_in == {"deathtime": False, "dod": True}
    at_the_end = str(pd.Timestamp(intime) + pd.Timedelta(hours=54))
    root = spoil("hosp/admissions", altered("deathtime", at_the_end))
    assert (int(STAY), int(PATIENT), 1) in chosen([root], tmp_path).stays


def test_a_length_just_short_of_the_hour_is_too_short(spoil, tmp_path):
    def first_is_in(seconds: int) -> bool:
        root = spoil("icu/icustays", altered("outtime", later("intime", seconds=seconds)))
        return int(STAY) in {stay for stay, _, _ in chosen([root], tmp_path).stays}

    assert first_is_in(54 * 3600)
    assert not first_is_in(54 * 3600 - 1)


def test_the_age_is_that_at_admission_or_at_the_anchor(spoil, tmp_path):
    def year_before(row: dict[str, str]) -> str:
        return str(int(row["anchor_year"]) - 60)

    root = spoil("hosp/patients", altered("anchor_age", "17"))
    spoil("hosp/patients", altered("anchor_year", year_before))
    loaded = tables.find([root], cohort.NEEDED)
    for age, there in (("admission", True), ("anchor", False)):
        with tables.opened(loaded, cohort.NEEDED, memory_limit="1GB", threads=1, spill=tmp_path) as con:
            cohort.select(con, outcome("mortality"), window_hours=48, gap_hours=6, age=age)
            rows = con.execute(f"SELECT age FROM cohort WHERE stay_id = {STAY}").fetchall()
        assert bool(rows) == there
        assert all(row[0] >= 17 + 60 for row in rows)


def test_an_empty_cohort_is_refused_with_its_attrition(ward, tmp_path):
    with pytest.raises(UserError, match=r"^No ICU stay is left in the cohort \(all ICU stays: \d+, .*: 0\)\."):
        chosen([ward], tmp_path, window_hours=100_000)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"death": "flag"}, "task.death='flag': a death is dated by deathtime or dod."),
        ({"age": "birth"}, "task.age='birth': an age is that at admission or anchor."),
    ],
)
def test_another_way_to_date_a_death_or_tell_an_age_is_refused(ward, tmp_path, rule, expected):
    with pytest.raises(UserError) as refused:
        chosen([ward], tmp_path, **rule)
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    ("rule", "all_stays", "left"),
    [
        ({"stepdown": "keep"}, (140, 100, 12), (68, 52, 9)),
        ({}, (140, 100, 12), (67, 51, 9)),
        ({"gap_hours": 0}, (140, 100, 12), (73, 55, 9)),
        ({"death": "dod", "age": "anchor", "stepdown": "keep"}, (140, 100, 10), (68, 52, 9)),
        ({"window_hours": 24, "stepdown": "keep"}, (140, 100, 12), (96, 72, 10)),
        ({"stays": "first_of_patient"}, (140, 100, 12), (49, 49, 6)),
    ],
)
def test_the_open_demo_gives_the_known_counts(demo, tmp_path, rule, all_stays, left):
    attrition = chosen(demo, tmp_path, **rule).attrition
    counts = [(row["stays"], row["patients"], row["events"]) for row in (attrition[0], attrition[-1])]
    assert counts == [all_stays, left]
