import dataclasses
import hashlib
import re

import pytest

from patientdx.core.errors import UserError
from patientdx.records import concepts, templates
from patientdx.records.window import Course, Record, Times

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
    courses=(
        Course(98, 121, 92, 134, 24, 0.4, 47.2),
        Course(64, 62, 51, 80, 24, 0.6, 46.9),
        Course(38.2, 38.2, 38.2, 38.2, 3, 2, 30),
        Course(14, 9, 8, 15, 9, 1, 44),
        Course(7.38, 7.29, 7.29, 7.38, 2, 3.4, 20),
        Course(1.96, 1.96, 1.96, 1.96, 1, 5.2, 5.2),
    ),
    drug_times=(Times(12, 2.6, 44.2), Times(1, 3.1, 3.1)),
    procedure_times=(Times(1, 0.6, 0.6),),
)


def written(name: str, record: Record, hours: int = 48) -> str:
    return templates.template(name).write(record, hours)


def test_intervals_is_written_to_the_letter():
    assert written("intervals/1", PERSON) == (
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
    assert written("intervals/1", Record(age=40, gender=None), 24) == "Age 40."
    many = dataclasses.replace(
        PERSON,
        gender="F",
        readings=tuple((name, float(item.low)) for name, item in concepts.readings().items()),
        drugs=tuple((f"Drug {n}", None) for n in range(12)),
        procedures=(),
        urine=None,
        diagnoses=("Sepsis, unspecified organism", "Do not resuscitate"),
    )
    loaded = templates.template("intervals/1").written(many, 24)
    lines = loaded.text.splitlines()
    assert lines[:2] == ["Age 67, female.", "Readings, mean of the first 24 hours:"]
    assert len([line for line in lines if " (" in line]) == 20
    assert lines[-2:] == [
        "Drugs: " + ", ".join(f"Drug {n}" for n in range(8)),
        "Diagnoses: Sepsis, unspecified organism; Do not resuscitate",
    ]
    assert loaded.dropped == {"readings": len(concepts.readings()) - 20, "drugs": 4}


def test_paper_is_one_paragraph_of_means_for_labels():
    coded = dataclasses.replace(PERSON, diagnoses=("Acute kidney failure, unspecified",))
    assert written("paper/1", coded) == (
        "A male patient, 67 years old, race WHITE, insured by Medicare, "
        "diagnosed with Acute kidney failure, unspecified. "
        "Charted in 48 hours, on average: 112.400 for Heart rate; 60.600 for Mean arterial pressure; "
        "38.250 for Temperature; 11.800 for Glasgow coma scale; 7.312 for Arterial pH; 1.960 for Creatinine. "
        "Drugs, mean amount: 4.250 of Norepinephrine; Propofol. "
        "Procedures: Invasive ventilation. Outputs: Foley; Void."
    )
    assert (
        written("paper/1", Record(age=40, gender=None), 24)
        == "A patient, 40 years old, race unknown, insured by unknown."
    )
    apart = templates.template("paper/1", {"diagnoses": None, "procedures": None, "person": None})
    assert apart.write(coded, 48) == (
        "Diagnosed with Acute kidney failure, unspecified. Procedures: Invasive ventilation. "
        "A male patient, 67 years old, race WHITE, insured by Medicare."
    )


def test_narrative_is_written_to_the_letter():
    coded = dataclasses.replace(PERSON, diagnoses=("Acute kidney failure, unspecified", "Essential hypertension"))
    assert written("narrative/1", coded) == (
        "67-year-old man.\n"
        "Coded diagnoses: Acute kidney failure, unspecified; Essential hypertension.\n"
        "Course over the first 48 h in intensive care.\n"
        "Vital signs: Heart rate rose from 98 at 0 h to 121 bpm (high) at 47 h, range 92 to 134 (high). "
        "Mean arterial pressure steady, 64 (low) at 1 h and 62 mmHg (low) at 47 h, range 51 (low) to 80. "
        "Temperature 38.2 °C (high) throughout, from 2 h to 30 h.\n"
        "Consciousness: Glasgow coma scale fell from 14 at 1 h to 9 (low) at 44 h, range 8 (low) to 15.\n"
        "Blood gases and ventilation: Arterial pH fell from 7.38 at 3 h to 7.29 (low) at 20 h.\n"
        "Chemistry: Creatinine 2.0 mg/dL (high), measured once, at 5 h.\n"
        "Drugs started in the first 48 h: Norepinephrine 12 times, 3 to 44 h; Propofol at 3 h.\n"
        "Procedures started in the first 48 h: Invasive ventilation at 1 h.\n"
        "Urine output 640 mL in the first 48 h (13 mL/h)."
    )
    assert written("narrative/1", Record(age=40, gender=None), 24) == "40-year-old patient."


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (138, 140.4, "Sodium steady, 138 at 1 h and 140 mmol/L at 9 h."),
        (138, 141, "Sodium rose from 138 at 1 h to 141 mmol/L at 9 h."),
        (138, 135, "Sodium fell from 138 at 1 h to 135 mmol/L at 9 h."),
        (145, 145.4, "Sodium 145 mmol/L throughout, from 1 h to 9 h."),
        (134.6, 134.4, "Sodium steady, 135 at 1 h and 134 mmol/L (low) at 9 h."),
        (145.4, 145.6, "Sodium steady, 145 at 1 h and 146 mmol/L (high) at 9 h."),
    ],
)
def test_trends_and_flags_are_those_of_the_values_as_printed(first, last, told):
    course = Course(first, last, min(first, last), max(first, last), 2, 1, 9)
    record = Record(age=50, gender="F", readings=(("Sodium", first),), courses=(course,))
    assert templates.template("narrative/1", {"readings": None}).write(record, 48).endswith(f"\nChemistry: {told}")


def test_a_change_of_just_a_quarter_of_the_interval_is_no_trend():
    # 2.1 - 2.0 is more than 0.1 in binary, and 0.1 is a quarter of INR's interval.
    record = Record(age=50, gender="F", readings=(("INR", 2.0),), courses=(Course(2.0, 2.1, 2.0, 2.1, 2, 1, 9),))
    assert "INR steady, 2.0 (high) at 1 h and 2.1 (high) at 9 h." in written("narrative/1", record)


def test_the_narrative_groups_readings_by_kind_in_the_order_of_the_item_dictionary():
    loaded = templates.template("narrative/1").write(templates.SPECIMEN, 48)
    headings = re.findall(r"^([A-Z][a-z ]+): (?=[A-Z])", loaded, re.MULTILINE)
    kinds = list(dict.fromkeys(item.kind for item in concepts.items()))
    assert [heading for heading in headings if heading in kinds] == kinds
    assert all(name in loaded for name in concepts.readings())


def test_a_narrative_without_courses_is_refused():
    with pytest.raises(
        UserError,
        match=r"^Template narrative/1 tells the course of each reading, and the record has none: "
        r"make the records with courses=True\.$",
    ):
        written("narrative/1", dataclasses.replace(PERSON, courses=()))


def test_compact_is_one_line_to_the_letter():
    titles = ("Essential (primary) hypertension", "Type 2 diabetes mellitus without complications",
              "Acute respiratory failure, unspecified whether with hypoxia or hypercapnia",
              "Sepsis, unspecified organism", "Sepsis, unspecified")  # fmt: skip
    assert written("compact/1", dataclasses.replace(PERSON, diagnoses=titles)) == (
        "67M | Dx Essential HTN; T2DM; Acute respiratory failure; Sepsis | "
        "48h HR 112H MAP 61L T 38.2H GCS 12L pH 7.31L Cr 2.0H | Rx norepi, Propofol | Px MV | UO 640"
    )
    assert written("compact/1", Record(age=40, gender=None), 24) == "40"


@pytest.mark.parametrize(
    ("name", "identity", "written"),
    [
        ("intervals/1", "intervals/1", "bc52fb1f4f63f673"),
        ("paper/1", "paper/1", "71fff981660a3dea"),
        ("narrative/1", "narrative/1", "afecf78fdc6b0873"),
        ("compact/1", "compact/1", "b5ae203efbd84eb6"),
    ],
)
def test_what_a_version_writes_does_not_change(name, identity, written):
    # When this fails, a template writes something else than before: raise its version and renew the hash.
    template = templates.template(name)
    assert template.id == identity
    assert hashlib.sha256(template.write(templates.SPECIMEN, 48).encode()).hexdigest()[:16] == written


def test_the_hash_follows_the_text_the_sections_and_the_data_files(monkeypatch):
    template = templates.template("intervals/1")
    hashes = {template.sha256}
    assert re.fullmatch("[0-9a-f]{64}", template.sha256)
    hashes.add(dataclasses.replace(template, join=lambda texts: template.join(texts) + ".").sha256)
    default = dict.fromkeys(template.parts)
    assert templates.template("intervals/1", default).sha256 == template.sha256
    hashes.add(
        templates.template("intervals/1", default | {"drugs": 9999}).sha256
    )  # cuts nothing here, may do elsewhere
    hashes.add(templates.template("intervals/1", dict(reversed(default.items()))).sha256)
    monkeypatch.setattr(concepts, "digest", lambda: "other items")
    hashes.add(templates.template("intervals/1").sha256)
    assert len(hashes) == 5


def test_an_unknown_template_is_refused():
    with pytest.raises(
        UserError, match=r"^task\.template='prose': there are intervals/1, paper/1, narrative/1, compact/1, intervals/2"
    ):
        templates.template("prose")


def test_the_item_dictionary_is_sound():
    for name, first in concepts.readings().items():
        same = [item for item in concepts.items() if item.name == name]
        assert {(item.unit, item.low, item.high, item.decimals, item.parts, item.kind) for item in same} == {
            (first.unit, first.low, first.high, first.decimals, first.parts, first.kind)
        }
        assert {item.part for item in same} == set(range(first.parts))
        assert sum(max(i.minimum for i in same if i.part == part) for part in range(first.parts)) <= float(first.low)
        assert (
            float(first.low)
            < float(first.high)
            <= sum(max(i.maximum for i in same if i.part == part) for part in range(first.parts))
        )
    assert len({item.itemid for item in concepts.items()}) == len(concepts.items())


def test_every_reading_has_an_abbreviation_of_its_own():
    shorts = [concepts.abbreviations()[name] for name in concepts.readings()]
    assert len(set(shorts)) == len(shorts)
    assert all(len(short) <= len(name) for name, short in concepts.abbreviations().items())


def test_names_are_short():
    dictionary = [
        (221794, "Furosemide (Lasix)", "Medications"),
        (223258, "Insulin - Regular", "Medications"),
        (225975, "Heparin Sodium (Prophylaxis)", "Medications"),
        (226372, "OR Cell Saver Intake", "Blood Products/Colloids"),
        (225158, "NaCl 0.9%", "Fluids/Intake"),
    ]
    assert concepts.short_names("drug", dictionary) == {
        221794: "Furosemide",
        223258: "Insulin",
        225975: "Heparin",
    }
    assert concepts.shortened("(only this)") == "(only this)"


@pytest.mark.parametrize(
    ("title", "short"),
    [
        ("Acute kidney failure, unspecified", "AKI"),
        ("Chronic kidney disease, stage 3 (moderate)", "CKD, stage 3"),
        ("Unspecified atrial fibrillation", "Unspecified AF"),
        ("Diabetes mellitus without mention of complication, type II or unspecified type, not stated as uncontrolled",
         "Diabetes mellitus, type II or unspecified type, not stated as uncontrolled"),
        ("Do not resuscitate", "Do not resuscitate"),
        ("Pneumonia, organism unspecified", "Pneumonia"),
    ],
)  # fmt: skip
def test_titles_are_shortened_by_the_data_file(title, short):
    assert concepts.cleaned("title", title) == short
