import dataclasses
import hashlib
import re

import pytest

from patientdx.refusal import Refusal
from patientdx.tasks.records import items, text
from patientdx.tasks.records.window import Record

PERSON = Record(
    age=67,
    gender="M",
    race="WHITE",
    insurance="Medicare",
    readings=(
        ("Heart rate", 112.4),
        ("Mean arterial pressure", 60.6),
        ("Temperature", 38.25),
        ("Glasgow coma scale", 11.8),
        ("Arterial pH", 7.312),
        ("Creatinine", 1.96),
    ),
    drugs=(("Norepinephrine", 4.25), ("Propofol", None)),
    procedures=("Invasive ventilation",),
    outputs=("Foley", "Void"),
    urine=640.2,
)


def test_intervals_is_written_to_the_letter():
    assert text.intervals(PERSON, 48) == (
        "Age 67, male.\n"
        "Readings, mean of the first 48 hours:\n"
        "Heart rate 112 (60-100) bpm\n"
        "Mean arterial pressure 61 (70-105) mmHg\n"
        "Temperature 38.2 (36.0-38.0) °C\n"
        "Glasgow coma scale 12 (14-15)\n"
        "Arterial pH 7.31 (7.35-7.45)\n"
        "Creatinine 2.0 (0.5-1.2) mg/dL\n"
        "Drugs: Norepinephrine, Propofol\n"
        "Procedures: Invasive ventilation\n"
        "Urine output 640 mL"
    )


def test_intervals_skips_what_is_empty_and_keeps_lists_short():
    assert text.intervals(Record(age=40, gender=None), 24) == "Age 40."
    many = dataclasses.replace(
        PERSON,
        gender="F",
        readings=tuple((name, float(item.low)) for name, item in items.readings().items()),
        drugs=tuple((f"Drug {n}", None) for n in range(12)),
        procedures=(),
        urine=None,
        diagnoses=("Sepsis, unspecified organism", "Do not resuscitate"),
    )
    lines = text.intervals(many, 24).splitlines()
    assert lines[:2] == ["Age 67, female.", "Readings, mean of the first 24 hours:"]
    assert len([line for line in lines if " (" in line]) == 20
    assert lines[-2:] == [
        "Drugs: " + ", ".join(f"Drug {n}" for n in range(8)),
        "Diagnoses: Sepsis, unspecified organism; Do not resuscitate",
    ]


def test_paper_is_one_paragraph_of_means_for_labels():
    assert text.paper(dataclasses.replace(PERSON, diagnoses=("Acute kidney failure, unspecified",)), 48) == (
        "A male patient, 67 years old, race WHITE, insured by Medicare, "
        "diagnosed with Acute kidney failure, unspecified. "
        "Charted in 48 hours, on average: 112.400 for Heart rate; 60.600 for Mean arterial pressure; "
        "38.250 for Temperature; 11.800 for Glasgow coma scale; 7.312 for Arterial pH; 1.960 for Creatinine. "
        "Drugs, mean amount: 4.250 of Norepinephrine; Propofol. "
        "Procedures: Invasive ventilation. Outputs: Foley; Void."
    )
    assert text.paper(Record(age=40, gender=None), 24) == ("A patient, 40 years old, race unknown, insured by unknown.")


@pytest.mark.parametrize(
    ("name", "identity", "written"),
    [
        ("intervals", "intervals/1", "bc52fb1f4f63f673"),
        ("paper", "paper/1", "71fff981660a3dea"),
    ],
)
def test_what_a_version_writes_does_not_change(name, identity, written):
    # When this fails, a template writes something else than before: raise its version and renew the hash.
    template = text.template(name)
    assert template.id == identity
    assert hashlib.sha256(template.write(text.SPECIMEN, 48).encode()).hexdigest()[:16] == written


def test_the_hash_follows_the_text(monkeypatch):
    template = text.template("intervals")
    other = dataclasses.replace(template, write=lambda record, hours: template.write(record, hours) + ".")
    assert re.fullmatch("[0-9a-f]{64}", template.sha256)
    assert other.sha256 != template.sha256
    monkeypatch.setattr(items, "digest", lambda: "other items")
    assert text.template("intervals").sha256 != other.sha256


def test_an_unknown_template_is_refused():
    with pytest.raises(Refusal, match=r"^task\.template='prose': there are intervals, paper\.$"):
        text.template("prose")


def test_the_item_dictionary_is_sound():
    for name, first in items.readings().items():
        same = [item for item in items.items() if item.name == name]
        assert {(item.unit, item.low, item.high, item.decimals, item.parts) for item in same} == {
            (first.unit, first.low, first.high, first.decimals, first.parts)
        }
        assert {item.part for item in same} == set(range(first.parts))
        assert sum(max(i.minimum for i in same if i.part == part) for part in range(first.parts)) <= float(first.low)
        assert (
            float(first.low)
            < float(first.high)
            <= sum(max(i.maximum for i in same if i.part == part) for part in range(first.parts))
        )
    assert len({item.itemid for item in items.items()}) == len(items.items())


def test_names_are_short():
    dictionary = [
        (221794, "Furosemide (Lasix)", "Medications"),
        (223258, "Insulin - Regular", "Medications"),
        (225975, "Heparin Sodium (Prophylaxis)", "Medications"),
        (226372, "OR Cell Saver Intake", "Blood Products/Colloids"),
        (225158, "NaCl 0.9%", "Fluids/Intake"),
    ]
    assert items.short_names("drug", dictionary) == {
        221794: "Furosemide",
        223258: "Insulin",
        225975: "Heparin",
    }
    assert items.shortened("(only this)") == "(only this)"
