"""Template `narrative`: what happened, in short sentences, with units, times, trends, and what is high or low.

A reading rose or fell when the last value differs from the first by more than a quarter of the reference interval's
width; otherwise it was steady. Values are compared as printed. Hours count from ICU admission.
"""

from collections.abc import Sequence

from patientdx.records import concepts
from patientdx.records.concepts import Item
from patientdx.records.templates.sections import Section
from patientdx.records.window import Course, Record, Times

SEX = {"M": "man", "F": "woman"}
TREND = 0.25  # of the reference interval's width
MOST_DIAGNOSES = 20  # a patient known for long has a hundred codes


def person(record: Record, window_hours: int) -> Section:
    """Age and sex."""
    return Section((f"{record.age}-year-old {SEX.get(record.gender or '', 'patient')}.",))


def diagnoses(record: Record, window_hours: int) -> Section:
    """Titles of the codes."""
    before = "Coded diagnoses: "
    return Section(record.diagnoses, before=before, separator="; ", after=".", most=MOST_DIAGNOSES)


def readings(record: Record, window_hours: int) -> Section:
    """A sentence for each reading, under the headings of items.csv."""
    by_kind: dict[str, list[str]] = {item.kind: [] for item in concepts.readings().values()}
    for (name, _), course in zip(record.readings, record.courses, strict=True):
        item = concepts.readings()[name]
        by_kind[item.kind].append(f"{name} {_course(item, course)}.")
    texts = [
        f"{' ' if number else f'{chr(10)}{kind}: '}{sentence}"
        for kind, sentences in by_kind.items()
        for number, sentence in enumerate(sentences)
    ]
    return Section(texts, before=f"Course over the first {window_hours} h in intensive care.")


def _course(item: Item, course: Course) -> str:
    first, last, lowest, highest = (
        f"{value:.{item.decimals}f}" for value in (course.first, course.last, course.minimum, course.maximum)
    )
    begin, end = f"{course.first_hour:.0f} h", f"{course.last_hour:.0f} h"
    unit = item.unit if item.unit == "%" or item.unit.startswith("/") else f" {item.unit}" * bool(item.unit)
    if course.count == 1:
        return f"{first}{unit}{flag(item, first)}, measured once, at {begin}"
    if lowest == highest:
        return f"{first}{unit}{flag(item, first)} throughout, from {begin} to {end}"
    change = float(last) - float(first)
    beyond = abs(change) - TREND * (float(item.high) - float(item.low))
    if round(beyond, 9) <= 0:  # a change of just a quarter must not hang on the last binary digit
        text = f"steady, {first}{flag(item, first)} at {begin} and {last}{unit}{flag(item, last)} at {end}"
    else:
        verb = "rose" if change > 0 else "fell"
        text = f"{verb} from {first}{flag(item, first)} at {begin} to {last}{unit}{flag(item, last)} at {end}"
    if course.count == 2:
        return text
    return f"{text}, range {lowest}{flag(item, lowest)} to {highest}{flag(item, highest)}"


def flag(item: Item, printed: str, words: tuple[str, str] = (" (low)", " (high)")) -> str:
    """What to add to a printed value below or above the reference interval; nothing inside it."""
    if float(printed) < float(item.low):
        return words[0]
    return words[1] if float(printed) > float(item.high) else ""


def drugs(record: Record, window_hours: int) -> Section:
    """Names, how often started and when, the most often given first."""
    names = [name for name, _ in record.drugs]
    return _started(f"Drugs started in the first {window_hours} h: ", names, record.drug_times)


def procedures(record: Record, window_hours: int) -> Section:
    """Names, how often started and when."""
    return _started(f"Procedures started in the first {window_hours} h: ", record.procedures, record.procedure_times)


def _started(before: str, names: Sequence[str], times: Sequence[Times]) -> Section:
    texts = [
        f"{name} at {when.first_hour:.0f} h"
        if when.count == 1
        else f"{name} {when.count} times, {when.first_hour:.0f} to {when.last_hour:.0f} h"
        for name, when in zip(names, times, strict=True)
    ]
    return Section(texts, before=before, separator="; ", after=".")


def outputs(record: Record, window_hours: int) -> Section:
    """Urine over the window, and by the hour."""
    if record.urine is None:
        return Section(())
    amount = max(record.urine, 0)
    return Section((f"Urine output {amount:.0f} mL in the first {window_hours} h ({amount / window_hours:.0f} mL/h).",))


def join(texts: Sequence[tuple[str, str]]) -> str:
    """A paragraph after the other."""
    return "\n".join(text for _, text in texts)
