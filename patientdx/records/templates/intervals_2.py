"""Template `intervals/2`: a reading a line with mean, reference interval, trend, worst value; doses; fluids."""

from collections.abc import Sequence

from patientdx.records.concept_table import Concept
from patientdx.records.record import Course, Record
from patientdx.records.templates import course_text, intervals
from patientdx.records.templates.sections import Section

MOST_READINGS, MOST_NAMES, MOST_DIAGNOSES = 30, 12, 8
join = intervals.join


def person(record: Record, window_hours: int) -> Section:
    """Age and sex."""
    sex = intervals.SEX.get(record.gender or "")
    return Section((f"Age {course_text.age(record)}{f', {sex}' if sex else ''}.",))


def admission(record: Record, window_hours: int) -> Section:
    """Where the patient came from."""
    return Section(course_text.admission(record), before="Admission: ", separator="; ")


def comorbidities(record: Record, window_hours: int) -> Section:
    """Chronic conditions coded at earlier admissions."""
    return Section(record.background.comorbidities, before="Known from earlier admissions: ", separator=", ")


def readings(record: Record, window_hours: int) -> Section:
    """Means beside their reference intervals, then the trend from first to last value, and the worst value."""
    lines, weights = [], []
    for (name, mean), course in zip(record.readings, record.courses, strict=True):
        concept = record.concepts[name]
        line = reading(concept, mean, record.gender)
        lines.append("; ".join([line, *_course(concept, course, concept.printed(mean), record.gender)]))
        weights.append(concept.weight)
    before = f"Readings, mean of the {course_text.window(record, window_hours)}:\n"
    rest = "\nand {n} more readings"
    return Section(lines, before=before, separator="\n", most=MOST_READINGS, weights=weights, rest=rest)


def reading(concept: Concept, mean: float, gender: str | None) -> str:
    """Name, mean, reference interval and unit."""
    interval = course_text.interval(concept, gender)
    return f"{concept.name} {concept.printed(mean)} ({interval}) {concept.unit}".rstrip()


def _course(concept: Concept, course: Course, mean: str, gender: str | None) -> list[str]:
    """First and last value where they differ by a trend; the worst value where it is out of its interval and new.

    A reading without them was steady and, at its worst, within its interval or as its mean: saying so would double
    the text, and the time that a model takes to read it.
    """
    first, last = concept.printed(course.first), concept.printed(course.last)
    change = course_text.trend(concept, course, gender, ("rising", "falling", ""))
    parts = [f"{change} from {first} to {last}"] if change else []
    worst = course_text.notable_worst(concept, course, gender, (mean, first, last) if change else (mean,))
    return [*parts, f"worst {worst}"] if worst else parts


def status(record: Record, window_hours: int) -> Section:
    """What is charted in words."""
    return Section(course_text.status(record), before="Status: ", separator="; ")


def drugs(record: Record, window_hours: int) -> Section:
    """Names with doses, the most important first."""
    items = [_with(name, course_text.dose(how)) for (name, _), how in zip(record.drugs, record.infusions, strict=True)]
    return course_text.named("Drugs: ", items, [how.weight for how in record.infusions], MOST_NAMES)


def procedures(record: Record, window_hours: int) -> Section:
    """Names with times, the most important first."""
    pairs = zip(record.procedures, record.periods, strict=True)
    items = [_with(name, course_text.running(period)) for name, period in pairs]
    return course_text.named("Procedures: ", items, [period.weight for period in record.periods], MOST_NAMES)


def _with(name: str, details: Sequence[str]) -> str:
    return f"{name} ({', '.join(details)})" if details else name


def outputs(record: Record, window_hours: int) -> Section:
    """Urine, fluid in and out, and their balance."""
    return Section(course_text.fluids(record, window_hours), before="Fluids: ", separator=", ")


def earlier(record: Record, window_hours: int) -> Section:
    """The laboratory of the day before."""
    return course_text.earlier(record, "Laboratory in the 24 hours before: ")


def diagnoses(record: Record, window_hours: int) -> Section:
    """Titles of the codes."""
    weights = [0] * len(record.diagnoses)
    return course_text.named("Diagnoses: ", record.diagnoses, weights, MOST_DIAGNOSES, "; ")
