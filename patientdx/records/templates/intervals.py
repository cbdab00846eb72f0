"""Template `intervals`: one reading a line with its adult reference interval and unit, then names."""

from collections.abc import Iterable, Sequence

from patientdx.records import concepts
from patientdx.records.templates.sections import Section
from patientdx.records.window import Record

MOST_READINGS, MOST_NAMES = 20, 8
SEX = {"M": "male", "F": "female"}


def person(record: Record, window_hours: int) -> Section:
    """Age and sex."""
    sex = SEX.get(record.gender or "")
    return Section((f"Age {record.age}, {sex}." if sex else f"Age {record.age}.",))


def readings(record: Record, window_hours: int) -> Section:
    """Means over the window beside their reference intervals."""
    lines = []
    for name, value in record.readings:
        item = concepts.readings()[name]
        lines.append(f"{name} {value:.{item.decimals}f} ({item.low}-{item.high}) {item.unit}".rstrip())
    before = f"Readings, mean of the first {window_hours} hours:\n"
    return Section(lines, before=before, separator="\n", most=MOST_READINGS)


def drugs(record: Record, window_hours: int) -> Section:
    """Names, the most often given first."""
    return _named("Drugs: ", (name for name, _ in record.drugs), ", ")


def procedures(record: Record, window_hours: int) -> Section:
    """Names, the most frequent first."""
    return _named("Procedures: ", record.procedures, ", ")


def outputs(record: Record, window_hours: int) -> Section:
    """Urine over the window."""
    return Section(() if record.urine is None else (f"Urine output {max(record.urine, 0):.0f} mL",))


def diagnoses(record: Record, window_hours: int) -> Section:
    """Titles of the codes."""
    return _named("Diagnoses: ", record.diagnoses, "; ")


def _named(before: str, names: Iterable[str], separator: str) -> Section:
    return Section(tuple(names), before=before, separator=separator, most=MOST_NAMES)


def join(texts: Sequence[tuple[str, str]]) -> str:
    """A line after the other."""
    return "\n".join(text for _, text in texts)
