import os
from pathlib import Path

import pandas as pd
import pytest

from patientdx.refusal import Refusal
from patientdx.tasks import mortality
from patientdx.tasks.records import cohort, tables


def chosen(roots: list[Path], spill: Path, **rule) -> cohort.Cohort:
    found = tables.find(roots, cohort.NEEDED)
    with tables.opened(found, cohort.NEEDED, memory_limit="1GB", threads=1, spill=spill) as con:
        return cohort.mortality(con, **({"window_hours": 48, "gap_hours": 6, "death": "deathtime"} | rule))


@pytest.fixture(scope="module")
def demo() -> list[Path]:
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root = Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"
    return [root, root / "rebuilt"]


@pytest.mark.parametrize("death", ["deathtime", "dod"])
@pytest.mark.parametrize(("window_hours", "gap_hours"), [(48, 6), (24, 6), (30, 0)])
def test_the_cohort_is_that_of_an_independent_computation(ward, tmp_path, death, window_hours, gap_hours):
    names = ("icu/icustays", "hosp/patients", "hosp/admissions")
    stays, patients, admissions = (pd.read_parquet(ward / f"{name}.parquet") for name in names)
    whole = stays.merge(patients, on="subject_id").merge(
        admissions.drop(columns="subject_id"), on="hadm_id", how="inner"
    )
    time = pd.to_datetime(whole["dod"])
    if death == "deathtime":
        time = whole["deathtime"].where(whole["deathtime"].notna(), time)
    whole["label"] = ((time >= whole["intime"]) & (time <= whole["outtime"])).astype(int)
    long_enough = (whole["outtime"] - whole["intime"]).dt.total_seconds() // 3600 >= window_hours + gap_hours
    kept = whole[(whole["anchor_age"] >= 18) & long_enough].sort_values("stay_id")
    assert len(kept) < len(whole)
    result = chosen([ward], tmp_path, death=death, window_hours=window_hours, gap_hours=gap_hours)
    assert result.stays == tuple(kept[["stay_id", "subject_id", "label"]].itertuples(index=False, name=None))
    first, last = result.attrition[0], result.attrition[-1]
    assert (first["stays"], first["patients"], first["events"]) == (
        len(whole), whole["subject_id"].nunique(), whole["label"].sum(),
    )  # fmt: skip
    assert last == {
        "step": f"at least {window_hours + gap_hours} h ({window_hours} h window and {gap_hours} h gap)",
        "stays": len(kept), "patients": kept["subject_id"].nunique(), "events": kept["label"].sum(),
    }  # fmt: skip


def test_every_step_of_the_attrition_table_counts_what_it_drops(spoil, tmp_path):
    def blank_outtime(text: bytes) -> bytes:
        header, line, *rest = text.split(b"\n")
        cells = line.split(b",")
        cells[[name.strip(b'"') for name in header.split(b",")].index(b"outtime")] = b""
        return b"\n".join([header, b",".join(cells), *rest])

    def without_first(text: bytes) -> bytes:
        header, _, *rest = text.split(b"\n")
        return b"\n".join([header, *rest])

    root = spoil("icu/icustays", blank_outtime)
    before = chosen([root], tmp_path).attrition
    spoil("hosp/patients", without_first)
    after = chosen([root], tmp_path).attrition
    assert [row["step"] for row in before] == [
        "all ICU stays",
        "patient and admission known",
        "intime and outtime known",
        "aged 18 or over",
        "at least 54 h (48 h window and 6 h gap)",
    ]
    assert before[1]["stays"] - before[2]["stays"] == 1
    assert before[0]["stays"] == before[1]["stays"] == after[0]["stays"]
    assert after[0]["patients"] - after[1]["patients"] == 1
    assert before[2]["stays"] > before[3]["stays"] > before[4]["stays"] > 100


def test_a_length_just_short_of_the_hour_is_too_short(spoil, tmp_path):
    def lasting(seconds: int):
        def change(text: bytes) -> bytes:
            header, line, *rest = text.split(b"\n")
            place = [name.strip(b'"') for name in header.split(b",")].index(b"outtime")
            cells = line.split(b",")
            start = pd.Timestamp(cells[place - 1].decode().strip('"'))
            cells[place] = str(start + pd.Timedelta(seconds=seconds)).encode()
            return b"\n".join([header, b",".join(cells), *rest])

        return change

    def first_is_in(seconds: int) -> bool:
        root = spoil("icu/icustays", lasting(seconds))
        return 30_000_000 in {stay for stay, _, _ in chosen([root], tmp_path).stays}

    assert first_is_in(54 * 3600)
    assert not first_is_in(54 * 3600 - 1)


def test_an_empty_cohort_is_refused_with_its_attrition(ward, tmp_path):
    with pytest.raises(Refusal, match=r"^No ICU stay is left in the cohort \(all ICU stays: \d+, .*: 0\)\."):
        chosen([ward], tmp_path, window_hours=100_000)


def test_another_way_to_date_a_death_is_refused(ward, tmp_path):
    with pytest.raises(Refusal, match=r"^task\.death='flag': a death is dated by deathtime or dod\.$"):
        chosen([ward], tmp_path, death="flag")


@pytest.mark.parametrize(
    ("rule", "all_stays", "left"),
    [
        ({}, (140, 100, 12), (68, 52, 9)),
        ({"death": "dod"}, (140, 100, 10), (68, 52, 9)),
        ({"window_hours": 24}, (140, 100, 12), (96, 72, 10)),
    ],
)
def test_the_open_demo_gives_the_known_counts(demo, tmp_path, rule, all_stays, left):
    attrition = chosen(demo, tmp_path, **rule).attrition
    counts = [(row["stays"], row["patients"], row["events"]) for row in (attrition[0], attrition[-1])]
    assert counts == [all_stays, left]


def test_the_open_demo_is_open_and_says_what_is_rebuilt(demo, store):
    data = mortality.load(cache=store, mimic_root=[str(root) for root in demo])
    assert data.open_data
    assert (len(data.examples), sum(example.label for example in data.examples)) == (68, 9)
    origins = {name: fact["origin"] for name, fact in data.provenance["tables"].items()}
    rebuilt = {"icu/chartevents", "icu/inputevents"}
    assert {name for name, origin in origins.items() if origin == "open demo, rebuilt"} == rebuilt
    assert {origin for name, origin in origins.items() if name not in rebuilt} == {"open demo"}


@pytest.mark.parametrize("template", ["intervals", "paper"])
def test_the_demo_in_words_has_readings_for_every_stay(demo, store, template):
    data = mortality.load(cache=store, mimic_root=demo, template=template, diagnoses="discharge")
    assert all("heart rate " in example.record.lower() for example in data.examples)
    assert len({example.record for example in data.examples}) == 68
