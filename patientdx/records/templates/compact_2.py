"""Template `compact/2`: one line of abbreviations: mean, flag, an arrow for the trend, the worst value, doses."""

from collections.abc import Sequence

from patientdx.records import concepts
from patientdx.records.record import Record
from patientdx.records.templates import compact, course_text
from patientdx.records.templates.narrative import MOST_DIAGNOSES
from patientdx.records.templates.sections import Section

MOST_READINGS, MOST_NAMES = 20, 8
join = compact.join


def person(record: Record, window_hours: int) -> Section:
    """Age and sex, as 67M; >89F."""
    years = ">89" if record.age >= course_text.OVER else str(record.age)
    return Section((f"{years}{record.gender if record.gender in ('M', 'F') else ''}",))


def admission(record: Record, window_hours: int) -> Section:
    """Where the patient came from."""
    return Section(course_text.admission(record), before="Adm ", separator=", ")


def comorbidities(record: Record, window_hours: int) -> Section:
    """Chronic conditions coded at earlier admissions."""
    return Section(record.background.comorbidities, before="Hx ", separator=", ")


def readings(record: Record, window_hours: int) -> Section:
    """Mean with L or H, then > or < where it fell or rose, and the worst value where it is out of its interval."""
    texts, weights = [], []
    for (name, mean), course in zip(record.readings, record.courses, strict=True):
        concept = record.concepts[name]
        number = concept.printed(mean)
        text = number + course_text.flag(concept, number, record.gender, ("L", "H"))
        text += course_text.trend(concept, course, record.gender, ("<", ">", ""))
        worst = course_text.notable_worst(concept, course, record.gender, (number,))
        text += f"({worst})" if worst else ""
        texts.append(f"{concept.short} {text}")
        weights.append(concept.weight)
    hours = f"{'last ' if record.at_discharge else ''}{window_hours}h "
    rest = " +{n} more"
    return Section(texts, before=hours, separator=" ", most=MOST_READINGS, weights=weights, rest=rest)


def status(record: Record, window_hours: int) -> Section:
    """What is charted in words."""
    return Section(course_text.status(record), separator="; ")


def drugs(record: Record, window_hours: int) -> Section:
    """Short names with the highest and the last rate."""
    items = []
    for (name, _), how in zip(record.drugs, record.infusions, strict=True):
        rates = "" if how.highest is None else f" {how.highest:.3g}/{how.last:.3g}"
        items.append(_short(name) + rates + ("*" if how.at_start else ""))
    return course_text.named("Rx ", items, [how.weight for how in record.infusions], MOST_NAMES)


def procedures(record: Record, window_hours: int) -> Section:
    """Short names; * was running at admission."""
    pairs = list(zip(record.procedures, record.periods, strict=True))
    items: Sequence[str] = [_short(name) + ("*" if period.at_start else "") for name, period in pairs]
    return course_text.named("Px ", items, [period.weight for _, period in pairs], MOST_NAMES)


def _short(name: str) -> str:
    return concepts.abbreviations().get(name, name)


def outputs(record: Record, window_hours: int) -> Section:
    """Urine and fluid balance in mL."""
    parts = [] if record.urine is None else [f"UO {max(record.urine, 0):.0f}"]
    if record.fluid_in is not None and record.fluid_out is not None:
        parts.append(f"balance {record.fluid_in - record.fluid_out:+.0f}")
    return Section(parts, separator=" ")


def earlier(record: Record, window_hours: int) -> Section:
    """The laboratory of the day before."""
    return course_text.earlier(record, "Before ", short=True)


def diagnoses(record: Record, window_hours: int) -> Section:
    """Shortened titles of the codes, each once."""
    titles = tuple(dict.fromkeys(concepts.cleaned("title", title) for title in record.diagnoses))
    return course_text.named("Dx ", titles, [0] * len(titles), MOST_DIAGNOSES, "; ")
