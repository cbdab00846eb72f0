"""Template `narrative/2`: what happened, in short sentences, with what was running at admission, doses and fluids.

Trends, flags and hours are those of `narrative/1`, with the reference intervals of the patient's sex.
"""

from patientdx.records.concept_table import Concept
from patientdx.records.record import Course, Record
from patientdx.records.templates import course_text, narrative
from patientdx.records.templates.sections import Section

MOST_NAMES = 20
_WORDS = (" (low)", " (high)")
join = narrative.join


def person(record: Record, window_hours: int) -> Section:
    """Age and sex."""
    sex = narrative.SEX.get(record.gender or "", "patient")
    old = "A" if record.age >= course_text.OVER else f"{record.age}-year-old"
    return Section((f"{old} {sex}{' over 89 years old' if record.age >= course_text.OVER else ''}.",))


def admission(record: Record, window_hours: int) -> Section:
    """Where the patient came from."""
    return Section(course_text.admission(record), before="Admission: ", separator=", ", after=".")


def comorbidities(record: Record, window_hours: int) -> Section:
    """Chronic conditions coded at earlier admissions."""
    return Section(record.background.comorbidities, before="Known from earlier admissions: ", separator=", ", after=".")


def readings(record: Record, window_hours: int) -> Section:
    """A sentence for each reading, under its heading."""
    texts, weights, last_kind = [], [], None
    for (name, _), course in zip(record.readings, record.courses, strict=True):
        concept = record.concepts[name]
        heading = " " if concept.kind == last_kind else f"\n{concept.kind}: "
        texts.append(f"{heading}{name} {_sentence(concept, course, record.gender)}.")
        weights.append(concept.weight)
        last_kind = concept.kind
    before = f"Course over the {course_text.window(record, window_hours)}."
    return Section(texts, before=before, weights=weights, rest="\nAnd {n} more readings.")


def _sentence(concept: Concept, course: Course, gender: str | None) -> str:
    first, last, lowest, highest = (
        text + course_text.flag(concept, text, gender, _WORDS)
        for text in map(concept.printed, (course.first, course.last, course.minimum, course.maximum))
    )
    begin, end = f"{course.first_hour:.0f} h", f"{course.last_hour:.0f} h"
    unit = f" {concept.unit}".replace(" %", "%").replace(" /", "/") if concept.unit else ""
    if course.count == 1:
        return f"{first}{unit}, measured once, at {begin}"
    if lowest == highest:
        return f"{first}{unit} throughout, from {begin} to {end}"
    verb = course_text.trend(concept, course, gender, ("rose", "fell", "steady"))
    text = (
        f"steady, {first} at {begin} and {last}{unit} at {end}"
        if verb == "steady"
        else f"{verb} from {first} at {begin} to {last}{unit} at {end}"
    )
    return text if course.count == 2 else f"{text}, range {lowest} to {highest}"


def status(record: Record, window_hours: int) -> Section:
    """What is charted in words."""
    return Section(course_text.status(record), before="Status: ", separator="; ", after=".")


def drugs(record: Record, window_hours: int) -> Section:
    """Names with doses, how often started and when; the most important first."""
    items = [
        "; ".join([f"{name} {_times(when.count, when.first_hour, when.last_hour)}", *course_text.dose(how)])
        for (name, _), how, when in zip(record.drugs, record.infusions, record.drug_times, strict=True)
    ]
    return course_text.named("Drugs: ", items, [how.weight for how in record.infusions], MOST_NAMES, ". ", ".")


def procedures(record: Record, window_hours: int) -> Section:
    """Names and times; the most important first."""
    items = [
        "; ".join([f"{name} {_times(when.count, when.first_hour, when.last_hour)}", *course_text.running(period)])
        for name, period, when in zip(record.procedures, record.periods, record.procedure_times, strict=True)
    ]
    return course_text.named("Procedures: ", items, [period.weight for period in record.periods], MOST_NAMES, ". ", ".")


def _times(count: int, first: float, last: float) -> str:
    return f"at {first:.0f} h" if count == 1 else f"{count} times, {first:.0f} to {last:.0f} h"


def outputs(record: Record, window_hours: int) -> Section:
    """Urine, fluid in and out, and their balance."""
    return Section(course_text.fluids(record, window_hours), before="Fluids: ", separator=", ", after=".")


def earlier(record: Record, window_hours: int) -> Section:
    """The laboratory of the day before."""
    return course_text.earlier(record, "Laboratory in the 24 hours before intensive care: ")


def diagnoses(record: Record, window_hours: int) -> Section:
    """Titles of the codes."""
    weights = [0] * len(record.diagnoses)
    return course_text.named("Coded diagnoses: ", record.diagnoses, weights, narrative.MOST_DIAGNOSES, "; ", ".")
