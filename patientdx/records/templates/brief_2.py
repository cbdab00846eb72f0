"""Template `brief/2`: readings with reference intervals and trends, then names: for small models and processors.

It has the layout of `intervals/1`, on which the shipped numeric pivot was trained, and the records of revision 2.
"""

from collections.abc import Sequence

from patientdx.records.record import Infusion, Period, Record
from patientdx.records.templates import course_text, intervals, intervals_2
from patientdx.records.templates.sections import Section

MOST_READINGS, MOST_NAMES = 20, 8
join, person = intervals.join, intervals_2.person


def readings(record: Record, window_hours: int) -> Section:
    """Means beside their reference intervals, and where a reading rose or fell; those of most clinical weight."""
    lines, weights = [], []
    for (name, mean), course in zip(record.readings, record.courses, strict=True):
        concept = record.concepts[name]
        trend = course_text.trend(concept, course, record.gender, (", rising", ", falling", ""))
        lines.append(intervals_2.reading(concept, mean, record.gender) + trend)
        weights.append(concept.weight)
    before = f"Readings, mean of the {course_text.window(record, window_hours)}:\n"
    rest = "\nand {n} more readings"
    return Section(lines, before=before, separator="\n", most=MOST_READINGS, weights=weights, rest=rest)


def drugs(record: Record, window_hours: int) -> Section:
    """Names, those of most clinical weight."""
    return _named("Drugs: ", [name for name, _ in record.drugs], record.infusions)


def procedures(record: Record, window_hours: int) -> Section:
    """Names, those of most clinical weight."""
    return _named("Procedures: ", record.procedures, record.periods)


def _named(before: str, names: Sequence[str], details: Sequence[Infusion | Period]) -> Section:
    return course_text.named(before, names, [detail.weight for detail in details], MOST_NAMES)


outputs, diagnoses = intervals.outputs, intervals_2.diagnoses
