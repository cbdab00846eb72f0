"""What the templates of revision 2 share: trends, doses, and sections whose least important items are cut."""

from collections.abc import Sequence

from patientdx.records.concept_table import Concept
from patientdx.records.record import Course, Infusion, Period, Record
from patientdx.records.templates.sections import Section

TREND = 0.25  # of the reference interval's width
OVER = 90  # the age that stands for all over 89
LONGEST_WORD = 40  # characters of an entry in words
MOST_EARLIER = 12


def age(record: Record) -> str:
    """The age in years, or that it is over 89, where MIMIC-IV knows no more."""
    return "over 89" if record.age >= OVER else str(record.age)


def window(record: Record, hours: int) -> str:
    """Which hours the text is about."""
    return f"last {hours} hours in intensive care" if record.at_discharge else f"first {hours} hours"


def trend(concept: Concept, course: Course, gender: str | None, words: tuple[str, str, str]) -> str:
    """`words` are for risen, fallen and steady: as printed, by more than a quarter of the interval's width or not."""
    low, high = concept.interval(gender)
    change = float(concept.printed(course.last)) - float(concept.printed(course.first))
    if round(abs(change) - TREND * (high - low), 9) <= 0:  # the last binary digit decides nothing
        return words[2]
    return words[0] if change > 0 else words[1]


def interval(concept: Concept, gender: str | None) -> str:
    """The reference interval of a patient of that gender, as low-high."""
    low, high = (concept.printed(value) for value in concept.interval(gender))
    return f"{low} to {high}" if low.startswith("-") else f"{low}-{high}"


def flag(concept: Concept, printed: str, gender: str | None, words: tuple[str, str]) -> str:
    """The first word for a printed value below the interval, the second for one above it, else nothing."""
    low, high = concept.interval(gender)
    return words[0] if float(printed) < low else words[1] if float(printed) > high else ""


def worst(concept: Concept, course: Course, gender: str | None) -> str:
    """The most harmful value, as printed."""
    return concept.printed(concept.worst(course.minimum, course.maximum, gender))


def notable_worst(concept: Concept, course: Course, gender: str | None, known: Sequence[str]) -> str:
    """The most harmful value where it is out of the reference interval and not among the known ones, else nothing."""
    value = worst(concept, course, gender)
    return value if value not in known and flag(concept, value, gender, ("low", "high")) else ""


def dose(infusion: Infusion) -> list[str]:
    """What is known of how a drug was given: rates with their unit, and for how long."""
    parts = []
    if infusion.highest is not None and infusion.last is not None:
        rates = f"highest {infusion.highest:.3g}, last {infusion.last:.3g} {infusion.unit}"
        parts = [f"{infusion.last:.3g} {infusion.unit}" if infusion.highest == infusion.last else rates]
    return [*parts, *running(infusion)] if parts else running(infusion)


def running(period: Infusion | Period) -> list[str]:
    """For how long, and whether already running before the window and still at its end."""
    parts = ["running at admission"] if period.at_start else []
    parts += [f"{period.hours:.0f} h"] if period.hours >= 1 else []
    return [*parts, "running now"] if period.at_end else parts


def named(
    before: str, items: Sequence[str], weights: Sequence[int], most: int, separator: str = ", ", after: str = ""
) -> Section:
    """A section of one line that says how many of its items it leaves out: those of the least clinical weight."""
    rest = separator + "and {n} more"
    return Section(items, before=before, separator=separator, after=after, most=most, weights=weights, rest=rest)


def admission(record: Record) -> list[str]:
    """Admission type, source, first unit, service, and hours in hospital before intensive care, as far as known."""
    known = record.background
    parts = [text for text in (known.admission_type, known.admission_location) if text]
    parts += [f"unit {known.first_careunit}"] if known.first_careunit else []
    parts += [] if known.surgical is None else ["surgical" if known.surgical else "medical"]
    if known.hours_before_icu is not None and known.hours_before_icu >= 0:
        parts.append(f"{known.hours_before_icu:.0f} h in hospital before intensive care")
    return parts


def status(record: Record) -> list[str]:
    """What is charted in words: code status, oxygen device, ventilator mode, an untestable verbal response."""
    return [f"{word.name} {word.text[:LONGEST_WORD]}" for word in record.words]


def fluids(record: Record, hours: int) -> list[str]:
    """Urine, fluid in and out and their balance in mL."""
    parts = []
    if record.urine is not None:
        urine = max(record.urine, 0)
        parts.append(f"urine output {urine:.0f} mL ({urine / hours:.0f} mL/h)")
    parts += [] if record.fluid_in is None else [f"fluid in {record.fluid_in:.0f} mL"]
    parts += [] if record.fluid_out is None else [f"fluid out {record.fluid_out:.0f} mL"]
    if record.fluid_in is not None and record.fluid_out is not None:
        parts.append(f"balance {record.fluid_in - record.fluid_out:+.0f} mL")
    return parts


def earlier(record: Record, before: str, *, short: bool = False) -> Section:
    """The last laboratory value of each reading in the 24 h before intensive care."""
    items = [
        f"{record.concepts[name].short if short else name} {record.concepts[name].printed(value)}"
        for name, value in record.earlier
    ]
    weights = [record.concepts[name].weight for name, _ in record.earlier]
    return named(before, items, weights, MOST_EARLIER)
