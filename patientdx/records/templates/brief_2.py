"""Template `brief/2`: the weightiest readings with reference intervals and trends, then names: for small models.

Half as long as `intervals/1`, so that a processor reads it in half the time: names are short, and the reference
interval stands for the unit.
"""

from collections.abc import Mapping, Sequence

from patientdx.records.record import Infusion, Period, Record
from patientdx.records.templates import course_text, intervals, intervals_2
from patientdx.records.templates.sections import Section

MOST_READINGS, MOST_NAMES = 10, 5
COMA_SCALE = "Glasgow coma scale"
COMA_PARTS = {"GCS eye": "E", "GCS verbal": "V", "GCS motor": "M"}
join, person = intervals.join, intervals_2.person


def readings(record: Record, window_hours: int) -> Section:
    """Means beside their reference intervals, and where a reading rose or fell; those of most clinical weight.

    The parts of the coma scale stand behind their sum: GCS 9 (14-15) E2 V2 M5.
    """
    means = dict(record.readings)
    lines, weights = [], []
    for (name, mean), course in zip(record.readings, record.courses, strict=True):
        if name in COMA_PARTS and COMA_SCALE in means:
            continue
        concept = record.concepts[name]
        trend = course_text.trend(concept, course, record.gender, (", rising", ", falling", ""))
        interval = course_text.interval(concept, record.gender)
        parts = _coma_parts(record, means) if name == COMA_SCALE else ""
        lines.append(f"{concept.short} {concept.printed(mean)} ({interval}){parts}{trend}")
        weights.append(concept.weight)
    before = f"Readings, mean of the {course_text.window(record, window_hours)}:\n"
    rest = "\nand {n} more readings"
    return Section(lines, before=before, separator="\n", most=MOST_READINGS, weights=weights, rest=rest)


def _coma_parts(record: Record, means: Mapping[str, float]) -> str:
    printed = [
        f" {letter}{record.concepts[name].printed(means[name])}" for name, letter in COMA_PARTS.items() if name in means
    ]
    return "".join(printed)


def drugs(record: Record, window_hours: int) -> Section:
    """Names, those of most clinical weight."""
    return _named("Drugs: ", [name for name, _ in record.drugs], record.infusions)


def procedures(record: Record, window_hours: int) -> Section:
    """Names, those of most clinical weight."""
    return _named("Procedures: ", record.procedures, record.periods)


def _named(before: str, names: Sequence[str], details: Sequence[Infusion | Period]) -> Section:
    return course_text.named(before, names, [detail.weight for detail in details], MOST_NAMES)


outputs, diagnoses = intervals.outputs, intervals_2.diagnoses
