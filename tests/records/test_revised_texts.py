"""Templates of revision 2: what they say to the letter, what a budget cuts, and that it is said."""

import dataclasses
import hashlib

import pytest

from patientdx.core.errors import UserError
from patientdx.records import concept_table, templates
from patientdx.records.record import Background, Course, Infusion, Period, Record, Times, Word
from patientdx.records.templates import sections

NAMES = ("brief/2", "intervals/2", "narrative/2", "compact/2")


def steady(value: float) -> Course:
    return Course(value, value, value, value, 3, 1, 40)


def crowd() -> Record:
    """A stay with every reading and many drugs, of which the vasopressors come last by name and number of rows."""
    names = [*(f"Drug {n}" for n in range(20)), "Vasopressin", "Phenylephrine"]
    weights = [40] * 20 + [99, 98]
    readings = tuple((name, concept.high) for name, concept in concept_table.concepts().items())
    return dataclasses.replace(
        templates.SPECIMEN_2, readings=readings, courses=tuple(steady(value) for _, value in readings),
        drugs=tuple((name, None) for name in names), drug_times=tuple(Times(30 - n, n, n) for n in range(len(names))),
        infusions=tuple(Infusion("", weight, "", None, None, None, False, False, 0.0) for weight in weights),
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_organ_support_and_gases_are_never_cut_for_routine_values(name):
    """The audit's row 2: what is cut is what weighs least, whatever the budget, and the text says that it was cut."""
    record, template = crowd(), templates.template(name)
    weights = [concept.weight for concept in concept_table.concepts().values()]
    for budget in (120, 200, 300, 420, 600):
        section = template.parts["readings"](record, 48)
        text, dropped = sections.fitted(section, budget)
        assert sections.count(text) <= budget
        assert set(section.weights) <= set(weights)
        printed = [weight for item, weight in zip(section.items, section.weights, strict=True) if item in text]
        left = sorted(section.weights)[:dropped]
        assert not printed or min(printed) >= max(left, default=0)
        assert not printed or not dropped or f"{dropped} more" in text
    for budget in (None, 40, 60):
        text, dropped = sections.fitted(template.parts["drugs"](record, 48), budget)
        short = {"compact/2": ("vaso", "phenyl")}.get(name, ("Vasopressin", "Phenylephrine"))
        assert all(drug in text for drug in short)
        assert (f"and {dropped} more" in text) == (dropped > 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_keeps_its_order(name):
    template = templates.template(name)
    section = template.parts["readings"](crowd(), 48)
    text, dropped = sections.fitted(section, 90)
    starts = [text.index(item) for item in section.items if item in text]
    assert dropped
    assert starts == sorted(starts)


def test_intervals_tells_trends_and_worst_values_to_the_letter():
    record = Record(
        age=71, gender="F",
        readings=(
            ("Lactate", 3.14), ("Creatinine", 1.2), ("Sedation scale (RASS)", -3.0), ("Potassium", 4.2),
            ("Sodium", 140.0),
        ),
        courses=(
            Course(5.0, 2.0, 1.9, 5.2, 6, 1, 40), Course(1.2, 1.2, 1.2, 1.2, 1, 3, 3), Course(-4, -2, -4, -2, 2, 1, 9),
            Course(4.2, 4.3, 3.2, 4.5, 5, 1, 44), Course(139, 140, 138, 143, 5, 1, 44),
        ),
        drugs=(("Norepinephrine", None), ("Cefepime", 1.0)), drug_times=(Times(9, 0, 30), Times(2, 3, 15)),
        infusions=(
            Infusion("vasopressor", 100, "mcg/kg/min", 0.05, 0.1, 0.4, True, True, 40.2),
            Infusion("antibiotic", 55, "", None, None, None, False, False, 0.4),
        ),
        procedures=("Invasive ventilation",), procedure_times=(Times(1, 0, 0),),
        periods=(Period("ventilation", 100, True, False, 20.0),), words=(Word("Code status", "Full code", 2.0),),
        urine=960.0, fluid_in=3000.0, fluid_out=1200.0, earlier=(("Lactate", 6.04),),
        background=Background("EW EMER.", "EMERGENCY ROOM", "MICU", 7.6, True, ("cancer",)),
    )  # fmt: skip
    assert templates.template("intervals/2").write(record, 48) == (
        "Age 71, female.\n"
        "Admission: EW EMER.; EMERGENCY ROOM; unit MICU; surgical; 8 h in hospital before intensive care\n"
        "Known from earlier admissions: cancer\n"
        "Readings, mean of the first 48 hours:\n"
        "Lactate 3.1 (0.5-2.0) mmol/L; falling from 5.0 to 2.0; worst 5.2\n"
        "Creatinine 1.2 (0.5-1.1) mg/dL\n"
        "Sedation scale (RASS) -3 (-1 to 1); rising from -4 to -2\n"
        "Potassium 4.2 (3.5-5.0) mmol/L; worst 3.2\n"
        "Sodium 140 (135-145) mmol/L\n"
        "Status: Code status Full code\n"
        "Drugs: Norepinephrine (highest 0.4, last 0.1 mcg/kg/min, running at admission, 40 h, running now), Cefepime\n"
        "Procedures: Invasive ventilation (running at admission, 20 h)\n"
        "Fluids: urine output 960 mL (20 mL/h), fluid in 3000 mL, fluid out 1200 mL, balance +1800 mL\n"
        "Laboratory in the 24 hours before: Lactate 6.0"
    )


def test_brief_has_short_names_and_the_parts_of_the_coma_scale_behind_their_sum():
    scale = (("Glasgow coma scale", 9.0), ("GCS eye", 2.0), ("GCS verbal", 2.0), ("GCS motor", 5.0))
    courses = (Course(12, 8, 8, 12, 5, 1, 40), *(steady(value) for _, value in scale[1:]))
    record = Record(age=71, gender="F", readings=scale, courses=courses)
    start = "Age 71, female.\nReadings, mean of the first 48 hours:\n"
    brief = templates.template("brief")
    assert brief.write(record, 48) == start + "GCS 9 (14-15) E2 V2 M5, falling"
    untestable = dataclasses.replace(record, readings=scale[1::2], courses=courses[1::2])
    assert brief.write(untestable, 48) == start + "GCS-E 2 (4-4)\nGCS-M 5 (6-6)"


@pytest.mark.parametrize(
    ("identity", "written"),
    [
        ("brief/2", "92ad0fed4be01fd7"),
        ("intervals/2", "34c277db1556b7fe"),
        ("paper/2", "71fff981660a3dea"),
        ("narrative/2", "24229cabba6e65e1"),
        ("compact/2", "e36e23dd8ad1c208"),
    ],
)
def test_what_a_version_writes_does_not_change(identity, written):
    # When this fails, a template writes something else than before: raise its version and renew the hash.
    template = templates.template(identity)
    specimen = templates.SPECIMEN if template.every_item else templates.SPECIMEN_2
    assert hashlib.sha256(template.write(specimen, 48).encode()).hexdigest()[:16] == written


def test_a_name_is_its_newest_version_and_an_id_stays(monkeypatch):
    for name in ("intervals", "narrative", "compact", "paper"):
        assert templates.template(name).id == f"{name}/2"
        assert templates.template(f"{name}/1").id == f"{name}/1"
        assert templates.template(f"{name}/1").revision == 1
    old, new = (templates.template(identity).sha256 for identity in ("intervals/1", "intervals/2"))
    monkeypatch.setattr(concept_table, "digest", lambda: "other concepts")
    assert templates.template("intervals/1").sha256 == old
    assert templates.template("intervals/2").sha256 != new


@pytest.mark.parametrize("name", NAMES)
def test_records_of_revision_1_are_refused(name):
    with pytest.raises(UserError, match=r"prints doses, and the record has none: make the records with revision=2\.$"):
        templates.template(name).write(templates.SPECIMEN, 48)


def test_sections_of_another_version_are_refused_by_name():
    with pytest.raises(UserError, match=r"^task\.sections has no earlier: there are person, readings, "):
        templates.template("intervals/1", {"earlier": None})
    assert templates.template("intervals/2", {"earlier": None}).sections == {"earlier": None}
