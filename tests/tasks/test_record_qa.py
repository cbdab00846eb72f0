"""Questions about a stay: right by the tables, shown by the text, as many yes as no, and judged as they should be."""

import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from synthetic_wards import SIXTY_STAYS
from tasks_by_yaml import load

from patientdx.core.errors import UserError
from patientdx.records.concepts import items
from patientdx.records.synthetic.hospital import hospital
from patientdx.tasks.record_qa import KINDS, METRICS, Question, judged


@pytest.fixture(scope="module")
def make(load_synthetic):
    return partial(load_synthetic, "record_qa")


@pytest.fixture(scope="module")
def data(make):
    return make(per_stay=9, limit=None)


@pytest.fixture(scope="module")
def tables(session_cache):
    folder = hospital(session_cache, **SIXTY_STAYS)
    return {name: pq.read_table(folder / f"{name}.parquet").to_pandas() for name in
            ("icu/chartevents", "icu/icustays", "hosp/patients", "icu/inputevents")}  # fmt: skip


def values_of(tables, stay, name):
    """The stay's values of a reading in the order of time, straight from chartevents."""
    chart, known = tables["icu/chartevents"], {item.itemid: item for item in items() if item.name == name}
    belonging = chart[(chart["stay_id"] == stay) & chart["itemid"].isin(list(known))].dropna(subset="valuenum")
    intime = tables["icu/icustays"].set_index("stay_id").loc[stay, "intime"]
    hours = (belonging["charttime"] - intime).dt.total_seconds() / 3600
    belonging = belonging[(hours >= 0) & (hours < 48)].sort_values("charttime")
    loaded = []
    for itemid, value in zip(belonging["itemid"], belonging["valuenum"], strict=True):
        item = known[itemid]
        harmonised = value * item.scale + item.offset
        if item.minimum <= harmonised <= item.maximum:
            loaded.append(f"{harmonised:.{item.decimals}f}")
    return loaded


def test_readings_are_those_of_the_tables(data, tables):
    parts = {item.name for item in items() if item.parts > 1}
    compared = Counter()
    for example, kind in zip(data.examples, data.groups["kind"], strict=True):
        requested = re.search(r"What was the (last|highest|lowest) value of (.+) in the first", example.prefix)
        if requested is None or requested[2] in parts or example.split != "test":
            continue
        values = values_of(tables, int(example.uid.split(":")[0]), requested[2])
        pick = {"last": values[-1], "highest": max(values, key=float), "lowest": min(values, key=float)}
        assert float(example.reference) == float(pick[kind]), example.uid
        compared[kind] += 1
    assert min(compared[kind] for kind in ("last", "highest", "lowest")) >= 10


def test_people_and_doses_are_those_of_the_tables(data, tables):
    stays, drugs = tables["icu/icustays"].set_index("stay_id"), tables["icu/inputevents"]
    patients = tables["hosp/patients"].set_index("subject_id")
    compared = Counter()
    for example, kind in zip(data.examples, data.groups["kind"], strict=True):
        stay, subject = int(example.uid.split(":")[0]), int(example.subject)
        intime = stays.loc[stay, "intime"]
        if kind == "age":
            person = patients.loc[subject]
            expected_value = str(person["anchor_age"] + intime.year - person["anchor_year"])
        elif kind == "stays":
            belonging = stays[stays["subject_id"] == subject]
            expected_value = str(int((belonging["intime"] <= intime).sum()))
        elif kind == "starts" and "Propofol" in example.prefix.rsplit("Question: ")[1]:
            belonging = drugs[(drugs["stay_id"] == stay) & (drugs["itemid"] == 222168)]
            hours = (belonging["starttime"] - intime).dt.total_seconds() / 3600
            expected_value = str(int(((hours >= 0) & (hours < 48)).sum()))
        else:
            continue
        assert example.reference == expected_value, example.uid
        compared[kind] += 1
    assert compared["age"] == compared["stays"] == len({example.uid.split(":")[0] for example in data.examples})
    assert compared["starts"] > 0


def test_the_text_shows_what_is_asked_and_none_of_it_can_be_cut(data):
    for example, kind in zip(data.examples, data.groups["kind"], strict=True):
        text = example.prefix.rsplit("\n\nQuestion: ", 1)[0]
        assert example.context == ""
        if kind == "given":
            name = re.search(r"Was (.+) started in", example.prefix)[1]
            assert (name in text) == (example.reference == "Yes")
            assert "Drugs started in" in text
        else:
            assert example.reference in text
    assert set(data.groups["kind"]) == set(KINDS)
    assert data.generation.metrics == METRICS


def test_yes_and_no_are_right_equally_often_in_every_split(data):
    counts = Counter(
        (example.split, example.reference)
        for example, kind in zip(data.examples, data.groups["kind"], strict=True) if kind == "given"
    )  # fmt: skip
    for split in ("train", "pilot", "test"):
        assert counts[split, "Yes"] == counts[split, "No"] > 2


def test_what_a_budget_leaves_out_is_not_asked(make):
    short = make(per_stay=9, limit=None, sections={"person": None, "readings": 60, "drugs": 12})
    kinds = Counter(short.groups["kind"])
    assert not kinds["urine"]
    assert kinds["age"] == kinds["stays"] > 0
    requested = set()
    for example, kind in zip(short.examples, short.groups["kind"], strict=True):
        text = example.prefix.rsplit("\n\nQuestion: ", 1)[0]
        name = re.search(r"value of (.+) in the first", example.prefix)
        requested |= {name[1]} if name else set()
        assert name is None or name[1] in text
        assert kind == "given" or example.reference in text
    assert requested == {"Heart rate"}


def test_the_same_words_make_the_same_questions_and_others_others(make, data):
    each, again = make(limit=4), make(limit=4)
    assert (each.fingerprint, each.examples) == (again.fingerprint, again.examples)
    others = [make(limit=4, seed=1), make(limit=4, tolerance=0.1)]
    assert len({other.fingerprint for other in (each, *others)}) == 3
    assert Counter(example.split for example in each.examples).keys() == {"train", "pilot", "test"}
    assert each.open_data


def test_patients_of_the_open_demo_are_asked_about_too(session_cache):
    if "PATIENTDX_SHARED" not in os.environ:
        pytest.skip("PATIENTDX_SHARED names no folder with data/mimic-iv-demo")
    root = Path(os.environ["PATIENTDX_SHARED"]) / "data/mimic-iv-demo"
    demo = load(
        "record_qa", cache=session_cache, mimic_root=[str(root), str(root / "rebuilt")], limit=4, per_stay=3, threads=1
    )
    assert demo.open_data
    assert len(demo.examples) > 20
    for example, kind in zip(demo.examples, demo.groups["kind"], strict=True):
        assert kind == "given" or example.reference in example.prefix.rsplit("\n\nQuestion: ", 1)[0]


NUMBER = Question("last", "?", "7.40", "number", "", "", 2)
AMOUNT = Question("urine", "?", "1200", "number", "", "mL")
UNIT = Question("unit", "?", "mmol/L", "unit", "")
SHARE = Question("unit", "?", "%", "unit", "")
WORD = Question("given", "?", "No", "word", "")


@pytest.mark.parametrize(
    ("question", "said", "exact", "match"),
    [
        (NUMBER, " 7.40.\n", 1, 1),
        (NUMBER, "7.4", 0, 1),
        (NUMBER, "The last pH was 7.40 at 46 h", 0, 1),
        (NUMBER, "7.41", 0, 0),
        (NUMBER, "7.32 to 7.40", 0, 0),
        (NUMBER, "-7.40", 0, 0),
        (NUMBER, "unknown", 0, 0),
        (AMOUNT, "1200 mL", 1, 1),
        (AMOUNT, "1,200", 0, 1),
        (AMOUNT, "1,2000", 0, 0),
        (UNIT, "mmol/l", 1, 1),
        (UNIT, "It is given in mmol/L.", 0, 1),
        (UNIT, "mmol", 0, 0),
        (UNIT, "mmol/L/h", 0, 0),
        (SHARE, "percent, 95%", 0, 1),
        (WORD, "no.", 1, 1),
        (WORD, "No, it was not.", 0, 1),
        (WORD, "Yes. No.", 0, 0),
        (WORD, "not known", 0, 0),
    ],
)
def test_answers_are_judged(question, said, exact, match):
    assert judged(said, question) == {"exact_match": (exact, 1), "match": (match, 1)}


def test_a_tolerance_lets_numbers_be_near():
    assert judged("1190", AMOUNT, 0.01)["match"] == (1, 1)
    assert judged("1187", AMOUNT, 0.01)["match"] == (0, 1)
    assert judged("1190", AMOUNT, 0.01)["exact_match"] == (0, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kinds": ["mood"]}, r"task\.kinds=\['mood'\]: name one or more of last, highest"),
        ({"kinds": []}, r"task\.kinds=\[\]: name one or more"),
        ({"kinds": ["age", "age"]}, "none twice"),
        ({"tolerance": 1}, r"task\.tolerance=1: it is a share of the right number, from 0 to below 1"),
        ({"per_stay": 0}, r"task\.per_stay=0: a whole number of 1 or more"),
        ({"kinds": ["urine"], "sections": {"person": None}}, r"no text of these \d+ stays shows such a fact"),
        ({"sections": {"mood": None}}, "mood"),
    ],
)
def test_what_makes_no_sense_is_refused(make, given, said):
    with pytest.raises(UserError, match=said):
        make(**given)
